// SPDX-License-Identifier: Apache-2.0

package signed_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/sim/signed"
)

var (
	seedFlag   = flag.Uint64("signed.seed", 0, "run this seed only")
	statesFlag = flag.Int("signed.states", 1200, "so many histories of view changes")
)

const (
	period = 4 // K
	window = 8 // L
	views  = 5 // in a row
)

// A history runs both protocols in step. Which messages arrive is drawn by a hash of the
// message, so that both lose the same ones.
type history struct {
	seed   uint64
	rng    *rand.Rand
	n, f   int
	liars  []bool
	cores  []*core.Core
	models []*signed.Replica
	keys   []signed.Key
	roots  [][]message.Digest // by replica: the core's service, chained
	view   message.View

	wires    []wire // of the cores
	said     []saying
	proposed map[message.SeqNum][]message.Digest // in this view
	batches  map[message.Digest]*message.Batch

	executed  map[message.SeqNum]message.Digest         // by any correct core
	committed map[message.SeqNum]message.Digest         // at any correct replica
	took      map[message.SeqNum][]message.Digest       // pre-prepared at some correct replica
	holds     map[message.SeqNum]map[int]message.Digest // prepared last, at correct replicas
	prepares  map[signed.Vote]map[int]signed.Signed     // all PREPAREs that liars can show
	proposals map[signed.Vote]signed.Signed             // all PRE-PREPAREs
	err       error
}

type wire struct {
	from, to int
	m        message.Message
}

type saying struct {
	from int
	m    signed.Said
}

func newHistory(seed uint64) *history {
	h := &history{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), n: 4, f: 1,
		batches:  map[message.Digest]*message.Batch{message.NullDigest: {}},
		executed: map[message.SeqNum]message.Digest{}, committed: map[message.SeqNum]message.Digest{},
		took: map[message.SeqNum][]message.Digest{}, holds: map[message.SeqNum]map[int]message.Digest{},
		prepares: map[signed.Vote]map[int]signed.Signed{}, proposals: map[signed.Vote]signed.Signed{},
		proposed: map[message.SeqNum][]message.Digest{},
	}
	switch seed % 8 {
	case 1:
		h.n = 5
	case 5:
		h.n = 6
	case 3, 7:
		h.n, h.f = 7, 2
	}
	h.liars, h.keys = make([]bool, h.n), signed.Keys(h.n)
	for range h.rng.IntN(h.f + 1) {
		h.liars[h.rng.IntN(h.n)] = true
	}
	for i := range h.n {
		h.roots = append(h.roots, []message.Digest{{1}})
		c := core.New(core.Config{
			Self: message.ReplicaID(i), Replicas: h.n, CheckpointPeriod: period, LogSize: window,
			Window: window, Batch: core.BatchLimit{Bytes: 1 << 10, Count: 1}, LogBytes: 1 << 20, Clients: 64, Slots: 4,
			QueueBytes: 1 << 10, Ticks: core.Ticks{Status: 1 << 20, Resend: 1, Forward: 2, Timeout: 50},
		})
		h.cores = append(h.cores, c)
		c.Frozen(0, message.Digest{1})
		h.models = append(h.models, signed.New(signed.Config{
			Self: message.ReplicaID(i), Replicas: h.n, CheckpointPeriod: period, LogSize: window,
			Window: window, BatchCount: 1, ResendTicks: 1 << 20, TimeoutTicks: 1 << 20,
		}, h.keys[i]))
	}
	return h
}

func (h *history) fail(format string, args ...any) {
	if h.err == nil {
		h.err = fmt.Errorf("seed %d view %d: %s", h.seed, h.view, fmt.Sprintf(format, args...))
	}
}

// draw is a number below k that depends on nothing but what it is for.
func (h *history) draw(k int, what ...any) int {
	sum := sha256.Sum256(fmt.Append(nil, h.seed, h.view, what))
	return int(uint(sum[0])|uint(sum[1])<<8) % k
}

func (h *history) batch(tag int, n message.SeqNum) *message.Batch {
	q := &message.Request{Client: 9, Timestamp: message.Timestamp(uint64(h.view)<<16 | uint64(n)<<4 | uint64(tag)),
		Op: []byte{byte(tag), byte(n)}, Authentic: true}
	b := &message.Batch{Requests: []*message.Request{q}}
	h.batches[b.Digest()] = b
	return b
}

// perform does what core i wants done; what it sends waits in wires.
func (h *history) perform(i int) {
	c := h.cores[i]
	for {
		effects := slices.Clone(c.Effects())
		if len(effects) == 0 {
			return
		}
		for _, e := range effects {
			h.effect(i, c, e)
		}
	}
}

