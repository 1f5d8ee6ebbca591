// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/bits"
	"math/rand/v2"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// keys are the session keys in the world, each as the number of its epoch. A principal
// begins an epoch when it refreshes its keys, and opens no message that was sealed in an
// earlier one. Other principals seal in the latest epoch that they have heard of. NEW-KEYs
// are not lost, because a connection that breaks begins with another. A restarted replica
// keeps its epoch: messages for an earlier life do not arrive anyway. When a replica
// recovers, the others begin a new epoch of the one key under which it speaks to them.
type keys struct {
	w     *world
	rng   *rand.Rand   // a stream of its own, so that it does not change schedules without refreshes
	epoch []int        // by principal, as in network.cut
	alone [][]int      // [of][by]: how often the key of replica by alone was refreshed; this is added to the epoch
	known [][]int      // [of][by]: the epoch of one's keys under which another seals
	era   []int        // by replica: a new one begins with each refresh
	heard []heard      // by replica
	began []beginnings // by replica: what each view that it has been in began with
}

type beginnings map[message.View]*message.NewView

func (k *keys) init(w *world, seed uint64) {
	all := w.n + maxClients + 1
	*k = keys{
		w: w, rng: rand.New(rand.NewPCG(seed, 8)),
		epoch: make([]int, all), alone: make([][]int, all), known: make([][]int, all), era: make([]int, w.n),
		heard: make([]heard, w.n), began: make([]beginnings, w.n),
	}
	for i := range k.known {
		k.alone[i], k.known[i] = make([]int, all), make([]int, all)
	}
	for i := range k.heard {
		k.heard[i], k.began[i] = heard{}, beginnings{}
	}
}

// under is the epoch in which a message from one principal to another is sealed now.
func (k *keys) under(from, to int) int { return k.known[to][from] }

// now is the epoch of a principal's keys for another.
func (k *keys) now(of, by int) int { return k.epoch[of] + k.alone[of][by] }

// opens reports whether a message opens that one principal sealed for another in an epoch
// of the other's keys.
func (k *keys) opens(from, to, epoch int) bool {
	if k.now(to, from) != epoch {
		k.w.marks.hit(markOldKey)
		return false
	}
	return true
}

// A sealed request has MACs that are good at some replicas, under the keys of these epochs.
type sealed struct {
	good  []bool
	under []int // by replica
}

// sealing are the epochs in which a client seals its requests. A faulty client knows all
// keys at once.
func (k *keys) sealing(r *message.Request) (under []int) {
	c := k.w.clientOf(r.Client)
	for i := range k.w.n {
		if c == nil || c.mischief != nil {
			under = append(under, k.epoch[i])
		} else {
			under = append(under, k.under(c.principal(), i))
		}
	}
	return under
}

// proves reports whether replica i's MAC of a request is under its present key.
func (k *keys) proves(x *sealed, i int) bool { return x.good[i] && x.under[i] == k.epoch[i] }

// refresh makes a replica refresh its keys. Twins do not: two processes could not share new keys.
func (k *keys) refresh(i int) {
	s := k.w.sites[i]
	if s.twins || !s.takes() {
		return
	}
	r := s.copies[0]
	k.w.acting = r
	k.renew(r)
	r.perform()
}

// renew begins a new epoch of a replica's keys, within an event of its own.
func (k *keys) renew(r *replica) {
	i := r.id
	if k.w.sites[i].twins {
		return
	}
	k.epoch[i]++
	k.era[i]++
	r.say("refreshes its keys")
	k.w.marks.hit(markRefreshed)
	if n := r.core.UnderWay(); n > 0 {
		k.w.marks.hit(markRefreshedAtWork)
	}
	if _, active := r.core.View(); !active {
		k.w.marks.hit(markRefreshedBetweenViews)
	}
	r.core.Refreshed()
	for to := range k.w.n {
		if to != i {
			k.announce(i, to, func() { k.learn(i, to) })
		}
	}
	k.saysStatus(r)
	for _, c := range k.w.clients {
		k.announce(i, c.principal(), func() {
			if c.mischief == nil {
				c.rule.KeyAccepted(c.now(), message.ReplicaID(i), true)
				c.perform()
			}
		})
	}
}

