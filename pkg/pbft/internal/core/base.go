// SPDX-License-Identifier: Apache-2.0

package core

import (
	"time"

	"bfs/pkg/pbft/internal/message"
)

// Config is what a core must know of its group, and of what this replica may have said before.
type Config struct {
	Self                      message.ReplicaID
	Replicas                  int            // n >= 3f+1
	CheckpointPeriod, LogSize message.SeqNum // K and L
	// a checkpoint is due sooner when the operations since the last have this many bytes;
	// 0: never
	CheckpointBytes int
	Window          message.SeqNum // batches under way at the primary, at most
	Batch           BatchLimit
	LogBytes        int
	Tentative       bool // execute a batch that has prepared, before it has committed [TOCS §6.1]
	Piggyback       bool // let COMMITs for tentatively executed batches ride on later messages
	Separate        bool // propose without the operations that clients sent to everyone
	Clients, Slots  int  // enrolled at most, and of each of them
	QueueBytes      int  // of all waiting requests, beside one of each client
	Ticks           Ticks

	// Now is the time since some moment. It decides nothing but how the primary is judged. nil:
	// it is known only as ticks pass.
	Now func() time.Duration

	// Cost is what a request costs to run at most, in bytes copied. It depends on the operation
	// alone, so that all replicas agree. nil: a request costs as much as its operation is long.
	Cost func(*message.Request) int

	// Durable: what a promise of this replica says is in its journal before it leaves, and so it is
	// at all others. Then the primary votes with PREPAREs too (R-OUR-2).
	Durable bool

	// Fence is the highest number for which this replica may have made a promise in an
	// earlier life, which it has forgotten. Until a checkpoint at or above it is stable
	// the replica is silent, and counts among the f (R-OUR-5): see silence.go. 0 for a
	// replica that never promised anything.
	Fence message.SeqNum

	// FenceView is the view that this replica had reached then. It waits for that view's NEW-VIEW,
	// or for a later view. A vote in an earlier view could contradict its VIEW-CHANGE, which says
	// what it had voted for.
	FenceView message.View

	// Lost: the fence is lost, so that nothing is known of what an earlier life promised. The start
	// is a recovery, and the replica is silent until its recovery point: see recovery.endLoss.
	Lost bool

	// Raised and RaisedView are a fence that is durable already, and that guards nothing which this
	// replica has forgotten.
	Raised     message.SeqNum
	RaisedView message.View

	// Recovery is the nonce of a recovery, if this start is one; 0: it is not. See recovery.go.
	Recovery uint64
}

// Tick is the length of a tick.
const Tick = 10 * time.Millisecond

// BatchLimit bounds a batch.
type BatchLimit struct {
	Bytes, Count int
	Cost         int // what its requests cost at most, unless it is a single one; 0: whatever they cost
}

// Ticks are periods, in ticks.
type Ticks struct {
	Status  int // between two STATUSes
	Resend  int // before a message is sent again
	Forward int // after which a backup tells the others of a request that is not proposed
	Timeout int // the view-change timer's first period
}

// step divides the number of every checkpoint: it is K, or a sixteenth of K if the length of
// operations may bring a checkpoint forward. So a replica that does not know which numbers have
// checkpoints knows which have none.
func (cfg *Config) step() message.SeqNum {
	if cfg.CheckpointBytes == 0 {
		return cfg.CheckpointPeriod
	}
	for k := message.SeqNum(checkpointSteps); k > 1; k /= 2 {
		if cfg.CheckpointPeriod%k == 0 {
			return cfg.CheckpointPeriod / k
		}
	}
	return cfg.CheckpointPeriod
}

const checkpointSteps = 16 // a power of two

// base is what every part of the core may use: what the group is, the present view and
// tick, how far this replica may promise anything, and where effects and refusals go. All
// parts share one.
type base struct {
	cfg    Config
	size   message.GroupSize // n: quorum, weak and f follow from it
	f      int
	tick   int
	view   message.View // views.leave alone raises it
	active bool         // false from our VIEW-CHANGE until the NEW-VIEW that answers it
	phase  Phase        // of our own recovery

	restoring bool // the batches of an earlier life are being run, until Core.Resume: nothing is proposed

	stable     message.Checkpoint // what let the low water mark get where it is; number 0 needs no proof
	fence      message.SeqNum     // no promise of ours is for a number above it, nor
	fencedView message.View       // for a view above this: both are durable

	refused    [refusals]uint64
	trace      func(message.Message, Refusal)
	out, spare []Effect
}

