// Package core is the protocol, pure: a message or a tick goes in, effects come out. No clock, socket, disk,
// goroutine, lock, key or chance [TOCS §4].
//
// The caller has checked who sent a message and has put that into its From; the core asks only whether it may be
// said now. Handlers judge and record; advance alone decides what the votes now mean.
package core

import (
	"fmt"

	"bfs/pkg/pbft/internal/message"
)

// Config is what a core must know of its group.
type Config struct {
	Self                      message.ReplicaID
	Replicas                  int            // n = 3f+1
	CheckpointPeriod, LogSize message.SeqNum // K and L
	CheckpointBytes           int            // a checkpoint comes sooner when the operations since the last have so many bytes; 0: never
	Window                    message.SeqNum // batches under way at the primary, at most
	BatchBytes, BatchCount    int
	BatchCost                 int // what the requests of a batch cost at most, unless it is a single one; 0: whatever they cost
	LogBytes                  int
	Tentative                 bool // execute what has prepared, before it has committed [TOCS §6.1]
	Piggyback                 bool // let the COMMITs of what was executed tentatively ride on later messages
	Separate                  bool // propose without the operations that clients sent to everyone
	Clients, Slots            int  // enrolled at most, and of each of them
	QueueBytes                int  // of one client's waiting requests
	StatusTicks               int  // a STATUS every so many ticks
	ResendTicks               int  // a message is not sent again before so many ticks have passed
	ForwardTicks              int  // a request that a backup holds is proposed within so many ticks, or the others are told
	TimeoutTicks              int  // the view-change timer's first period

	// Cost is what a request costs to run at most, in bytes copied. It depends on the operation alone, so that all replicas agree.
	// nil: a request costs as much as its operation is long.
	Cost func(*message.Request) int

	// Fence is the highest number for which this replica may have made a promise in an earlier life, which it has
	// forgotten. Until a checkpoint at or above it is stable the replica is silent, and counts among the f (R-OUR-5):
	// see silence.go. 0 for a replica that never promised anything.
	Fence message.SeqNum

	// FenceView is the view that this replica had reached then. It waits for that view's NEW-VIEW, or for a later
	// view: a vote in an earlier one could contradict the VIEW-CHANGE in which it said what it had voted for.
	FenceView message.View
}

// Core is one replica's state of the protocol.
type Core struct {
	cfg    Config
	f      int
	view   message.View
	active bool // false from our VIEW-CHANGE until the NEW-VIEW that answers it

	log      messageLog
	lastExec message.SeqNum // committed and executed, in order, up to here
	ahead    tentative      // what was executed beyond that
	held     heldCommits
	kept     message.SeqNum // the last checkpoint that our state holds
	since    int            // bytes of the operations executed after it
	seqno    message.SeqNum // last number assigned, as primary
	choosing bool           // a Choose for seqno+1 is under way
	queue    queue
	lacking  message.SeqNum // no proposal above it is held for want of an operation

	stable      message.Checkpoint // what let log.low get where it is; number 0 needs no proof
	checkpoints []checkpointSlot   // above it, ring by number/step

	// P and Q carry across views what prepared and what was pre-prepared here, for numbers in the
	// window [TOCS §4.5]. Both are empty while view 0 lasts.
	prepared    map[message.SeqNum]carried
	preprepared map[message.SeqNum][]carried
	change      viewChange
	wait        waiting

	peers      []peer
	fetched    message.CheckpointID // the last checkpoint whose state was fetched
	transfer   *transfer            // not nil while we fetch the state of a checkpoint
	progress   int                  // tick at which lastExec rose last
	credit     int                  // pages that we serve each replica at full speed
	fence      message.SeqNum       // no promise of ours is for a number above it, nor
	fencedView message.View         // for a view above this: both are durable
	tick       int
	lagging    int            // tick of the last STATUS sent out of turn
	reported   message.SeqNum // how far we were by the last STATUS: see cameOn
	reportedAt int            // tick of it
	pulling    bool           // something was decided whose batch may have to be asked for
	pullSize   int            // how long such a batch is, about: the latest were no longer

	refused [refusals]uint64
	trace   func(message.Message, Refusal)
	out     []Effect
	spare   []Effect
}

// peer is what the core knows of another replica.
type peer struct {
	low      message.SeqNum
	lastExec message.SeqNum
	high     message.SeqNum       // the end of its window when we answered it, the highest in its life: it took in what we said up to here
	claims   []message.Checkpoint // the highest checkpoints it spoke of, rising
	answered int                  // tick for which we have answered its STATUSes: see mayAsk
	reached  message.SeqNum       // how far it was when we answered last
	keyed    int                  // tick at which its new keys last made us send again
	served   int                  // FETCHes answered in the present tick
	spent    int                  // of its credit, in pages: see earn
	pulled   int                  // what it was asked for in the present tick, as it counts: see serveCost
	shunned  int                  // not asked for state before this tick
	apart    int                  // tick since when it waits in a later view than ours, as it says; 0: it does not
	silence  message.SeqNum       // the checkpoint that must be stable before it votes, as it says; 0: it votes
	fills    int                  // null batches that its silence may still cause in the present period: see proposeNull
}

