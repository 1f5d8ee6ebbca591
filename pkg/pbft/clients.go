// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/internal/wire"
)

// clients are the connections on which a replica answers clients. mu guards ends, and
// each end has a lock of its own: readers of connections look clients up without the
// replica's lock. Everything else, and every change of ends, is under the replica's lock.
type clients struct {
	exec *executor.Executor // its ledger says who is enrolled
	gate *wire.Gate

	mu   sync.RWMutex
	ends map[ClientID]*clientEnd // the enrolled clients that have connected: at most Limits.Clients

	strangers map[*transport.Conn]*auth.Session // connections of clients that get no answer
	resting   atomic.Int32                      // connections that are not read for a while, see rest
}

// A clientEnd is our way to a client: the connection on which its last NEW-KEY came.
type clientEnd struct {
	session *auth.Session
	mu      sync.Mutex
	conn    *transport.Conn
	reader  reader
	idle    budget
}

// A client may bring so many requests in a second for each of its slots that are of no use: those
// that are answered from what is kept, those that do not open, and those that come without their
// operation, which is not here. It asks again when nothing has come for as long as answers take,
// 25 ms at least, or when keys have changed. A flood of them costs a replica as much as one of new
// requests, which would have to be ordered. Beyond that its connection is not read for a while. (A
// variable for tests on slow machines.)
var idlePerSlot = 8 // a second

const idleRest = 20 * time.Millisecond

// mayBring reports whether a client may bring one more request that is of no use.
func (x *clients) mayBring(id ClientID, slots int) bool {
	end := x.end(id)
	return end == nil || end.idle.spend(1, idlePerSlot*slots)
}

// A recipient is where a client is answered. Without a connection it is not.
type recipient struct {
	conn    *transport.Conn
	session *auth.Session
}

func newClients(x *executor.Executor, t *wire.Gate) *clients {
	return &clients{exec: x, gate: t, ends: map[ClientID]*clientEnd{}, strangers: map[*transport.Conn]*auth.Session{}}
}

func (c *clientEnd) connection() *transport.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

// end is the end of an enrolled client that has connected, nil if there is none.
func (x *clients) end(id ClientID) *clientEnd {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.ends[id]
}

// all are the ends of the clients that have connected.
func (x *clients) all() []*clientEnd {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := make([]*clientEnd, 0, len(x.ends))
	for _, end := range x.ends {
		all = append(all, end)
	}
	return all
}

// connected counts the clients that have a connection.
func (x *clients) connected() (n int) {
	for _, end := range x.all() {
		if end.connection() != nil {
			n++
		}
	}
	return n
}

func (x *clients) recipient(id ClientID) recipient {
	if end := x.end(id); end != nil {
		return recipient{end.connection(), end.session}
	}
	return recipient{}
}

// answeredOn reports whether c is the connection on which its client is answered: the
// last on which it spoke.
func (x *clients) answeredOn(c *transport.Conn, s *auth.Session) bool {
	end := x.end(s.Peer.Client)
	return end != nil && end.connection() == c
}

// register makes c the connection on which an enrolled client is answered, and lets it
// bring frames of full length. A client that is not enrolled is remembered for as long as
// its connection lives. The caller holds the replica's lock.
func (x *clients) register(c *transport.Conn, s *auth.Session) bool {
	client, enrolled := x.exec.Ledger().Client(s.Peer.Client)
	if s.Peer.Client != Administrator {
		// A client's number is a short digest of its key: somebody can make another key
		// that has it.
		enrolled = enrolled && s.Owner(client.Key)
	}
	if !enrolled {
		x.strangers[c] = s
		return false
	}
	delete(x.strangers, c)
	x.mu.Lock()
	end := x.ends[s.Peer.Client]
	if end == nil {
		end = &clientEnd{session: s}
		x.ends[s.Peer.Client] = end
	}
	x.mu.Unlock()
	if end.session != s {
		return false // another connection of this client was first: this one must begin again
	}
	end.mu.Lock()
	old := end.conn
	end.conn = c
	end.mu.Unlock()
	if old != nil && old != c {
		if old.Release(); old.Queued() > supersededBytes {
			old.Close() // a client that takes none of its answers has one queue to fill, not one for each connection
		}
	}
	c.Trust()
	return true
}