func newBase(cfg Config) *base {
	size := message.GroupSize(cfg.Replicas)
	b := &base{
		cfg: cfg, size: size, f: size.Faulty(), view: cfg.FenceView, active: cfg.FenceView == 0,
		fence: max(cfg.Fence, cfg.Raised), fencedView: max(cfg.FenceView, cfg.RaisedView),
	}
	if cfg.Recovery != 0 {
		b.phase = Estimating
	}
	return b
}

func (b *base) quorum() int { return b.size.Quorum() }
func (b *base) weak() int   { return b.size.Weak() }

func (b *base) primary() message.ReplicaID { return b.view.Primary(b.cfg.Replicas) }
func (b *base) isPrimary() bool            { return b.primary() == b.cfg.Self }

// Due is Effects while more of the same event is to come: nothing is proposed before it
// is there too.
func (b *base) Due() []Effect {
	out := b.out
	b.out, b.spare = b.spare[:0], out
	return out
}

func (b *base) do(e Effect) { b.out = append(b.out, e) }

// note appends a record to the journal, if there is one.
func (b *base) note(record ...message.Message) {
	if b.cfg.Durable {
		b.do(Effect{Verb: Note, Records: record})
	}
}

// persist appends a record to the journal, if there is one. Promises made from now on wait for it
// and for all that was noted before. Without a record they wait for what was noted.
func (b *base) persist(record ...message.Message) {
	if b.cfg.Durable {
		b.do(Effect{Verb: Persist, Records: record})
	}
}

func (b *base) multicast(m message.Message) { b.do(Effect{Verb: Multicast, Message: m}) }

func (b *base) send(to message.ReplicaID, m message.Message) {
	b.do(Effect{Verb: Send, To: to, Message: m})
}

func (b *base) refuse(m message.Message, why Refusal) {
	b.refused[why]++
	if b.trace != nil {
		b.trace(m, why)
	}
}

// promise is called before a promise for batch n, or for the present view, leaves. The fence is
// raised to the end of the next checkpoint period, so that this happens once in a period (R-OUR-5).
func (b *base) promise(n message.SeqNum) {
	invariant(!b.silent(), "a promise of a silent replica")
	if n <= b.fence && b.view <= b.fencedView {
		return
	}
	if n > b.fence {
		b.fence = (n/b.cfg.CheckpointPeriod + 2) * b.cfg.CheckpointPeriod
	}
	b.fencedView = max(b.fencedView, b.view)
	b.do(Effect{Verb: Fence, Seq: b.fence, View: b.fencedView})
}

// silent reports whether we may promise nothing, because we may have promised otherwise
// before we forgot.
func (b *base) silent() bool { return b.cfg.Lost || b.stable.Seq < b.cfg.Fence }

// silentUntil is the checkpoint that must be stable before we may promise anything, 0 if we may.
// It is the next one if nothing is known yet.
func (b *base) silentUntil() message.SeqNum {
	if b.silent() {
		return max(b.cfg.Fence, b.stable.Seq+1)
	}
	return 0
}

// cost is what a request costs, computed once.
func (b *base) cost(r *message.Request) int {
	switch {
	case r.Cost > 0 || r.IsStub():
	case b.cfg.Cost == nil:
		r.Cost = max(r.Length(), 1)
	default:
		r.Cost = max(b.cfg.Cost(r), 1)
	}
	return r.Cost
}

// tooCostly reports whether a batch costs more than the group allows. A single request
// may, or it could never run. All operations must be here.
func (b *base) tooCostly(batch *message.Batch) bool {
	if b.cfg.Batch.Cost == 0 || len(batch.Requests) < 2 {
		return false
	}
	sum := 0
	for _, r := range batch.Requests {
		sum += min(b.cost(r), b.cfg.Batch.Cost+1)
	}
	return sum > b.cfg.Batch.Cost
}

// A Phase is how far a recovery has come.
type Phase uint8

// The phases.
const (
	NotRecovering Phase = iota
	Estimating          // asks the others how far they have come
	Requesting          // its request is not known to have been executed
	Checking            // no checkpoint at or above the recovery point is stable here
)

// String is what a person reads.
func (p Phase) String() string {
	return [...]string{"", "estimating", "requesting", "checking"}[p]
}

