package pbft

import (
	"math/bits"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// origin is the timestamp above which a client's requests begin. It is the clock's, or what the group knows of an earlier life
// if that is higher: a clock that was ahead once would else have every request answered as superseded until it is as late again
// (R-OUR-15).
//
// Of 2f+1 answers the (f+1)-th highest counts. A correct replica has said as much or more, so liars cannot drive a client's
// timestamps up; and they cannot hide what f+1 of the others have executed.
type origin struct {
	known   bool
	nonce   uint64 // of the QUERY-STABLE
	asked   time.Time
	answers []Timestamp
	heard   uint32 // bit i: replica i is among them
}

// askOrigin asks all for it. The caller holds the lock.
func (c *Client) askOrigin(now time.Time) {
	if c.origin.known || now.Sub(c.origin.asked) < stableAgain {
		return
	}
	c.newOrigin()
	c.origin.asked = now
	for _, p := range c.peers {
		c.queryOne(p, c.origin.nonce)
	}
}

// newOrigin gives the question its number. Answers to an earlier one do not count. The caller holds the lock.
func (c *Client) newOrigin() {
	if c.origin.nonce == 0 {
		c.nonce++
		c.origin.nonce = c.nonce
	}
}

// forgetOrigin has it asked for again: it changes when a key is enrolled. The caller holds the lock.
func (c *Client) forgetOrigin() { c.origin = origin{} }

// onOrigin counts an answer, and begins the calls that waited for it. The caller holds the lock.
func (c *Client) onOrigin(m *message.ReplyStable) {
	x := &c.origin
	if x.known || m.Nonce != x.nonce || x.heard&(1<<m.From) != 0 {
		return
	}
	x.heard |= 1 << m.From
	x.answers = append(x.answers, m.Latest)
	if bits.OnesCount32(x.heard) < c.group.Quorum() {
		return
	}
	slices.Sort(x.answers)
	c.catchUp(x.answers[len(x.answers)-c.group.Weak()])
	x.known = true
	c.beginWaiting()
}
