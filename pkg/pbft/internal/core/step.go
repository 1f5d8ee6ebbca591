// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"

	"bfs/pkg/pbft/internal/message"
)

// Step takes in a message. Its sender was authenticated; a Request tells by its Authentic mark whether its
// client was.
func (c *Core) Step(m message.Message) {
	switch m := m.(type) {
	case *message.QueryStable:
		c.onQueryStable(m)
		return
	case *message.ReplyStable:
		c.onReplyStable(m)
		return
	}
	if c.estimating() {
		c.refuse(m, Recovering)
		return
	}
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
		c.noteView(m)
		c.reports.onStatus(m)
	case *message.Fetch:
		c.catchUp.onFetch(m)
	case *message.Data:
		c.catchUp.onData(m)
	case *message.ViewChange:
		c.onViewChange(m)
	case *message.ViewChangeAck:
		c.onViewChangeAck(m)
	case *message.NewView:
		c.onNewView(m)
	case *message.Forward:
		c.onForward(m)
	case *message.FetchBatch:
		c.spellOut(m)
		c.bodies.serve(m)
	case *message.BatchBody:
		if c.onBatchBody(m) {
			c.decide()
		}
	case *message.Decided:
		c.onDecided(m)
	case *message.Recovered:
		c.onRecovered(m)
	default:
		panic(fmt.Sprintf("core: %v is not for the core", m.Type()))
	}
}

// Tick notes that one tick of time passed.
func (c *Core) Tick() {
	c.tick++
	if c.tickRecovery(); c.estimating() {
		return
	}
	c.queue.costly.earn()
	c.shares.tick()
	c.catchUp.tickTransfer()
	c.tickWaiting()
	c.bodies.tickPulls()
	c.silences.tickFills()
	c.bodies.askAll(c.change.choosable)
	c.bodies.askOperations(c.primary(), c.queue.passed)
	c.riding.flushOld()
	c.tryHeld()
	if (c.tick+int(c.cfg.Self))%c.cfg.Ticks.Status == 0 {
		c.reports.sendStatus()
	} else if !c.catchUp.fetching() {
		c.reports.closeGap()
	}
}

// Effects takes what must now be done. The slice is good until the call after next.
func (c *Core) Effects() []Effect {
	if c.estimating() {
		return c.Due()
	}
	c.bodies.pull(c.commit)
	c.propose()
	return c.Due()
}