func (h *history) effect(i int, c *core.Core, e core.Effect) {
	switch e.Verb {
	case core.Send:
		h.wires = append(h.wires, wire{i, int(e.To), e.Message})
	case core.Multicast:
		for to := range h.n {
			if to != i {
				h.wires = append(h.wires, wire{i, to, e.Message})
			}
		}
	case core.Accept:
		c.Accepted(e.Proposal, true)
	case core.Choose:
		c.Chosen(e.Seq, nil)
	case core.Execute:
		d := e.Batch.Digest()
		last := h.roots[i][len(h.roots[i])-1]
		h.roots[i] = append(h.roots[i], sha256.Sum256(append(last[:], d[:]...)))
		if other, ok := h.executed[e.Seq]; ok && other != d && !h.liars[i] {
			h.fail("core %d executes %v at %d, another %v", i, d, e.Seq, other)
		}
		if !h.liars[i] {
			h.executed[e.Seq], h.committed[e.Seq] = d, d
		}
	case core.Freeze:
		c.Frozen(e.Seq, h.roots[i][e.Seq])
	case core.Fetch:
		c.Fetching(fetched{})
	case core.Install:
		for j := range h.roots {
			if !h.liars[j] && len(h.roots[j]) > int(e.Seq) {
				h.roots[i] = slices.Clone(h.roots[j][:e.Seq+1])
			}
		}
		c.Installed(e.Seq)
	case core.Stop:
		h.fail("core %d stops: %s", i, e.Reason)
	}
}

// fetched is a state transfer that is done at once.
type fetched struct{}

func (fetched) Wants(int) []message.NodeID                       { return nil }
func (fetched) OfferNode(message.NodeID, []message.Digest) error { return nil }
func (fetched) OfferPage(message.PageNum, []byte) error          { return nil }
func (fetched) Retry(message.NodeID)                             {}
func (fetched) Retarget(message.SeqNum, message.Digest) error    { return nil }
func (fetched) Done() bool                                       { return true }

// take removes from the wires what is of these types.
func (h *history) take(types ...message.Type) (out []wire) {
	kept := h.wires[:0:0]
	for _, w := range h.wires {
		if slices.Contains(types, w.m.Type()) {
			out = append(out, w)
		} else {
			kept = append(kept, w)
		}
	}
	h.wires = kept
	return out
}

// performModel takes what model i says.
func (h *history) performModel(i int) {
	for _, e := range h.models[i].Effects() {
		if m, ok := e.Message.(signed.Said); ok && e.Verb == signed.Multicast {
			h.said = append(h.said, saying{i, m})
			if p, ok := m.Body().(signed.Prepare); ok {
				h.show(signed.Vote(p), i, m.Signed)
			}
		}
	}
}

func (h *history) show(v signed.Vote, i int, s signed.Signed) {
	if h.prepares[v] == nil {
		h.prepares[v] = map[int]signed.Signed{}
	}
	h.prepares[v][i] = s
}

func (h *history) active(i int) bool {
	v, ok := h.cores[i].View()
	return ok && v == h.view
}

// step has both replicas i take in a message, if they are in the view.
func (h *history) step(i int, m message.Message, s signed.Said) {
	if h.active(i) {
		h.cores[i].Step(m)
		h.perform(i)
		h.models[i].Step(s)
		h.performModel(i)
	}
}

// live is the view's normal case, with losses: proposals, PREPAREs, COMMITs, CHECKPOINTs.
func (h *history) live(last message.SeqNum) {
	loss := h.draw(60, "loss")
	reaches := func(kind string, from, to int, n message.SeqNum) bool {
		return h.draw(100, kind, from, to, n) >= loss
	}
	p := int(h.view.Primary(h.n))
	for n := last + 1; n <= last+1+message.SeqNum(h.draw(3, "count")); n++ {
		a, b := h.batch(1, n), h.batch(2, n)
		for i := range h.n {
			x := a
			if h.liars[p] && h.draw(2, "equivocate", n, i) == 1 {
				x = b
			}
			d := x.Digest()
			v := signed.Vote{View: h.view, Seq: n, Digest: d}
			s := signed.Said{Signed: h.keys[p].Sign(signed.PrePrepare(v)), Batch: x}
			h.proposals[v] = s.Signed
			if !slices.Contains(h.proposed[n], d) {
				h.proposed[n] = append(h.proposed[n], d)
			}
			if i == p || reaches("proposal", p, i, n) {
				proposal := &message.PrePrepare{View: h.view, Seq: n, Digest: d, Batch: *x, From: message.ReplicaID(p)}
				h.step(i, proposal, s)
				if i == p && !h.liars[p] && h.active(p) {
					h.takes(n, d)
				}
			}
		}
	}
	h.phase(message.TypePrepare, reaches)
	h.phase(message.TypeCommit, reaches)
	h.phase(message.TypeCheckpoint, reaches)
	h.wires, h.said = nil, nil
}

func (h *history) takes(n message.SeqNum, d message.Digest) {
	if !slices.Contains(h.took[n], d) {
		h.took[n] = append(h.took[n], d)
	}
}

