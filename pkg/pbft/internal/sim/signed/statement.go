// SPDX-License-Identifier: Apache-2.0

package signed

import "bfs/pkg/pbft/internal/message"

// A Statement is signed by a replica. It does not change after that.
type Statement interface{ statement() }

// A Vote names a digest for a number in a view.
type Vote struct {
	View   message.View
	Seq    message.SeqNum
	Digest message.Digest
}

// The statements.
type (
	// PrePrepare is the primary's proposal; the batch travels beside it.
	PrePrepare Vote
	// Prepare is a backup's agreement to it.
	Prepare Vote
	// Commit says that it prepared at the signer.
	Commit Vote
	// Checkpoint is the signer's state after executing Seq.
	Checkpoint message.CheckpointID
	// ViewChange is a statement that its signer carries into View: a stable checkpoint with its
	// proof, and for each number above it the certificate of the batch that prepared there last.
	ViewChange struct {
		View  message.View
		Low   message.SeqNum
		Proof []Signed      // 2f+1 CHECKPOINTs; none for number 0
		P     []Certificate // by number, rising
	}
	// NewView begins a view: V are the VIEW-CHANGEs it follows from, O the proposals that follow.
	NewView struct {
		View message.View
		V    []Signed
		O    []Signed
	}
)

func (PrePrepare) statement() {}
func (Prepare) statement()    {}
func (Commit) statement()     {}
func (Checkpoint) statement() {}
func (ViewChange) statement() {}
func (NewView) statement()    {}

// A Certificate is the paper's P_m: a proposal and 2f PREPAREs of different backups that match it.
type Certificate struct {
	Proposal Signed
	Prepares []Signed
	Batch    *message.Batch // the proposal's
}

// Vote returns the vote that the certificate certifies.
func (c Certificate) Vote() Vote {
	p, _ := c.Proposal.body.(PrePrepare)
	return Vote(p)
}

// Signed is a statement and its signer. The zero value is nobody's.
type Signed struct {
	signer int // the replica's number plus one
	body   Statement
}

// By is the signer; false if nobody signed.
func (s Signed) By() (message.ReplicaID, bool) { return message.ReplicaID(s.signer - 1), s.signer > 0 }

// Body returns the signed bytes.
func (s Signed) Body() Statement { return s.body }

func (s Signed) by(i message.ReplicaID) bool { return s.signer == int(i)+1 }

// A Key signs for one replica. The zero Key signs for nobody.
type Key struct{ signer int }

// Keys makes the keys of a group. The code that sets up the group calls it, and hands
// each replica its own key.
func Keys(n int) []Key {
	keys := make([]Key, n)
	for i := range keys {
		keys[i].signer = i + 1
	}
	return keys
}

// Sign signs a statement.
func (k Key) Sign(body Statement) Signed { return Signed{k.signer, body} }

// A Message is a message between replicas other than *message.Request.
type Message interface{ message() }

type (
	// Said is a signed statement under way, with the batch if it is a PRE-PREPARE.
	Said struct {
		Signed
		Batch *message.Batch
	}
	// Status says how far its sender has executed. It is not signed: the answer is proof in itself.
	Status struct {
		From         message.ReplicaID
		LastExecuted message.SeqNum
	}
	// Decision is a batch and the 2f+1 COMMITs that decided it.
	Decision struct {
		Seq     message.SeqNum
		Batch   *message.Batch
		Commits []Signed
	}
	// Wish is a client's request.
	Wish struct{ Request *message.Request }
)

func (Said) message()     {}
func (Status) message()   {}
func (Decision) message() {}
func (Wish) message()     {}

// signers counts the different signers of statements equal to body, the replica except left out.
func signers(all []Signed, body Statement, except message.ReplicaID) (n int) {
	var seen uint64
	for _, s := range all {
		if s.signer > 0 && seen&(1<<s.signer) == 0 && s.body == body && !s.by(except) {
			seen |= 1 << s.signer
			n++
		}
	}
	return n
}

const nobody = message.AnyReplier
