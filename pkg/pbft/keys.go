// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// Every principal refreshes its session keys each KeyPeriod: those under which others speak to it, for the
// receiver chooses them [TOCS §5.2.2; R-PR-4, R-PR-6]. The ring begins a new epoch, the protocol forgets what
// it has counted of others' words and does not make a whole certificate, both in one taking of the lock, and
// then NEW-KEYs go out on all connections. From the instant at which the ring's epoch rises nothing counts
// that was sealed before. Frames are opened without the lock, so whoever opens them asks for the epoch first,
// and compares it under the lock before what they say counts.
//
// When a replica recovers, whoever was in it knows the keys that it had, which are those between it and each of the others. It chooses
// anew those under which others speak to it, when it starts. The other replicas choose anew the one under which it speaks to them,
// when they execute its recovery request (R-PR-19), and clients when they hear from its new process. All other keys stay, and so what
// clients and the other replicas have under way is heard.
//
// A replica has nothing to discard of a client that refreshes no keys (R-PR-5): the key under which that
// client speaks to it was chosen here and is replaced here.

// Bounds of KeyPeriod in the files of replicas and clients, and the default. A period must be long beside the
// delay of three messages, for each refresh loses what is under way [TOCS §5.2.4]. The longer it is, the
// longer stolen keys are of use.
const (
	DefaultKeyPeriod  = 60 * time.Second
	ShortestKeyPeriod = time.Second
	LongestKeyPeriod  = time.Hour
)

func keyPeriod(d time.Duration) time.Duration {
	if d <= 0 {
		return DefaultKeyPeriod
	}
	return d
}

// A renewal is what an endpoint knows of its refreshes.
type renewal struct {
	last   *atomic.Int64 // when the last was, Unix nanoseconds; 0: there was none
	count  *atomic.Uint64
	tell   chan struct{} // filled when NEW-KEYs are due on all connections
	over   chan struct{} // closed when the goroutine that sends them has ended
	single single
}

// A single is what a replica knows of keys that it refreshes one at a time, because the replica that speaks under it recovers.
type single struct {
	due  *atomic.Uint32 // to whom a NEW-KEY is due: bit i is replica i
	tell chan struct{}  // filled when there is one
	last *atomic.Int64  // when the last such key was refreshed, Unix nanoseconds
}

func newRenewal() renewal {
	return renewal{new(atomic.Int64), new(atomic.Uint64), make(chan struct{}, 1), make(chan struct{}),
		single{new(atomic.Uint32), make(chan struct{}, 1), new(atomic.Int64)}}
}

// settlePeriod is how long after a refresh that does not open is taken for what was under way meanwhile: no
// NEW-KEYs are sent because of it, for each has just been sent one.
const settlePeriod = 500 * time.Millisecond

func (n *renewal) settling() bool {
	return time.Since(time.Unix(0, max(n.last.Load(), n.single.last.Load()))) < settlePeriod
}

// age is how old the session keys are that an endpoint has chosen since it was started.
func (n *renewal) age(started time.Time) time.Duration {
	if last := n.last.Load(); last > 0 {
		started = time.Unix(0, last)
	}
	return time.Since(started)
}

// refresh begins a new epoch of the ring. False if it cannot, and then all is as before.
func (e *endpoint) refresh() bool {
	if err := e.ring.Refresh(); err != nil {
		e.warn("cannot refresh the session keys: the old ones stay in use", "err", err)
		return false
	}
	e.renewal.last.Store(time.Now().UnixNano())
	e.renewal.count.Add(1)
	return true
}

// unopened counts a frame that does not open.
func (e *endpoint) unopened() {
	if e.renewal.settling() {
		e.edge.oldKey.Add(1)
		return
	}
	e.edge.badMAC.Add(1)
}

// refreshKeys has every peer and client speak under a new key, and whatever was said under the old ones count
// no more unless it is part of a whole certificate. The NEW-KEYs leave on another goroutine. The caller holds
// the lock.
func (r *Replica) refreshKeys() {
	if r.stopping || r.aside() || !r.refresh() {
		return
	}
	r.sparing.refreshed()
	if r.core != nil {
		r.core.Refreshed()
	}
	select {
	case r.renewal.tell <- struct{}{}:
	default:
	}
}

// refreshKeyOf has replica i, which recovers, speak under a new key, and whatever was said under the old one count no more unless it is
// part of a whole certificate. The NEW-KEY leaves on another goroutine. The caller holds the lock.
func (r *Replica) refreshKeyOf(i ReplicaID) {
	if r.stopping || r.aside() {
		return
	}
	r.peers[i].session.Renew()
	x := &r.renewal.single
	x.last.Store(time.Now().UnixNano())
	r.sparing.refreshed()
	if r.core != nil {
		r.core.RefreshedFor(i)
	}
	x.due.Or(1 << i)
	select {
	case x.tell <- struct{}{}:
	default:
	}
}

