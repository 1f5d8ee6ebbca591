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

// Core is one replica's state of the protocol.
type Core struct {
	*base
	view   message.View
	active bool // false from our VIEW-CHANGE until the NEW-VIEW that answers it

	log      messageLog
	ahead    tentative // what was executed beyond that
	held     heldCommits
	kept     message.SeqNum // the last checkpoint that our state holds
	since    int            // bytes of the operations executed after it
	seqno    message.SeqNum // last number assigned, as primary
	choosing bool           // a Choose for seqno+1 is under way
	queue    queue

	stable      message.Checkpoint // what let log.low get where it is; number 0 needs no proof
	claims      claims
	checkpoints []checkpointSlot // above it, ring by number/step

	pq      pq
	change  viewChange
	bodies  bodies
	shares  shares
	shunned shunned
	wait    waiting

	peers      []peer
	fetched    message.CheckpointID // the last checkpoint whose state was fetched
	transfer   *transfer            // not nil while we fetch the state of a checkpoint
	progress   int                  // tick at which lastExec rose last
	fence      message.SeqNum       // no promise of ours is for a number above it, nor
	fencedView message.View         // for a view above this: both are durable
	lagging    limit                // of STATUSes that are sent out of turn
	reported   message.SeqNum       // how far we were by the last STATUS: see cameOn
	reportedAt int                  // tick of it
}

// peer is what the core knows of another replica.
type peer struct {
	low      message.SeqNum
	lastExec message.SeqNum
	high     message.SeqNum // the end of its window when we answered it, the highest in its life: it took in what we said up to here
	answered limit          // of its STATUSes: see mayAsk
	reached  message.SeqNum // how far it was when we answered last
	keyed    limit          // of sending again because its keys are new
	apart    int            // tick since when it waits in a later view than ours, as it says; 0: it does not
	silence  message.SeqNum // the checkpoint that must be stable before it votes, as it says; 0: it votes
	fills    int            // null batches that its silence may still cause in the present period: see proposeNull
}

// New returns the core of a replica whose state is the initial one.
func New(cfg Config) *Core {
	c := &Core{
		base:        &base{cfg: cfg, f: (cfg.Replicas - 1) / 3},
		active:      cfg.FenceView == 0,
		peers:       make([]peer, cfg.Replicas),
		checkpoints: make([]checkpointSlot, cfg.LogSize/cfg.step()+2),
		pq:          newPQ(),
		fence:       cfg.Fence,
		fencedView:  cfg.FenceView,
		view:        cfg.FenceView,
	}
	for i := range c.peers {
		c.peers[i].high = cfg.LogSize
		c.peers[i].fills = c.fillsPerPeriod()
	}
	for i := range c.checkpoints {
		c.checkpoints[i].votes = newVotes(cfg.Replicas)
	}
	c.log.init(cfg.LogSize, cfg.Replicas)
	c.claims = newClaims(c.base)
	c.shares, c.shunned = newShares(cfg.Replicas), make(shunned, cfg.Replicas)
	c.bodies.init(c.base, &c.log, &c.pq, c.shunned)
	c.queue.init(cfg.Slots, cfg.QueueBytes)
	c.queue.costly.allowance = costPerTick
	c.change.init(cfg.Replicas)
	c.wait.init(cfg.Replicas, cfg.TimeoutTicks)
	return c
}

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
	c.shares.tick()
	c.tickTransfer()
	c.tickWaiting()
	c.bodies.tickPulls()
	c.tickFills()
	c.bodies.askAll(c.choosable)
	c.bodies.askOperations(c.primary(), c.queue.passed)
	c.flushOldCommits()
	if (c.tick+int(c.cfg.Self))%c.cfg.StatusTicks == 0 {
		c.sendStatus()
	} else {
		c.closeGap()
	}
}

// Effects takes what must now be done. The slice is good until the call after next.
func (c *Core) Effects() []Effect {
	c.bodies.pull(c.commit)
	c.propose()
	return c.Due()
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
func (c *Core) LastExecuted() message.SeqNum { return c.log.lastExec }

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

// Peer is what replica i last said of itself.
func (c *Core) Peer(i message.ReplicaID) (low, lastExecuted message.SeqNum) {
	return c.peers[i].low, c.peers[i].lastExec
}
