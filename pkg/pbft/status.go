// SPDX-License-Identifier: Apache-2.0

package pbft

import "time"

// Status is one replica's account of itself. It has more fields than other types because it is one flat JSON object, whose names
// programs read.
type Status struct {
	Replica      ReplicaID    `json:"replica"`
	View         View         `json:"view"`
	Primary      ReplicaID    `json:"primary"`
	Active       bool         `json:"active"`
	LastExecuted SeqNum       `json:"last_executed"`
	Stable       SeqNum       `json:"stable_checkpoint"`
	Root         string       `json:"root"`                   // of the stable checkpoint, hexadecimal
	SilentUntil  SeqNum       `json:"silent_until,omitempty"` // restarted without its state: votes when this checkpoint is stable
	Fetching     bool         `json:"fetching"`               // replacing its state by the group's
	Recovery     Recovery     `json:"recovery"`
	Peers        []PeerStatus `json:"peers"`
	ViewChanges  int          `json:"view_changes"`        // gone through since start
	ViewChange   Seconds      `json:"view_change_seconds"` // how long the last took, from our VIEW-CHANGE to the next execution
	Rollbacks    int          `json:"rollbacks"`           // batches executed tentatively that did not commit, since start
	Fetched      Fetched      `json:"fetched"`
	KeyAge       Seconds      `json:"key_age_seconds"` // since this replica refreshed its session keys
	Refreshes    uint64       `json:"key_refreshes"`   // of its session keys, since start
	Executed     uint64       `json:"operations"`      // executed since start
	Queries      uint64       `json:"queries"`         // answered on the read-only path since start
	Clients      int          `json:"clients"`         // connected
	Floods       int          `json:"floods"`          // addresses from which connections come so often that most are dropped
	Uptime       Seconds      `json:"uptime_seconds"`
	Keeper       *SeenKeeper  `json:"keeper,omitempty"`     // nil: it has none
	OverShare    []ClientID   `json:"over_share,omitempty"` // clients that lately wanted more than their share, at the primary
	LogBytes     int          `json:"log_bytes"`
	StateBytes   int64        `json:"state_bytes"` // of the pages in use at the last checkpoint; 0: the service does not say
	Durability   Durability   `json:"durability"`
	Disk         *DiskStatus  `json:"disk,omitempty"` // nil unless Durability is DurabilityDisk
	Refusals     []Refusals   `json:"refusals,omitempty"`
}

// DiskStatus is what a replica in disk mode has on its disk.
type DiskStatus struct {
	Full         string    `json:"full,omitempty"`          // why it stands aside: there is too little room
	JournalBytes int64     `json:"journal_bytes"`           // of the journal's files, those in reserve included
	JournalUsed  int64     `json:"journal_used_bytes"`      // of the files whose records a restart would read
	End          uint64    `json:"journal_end"`             // records that were ever appended
	Durable      uint64    `json:"journal_durable"`         // records that are certainly on the disk
	Synced       time.Time `json:"journal_synced,omitzero"` // when they were last synced; zero: not since start
	Syncs        Histogram `json:"journal_syncs"`           // how long each sync took, with its writing
	Held         int       `json:"held"`                    // messages and replies that wait for the disk
	Image        SeqNum    `json:"image_checkpoint"`        // the checkpoint that a restart begins from
	ImageBytes   int64     `json:"image_bytes"`             // of its files
	GivenUp      int       `json:"image_given_up"`          // updates of the image that were given up for a later one, since start
	Free         uint64    `json:"free_bytes"`              // of the file system; 0 with Size 0: unknown
	Size         uint64    `json:"size_bytes"`
	Reserve      int64     `json:"reserve_bytes"` // kept for when the file system is full
}

// Fetched is what fetching the group's state has come to.
type Fetched struct {
	States  int     `json:"states"`       // installed since start
	Bytes   uint64  `json:"bytes"`        // of DATA since start
	Took    Seconds `json:"took_seconds"` // the last, from being noticed to be needed until installed
	Replies uint64  `json:"answers"`      // DATA since start
}

// A Recovery is the last of a replica, or the one that is under way. It is zero if this process began with none.
type Recovery struct {
	Phase   string  `json:"phase,omitempty"`   // estimating, requesting or checking; "": it is over, or was none
	Point   SeqNum  `json:"point,omitempty"`   // the checkpoint that ends it must be at or above this; 0: not known yet
	Took    Seconds `json:"took_seconds"`      // so far, or in all
	Corrupt bool    `json:"corrupt,omitempty"` // something was found that is not the group's, and was replaced
	Ended   bool    `json:"ended,omitempty"`
	Parts   Parts   `json:"parts"`       // of Took
	Ago     Seconds `json:"ago_seconds"` // since it ended
}

// Parts are the parts of a recovery, those that are over [TOCS §8.2.3, Table II]. What comes before, the stop of the process and the start of
// the next, is seen from outside alone.
type Parts struct {
	Load     Seconds `json:"load_seconds"`     // reading journal and image, and checking every page
	Estimate Seconds `json:"estimate_seconds"` // until H_M was known
	Request  Seconds `json:"request_seconds"`  // until the recovery request was known to have been executed
	Check    Seconds `json:"check_seconds"`    // until a checkpoint at or above the recovery point was stable here
}

// PeerStatus is how one replica sees another.
type PeerStatus struct {
	Replica      ReplicaID `json:"replica"`
	Connected    bool      `json:"connected"`
	Keys         bool      `json:"keys"` // both session keys are there
	LastExecuted SeqNum    `json:"last_executed"`
	Stable       SeqNum    `json:"stable_checkpoint"`
	Recovering   bool      `json:"recovering"` // it has had a recovery request executed, and is not past its recovery point

	// What it has said since this replica was started that is not what the group did.
	WrongVotes uint64 `json:"wrong_votes"` // PREPAREs for another batch than the one that committed: it lies, or the primary does
	WrongRoots uint64 `json:"wrong_roots"` // CHECKPOINTs that name another state than the group's: it lies, or its state is false
	False      bool   `json:"false"`       // the last of its CHECKPOINTs was one of these

	Recovered Seconds `json:"recovered_ago_seconds"` // since a recovery request of it was executed here; 0: none was since the start
}

// Refusals counts messages refused for one reason.
type Refusals struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}
