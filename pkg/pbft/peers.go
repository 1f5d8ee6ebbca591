// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/internal/wire"
)

// peers are our ways to the other replicas, by replica; nil for ourselves.
type peers []*peerEnd

// A peerEnd is our way to another replica. Session, link, opened and signatures have
// locks of their own; the rest is under the replica's lock.
type peerEnd struct {
	session *auth.Session
	link    *transport.Link
	opened  atomic.Pointer[transport.Conn] // the link's last connection, stored before our NEW-KEY for it is made
	inbound *transport.Conn                // the peer's last connection to us; nil if that is down
	life    uint64                         // which of its processes has our messages, see auth.Session.Lives
	lost    time.Time                      // when inbound was last lost; zero: never
	told    time.Time                      // when the log last told that its transport is not ours

	recovered time.Time // when a recovery request of it was executed here last; zero: not since the start

	signatures budget // of the signed requests that it brings
	said       budget // see chatter
}

// signaturesPerSecond bounds the signatures that one replica can have us check: each costs
// as much as a hundred MACs, and a batch has room for hundreds. A request above that is
// not authentic for now, and comes again. (A variable for tests on slow machines.)
var signaturesPerSecond = 1000

// A budget bounds how often in a second a peer may cause something.
type budget struct {
	mu     sync.Mutex
	bucket transport.Bucket
}

// spend reports whether n is left of a budget of so many a second, and takes it.
func (b *budget) spend(n, perSecond int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	rate := float64(perSecond)
	return b.bucket.Take(transport.Rate{PerSecond: rate, Burst: rate}, float64(n), time.Now())
}

// A replica that floods another has it read, open and judge for it, and all of that takes time from
// the others. Votes and proposals are few, because each counts once. So what a replica says besides
// is bounded: chatterPerSecond units. (FORWARDs and FETCHes may each come 6400 times a second, and
// a new primary passes on everyone's VIEW-CHANGEs.) Beyond that the connection is not read for a
// while: R-HD-10. (A variable for tests on slow machines.)
var chatterPerSecond = 14000

const chatterRest = 10 * time.Millisecond

// chatter is how many units a message of a replica costs, 0 for votes, proposals and state.
func chatter(t message.Type) int {
	switch t {
	case message.TypeStatus, message.TypeForward, message.TypeFetchBatch, message.TypeDecided,
		message.TypeCheckpoint, message.TypeViewChangeAck, message.TypeRecovered:
		return 1
	case message.TypeFetch:
		return 2
	case message.TypeViewChange, message.TypeNewView:
		return 150 // they are long
	}
	return 0
}

// mayChat reports whether a replica may say one more such message.
func (p *peerEnd) mayChat(t message.Type) bool {
	n := chatter(t)
	return n == 0 || p.said.spend(n, chatterPerSecond)
}

func newPeers(g *Group, self ReplicaID) peers {
	all := make(peers, g.N())
	for i := range all {
		if i != int(self) {
			all[i] = &peerEnd{session: auth.NewSession(message.Principal{Replica: ReplicaID(i)}, g.Members[i].Key)}
		}
	}
	return all
}

// close ends the links.
func (all peers) close() {
	for _, p := range all {
		if p != nil {
			p.link.Close()
		}
	}
}

// announceTo sends a NEW-KEY to these replicas, bit i being replica i.
func (all peers) announceTo(these uint32, e *wire.Endpoint) {
	for i, p := range all {
		if p == nil || these&(1<<i) == 0 {
			continue
		}
		if conn := p.opened.Load(); conn != nil {
			e.SendKey(conn, p.session, "")
		}
	}
}

// noteRecovery notes that a recovery request of replica i was executed here. The caller
// holds the lock.
func (all peers) noteRecovery(i ReplicaID) {
	if p := all[i]; p != nil {
		p.recovered = time.Now()
	}
}