// renewFor begins a new epoch of the key under which replica by, which recovers, speaks
// to r, within an event of its own.
func (k *keys) renewFor(r *replica, by int) {
	i := r.id
	if k.w.sites[i].twins {
		return
	}
	k.alone[i][by]++
	k.w.marks.hit(markRefreshedOne)
	for s, from := range k.heard[i] {
		if s.era == k.era[i] {
			s.era++
			k.heard[i][s] = from &^ (1 << by) // what the others said counts in both
		}
	}
	k.era[i]++
	r.core.RefreshedFor(message.ReplicaID(by))
	k.announce(i, by, func() { k.learn(i, by) })
	k.saysStatus(r)
}

// saysStatus makes a replica send STATUS when its NEW-KEYs have arrived.
func (k *keys) saysStatus(r *replica) {
	k.w.after(k.w.network.delay+k.w.network.spread, func() {
		r.running(func() {
			if !r.aside() {
				r.core.SayStatus()
				r.perform()
			}
		})
	})
}

// learn notes that replica by has taken in a NEW-KEY of replica of.
func (k *keys) learn(of, by int) {
	for _, peer := range k.w.sites[by].copies {
		peer.running(func() {
			peer.core.KeysRefreshed(message.ReplicaID(of))
			peer.perform()
		})
	}
}

// refreshClient makes a client refresh its keys. The client sends its outstanding requests again.
func (k *keys) refreshClient(c *caller) {
	if c.mischief != nil {
		return
	}
	k.w.say("c%d refreshes its keys", c.index)
	k.epoch[c.principal()]++
	for i := range k.w.n {
		k.announce(c.principal(), i, func() {})
	}
	c.rule.Refreshed()
	c.rule.Again(c.now())
	c.perform()
}

// announce carries a NEW-KEY to a principal, and calls then when it arrives. The NEW-KEY does
// not pass a cut, nor reach a replica that is down or stands still; a later one takes its place.
func (k *keys) announce(of, to int, then func()) {
	epoch := k.now(of, to)
	var try func()
	try = func() {
		switch {
		case k.now(of, to) != epoch:
		case k.w.network.cut[of][to] > 0 || to < k.w.n && !k.w.sites[to].takes():
			k.w.after(1+k.rng.Int64N(10*tick), try)
		default:
			k.known[of][to] = epoch
			then()
		}
	}
	x := &k.w.network
	k.w.after(x.delay+k.rng.Int64N(x.spread+1), try)
}

// takes reports whether the replica takes in messages.
func (s *site) takes() bool {
	r := s.copies[0]
	return !r.down && r.stopped == "" && r.paused <= r.w.now && !r.aside()
}

// heard has, for each statement, the replicas from which a replica has taken it in during
// the present era of its keys: a slow obvious twin of what its core keeps.
type heard map[statement]uint32

// A statement counts together with equal statements of other replicas.
type statement struct {
	era    int
	kind   message.Type
	view   message.View
	seq    message.SeqNum
	digest message.Digest
}

// note notes the statements of a message that a replica takes in.
func (k *keys) note(r *replica, from int, m message.Message) {
	h, s := k.heard[r.id], statement{era: k.era[r.id], kind: m.Type()}
	switch m := m.(type) {
	case *message.PrePrepare:
		s.view, s.seq, s.digest = m.View, m.Seq, m.Digest
	case *message.Prepare:
		s.view, s.seq, s.digest = m.View, m.Seq, m.Digest
	case *message.ViewChange:
		if m.Relayed {
			return
		}
		s.view, s.digest = m.View, m.Digest()
	default:
		return
	}
	h[s] |= 1 << from
}

// within reports whether the statements of one era of a replica's keys satisfy enough.
func (k *keys) within(r *replica, enough func(said func(statement) uint32) bool) bool {
	for era := k.era[r.id]; era >= 0; era-- {
		said := func(s statement) uint32 {
			s.era = era
			return k.heard[r.id][s]
		}
		if enough(said) {
			return true
		}
	}
	return false
}

