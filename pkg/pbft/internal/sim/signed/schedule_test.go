// SPDX-License-Identifier: Apache-2.0

package signed_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/sim/signed"
)

var schedulesFlag = flag.Int("signed.schedules", 100, "so many schedules")

// A schedule lists the events of a group, whichever protocol it runs.
type schedule struct {
	seed              uint64
	n, f              int
	clients, calls    int
	delay, loss       int // ticks at most; per cent, while faults last
	faulty            []bool
	crash             []int  // tick from which a faulty replica is gone for good; 0: never
	mute              []bool // a faulty replica that some never hear
	deaf              [][]bool
	cuts              []cut
	faultsEnd, giveUp int
}

// A cut separates those in side from the others for a while.
type cut struct {
	from, to int
	side     []bool
}

func drawSchedule(seed uint64) *schedule {
	r := rand.New(rand.NewPCG(seed, 2))
	s := &schedule{seed: seed, n: 4, f: 1, clients: 1 + r.IntN(4), calls: 5 + r.IntN(25), delay: 1 + r.IntN(6),
		loss: r.IntN(20), faultsEnd: 600, giveUp: 30000}
	if r.IntN(4) == 0 {
		s.n, s.f = 7, 2
	} else if sizes := rand.New(rand.NewPCG(seed, 5)); sizes.IntN(3) == 0 {
		s.n = 5 + sizes.IntN(2)
	}
	s.faulty, s.crash, s.mute, s.deaf = make([]bool, s.n), make([]int, s.n), make([]bool, s.n), make([][]bool, s.n)
	for range r.IntN(s.f + 1) {
		i := r.IntN(min(3, s.n)) // the first few will be primaries
		s.faulty[i], s.deaf[i] = true, make([]bool, s.n)
		if s.mute[i] = r.IntN(2) == 0; s.mute[i] {
			for j := range s.n {
				s.deaf[i][j] = r.IntN(3) > 0
			}
		} else {
			s.crash[i] = 1 + r.IntN(s.faultsEnd)
		}
	}
	for range r.IntN(5) {
		c := cut{from: r.IntN(s.faultsEnd), side: make([]bool, s.n)}
		c.to = min(c.from+r.IntN(250), s.faultsEnd)
		for i := range c.side {
			c.side[i] = r.IntN(2) == 0
		}
		s.cuts = append(s.cuts, c)
	}
	return s
}

// passes says whether what from sends to to at this tick gets there; loss is drawn by the caller.
func (s *schedule) passes(tick, from, to int) bool {
	if s.mute[from] && s.deaf[from][to] || !s.up(tick, from) || !s.up(tick, to) {
		return false
	}
	return !slices.ContainsFunc(s.cuts, func(c cut) bool {
		return c.from <= tick && tick < c.to && c.side[from] != c.side[to]
	})
}

func (s *schedule) up(tick, i int) bool { return s.crash[i] == 0 || tick < s.crash[i] }

// A register is the service: a counter, and a digest chained over all operations. Replies
// show both.
type register struct {
	count uint64
	chain [8]byte
	order []*message.Request                     // for the judge
	last  map[message.ClientID]message.Timestamp // at most once
	reply map[message.ClientID][]byte
}

func newRegister() *register {
	return &register{last: map[message.ClientID]message.Timestamp{}, reply: map[message.ClientID][]byte{}}
}

func (r *register) clone() *register {
	c := newRegister()
	c.count, c.chain, c.order = r.count, r.chain, slices.Clone(r.order)
	for k := range r.last {
		c.last[k], c.reply[k] = r.last[k], r.reply[k]
	}
	return c
}

func (r *register) execute(q *message.Request) {
	if q.Timestamp <= r.last[q.Client] {
		return
	}
	r.count++
	digest := q.Digest()
	sum := sha256.Sum256(append(r.chain[:], digest[:]...))
	copy(r.chain[:], sum[:])
	r.last[q.Client] = q.Timestamp
	r.reply[q.Client] = append(binary.LittleEndian.AppendUint64(nil, r.count), r.chain[:]...)
	r.order = append(r.order, q)
}

// A packet is a message of either protocol under way.
type packet struct {
	due, from, to int
	m             any
}

// A group is a schedule being lived by one protocol.
type group struct {
	*schedule
	name     string
	rng      *rand.Rand
	tick     int
	wires    []packet
	services []*register
	kept     map[message.SeqNum]*register // checkpoints of correct replicas
	digests  map[message.SeqNum]message.Digest
	cores    []*core.Core      // one of these
	models   []*signed.Replica // is empty
	callers  []*caller
	views    message.View
	fetches  int
	err      error
}

// A caller is a client that has one call under way.
type caller struct {
	request *message.Request
	sent    int
	rests   int    // until this tick
	began   uint64 // operations known to be done when it called
	calls   int
	replies [][]byte
	heard   [][]byte // by replica, for the present request
}

