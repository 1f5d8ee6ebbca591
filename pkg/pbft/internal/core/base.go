// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// Config is what a core must know of its group, and of what this replica may have said before.
type Config struct {
	Self                      message.ReplicaID
	Replicas                  int            // n >= 3f+1
	CheckpointPeriod, LogSize message.SeqNum // K and L
	CheckpointBytes           int            // a checkpoint is due sooner when the operations since the last have this many bytes; 0: never
	Window                    message.SeqNum // batches under way at the primary, at most
	Batch                     BatchLimit
	LogBytes                  int
	Tentative                 bool // execute a batch that has prepared, before it has committed [TOCS §6.1]
	Piggyback                 bool // let COMMITs for tentatively executed batches ride on later messages
	Separate                  bool // propose without the operations that clients sent to everyone
	Clients, Slots            int  // enrolled at most, and of each of them
	QueueBytes                int  // of one client's waiting requests
	Ticks                     Ticks

	// Cost is what a request costs to run at most, in bytes copied. It depends on the operation
	// alone, so that all replicas agree. nil: a request costs as much as its operation is long.
	Cost func(*message.Request) int

	// Fence is the highest number for which this replica may have made a promise in an earlier life, which it has
	// forgotten. Until a checkpoint at or above it is stable the replica is silent, and counts among the f (R-OUR-5):
	// see silence.go. 0 for a replica that never promised anything.
	Fence message.SeqNum

	// Durable: what a promise of this replica says is in its journal before it leaves, and so it is
	// at all others. Then the primary votes with PREPAREs too (R-OUR-2).
	Durable bool

	// Raised and RaisedView are a fence that is durable already, and that guards nothing which this
	// replica has forgotten.
	Raised     message.SeqNum
	RaisedView message.View

	// Recovery is the nonce of a recovery, if this start is one; 0: it is not. See recovery.go.
	Recovery uint64

	// FenceView is the view that this replica had reached then. It waits for that view's NEW-VIEW,
	// or for a later view. A vote in an earlier view could contradict its VIEW-CHANGE, which says
	// what it had voted for.
	FenceView message.View
}

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

// base is what every part of the core may use: what the group is, the present view and tick, and where effects and
// refusals go. Core and its parts share one.
type base struct {
	cfg    Config
	size   message.GroupSize // n: quorum, weak and f follow from it
	f      int
	tick   int
	view   message.View // Core.leave alone raises it
	active bool         // false from our VIEW-CHANGE until the NEW-VIEW that answers it
	phase  Phase        // of our own recovery

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

// Due is Effects while more of the same event is to come: nothing is proposed before it is there too.
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

// silent reports whether we may promise nothing, because we may have promised otherwise before we forgot.
func (b *base) silent() bool { return b.stable.Seq < b.cfg.Fence }

// silentUntil is the checkpoint that must be stable before we may promise anything, 0 if we may.
func (b *base) silentUntil() message.SeqNum {
	if b.silent() {
		return b.cfg.Fence
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

// tooCostly reports whether a batch costs more than the group allows. A single request may, or it could never
// run. All operations must be here.
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

// replicas is a set of them.
type replicas uint32

const everyone replicas = 1<<message.MaxReplicas - 1

func (s replicas) has(i message.ReplicaID) bool { return s&(1<<i) != 0 }

// askAgainTicks is how often a recovering replica repeats questions that were not answered.
const askAgainTicks = 10
