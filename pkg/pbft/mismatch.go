// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"errors"
	"net"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// mismatchAgain is how long a mismatch is not told of again: it lasts until somebody changes a file.
const mismatchAgain = time.Minute

// HandshakeFailed implements transport.HandshakeHandler: the peer that we dial does not speak TLS with us.
func (o *outbound) HandshakeFailed(_ *transport.Conn, err error) { o.mismatch(TransportTLS, err) }

// mismatch tells of a peer that does not speak our transport.
func (o *outbound) mismatch(ours Transport, err error) {
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	if now := time.Now(); !o.r.stopping && now.Sub(o.p.told) > mismatchAgain {
		o.p.told = now
		o.r.log.Warn("replica does not speak our transport: let transport in its replica.toml and in ours be the same",
			"peer", o.p.session.Peer.Replica, "address", o.r.group.Members[o.p.session.Peer.Replica].Address, "ours", ours, "cause", err)
	}
}

// HandshakeFailed implements transport.HandshakeHandler: somebody who connected to us does not speak TLS.
func (in *inbound) HandshakeFailed(c *transport.Conn, err error) {
	(*Replica)(in).strangeTransport(c, TransportTLS, err)
}

// strangeTransport tells of a stranger that does not speak our transport. Anybody can be one, so few are told of.
func (r *Replica) strangeTransport(c *transport.Conn, ours Transport, err error) {
	now, last := time.Now().UnixNano(), r.strange.Load()
	if now-last > int64(mismatchAgain) && r.strange.CompareAndSwap(last, now) {
		r.log.Warn("somebody who connects does not speak our transport: if it is a member or a client, let its transport and ours be the same",
			"address", c.RemoteAddr(), "members", r.membersAt(c), "ours", ours, "cause", err)
	}
}

// membersAt are the other members whose address in the group file is the host that a connection comes from, as far as addresses
// are numbers.
func (r *Replica) membersAt(c *transport.Conn) (all []int) {
	from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	for i, m := range r.group.Members {
		if host, _, _ := net.SplitHostPort(m.Address); host == from && i != int(r.cfg.Self) {
			all = append(all, i)
		}
	}
	return all
}

// notPlain reports whether a connection of plain transport ended because the other side sent what is no frame, as a TLS record is.
func (r *Replica) notPlain(err error) bool {
	return r.options.TLS == nil && errors.Is(err, transport.ErrOversized)
}

// keyRefused tells why a NEW-KEY was refused: by name, and with both digests if the group files differ.
func (e *endpoint) keyRefused(c *transport.Conn, m *message.NewKey, err error) {
	args := []any{"address", c.RemoteAddr(), "err", err}
	if m.From.IsReplica() {
		args = append([]any{"replica", m.From.Replica}, args...)
	} else {
		args = append([]any{"client", m.From.Client}, args...)
	}
	if errors.Is(err, auth.ErrGroup) {
		ours := e.group.Digest()
		args = append(args, "ours", ours, "theirs", m.Group, "do", "copy the same group.toml to both")
	}
	e.warn("NEW-KEY refused", args...)
}