func (g *group) fail(format string, args ...any) {
	if g.err == nil {
		g.err = fmt.Errorf("schedule %d, %s, tick %d: %s", g.seed, g.name, g.tick, fmt.Sprintf(format, args...))
	}
}

func newGroup(s *schedule, signatures bool) *group {
	g := &group{schedule: s, name: "core", rng: rand.New(rand.NewPCG(s.seed, 3)),
		kept: map[message.SeqNum]*register{}, digests: map[message.SeqNum]message.Digest{}}
	for range s.clients {
		g.callers = append(g.callers, &caller{})
	}
	keys := signed.Keys(s.n)
	for i := range s.n {
		g.services = append(g.services, newRegister())
		self := message.ReplicaID(i)
		if signatures {
			g.name = "model"
			g.models = append(g.models, signed.New(signed.Config{
				Self: self, Replicas: s.n, CheckpointPeriod: period, LogSize: window, Window: 2, BatchCount: 2,
				ResendTicks: 15, TimeoutTicks: 60,
			}, keys[i]))
			continue
		}
		c := core.New(core.Config{
			Self: self, Replicas: s.n, CheckpointPeriod: period, LogSize: window, Window: 2,
			Batch: core.BatchLimit{Bytes: 1 << 10, Count: 2}, LogBytes: 1 << 20, Clients: 64, Slots: 1,
			QueueBytes: 1 << 10, Ticks: core.Ticks{Status: 15, Resend: 5, Forward: 10, Timeout: 60},
		})
		g.cores = append(g.cores, c)
		c.Frozen(0, message.Digest{1})
	}
	return g
}

func (g *group) send(from, to int, m any) {
	for j := range g.n {
		if j == from || to >= 0 && j != to || g.tick < g.faultsEnd && g.rng.IntN(100) < g.loss {
			continue
		}
		g.wires = append(g.wires, packet{g.tick + 1 + g.rng.IntN(g.delay), from, j, m})
	}
}

// run lives the schedule until all clients have all replies.
func (g *group) run() {
	for g.tick = 1; g.err == nil && g.tick < g.giveUp; g.tick++ {
		now := g.wires
		g.wires = nil
		for _, p := range now {
			switch {
			case p.due > g.tick:
				g.wires = append(g.wires, p)
			case g.passes(g.tick, p.from, p.to):
				g.step(p)
			}
		}
		for i := range g.n {
			if !g.up(g.tick, i) {
				continue
			}
			if g.cores != nil {
				g.cores[i].Tick()
			} else {
				g.models[i].Tick()
			}
			g.perform(i)
		}
		if g.call() {
			return
		}
	}
	g.fail("liveness: not all requests of correct clients are executed")
}

func (g *group) step(p packet) {
	if g.models != nil {
		g.models[p.to].Step(p.m.(signed.Message))
		g.perform(p.to)
		return
	}
	m := p.m.(message.Message)
	switch x := m.(type) {
	case *message.Request:
		m = arrived(x, p.from)
	case *message.ViewChange:
		c := *x
		c.Relayed = int(x.From) != p.from
		m = &c
	case *message.PrePrepare:
		c := *x
		c.Batch.Requests = nil
		for _, q := range x.Batch.Requests {
			c.Batch.Requests = append(c.Batch.Requests, arrived(q, p.from))
		}
		m = &c
	}
	g.cores[p.to].Step(m)
	g.perform(p.to)
}

func arrived(q *message.Request, from int) *message.Request {
	c := *q
	c.PassedBy = message.ReplicaID(from)
	return &c
}

func (g *group) perform(i int) {
	if g.models != nil {
		for _, e := range g.models[i].Effects() {
			switch e.Verb {
			case signed.Send:
				g.send(i, int(e.To), e.Message)
			case signed.Multicast:
				g.send(i, -1, e.Message)
			case signed.Execute:
				g.execute(i, e.Seq, e.Batch)
			}
		}
		v, _ := g.models[i].View()
		g.views = max(g.views, v)
		return
	}
	c := g.cores[i]
	for effects := slices.Clone(c.Effects()); len(effects) > 0; effects = slices.Clone(c.Effects()) {
		for _, e := range effects {
			g.effect(i, c, e)
		}
	}
	v, _ := c.View()
	g.views = max(g.views, v)
}

func (g *group) effect(i int, c *core.Core, e core.Effect) {
	switch e.Verb {
	case core.Send:
		g.send(i, int(e.To), e.Message)
	case core.Multicast:
		g.send(i, -1, e.Message)
	case core.Choose:
		c.Chosen(e.Seq, nil)
	case core.Accept:
		c.Accepted(e.Proposal, true)
	case core.Execute:
		g.execute(i, e.Seq, e.Batch)
	case core.Freeze:
		s := g.services[i]
		if g.kept[e.Seq] == nil {
			g.kept[e.Seq] = s.clone()
		}
		c.Frozen(e.Seq, sha256.Sum256(append(s.chain[:], byte(s.count))))
	case core.Fetch:
		g.fetches++
		c.Fetching(fetched{})
	case core.Install:
		g.services[i] = g.kept[e.Seq].clone()
		c.Installed(e.Seq)
	case core.Stop:
		g.fail("replica %d stops: %s", i, e.Reason)
	}
}