// renewKeys refreshes the keys each period until the replica stops, and asks for those that are missing. The replicas of a group that was
// started at once do so one after the other: a quorum has the votes that one of them asks for again.
//
// Each NEW-KEY waits for the signer, and a keeper that hangs answers none. So they are made on this goroutine, and not on the one that
// the protocol has its time from.
func (r *Replica) renewKeys() {
	defer close(r.renewal.over)
	period := keyPeriod(r.cfg.KeyPeriod)
	timer := time.NewTimer(period * time.Duration(r.cfg.Self+1) / time.Duration(r.group.N()))
	defer timer.Stop()
	ask := time.NewTicker(askKeyPeriod)
	defer ask.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-ask.C:
			r.askForKeys()
		case <-timer.C:
			timer.Reset(period)
			r.enter()
			r.refreshKeys()
			r.leave()
		case <-r.renewal.tell:
			r.announceKeys()
		case <-r.renewal.single.tell:
			r.announceTo(r.renewal.single.due.Swap(0))
			r.sayStatus()
		}
	}
}

// announceKeys sends a NEW-KEY to everyone to whom there is a way: replicas first, and then the enrolled
// clients. A connection that is just coming up begins with one that is made later than this. Others are sent
// one when they say something.
func (r *Replica) announceKeys() {
	r.announceTo(1<<message.MaxReplicas - 1)
	r.sayStatus()
	for _, end := range r.ends() {
		if conn := end.connection(); conn != nil {
			r.sendKey(conn, end.session, "")
		}
	}
}

// announceTo sends a NEW-KEY to these replicas, bit i being replica i.
func (r *Replica) announceTo(these uint32) {
	for i, p := range r.peers {
		if p == nil || these&(1<<i) == 0 {
			continue
		}
		if conn := p.opened.Load(); conn != nil {
			r.sendKey(conn, p.session, "")
		}
	}
}

// sayStatus tells the others what we lack.
func (r *Replica) sayStatus() {
	if r.core == nil {
		return
	}
	r.enter()
	if !r.aside() {
		r.core.SayStatus()
	}
	r.leave()
}

// ends are those of the clients that have connected.
func (r *Replica) ends() []*clientEnd {
	r.clientsMu.RLock()
	defer r.clientsMu.RUnlock()
	all := make([]*clientEnd, 0, len(r.clients))
	for _, end := range r.clients {
		all = append(all, end)
	}
	return all
}

// A clientRenewal is when a client refreshes its keys.
type clientRenewal struct {
	period time.Duration
	due    time.Time
	drains bool          // since due no call begins, so that those under way lose no answer
	ended  chan struct{} // filled when they have ended
}

// drainPeriod is how long a client waits for its calls to end before it refreshes its keys all the same. An
// answer that is under way then is asked for again, and a long one may not be kept.
const drainPeriod = 200 * time.Millisecond

// newClientRenewal has clients that were started at once refresh their keys at different times.
func newClientRenewal(period time.Duration) clientRenewal {
	period = keyPeriod(period)
	return clientRenewal{period: period, due: time.Now().Add(period/2 + rand.N(period/2+1)), ended: make(chan struct{}, 1)}
}

// renewKeys refreshes the keys when it is time to: as soon as no call is under way, or after drainPeriod.
func (c *Client) renewKeys(now time.Time) {
	x := &c.keys
	if now.Before(x.due) {
		return
	}
	c.mu.Lock()
	if x.drains = true; c.rule.UnderWay() > 0 && now.Sub(x.due) < drainPeriod {
		c.clock.wake()
		c.mu.Unlock()
		return
	}
	x.drains, x.due = false, now.Add(x.period)
	c.refreshKeys()
}

// refreshKeys has the replicas answer under new keys. Answers under the old ones that have not been believed
// yet are forgotten, and asked for again. The caller holds the lock, and refreshKeys gives it up.
func (c *Client) refreshKeys() {
	fresh := !c.closed && c.refresh()
	if fresh {
		c.stable.query.forget()
		c.rule.Refreshed()
	}
	c.mu.Unlock()
	for i, link := range c.wires.links {
		if conn := link.Conn(); conn != nil && fresh {
			c.sendKey(conn, c.wires.sessions[i], "")
		}
	}
	c.mu.Lock()
	if fresh {
		c.rule.Again(c.now())
	}
	c.perform(nil) // nothing ends: requests are sent again under the timestamps that they have
	c.beginWaiting()
	c.release()
}

// drained tells the goroutine that refreshes the keys if that waits for the last call to end. The caller holds the
// lock.
func (c *Client) drained() {
	if !c.keys.drains || c.rule.UnderWay() > 0 {
		return
	}
	select {
	case c.keys.ended <- struct{}{}:
	default:
	}
}

// forget drops the answers to a question, if there is one. It is asked again all the time.
func (q *stableQuery) forget() {
	if q != nil {
		clear(q.answers)
		q.count = 0
	}
}
