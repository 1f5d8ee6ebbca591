// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/client"
	"bfs/pkg/pbft/internal/lies"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/internal/wire"
)

// NewClient connects to a group. It does not wait for the connections: see Ready.
func NewClient(cfg ClientConfig) (*Client, error) {
	g := cfg.Group
	if g == nil || cfg.signer == nil && len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("a client needs a group and a private key")
	}
	signer := cfg.signer
	if signer == nil {
		signer = auth.NewMemorySigner(cfg.Key)
	}
	public := signer.PublicKey()
	rule := client.Config{
		Client: ClientOf(public), Replicas: g.N(), Slots: g.Limits.Slots, Lent: transport.Keep, Separate: separateAbove,
	}
	if slices.Contains(cfg.Without, Separate) {
		rule.Separate = 0
	}
	if g.Administrator.Equal(public) {
		rule.Client, rule.Separate = Administrator, 0
	}
	self := message.Principal{Client: rule.Client}
	end, err := newEndpoint(g, self, signer, cfg.Transport, cfg.Delay, cfg.Logger)
	if err != nil {
		return nil, err
	}
	c := &Client{
		group: g, end: end,
		wires: clientWires{end: end, group: g, id: rule.Client, key: cfg.Key, liar: lies.Installed()},
		calls: make(clientCalls, g.Limits.Slots), queueLimit: cfg.Queue, ready: make(chan struct{}),
		stop: make(chan struct{}), done: make(chan struct{}), keys: newClientRenewal(cfg.KeyPeriod),
		clock: clientClock{timer: time.NewTimer(lookPeriod), real: time.Now()},
	}
	if c.queueLimit <= 0 {
		c.queueLimit = 4096
	}
	c.stable.wires = &c.wires
	c.reading.wires, c.reading.stop = &c.wires, c.stop
	rule.Clock = Timestamp(c.clock.real.UnixNano())
	c.rule, c.waited = client.New(rule, &c.wires), c.calls.wait
	c.dial()
	go c.tick()
	return c, nil
}

// dial begins the connections.
func (c *Client) dial() {
	c.wires.mu.Lock()
	defer c.wires.mu.Unlock()
	w := &c.wires
	for i, m := range c.group.Members {
		w.sessions = append(w.sessions, auth.NewSession(message.Principal{Replica: ReplicaID(i)}, m.Key))
	}
	w.links = make([]*transport.Link, len(w.sessions))
	for i, m := range c.group.Members {
		w.links[i] = transport.Dial(m.Address, c.end.Answering(w.sessions[i]), &clientLink{c: c, id: ReplicaID(i)})
	}
}

// clientLink handles the connection to one replica.
type clientLink struct {
	c    *Client
	id   ReplicaID
	over []endedCall // memory for count
}

// Opened implements transport.Handler.
func (l *clientLink) Opened(c *transport.Conn) {
	session := l.c.wires.sessions[l.id]
	c.SetUser(&wire.Remote{Session: session})
	c.OneWay() // most calls are sent to the primary alone, and answered by all
	l.c.end.SendKey(c, session, "")
}

// Closed implements transport.Handler.
func (l *clientLink) Closed(_ *transport.Conn, err error) {
	l.c.end.Log.Debug("connection to replica down", "replica", l.id, "err", err)
	l.lost()
}

// lost has the reads asked of others that waited for this replica, unless another
// connection to it is there already.
func (l *clientLink) lost() {
	c := l.c
	c.wires.mu.Lock()
	defer c.wires.release()
	if !c.wires.closed && !c.wires.Open(l.id) {
		c.rule.Disconnected(c.now(), l.id)
		c.perform(nil) // nothing ends
	}
}

// Frames implements transport.Handler: it counts replies, and ends the calls they decide
// after the lock is released, so that Done may start the next call. What those calls send
// leaves in one flush.
func (l *clientLink) Frames(conn *transport.Conn, frames [][]byte) {
	who := conn.User().(*wire.Remote)
	var replies [32]*message.Reply
	batch, epoch := replies[:0], l.c.end.Ring.Epoch()
	for _, frame := range frames {
		if len(frame) > 0 && message.Type(frame[0]) == message.TypeNewKey {
			if !l.onNewKey(conn, who, frame) {
				conn.Close()
				return
			}
			continue
		}
		if m := l.receive(conn, who, frame, epoch); m != nil {
			if batch = append(batch, m); len(batch) == cap(batch) {
				l.count(batch, epoch)
				batch, epoch = batch[:0], l.c.end.Ring.Epoch()
			}
		}
	}
	l.count(batch, epoch)
	who.Decoder.Reset()
}