// execute runs a batch, judges that it is the only one of its number, and tells the clients.
func (g *group) execute(i int, n message.SeqNum, b *message.Batch) {
	d := b.Digest()
	if other, ok := g.digests[n]; ok && other != d {
		g.fail("replica %d executes %v at %d, another %v", i, d, n, other)
	}
	g.digests[n] = d
	for _, q := range b.Requests {
		g.services[i].execute(q)
		g.answer(i, q)
	}
}

func (g *group) answer(i int, q *message.Request) {
	c := g.callers[q.Client-10]
	if c.request != nil && c.request.Timestamp == q.Timestamp && g.services[i].last[q.Client] == q.Timestamp {
		c.heard[i] = g.services[i].reply[q.Client]
	}
}

// call lets every client take its reply, or ask again. It is true when all are done.
func (g *group) call() (all bool) {
	all = true
	for k, c := range g.callers {
		if c.request != nil {
			g.accept(c)
		}
		if c.request == nil && c.calls < g.calls && g.tick >= c.rests {
			c.calls++
			c.request = &message.Request{Client: message.ClientID(10 + k), Timestamp: message.Timestamp(c.calls),
				Op: []byte{byte(k), byte(c.calls)}, Authentic: true, PassedBy: message.AnyReplier}
			c.heard, c.sent = make([][]byte, g.n), -1000
			for _, other := range g.callers {
				for _, reply := range other.replies {
					c.began = max(c.began, binary.LittleEndian.Uint64(reply))
				}
			}
		}
		if c.request == nil {
			all = all && c.calls == g.calls
			continue
		}
		all = false
		if g.tick-c.sent < 25 {
			continue
		}
		c.sent = g.tick
		for i := range g.n {
			if !g.up(g.tick, i) || g.tick < g.faultsEnd && g.rng.IntN(100) < g.loss {
				continue
			}
			if g.services[i].last[c.request.Client] >= c.request.Timestamp {
				g.answer(i, c.request)
			} else if g.cores != nil {
				own := *c.request
				g.cores[i].Step(&own)
			} else {
				g.models[i].Step(signed.Wish{Request: c.request})
			}
			g.perform(i)
		}
	}
	return all
}

// accept takes a reply that f+1 replicas gave.
func (g *group) accept(c *caller) {
	for _, reply := range c.heard {
		n := 0
		for _, other := range c.heard {
			if reply != nil && bytes.Equal(reply, other) {
				n++
			}
		}
		if n > g.f {
			if count := binary.LittleEndian.Uint64(reply); count <= c.began {
				g.fail("a reply from the past: the %dth operation, but %d were done before the call", count, c.began)
			}
			c.replies, c.request, c.rests = append(c.replies, reply), nil, g.tick+g.rng.IntN(60)
			return
		}
	}
}

// serialised checks that the longest order of execution explains all replies, and that
// the others begin it.
func (g *group) serialised() {
	longest := g.services[0]
	for _, s := range g.services {
		if s.count > longest.count {
			longest = s
		}
	}
	for i, s := range g.services {
		for k, q := range s.order {
			if q.Digest() != longest.order[k].Digest() {
				g.fail("replica %d has another order", i)
			}
		}
	}
	again := newRegister()
	for _, q := range longest.order {
		again.execute(q)
		c := g.callers[q.Client-10]
		if k := int(q.Timestamp) - 1; k >= len(c.replies) || !bytes.Equal(c.replies[k], again.reply[q.Client]) {
			g.fail("the order of execution does not explain the reply to call %d of client %d", q.Timestamp, q.Client)
			return
		}
	}
	if want := uint64(g.clients * g.calls); longest.count != want || again.count != want {
		g.fail("%d operations executed, want %d", longest.count, want)
	}
}

// Both protocols live every schedule: safe, live, and with replies that some order of the
// same requests explains.
func TestSchedulesAgree(t *testing.T) {
	from, to := uint64(1), uint64(*schedulesFlag)
	if *seedFlag > 0 {
		from, to = *seedFlag, *seedFlag
	}
	var views, ticks, fetches [2]int
	for seed := from; seed <= to; seed++ {
		for k, signatures := range []bool{false, true} {
			g := newGroup(drawSchedule(seed), signatures)
			g.run()
			if g.err == nil {
				g.serialised()
			}
			if g.err != nil {
				t.Error(g.err)
			}
			if g.views > 0 {
				views[k]++
			}
			ticks[k], fetches[k] = ticks[k]+g.tick, fetches[k]+g.fetches
		}
	}
	t.Logf("%d schedules; core and model: changed views in %v, lived %v ticks, fetched states %v times",
		to-from+1, views, ticks, fetches)
	if *seedFlag == 0 && (views[0] == 0 || views[1] == 0) {
		t.Error("no schedule changed the view")
	}
}