// askForKeys sends a NEW-KEY to the replicas that we have no session key of: their
// NEW-KEY was lost, or it came when there was no way to answer it.
func (all peers) askForKeys(e *wire.Endpoint) {
	for _, p := range all {
		if p != nil {
			e.AskForKey(p.link, p.session)
		}
	}
}

// maySign reports whether we check one more signature that this session brings. A client
// brings one at a time, and has budgets of its own.
func (all peers) maySign(s *auth.Session) bool {
	return !s.Peer.IsReplica() || all[s.Peer.Replica].signatures.spend(1, signaturesPerSecond)
}

// down notes that the peer's connection to us ended, and logs it. The caller holds the lock.
func (p *peerEnd) down(log *slog.Logger, err error) {
	p.lost = time.Now()
	cause := "it closed the connection"
	if err != nil {
		cause = err.Error()
	}
	log.Warn("replica lost", "peer", p.session.Peer.Replica, "cause", cause)
}

// up notes the peer's connection to us, and logs it if there was none. The caller holds the lock.
func (p *peerEnd) up(log *slog.Logger, c *transport.Conn) {
	switch {
	case p.inbound != nil: // it only came on another connection
		p.inbound.Release()
	case p.lost.IsZero():
		log.Info("replica connected", "peer", p.session.Peer.Replica)
	default:
		log.Info("replica back", "peer", p.session.Peer.Replica, "after", time.Since(p.lost).Round(time.Millisecond))
	}
	p.inbound = c
	c.Trust()
}

// recoveredAgo is how long ago a recovery request of the peer was executed here, 0 if
// none was since the start. The caller holds the lock.
func (p *peerEnd) recoveredAgo() Seconds {
	if p.recovered.IsZero() {
		return 0
	}
	return Seconds(time.Since(p.recovered))
}

// mismatches logs that others do not speak our transport. It needs no lock.
type mismatches struct {
	end   *wire.Endpoint
	group *Group
	self  ReplicaID
	told  atomic.Int64 // when the log last told of a stranger's transport, Unix nanoseconds
}

// mismatchAgain is how long the log is silent about a mismatch that it has told of: a
// mismatch lasts until somebody changes a file.
const mismatchAgain = time.Minute

// peer logs that a peer does not speak our transport, unless it did so lately. The caller
// holds the replica's lock.
func (x *mismatches) peer(p *peerEnd, ours Transport, err error) {
	if now := time.Now(); now.Sub(p.told) > mismatchAgain {
		p.told = now
		i := p.session.Peer.Replica
		x.end.Log.Warn("replica does not speak our transport: let transport in its "+
			"replica.toml and in ours be the same", "peer", i, "address", x.group.Members[i].Address,
			"ours", ours, "cause", err)
	}
}

// stranger logs that the other end of a connection does not speak our transport. Anybody
// can connect, so the log tells of few.
func (x *mismatches) stranger(c *transport.Conn, ours Transport, err error) {
	now, last := time.Now().UnixNano(), x.told.Load()
	if now-last > int64(mismatchAgain) && x.told.CompareAndSwap(last, now) {
		x.end.Log.Warn("a process that connects does not speak our transport: if it is a member or a client, "+
			"let its transport and ours be the same", "address", c.RemoteAddr(), "members", x.membersAt(c),
			"ours", ours, "cause", err)
	}
}

// membersAt are the other members whose address in the group file is the host that a
// connection comes from, as far as addresses are numbers.
func (x *mismatches) membersAt(c *transport.Conn) (all []int) {
	from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	for i, m := range x.group.Members {
		if host, _, _ := net.SplitHostPort(m.Address); host == from && i != int(x.self) {
			all = append(all, i)
		}
	}
	return all
}

// plainOnly reports whether a connection of plain transport ended because the other side
// sent what is no frame, such as a TLS record.
func (x *mismatches) plainOnly(err error) bool {
	return x.end.Options.TLS == nil && errors.Is(err, transport.ErrOversized)
}
