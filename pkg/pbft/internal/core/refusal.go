// SPDX-License-Identifier: Apache-2.0

package core

// A Refusal is a reason to ignore a message. A peer's lie or lateness is not our error: it is counted, shown
// in transcripts, and forgotten.
type Refusal uint8

// The refusals.
const (
	accepted           Refusal = iota
	NotFromPrimary             // a PRE-PREPARE from a replica that is not the primary of its view
	VoteOfPrimary              // a PREPARE from the primary, whose vote is its proposal
	EarlierView                // its view is over
	LaterView                  // its view has not begun here
	ViewNotActive              // we left the view and the next has not begun
	BelowWindow                // its number is at or below the stable checkpoint
	AboveWindow                // its number is above the high water mark
	SecondProposal             // another proposal for this view and number came first
	SecondVote                 // this sender's vote for this view and number came first
	LogIsFull                  // its batch does not fit the bound on the log
	UnreasonableChoice         // the service does not accept the primary's choice
	NotAuthentic               // we cannot check whose request it is, and not enough others vouch for it (R-REQ-6)
	OperationMissing           // a client was to send it to us itself, and it is not here
	TooCostly                  // its batch would occupy us for longer than the group allows
	OlderRequest               // a newer or the same request of the slot is here already
	TooManyRequests            // the client's queue is full
	NotACheckpoint             // its number is no multiple of the checkpoint period
	TooSoon                    // we answered the same question a moment ago
	Silent                     // we may have answered otherwise before we forgot
	StateInTransfer            // we cannot answer a read while our state is being replaced
	NotAskedFor                // DATA that answers none of our FETCHes
	FalseData                  // DATA whose digest is not the one its parent has for it
	BadViewChange              // a VIEW-CHANGE that no correct replica sends (R-VC-13)
	Recovering                 // we do not know yet how much we may believe of what we remember
	BadNewView                 // a NEW-VIEW that its VIEW-CHANGEs do not justify (R-VC-32)
	refusals
)

var refusalNames = [refusals]string{
	accepted:           "accepted",
	NotFromPrimary:     "not from the primary",
	VoteOfPrimary:      "a vote of the primary",
	EarlierView:        "earlier view",
	LaterView:          "later view",
	ViewNotActive:      "view not active",
	BelowWindow:        "below the window",
	AboveWindow:        "above the window",
	SecondProposal:     "second proposal",
	SecondVote:         "second vote",
	LogIsFull:          "log is full",
	UnreasonableChoice: "unreasonable choice",
	NotAuthentic:       "not authentic",
	OperationMissing:   "an operation is missing",
	TooCostly:          "too costly",
	OlderRequest:       "older request",
	TooManyRequests:    "too many requests",
	NotACheckpoint:     "not a checkpoint",
	TooSoon:            "asked too soon",
	Silent:             "silent",
	StateInTransfer:    "fetching the state",
	NotAskedFor:        "not asked for",
	BadViewChange:      "a view change no correct replica sends",
	Recovering:         "recovering",
	BadNewView:         "a new view its view changes do not justify",
	FalseData:          "false data",
}

// String says the reason in words.
func (r Refusal) String() string { return refusalNames[r] }

// Refusals lists all reasons, in their order.
func Refusals() (all []Refusal) {
	for r := accepted + 1; r < refusals; r++ {
		all = append(all, r)
	}
	return all
}
