// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"crypto/ed25519"
	"errors"

	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/message"
)

// The few nouns an application speaks.
type (
	View      = message.View
	SeqNum    = message.SeqNum
	ReplicaID = message.ReplicaID
	ClientID  = message.ClientID
	Slot      = message.Slot
	Timestamp = message.Timestamp
	PageNum   = message.PageNum
	Digest    = message.Digest
	NodeID    = message.NodeID
	GroupSize = message.GroupSize
)

// PageSize is the length in bytes of a page of the replicated state.
const PageSize = 4096

// Administrator is the client that signs administrative operations. It is not enrolled: its key
// stands in the group file, and its rights are empty.
const Administrator = message.Administrator

// ClientOf derives a client's number from its public key.
func ClientOf(key ed25519.PublicKey) ClientID { return message.ClientOf(key) }

// An Operation is one call of a client, as the service sees it.
type Operation = executor.Operation

// A Service is the deterministic program a group replicates: from equal states, equal calls
// leave equal states and equal replies. It cannot fail; a refused operation is an ordinary
// reply. All methods are called by one goroutine at a time.
type Service interface {
	// Execute runs a committed operation. Calls come in the agreed order. wrote reports
	// whether the operation may have changed the state: its reply is then kept on the
	// library's pages for a retransmission, and must be at most Limits.Reply bytes long
	// to be kept. The library is done with the reply when it next calls the service.
	Execute(op Operation) (reply []byte, wrote bool)
	// Query answers an operation that only reads, from the current state and without
	// touching it. It is not ok if the operation would write; then nothing has happened
	// [TOCS §6.1]. The reply is as Execute's.
	Query(op Operation) (reply []byte, ok bool)
	// Cost is an upper bound of the time that an operation takes, as the number of bytes that
	// could be copied in that time. It depends on body alone, never on the state, so that all
	// replicas compute the same. The library adds the length of body. It leaves out the time
	// to find what the body names and to return a page, so 0 is right for most operations. An
	// operation that costs more waits for its turn while other clients are served, and the
	// sum of a batch is bounded. Cost is called once for each request, and must be quick.
	Cost(body []byte) int
	// Choose is asked of the primary for a value that replicas cannot compute alike, such
	// as the time [TOCS §7.2]. It has at most MaxChoice bytes.
	Choose(seq SeqNum) []byte
	// Accept is asked of a backup: is the primary's choice reasonable? It must be tolerant, or
	// liveness suffers; Execute must cope with any choice.
	Accept(seq SeqNum, choice []byte) bool
	// State is the service's memory. The library keeps clients and replies on its first
	// Group.ReservedPages pages; the service lays out the rest.
	State() State
}

// MaxChoice bounds the bytes a primary may choose for a batch.
const MaxChoice = 64

// ErrNotYet answers for a part of a checkpoint that can be had when its digests are known.
var ErrNotYet = errors.New("the checkpoint is being digested")

// State is the replicated memory as the library uses it: numbered pages under a tree of
// digests. Equal roots mean equal pages. One goroutine at a time calls its methods, the same
// that calls the Service.
type State interface {
	// Page lends page n for reading, PageSize bytes, until its next change.
	Page(n PageNum) []byte
	// Modify lends page n for writing and notes that it changes.
	Modify(n PageNum) []byte
	// Freeze keeps the pages as they are now as checkpoint seq. rooted is called once, from any
	// goroutine, when the root digest is known.
	Freeze(seq SeqNum, rooted func(root Digest))
	// Discard forgets the checkpoints below seq.
	Discard(below SeqNum)
	// Rollback makes the live pages those of checkpoint to again and drops later checkpoints.
	Rollback(to SeqNum) error

	// Children returns the digests of an interior node's children as of a checkpoint,
	// PageAt a page. A peer chose the node and the page, so they may not exist. An error
	// tells the peer that we do not have them; ErrNotYet has it wait. Neither method
	// waits for the digests of a checkpoint, because ordering would wait too.
	Children(seq SeqNum, id NodeID) ([]Digest, error)
	PageAt(seq SeqNum, n PageNum) ([]byte, error)
	// Install begins to replace the state by that of a checkpoint whose root is known. The
	// live pages, changed or not since the last Freeze, are no longer written until the
	// session's Commit or Abort. Until then they may be those of the latest checkpoint again.
	Install(seq SeqNum, root Digest) (Install, error)
}

// An Install is a state being fetched from peers who need not be trusted: an offer is
// checked against its digest alone, and nothing is visible before Commit [TOCS §6.2.2].
type Install interface {
	// Wants returns up to max nodes (pages are level 0) that are to be asked for, and
	// counts them as asked for.
	Wants(max int) []NodeID
	// OfferNode and OfferPage take an answer, which is lent for the call; an error means
	// that it is false or was not asked for, and has had no effect.
	OfferNode(id NodeID, children []Digest) error
	OfferPage(n PageNum, contents []byte) error
	// Retry makes something asked for wanted again.
	Retry(id NodeID)
	// Retarget aims at another checkpoint; what is the same there is kept.
	Retarget(seq SeqNum, root Digest) error
	// Done reports whether nothing is missing.
	Done() bool
	// Commit makes the fetched pages the live ones, and the checkpoint aimed at the only
	// one; derived indexes are made anew.
	Commit() error
	// Abort drops what was fetched.
	Abort()
}

// A Versioned State also knows which batch changed a page last, for the pages changed since the
// latest checkpoint. Replicas that are a batch apart then agree on reads of what that batch did
// not change. The version of a read on any other State is the last batch that was executed.
type Versioned = executor.Versioned

// A Sized State knows about how many pages it takes, and so how much a replica may have
// to fetch. Any other State is served at full speed up to a gibibyte.
type Sized interface{ Pages() int }

// A Digester is a State that can digest a page on any goroutine, also while its other methods
// run. The sessions of such a State are DigestedInstalls: fetching uses more than one core then.
type Digester interface {
	Digest(n PageNum, contents []byte) Digest
}

// A DigestedInstall is an Install that also takes a page together with its digest,
// computed by the State's Digest.
type DigestedInstall interface {
	Install
	OfferDigested(n PageNum, contents []byte, d Digest) error
}

// A LendingInstall is a DigestedInstall that lends memory of the State. A replica that starts
// reads the pages of its image there, and they are not copied.
type LendingInstall = image.LendingInstall

// A Tree is a State for disk mode: it also says how the digests of its nodes are made.
// The methods may be called on any goroutine.
type Tree = image.Tree

// treeOf is the State of a service whose backup is made or read.
func treeOf(s Service) (Tree, error) {
	tree, ok := s.State().(Tree)
	if !ok {
		return nil, errors.New("a backup needs a State that is a pbft.Tree")
	}
	return tree, nil
}

// freeze takes a checkpoint and waits for its root.
func freeze(s State, n SeqNum) Digest {
	root := make(chan Digest, 1)
	s.Freeze(n, func(d Digest) { root <- d })
	return <-root
}