// supersededBytes may still wait on a connection when its client is answered on another.
const supersededBytes = 64 << 10

// closed forgets a connection of a client. The caller does not hold the replica's lock.
func (x *clients) closed(c *transport.Conn, id ClientID) {
	if end := x.end(id); end != nil {
		end.mu.Lock()
		if end.conn == c {
			end.conn = nil
		}
		end.mu.Unlock()
	}
}

// follow follows the ledger: clients that are not enrolled any more become strangers. The
// caller holds the replica's lock.
func (x *clients) follow() {
	x.gate.Follow(x.exec.Ledger())
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, end := range x.ends {
		if client, ok := x.exec.Ledger().Client(id); ok && (id == Administrator || end.session.Owner(client.Key)) {
			continue
		}
		delete(x.ends, id) // or another key has its number by now
		if conn := end.connection(); conn != nil {
			conn.Release()
			x.strangers[conn] = end.session
		}
	}
}

// enrolled reports whether a client is in the ledger. The caller holds the replica's lock.
func (x *clients) enrolled(id ClientID) bool {
	_, ok := x.exec.Ledger().Client(id)
	return ok
}

// registerStrangers registers clients that connected before they were enrolled, so that they are
// answered from now on. Such a client sends ordered requests to the primary alone, and the other
// replicas would not know on which connection to answer. The caller holds the replica's lock.
func (x *clients) registerStrangers() {
	for c, s := range x.strangers {
		x.register(c, s)
	}
}

// # Long reads
//
// Reads that are not ordered pass no primary that could serve clients in turn. A request
// of a hundred bytes has a replica copy a mebibyte under its lock, and prove it, while
// votes wait. So a client whose long reads took a replica some time, while other clients
// were served, has to rest: its connection is not read for readShare-1 times as long, or
// for less if the others want less than all of the time. Several such clients have that
// share together. A client rests neither when it is alone nor when all others read at
// length, too.

const (
	readShare   = 12       // long reads have a twelfth of a replica's time while others want all of it
	longRead    = 16 << 10 // cost above which a read is long
	longestRest = time.Second
)

// A reader decides how long a client must rest after its long reads.
type reader struct {
	mu  sync.Mutex
	due time.Time // when it has rested
}

// took notes how long reads took the replica, and returns how long the client is to rest
// if others want this part of the time.
func (r *reader) took(d time.Duration, sharing int, wanted float64, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.due.Before(now) {
		r.due = now
	}
	r.due = r.due.Add(time.Duration(float64(d) * wanted * float64((readShare-1)*max(sharing, 1))))
	return min(r.due.Sub(now), longestRest)
}

// A readTime measures one goroutine's long reads between two rests.
type readTime struct {
	client  ClientID
	long    bool
	started time.Time // when the lock was taken
	wanted  float64   // the part of the time that others want
}

// note takes in a read that is about to be answered.
func (t *readTime) note(c *core.Core, q *message.Request) {
	if c == nil || t.long || c.Cost(q) <= longRead {
		return
	}
	t.long, t.client, t.started = true, q.Client, time.Now()
}

// contended reports whether the reads were long and others are served. The caller holds
// the replica's lock.
func (t *readTime) contended(c *core.Core) bool {
	if t.long {
		t.wanted = c.Contended(t.client)
	}
	return t.wanted > 0
}

// rest pauses the client for which a goroutine read, for as long as its long reads
// demand. The caller does not hold the replica's lock.
func (x *clients) rest(t *readTime, stop <-chan struct{}) {
	end := x.end(t.client)
	if end == nil {
		return
	}
	now := time.Now()
	sharing := x.resting.Add(1)
	defer x.resting.Add(-1)
	timer := time.NewTimer(end.reader.took(now.Sub(t.started), int(sharing), t.wanted, now))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-stop:
	}
}