// estimating reports whether this replica recovers and takes part in nothing yet.
func (b *base) estimating() bool { return b.phase == Estimating }

// invariant stops us when our own code is wrong: a stopped replica is one of the f, a wrong one is
// a lie with our key.
func invariant(ok bool, what string) {
	if !ok {
		panic("core: invariant broken: " + what)
	}
}

// Refused returns how many messages were refused for a reason.
func (b *base) Refused(why Refusal) uint64 { return b.refused[why] }

// Trace has f called for every refusal.
func (b *base) Trace(f func(message.Message, Refusal)) { b.trace = f }

// replicas is a set of replicas.
type replicas uint32

const everyone replicas = 1<<message.MaxReplicas - 1

func (s replicas) has(i message.ReplicaID) bool { return s&(1<<i) != 0 }

// A Refusal is a reason to ignore a message. A peer's lie or lateness is not our error:
// it is counted, shown in transcripts, and forgotten.
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

// A Verb is a kind of effect.
type Verb uint8

// The verbs of effects: everything that a replica can be told to do. The list of effects
// is a program: it is performed top to bottom, and later effects rely on earlier ones.
const (
	Send      Verb = iota + 1 // Message to replica To, under the newest keys
	Multicast                 // Message to all other replicas
	Choose                    // ask the service for its choice for Seq, and answer with Core.Chosen
	Accept                    // ask the service about the choice of Proposal, and answer with Core.Accepted
	// run Batch as number Seq, keep the replies in the state, and send them on the ground
	// of Standing unless Mute
	Execute
	Confirm  // the batch executed tentatively as Seq has committed
	Rollback // make the state that of checkpoint Seq again
	Repeat   // run Batch as number Seq once more, after a Rollback: its replies were sent
	// answer Request from the present state, read-only, on the ground that Core.Ground
	// gives for its version
	Query
	Freeze  // keep the state as checkpoint Seq, and answer with Core.Frozen when its root is known
	Discard // forget the checkpoints below Seq: it is stable now
	Note    // append Records to the journal, if there is one; nothing waits for them
	// append Records to the journal: promises below wait until they, and all that was
	// noted before, are durable
	Persist
	// make it durable that we may have made promises up to Seq and View; later effects
	// wait for it
	Fence
	Speak // the silence is over: clients are answered from now on
	// open an install session for checkpoint Seq with root Digest, and answer with Core.Fetching
	Fetch
	Serve   // answer the FETCH in Message to replica To
	Install // the session has all it wants: commit it, and answer with Core.Installed
	Renew   // begin the journal anew with Records. Its old records stay until Renewed
	// append the last Records and make all durable. Of the records before Renew only
	// batches up to Seq are still needed
	Renewed
	Hush // this replica has become silent: no client is answered until Speak
	// give replica To a new key for its messages to us: the old one may be stolen. Then
	// call Core.RefreshedFor
	Refresh
	Sign // sign a recovery request with bound Seq, and answer with Core.Signed
	// make it durable that nothing on the disk may be believed, and that we may have made
	// promises up to Seq and View; then stop
	Distrust
	// our recovery is over: see Core.Recovery. The fence is to say Seq and View, and
	// nothing else that it said
	Healed
	Stop // this replica is wrong, or must not go on: Reason says why
)

// An Effect is one instruction to the replica around the core.
type Effect struct {
	Verb     Verb
	To       message.ReplicaID
	Seq      message.SeqNum
	View     message.View
	Message  message.Message
	Records  []message.Message
	Proposal *message.PrePrepare
	Batch    *message.Batch
	Standing Standing
	Mute     bool // this replica is silent: no reply leaves
	Request  *message.Request
	Digest   message.Digest
	Reason   string
}

// A Standing is the ground on which replies are sent: see message.Reply.
type Standing struct {
	View      message.View
	Seq       message.SeqNum // in which the batch is prepared here, in View; 0 if it need not be
	Tentative bool           // it is not known to have committed
}

// IsPromise reports whether a message waits for the journal: others may count it after its sender
// has forgotten it (R-OUR-21), or its contents follow from such a message. In disk mode a
// PRE-PREPARE does not, for the primary votes for it with a PREPARE (R-OUR-2).
func IsPromise(m message.Message) bool {
	switch m.(type) {
	case *message.Prepare, *message.Commit, *message.Checkpoint, *message.ViewChange, *message.NewView,
		*message.Decided, *message.Reply,
		*message.Recovered:
		return true
	}
	return false
}