// receive opens a sealed frame of replica l.id. It returns replies, which are counted
// together. epoch is the ring's epoch of a moment ago.
func (l *clientLink) receive(conn *transport.Conn, who *wire.Remote, frame []byte, epoch uint64) *message.Reply {
	if message.LateReply(frame, l.c.waited) {
		return nil
	}
	if len(frame) > 0 && message.Type(frame[0]) == message.TypeData {
		frame = wire.Owned(frame) // its reader is on another goroutine
	}
	switch m := l.c.end.Open(who, frame).(type) {
	case *message.Reply:
		m.From = l.id
		if n := len(m.Answers); n > 0 && m.Answers[n-1].Long() && m.Answers[n-1].Full {
			if a := &m.Answers[n-1]; !who.Session.Proves(&who.Scratch, &a.Proof, a.Result) {
				l.c.end.Unopened()
				return nil
			}
		}
		return m
	case *message.ReplyStable:
		m.From = l.id
		l.onReplyStable(m, epoch)
	case *message.Data:
		m.From = l.id
		l.c.reading.answer(m)
	case nil:
		l.c.end.ResendKey(conn, who, who.Session)
	default:
		l.c.end.Edge.Unexpected.Add(1)
	}
	return nil
}

// count gives the rule the replies that were opened in an epoch, and ends the calls that
// they decide.
func (l *clientLink) count(batch []*message.Reply, epoch uint64) {
	c := l.c
	if len(batch) == 0 {
		return
	}
	over := l.over[:0]
	c.wires.mu.Lock()
	c.wires.readers++
	now := c.clock.look()
	if c.end.Ring.Epoch() != epoch {
		batch = nil // the keys were refreshed meanwhile: all answers are asked for again
	}
	for _, m := range batch {
		c.rule.Reply(now, m)
		over = c.perform(over)
	}
	c.finish(over)
	clear(over)
	l.over = over
	c.wires.readers--
	c.wires.release()
}

// onNewKey takes in a NEW-KEY; false closes the connection.
func (l *clientLink) onNewKey(conn *transport.Conn, who *wire.Remote, frame []byte) bool {
	c := l.c
	if !who.MayChangeKeys(time.Now()) {
		c.end.Edge.BadKey.Add(1)
		return false
	}
	m := c.end.DecodeKey(frame)
	if m == nil {
		return false
	}
	answer, changed, ok := c.end.AcceptKey(conn, who.Session, m)
	if !ok {
		return false
	}
	if answer {
		c.end.SendKey(conn, who.Session, "")
	}
	l.keyAccepted(changed)
	if len(m.Rival) > 0 {
		l.toldOfRival(string(m.Rival))
	}
	return true
}

// keyAccepted wakes the callers of Ready, and tells the rule, which may have everything sent again.
func (l *clientLink) keyAccepted(changed bool) {
	c := l.c
	c.wires.mu.Lock()
	defer c.wires.release()
	c.signal()
	c.rule.KeyAccepted(c.now(), l.id, changed)
	c.perform(nil) // nothing ends: requests are sent again under the timestamps that they have
}

// toldOfRival notes that the replica knows of another process with our key. When f+1 do,
// one of which is correct, all calls fail.
func (l *clientLink) toldOfRival(address string) {
	c := l.c
	why := fmt.Errorf("client %016x: %w (it was seen at %.64q)", uint64(c.wires.id), ErrKeyInUse, address)
	c.wires.mu.Lock()
	if c.rule.Rival(c.now(), l.id, why) {
		c.end.Warn("calls fail", "err", why)
	}
	if err := c.rule.InUse(c.now()); err != nil {
		c.failAll(err)
		return
	}
	c.wires.release()
}

// onReplyStable counts an answer that was opened in an epoch, and begins the calls that
// waited for it.
func (l *clientLink) onReplyStable(m *message.ReplyStable, epoch uint64) {
	c := l.c
	c.wires.mu.Lock()
	defer c.wires.release()
	if c.end.Ring.Epoch() != epoch {
		return // it is asked for again
	}
	c.rule.Latest(m.From, m.Nonce, m.Latest)
	c.beginWaiting()
	c.stable.answer(m)
}