// New returns the core of a replica whose state is the initial one.
func New(cfg Config) *Core {
	c := &Core{
		cfg:         cfg,
		f:           (cfg.Replicas - 1) / 3,
		active:      cfg.FenceView == 0,
		peers:       make([]peer, cfg.Replicas),
		checkpoints: make([]checkpointSlot, cfg.LogSize/cfg.step()+2),
		prepared:    map[message.SeqNum]carried{},
		preprepared: map[message.SeqNum][]carried{},
		lagging:     -1 << 30,
		fence:       cfg.Fence,
		fencedView:  cfg.FenceView,
		view:        cfg.FenceView,
		credit:      leastCredit,
		pullSize:    cfg.BatchBytes,
	}
	for i := range c.peers {
		c.peers[i].answered, c.peers[i].keyed = -1<<30, -1<<30
		c.peers[i].high = cfg.LogSize
		c.peers[i].fills = c.fillsPerPeriod()
	}
	for i := range c.checkpoints {
		c.checkpoints[i].votes = newVotes(cfg.Replicas)
	}
	c.log.init(cfg.LogSize, cfg.Replicas)
	c.queue.init(cfg.Slots, cfg.QueueBytes)
	c.queue.costly.allowance = costPerTick
	c.change.init(cfg.Replicas)
	c.wait.init(cfg.Replicas, cfg.TimeoutTicks)
	return c
}

func (c *Core) quorum() int { return 2*c.f + 1 }
func (c *Core) weak() int   { return c.f + 1 }

func (c *Core) primary() message.ReplicaID { return c.view.Primary(c.cfg.Replicas) }
func (c *Core) isPrimary() bool            { return c.primary() == c.cfg.Self }

// Step takes in a message. Its sender was authenticated; a Request tells by its Authentic mark whether its
// client was.
func (c *Core) Step(m message.Message) {
	switch m := m.(type) {
	case *message.Request:
		c.onRequest(m)
	case *message.PrePrepare:
		c.onPrePrepare(m)
	case *message.Prepare:
		c.onPrepare(m)
	case *message.Commit:
		c.onCommit(m)
	case *message.Checkpoint:
		c.onCheckpoint(m)
	case *message.Status:
		c.onStatus(m)
	case *message.Fetch:
		c.onFetch(m)
	case *message.Data:
		c.onData(m)
	case *message.ViewChange:
		c.onViewChange(m)
	case *message.ViewChangeAck:
		c.onViewChangeAck(m)
	case *message.NewView:
		c.onNewView(m)
	case *message.Forward:
		c.onForward(m)
	case *message.FetchBatch:
		c.onFetchBatch(m)
	case *message.BatchBody:
		c.onBatchBody(m)
	case *message.Decided:
		c.onDecided(m)
	default:
		panic(fmt.Sprintf("core: %v is not for the core", m.Type()))
	}
}

// Tick notes that one tick of time passed.
func (c *Core) Tick() {
	c.tick++
	c.queue.costly.earn()
	for i := range c.peers {
		c.peers[i].earn(c.credit)
	}
	c.tickTransfer()
	c.tickWaiting()
	c.tickPulls()
	c.tickFills()
	c.fetchBodies()
	c.fetchOperations()
	c.flushOldCommits()
	if (c.tick+int(c.cfg.Self))%c.cfg.StatusTicks == 0 {
		c.sendStatus()
	} else {
		c.closeGap()
	}
}

// Effects takes what must now be done. The slice is good until the call after next.
func (c *Core) Effects() []Effect {
	c.pullBodies()
	c.propose()
	return c.Due()
}

// Due is Effects while more of the same event is to come: nothing is proposed before it is there too.
func (c *Core) Due() []Effect {
	out := c.out
	c.out, c.spare = c.spare[:0], out
	return out
}

func (c *Core) do(e Effect) { c.out = append(c.out, e) }

func (c *Core) multicast(m message.Message) { c.do(Effect{Verb: Multicast, Message: m}) }

func (c *Core) send(to message.ReplicaID, m message.Message) {
	c.do(Effect{Verb: Send, To: to, Message: m})
}

func (c *Core) refuse(m message.Message, why Refusal) {
	c.refused[why]++
	if c.trace != nil {
		c.trace(m, why)
	}
}

// invariant stops us when our own code is wrong: a stopped replica is one of the f, a wrong one is
// a lie with our key.
func invariant(ok bool, what string) {
	if !ok {
		panic("core: invariant broken: " + what)
	}
}

// View is the view this replica is in, and whether it is active.
func (c *Core) View() (v message.View, active bool) { return c.view, c.active }

// StepDown leaves the view if we are its primary: the others follow at once, without waiting for their timers
// (R-VT-5).
func (c *Core) StepDown() {
	if c.active && c.isPrimary() && !c.silent() {
		c.leave(c.view + 1)
	}
}

// LastExecuted is the number up to which batches have committed and were executed.
func (c *Core) LastExecuted() message.SeqNum { return c.lastExec }

// LastProposed is the last number for which this replica has proposed something, or accepted a proposal.
func (c *Core) LastProposed() message.SeqNum { return c.seqno }

// SilentUntil is the checkpoint that must be stable before this replica votes, 0 if it votes.
func (c *Core) SilentUntil() message.SeqNum {
	if c.silent() {
		return c.cfg.Fence
	}
	return 0
}

// Transferring reports whether the state is being fetched from the others.
func (c *Core) Transferring() bool { return c.transfer != nil }

// Stable is the last stable checkpoint.
func (c *Core) Stable() message.Checkpoint { return c.stable }

// LogBytes is the length of the operations in the log.
func (c *Core) LogBytes() int { return c.log.bytes }

// Refused counts what was refused for a reason.
func (c *Core) Refused(why Refusal) uint64 { return c.refused[why] }

// Peer is what replica i last said of itself.
func (c *Core) Peer(i message.ReplicaID) (low, lastExecuted message.SeqNum) {
	return c.peers[i].low, c.peers[i].lastExec
}

// Trace has f called for every refusal.
func (c *Core) Trace(f func(message.Message, Refusal)) { c.trace = f }
