// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"crypto/ed25519"
	"math/rand/v2"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// clientWires are a client's connections, the keys that it shares with the replicas at their ends, and
// the frames that wait there. They are used under the client's lock.
type clientWires struct {
	*endpoint
	id       ClientID
	key      ed25519.PrivateKey // signs the administrator's requests
	sessions []*auth.Session    // by replica
	links    []*transport.Link  // by replica
	scratch  auth.Scratch
	buffer   []byte
	dirty    flushes // connections on which frames wait to be written
}

// wayTo is a connection on which a replica can be spoken to, nil if there is none.
func (w *clientWires) wayTo(i ReplicaID) *transport.Conn {
	if conn := w.links[i].Conn(); conn != nil && w.sessions[i].Ready() && w.vouched(conn, w.sessions[i]) {
		return conn
	}
	return nil
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

// request authenticates a request and queues it for a set of replicas, as far as there is a way to them.
func (w *clientWires) request(to uint32, q *message.Request) {
	w.authenticate(q)
	w.buffer = q.AppendBody(append(w.buffer[:0], byte(message.TypeRequest)))
	var shared *transport.Shared // a long one lies in one place for all
	if len(w.buffer) >= transport.ShareFrom {
		shared, w.buffer = transport.Share(w.buffer)
		defer shared.Release()
	}
	for i := range w.links {
		conn := w.wayTo(ReplicaID(i))
		if to&(1<<i) == 0 || conn == nil {
			continue
		}
		if !conn.SendShared(shared, w.buffer) {
			w.edge.dropped.Add(1)
		}
		w.dirty.add(conn)
	}
}

func (w *clientWires) authenticate(q *message.Request) {
	if w.id == Administrator {
		q.Signature = make([]byte, message.SignatureSize) // that there is one is signed too
		d := message.AdministratorDigest(w.group.Digest(), q)
		q.Signature = ed25519.Sign(w.key, d[:])
		return
	}
	w.ring.Authenticate(w.sessions, &w.scratch, q)
}

// queryStable queues a QUERY-STABLE for a set of replicas, as far as there is a way to them.
func (w *clientWires) queryStable(to uint32, nonce uint64) {
	for i, link := range w.links {
		conn, session := link.Conn(), w.sessions[i]
		if to&(1<<i) == 0 || conn == nil || !w.vouched(conn, session) {
			continue
		}
		m := &message.QueryStable{Nonce: nonce}
		if w.buffer = w.ring.Seal(session, &w.scratch, w.buffer[:0], m); len(w.buffer) > 0 {
			link.Send(w.buffer)
			w.dirty.add(link)
		}
	}
}

// fetch queues a FETCH for a replica. False: there is no way to it.
func (w *clientWires) fetch(i ReplicaID, m *message.Fetch) bool {
	conn := w.wayTo(i)
	if conn == nil {
		return false
	}
	w.buffer = w.ring.Seal(w.sessions[i], &w.scratch, w.buffer[:0], m)
	conn.Send(w.buffer)
	w.dirty.add(conn)
	return true
}

// connected reports whether a replica has exchanged keys with us and is connected.
func (w *clientWires) connected(i int) bool { return w.sessions[i].Ready() && w.links[i].Up() }

// askForKeys sends a NEW-KEY to the replicas that we have no session key of. It needs no lock.
func (w *clientWires) askForKeys() {
	for i, link := range w.links {
		if conn := link.Conn(); conn != nil && !w.sessions[i].Ready() {
			w.sendKey(conn, w.sessions[i], "")
		}
	}
}

// close ends the connections.
func (w *clientWires) close() {
	for _, link := range w.links {
		link.Close()
	}
}
