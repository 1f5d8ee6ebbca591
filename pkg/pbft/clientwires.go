// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"sync"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/lies"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/internal/wire"
)

// ErrClosed: the client was closed before the group answered.
var ErrClosed = errors.New("client closed")

// clientWires are a client's connections, the keys that it shares with the replicas at
// their ends, the frames that wait there, and the client's one lock. The lock guards
// everything of the client that does not say otherwise. It is given up before frames are
// written and before Call.Done is called.
type clientWires struct {
	end      *wire.Endpoint
	group    *Group
	mu       sync.Mutex
	closed   bool
	readers  int          // goroutines that have read replies: they write what is queued when they have counted them
	liar     *lies.Teller // spoils what is asked, in a measurement; nil: nobody does
	id       ClientID
	key      ed25519.PrivateKey // signs the administrator's requests
	sessions []*auth.Session    // by replica
	links    []*transport.Link  // by replica
	scratch  auth.Scratch
	buffer   []byte
	dirty    wire.Flushes // connections on which frames wait to be written
}

// wayTo is a connection on which a replica can be spoken to, nil if there is none.
func (w *clientWires) wayTo(i ReplicaID) *transport.Conn {
	if !w.sessions[i].Ready() {
		return nil
	}
	return w.end.Way(w.links[i], w.sessions[i])
}

// release gives up the lock and writes the queued frames, unless a reader will.
func (w *clientWires) release() {
	if w.readers > 0 {
		w.mu.Unlock()
		return
	}
	w.dirty.Unlock(&w.mu)
}

// Open implements client.Edge.
func (w *clientWires) Open(i ReplicaID) bool { return w.wayTo(i) != nil }

// Queued implements client.Edge.
func (w *clientWires) Queued(i ReplicaID) int {
	if conn := w.wayTo(i); conn != nil {
		return conn.Queued()
	}
	return 0
}

// Proves implements client.Edge.
func (w *clientWires) Proves(i ReplicaID, p *message.Proof, result []byte) bool {
	return w.sessions[i].Proves(&w.scratch, p, result)
}

// Chance implements client.Edge.
func (w *clientWires) Chance(n int64) int64 { return rand.Int64N(n) }

// request authenticates a request and queues it for a set of replicas, as far as there is
// a way to them, without its operation for those in brief. It says whether it goes to every
// replica.
func (w *clientWires) request(to, brief uint32, q *message.Request, apart bool) {
	q.Apart = apart
	w.authenticate(q)
	for _, other := range w.liar.Ask(q) {
		w.queue(to, other)
	}
	if whole := to &^ brief; whole != 0 {
		w.queue(whole, q)
	}
	if to &= brief; to != 0 {
		w.queue(to, q.Stub())
	}
}

// queue queues a request that has its authenticator.
func (w *clientWires) queue(to uint32, q *message.Request) {
	w.buffer = q.AppendBody(append(w.buffer[:0], byte(message.TypeRequest)))
	var shared *transport.Shared
	if shared, w.buffer = wire.Share(w.buffer); shared != nil {
		defer shared.Release()
	}
	for i := range w.links {
		if to&(1<<i) == 0 {
			continue
		}
		if conn := w.wayTo(ReplicaID(i)); conn != nil {
			w.end.Queue(conn, shared, w.buffer)
			w.dirty.Add(conn)
		}
	}
}

func (w *clientWires) authenticate(q *message.Request) {
	if w.id == Administrator {
		q.Signature = make([]byte, message.SignatureSize) // that there is one is signed too
		d := message.AdministratorDigest(w.group.Digest(), q)
		q.Signature = ed25519.Sign(w.key, d[:])
		return
	}
	w.end.Ring.Authenticate(w.sessions, &w.scratch, q)
}

// queryStable queues a QUERY-STABLE for a set of replicas, as far as there is a way to them.
func (w *clientWires) queryStable(to uint32, nonce uint64) {
	for i, link := range w.links {
		session := w.sessions[i]
		if to&(1<<i) == 0 || w.end.Way(link, session) == nil {
			continue
		}
		m := &message.QueryStable{Nonce: nonce}
		if w.buffer = w.end.Ring.Seal(session, &w.scratch, w.buffer[:0], m); len(w.buffer) > 0 {
			link.Send(w.buffer)
			w.dirty.Add(link)
		}
	}
}

// fetch queues a FETCH for a replica. False: there is no way to it.
func (w *clientWires) fetch(i ReplicaID, m *message.Fetch) bool {
	conn := w.wayTo(i)
	if conn == nil {
		return false
	}
	w.buffer = w.end.Ring.Seal(w.sessions[i], &w.scratch, w.buffer[:0], m)
	conn.Send(w.buffer)
	w.dirty.Add(conn)
	return true
}

// connected reports whether a replica has exchanged keys with us and is connected.
func (w *clientWires) connected(i int) bool { return w.sessions[i].Ready() && w.links[i].Up() }

// askForKeys sends a NEW-KEY to the replicas that we have no session key of. It needs no lock.
func (w *clientWires) askForKeys() {
	for i, link := range w.links {
		w.end.AskForKey(link, w.sessions[i])
	}
}

// announceKeys sends a NEW-KEY to each replica to which there is a connection. It needs no lock.
func (w *clientWires) announceKeys() {
	for i, link := range w.links {
		if conn := link.Conn(); conn != nil {
			w.end.SendKey(conn, w.sessions[i], "")
		}
	}
}

// usable is the first connected replica from a number on, modulo n.
func (w *clientWires) usable(first int) ReplicaID {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.group.N()
	for k := range n {
		if i := ReplicaID((first + k) % n); w.wayTo(i) != nil {
			return i
		}
	}
	return ReplicaID(first % n)
}

// close ends the connections.
func (w *clientWires) close() {
	for _, link := range w.links {
		link.Close()
	}
}