// prepares judges that all messages of a prepared certificate were taken in during one era
// of the replica's keys: PREPAREs of backups that are a quorum with the primary, and the
// proposal, if a NEW-VIEW did not make it; in disk mode PREPAREs of a quorum (R-PR-6).
func (k *keys) prepares(r *replica, v message.View, n message.SeqNum, d message.Digest) {
	w := k.w
	k.begin(r)
	if k.era[r.id] == 0 || w.sites[r.id].liarAt(n) {
		return // there is one epoch only, or its journal was an intruder's work
	}
	primary := v.Primary(w.n)
	self, lead := uint32(1)<<r.id, uint32(1)<<primary
	votes, given := w.q-1, int(primary) == r.id || k.chosen(r, v, n) == d
	if w.shape.durable {
		votes, lead, given = w.q, 0, true
	}
	vote := statement{kind: message.TypePrepare, view: v, seq: n, digest: d}
	proposal := vote
	proposal.kind = message.TypePrePrepare
	if !k.within(r, func(said func(statement) uint32) bool {
		return bits.OnesCount32((said(vote)|self)&^lead) >= votes && (given || said(proposal) != 0)
	}) {
		w.fail("replica %d has %v prepared at v%d n%d by words of more than one epoch of its keys", r.id, d, v, n)
	}
}

// begins judges that the VIEW-CHANGEs of which a primary makes a NEW-VIEW were all taken
// in during one era of its keys.
func (k *keys) begins(r *replica, m *message.NewView) {
	if k.era[r.id] == 0 {
		return
	}
	if !k.within(r, func(said func(statement) uint32) bool {
		return !slices.ContainsFunc(m.V, func(v message.Vouched) bool {
			s := statement{kind: message.TypeViewChange, view: m.View, digest: v.Digest}
			return int(v.From) != r.id && said(s)&(1<<v.From) == 0
		})
	}) {
		k.w.fail("replica %d makes %s of VIEW-CHANGEs of more than one epoch of its keys", r.id, describe(m))
	}
}

// refreshes draws when keys are refreshed, from a stream of its own and after everything
// else, so that the rest of a schedule does not change.
func (d *drawing) refreshes() {
	d.s.before = len(d.s.items)
	if d.alone {
		return
	}
	own := *d
	own.rng = rand.New(rand.NewPCG(d.s.Seed, 4))
	for range own.pick(0, 0, 1, 1, 2, 3) {
		own.refresh()
	}
}

func (d *drawing) refresh() {
	i, t, n := d.rng.IntN(d.s.Replicas), d.moment(), d.s.Replicas
	switch d.rng.IntN(6) {
	case 0:
		d.add(func(w *world) {
			w.at(int64(t)*tick, func() {
				for i := range n {
					w.keys.refresh(i)
				}
			})
		}, "at %d all replicas refresh their keys", t)
	case 1, 2:
		period := d.pick(15, 40, 100)
		d.add(func(w *world) {
			for i := range n {
				for at := t + period*i/n; at < d.s.shape.stop; at += period {
					w.at(int64(at)*tick, func() { w.keys.refresh(i) })
				}
			}
		}, "from %d on each replica refreshes its keys every %d ticks", t, period)
	case 3:
		period := d.pick(20, 60)
		d.add(func(w *world) {
			for at := t; at < d.s.shape.stop; at += period {
				w.at(int64(at)*tick, func() {
					for _, c := range w.clients {
						w.keys.refreshClient(c)
					}
				})
			}
		}, "from %d on the clients refresh their keys every %d ticks", t, period)
	default:
		again := d.pick(0, 1, 10)
		d.add(func(w *world) {
			w.at(int64(t)*tick, func() { w.keys.refresh(i) })
			if again > 0 {
				w.at(int64(t+again)*tick, func() { w.keys.refresh(i) })
			}
		}, "at %d replica %d refreshes its keys, and again %d ticks later (0: not)", t, i, again)
	}
}

// beforeRefreshes is the schedule without the refreshes.
func (s *Schedule) beforeRefreshes() *Schedule {
	var all []int
	for i := s.before; i < len(s.items); i++ {
		all = append(all, i)
	}
	return s.Without(all...)
}

// begin notes what a replica's view began with. Messages gather before their effects are judged,
// so the replica may be in another view by then.
func (k *keys) begin(r *replica) {
	if m := r.core.Beginning(); m != nil {
		k.began[r.id][m.View] = m
	}
}

// chosen is what the NEW-VIEW of a view that a replica has been in chose as number n; zero if it
// chose nothing there.
func (k *keys) chosen(r *replica, v message.View, n message.SeqNum) (d message.Digest) {
	m := k.began[r.id][v]
	if m == nil || n <= m.Checkpoint.Seq || int(n-m.Checkpoint.Seq) > len(m.Chosen) {
		return d
	}
	return m.Chosen[n-m.Checkpoint.Seq-1]
}