// phase delivers the votes of one type: the correct ones' as far as they get, the liars'
// as they please.
func (h *history) phase(kind message.Type, reaches func(string, int, int, message.SeqNum) bool) {
	said := h.said
	h.said = nil
	for _, w := range h.take(kind) {
		var n message.SeqNum
		var match func(signed.Statement) bool
		switch m := w.m.(type) {
		case *message.Prepare:
			n, match = m.Seq, func(s signed.Statement) bool {
				return s == signed.Prepare{View: m.View, Seq: m.Seq, Digest: m.Digest}
			}
			if !h.liars[w.from] {
				h.takes(n, m.Digest)
			}
		case *message.Commit:
			n, match = m.Seq, func(s signed.Statement) bool {
				c, ok := s.(signed.Commit)
				return ok && c.View == m.View && c.Seq == m.Seq
			}
		case *message.Checkpoint:
			if m.Stable {
				continue // said again on entering a view
			}
			n, match = m.Seq, func(s signed.Statement) bool {
				k, ok := s.(signed.Checkpoint)
				return ok && k.Seq == m.Seq
			}
		}
		if h.liars[w.from] && kind != message.TypeCheckpoint {
			continue
		}
		i := slices.IndexFunc(said, func(s saying) bool { return s.from == w.from && match(s.m.Body()) })
		if i < 0 {
			h.diverge("core %d says %v for %d, its model does not", w.from, kind, n)
			continue
		}
		if reaches(kind.String(), w.from, w.to, n) {
			h.step(w.to, w.m, said[i].m)
		}
	}
	if kind == message.TypeCheckpoint {
		return
	}
	for i, lies := range h.liars {
		for _, n := range slices.Sorted(maps.Keys(h.proposed)) {
			all := h.proposed[n]
			for to := 0; lies && to < h.n; to++ {
				if to != i && reaches("lie"+kind.String(), i, to, n) {
					h.lie(kind, i, to, n, all[h.draw(len(all), "lie", i, to, n)])
				}
			}
		}
	}
}

func (h *history) lie(kind message.Type, i, to int, n message.SeqNum, d message.Digest) {
	from := message.ReplicaID(i)
	v := signed.Vote{View: h.view, Seq: n, Digest: d}
	switch {
	case kind == message.TypeCommit:
		// A COMMIT with MACs has no digest; its twin is for the batch that the receiver holds.
		if held, ok := h.cores[to].Prepared(n); ok {
			v.Digest = held
		}
		h.step(to, &message.Commit{View: h.view, Seq: n, From: from},
			signed.Said{Signed: h.keys[i].Sign(signed.Commit(v))})
	case h.view.Primary(h.n) != from:
		s := h.keys[i].Sign(signed.Prepare(v))
		h.show(v, i, s)
		h.step(to, &message.Prepare{View: h.view, Seq: n, Digest: d, From: from}, signed.Said{Signed: s})
	}
}

type diverged struct{ what string }

func (d diverged) Error() string { return d.what }

// diverge ends a history in which the two are no longer in step, by no fault of theirs.
func (h *history) diverge(format string, args ...any) {
	if h.err == nil {
		h.err = diverged{fmt.Sprintf("seed %d view %d: %s", h.seed, h.view, fmt.Sprintf(format, args...))}
	}
}

// witness notes what committed and prepared at correct replicas.
func (h *history) witness() {
	for i, c := range h.cores {
		if h.liars[i] {
			continue
		}
		if c.LastExecuted() != h.models[i].LastExecuted() || c.Stable().Seq != h.models[i].Low() {
			h.diverge("core %d executed %d stable %d, model %d and %d",
				i, c.LastExecuted(), c.Stable().Seq, h.models[i].LastExecuted(), h.models[i].Low())
		}
		for n := c.Stable().Seq + 1; n <= c.Stable().Seq+window; n++ {
			if d, ok := c.Prepared(n); ok {
				if h.holds[n] == nil {
					h.holds[n] = map[int]message.Digest{}
				}
				h.holds[n][i] = d
			}
			if d, ok := h.models[i].Decided(n); ok {
				if other, known := h.committed[n]; known && other != d {
					h.fail("%v committed at %d, and %v at model %d", other, n, d, i)
				}
				h.committed[n] = d
			}
		}
	}
}

func TestViewChangesAgree(t *testing.T) {
	var s tally
	from, to := uint64(1), uint64(*statesFlag)
	if *seedFlag > 0 {
		from, to = *seedFlag, *seedFlag
	}
	for seed := from; seed <= to && !t.Failed(); seed++ {
		h := newHistory(seed)
		last := message.SeqNum(0)
		for h.view < views && h.err == nil {
			h.live(last)
			h.witness()
			if h.err == nil {
				last = h.change(&s)
			}
		}
		switch err := h.err.(type) {
		case nil:
		case diverged:
			s.apart++
			if *seedFlag > 0 {
				t.Log(err)
			}
		default:
			t.Error(err)
		}
	}
	t.Logf("%d histories: %+v", to-from+1, s)
	if *seedFlag == 0 && (s.Prepared == 0 || s.Conflicts == 0 || s.Free == 0 || s.Committed == 0) {
		t.Error("some kind of state was never seen")
	}
}
