// SPDX-License-Identifier: Apache-2.0

package core

import (
	"testing"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// A backup judges the primary by how long it keeps requests, beside how long the backups take to
// agree on the same batches. It does not count that COMMITs wait for the primary's next proposal,
// and an agreement that was slow once excuses nothing else.
func TestSlowPrimary(t *testing.T) {
	const batches = 8
	for _, c := range []struct {
		name         string
		late, agreed func(n message.SeqNum) int // ticks
		want         bool
	}{
		{"quick", always(0), always(0), false},
		{"as slow as the wires", always(8), always(4), false},
		{"slow", always(10), always(0), true},
		{"slow, and COMMITs come with the next proposal", always(20), always(1), true},
		{"slow, and one agreement too", always(10), only(4, 60), true},
		{"slow once", only(3, 60), always(0), false},
	} {
		f := newForgetful(1, 0)
		for n := message.SeqNum(1); n <= batches; n++ {
			r := &message.Request{Client: 5, Timestamp: message.Timestamp(n), Apart: true, Op: []byte{byte(n)},
				Authentic: true, PassedBy: 1}
			f.hear(r)
			f.pass(c.late(n))
			b := message.Batch{Requests: []*message.Request{r}}
			f.hear(&message.PrePrepare{Seq: n, Digest: b.Digest(), Batch: b, From: 0})
			f.pass(c.agreed(n))
			var earlier []message.SeqNum
			if n > 1 {
				earlier = append(earlier, n-1)
			}
			for _, i := range []message.ReplicaID{2, 3} {
				f.hear(&message.Prepare{Seq: n, Digest: b.Digest(), Commits: earlier, From: i})
			}
		}
		f.said = nil
		f.pass(2 * 15)
		says := false
		for _, m := range f.said {
			s, ok := m.(*message.Status)
			says = says || ok && s.SlowPrimary
		}
		if f.LastExecuted() < batches-1 || says != c.want {
			t.Errorf("%s: executed %d batches, slow %v, want %v", c.name, f.LastExecuted(), says, c.want)
		}
	}
}

// A primary that always has as many batches under way as it may is judged by those that had room
// for a request and were proposed without it. Those that were on their way do not count, and null
// batches neither.
func TestPassedOver(t *testing.T) {
	for _, c := range []struct {
		batches int // that pass each request over; the window is 4
		null    bool
		want    bool
	}{{0, false, false}, {4, false, false}, {5, false, true}, {5, true, false}} {
		f, n, others := newForgetful(1, 0), message.SeqNum(0), message.Timestamp(0)
		order := func(b message.Batch) {
			n++
			f.hear(&message.PrePrepare{Seq: n, Digest: b.Digest(), Batch: b, From: 0})
			for _, i := range []message.ReplicaID{2, 3} {
				f.hear(&message.Prepare{Seq: n, Digest: b.Digest(), From: i})
				f.hear(&message.Commit{Seq: n, From: i})
			}
			if n%8 == 0 {
				for _, i := range []message.ReplicaID{0, 2, 3} {
					f.hear(&message.Checkpoint{Seq: n, Digest: message.Digest{1}, From: i})
				}
			}
		}
		for stamp := range message.Timestamp(keptTurnarounds) {
			r := &message.Request{Client: 5, Timestamp: stamp + 1, Apart: true, Authentic: true, PassedBy: 1}
			f.hear(r)
			for range c.batches {
				b := message.Batch{}
				if !c.null {
					others++
					b.Requests = []*message.Request{{Client: 6, Timestamp: others, Authentic: true}}
				}
				order(b)
			}
			order(message.Batch{Requests: []*message.Request{r}})
		}
		f.pass(2 * 15)
		if slow := f.turnarounds.isSlow; f.LastExecuted() != n || slow != c.want {
			t.Errorf("%d batches pass each request over: executed %d of %d, slow %v, want %v",
				c.batches, f.LastExecuted(), n, slow, c.want)
		}
	}
}

// A primary whose window is full is not late. Null batches under way do not fill it, for a primary
// may propose requests beside them, and neither do batches above a number that it leaves out.
func TestFullWindow(t *testing.T) {
	for _, c := range []struct {
		name          string
		null, leaving bool // what is proposed is null; the first number is left out until the request has it
		want          bool
	}{
		{"requests of others", false, false, false},
		{"null batches", true, false, true},
		{"requests of others above a number that is left out", false, true, true},
	} {
		f, n, others := newForgetful(1, 0), message.SeqNum(0), message.Timestamp(0)
		for stamp := range message.Timestamp(keptTurnarounds) {
			r := &message.Request{Client: 5, Timestamp: stamp + 1, Apart: true, Authentic: true, PassedBy: 1}
			f.hear(r)
			batches := make([]message.Batch, f.cfg.Window+1)
			propose := func(i int) {
				b := batches[i]
				f.hear(&message.PrePrepare{Seq: n + 1 + message.SeqNum(i), Digest: b.Digest(), Batch: b, From: 0})
			}
			last := len(batches) - 1
			if c.leaving {
				last = 0
			}
			batches[last].Requests = []*message.Request{r}
			for i := range batches {
				if i != last && !c.null {
					others++
					batches[i].Requests = []*message.Request{{Client: 6, Timestamp: others, Authentic: true}}
				}
			}
			for i := range batches {
				if i != last {
					propose(i)
				}
			}
			f.pass(10)
			propose(last)
			for _, b := range batches {
				n++
				for _, i := range []message.ReplicaID{2, 3} {
					f.hear(&message.Prepare{Seq: n, Digest: b.Digest(), From: i}, &message.Commit{Seq: n, From: i})
				}
			}
			for k := n / 8 * 8; k > f.Stable().Seq; k -= 8 {
				for _, i := range []message.ReplicaID{0, 2, 3} {
					f.hear(&message.Checkpoint{Seq: k, Digest: message.Digest{1}, From: i})
				}
			}
		}
		f.pass(2 * 15)
		if slow := f.turnarounds.isSlow; f.LastExecuted() != n || slow != c.want {
			t.Errorf("%s: executed %d of %d, slow %v, want %v", c.name, f.LastExecuted(), n, slow, c.want)
		}
	}
}

func always(ticks int) func(message.SeqNum) int { return func(message.SeqNum) int { return ticks } }

// only is so many ticks for one batch, and none for the others.
func only(n message.SeqNum, ticks int) func(message.SeqNum) int {
	return func(m message.SeqNum) int {
		if m == n {
			return ticks
		}
		return 0
	}
}

// A delay of a few milliseconds is too long for a primary whose backups' own ticks are in time, and
// less and less so the later those come.
func TestScarceProcessors(t *testing.T) {
	for _, c := range []struct {
		late, delay time.Duration
		want        bool
	}{
		{0, time.Millisecond, false},
		{0, 5 * time.Millisecond, true},
		{2 * time.Millisecond, 5 * time.Millisecond, false},
		{2 * time.Millisecond, 15 * time.Millisecond, true},
		{time.Second, 15 * time.Millisecond, false},
		{time.Second, 30 * time.Millisecond, true},
	} {
		var l lateness
		l.note(c.late)
		var p pacing
		for range keptTurnarounds {
			p.results = append(p.results, turnaround{idle: c.delay, agreed: 100 * time.Microsecond})
		}
		y := yardstick{slack: l.allowed(), factor: paceFactor}
		if slow, known := p.slow(&y); slow != c.want || !known {
			t.Errorf("a delay of %v where ticks are %v late: slow %v, want %v", c.delay, c.late, slow, c.want)
		}
		for range 20 * lateTicks {
			l.tick()
		}
		if l.allowed() != leastAllowed {
			t.Errorf("%v are allowed long after ticks were late", l.allowed())
		}
	}
}

// The primary's idle time is that in which it could have proposed, as far as anybody looked.
func TestIdleTime(t *testing.T) {
	var x idleTime
	for _, c := range []struct {
		at   time.Duration
		free bool
		want time.Duration
	}{{5, true, 0}, {7, true, 2}, {8, false, 3}, {20, true, 3}, {21, false, 4}} {
		if x.mark(c.at, c.free); x.total != c.want {
			t.Fatalf("%v at %v, want %v", x.total, c.at, c.want)
		}
	}
}
