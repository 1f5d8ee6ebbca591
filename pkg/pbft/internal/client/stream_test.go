// SPDX-License-Identifier: Apache-2.0

package client

import (
	"math/bits"
	"slices"
	"testing"
	"time"

	"bfs/pkg/pbft/internal/message"
)

const ms = time.Millisecond

// A load is a client with calls in all its slots, and a group that serves them in turn
// with those of other clients. Time goes by in milliseconds, and the client looks at its
// clock every ten of them.
type load struct {
	*Client
	now     Time
	turn    int                  // calls that one batch has room for
	period  func(now Time) Time  // until the client's next turn
	lost    func(count int) bool // whether the count-th first try is lost on the way
	dead    func(now Time) bool  // whether the primary has stopped; calls that reached all are served in the next view
	stopped bool                 // it has, and what had reached it is lost
	view    message.View
	mute    uint32                // replicas that answer nothing
	long    bool                  // results are long
	next    Time                  // turn
	waiting []message.RequestKey  // what has reached the primary
	sent    map[message.Slot]Time // of the present call
	tries   int                   // requests that were sent for the first time
	again   []Time                // when a request was sent again
	waited  Time                  // the longest wait for that
	toll    Time                  // the longest wait for a result
	results int
}

func newLoad(slots, turn int, period Time) *load {
	l := &load{turn: turn, next: period, sent: map[message.Slot]Time{}}
	l.period = func(Time) Time { return period }
	l.lost = func(int) bool { return false }
	l.dead = func(Time) bool { return false }
	l.Client = begun(slots)
	return l
}

// run lets time pass. Calls: how many the client has under way.
func (l *load) run(until Time, calls func(now Time) int) {
	for ; l.now < until; l.now += ms {
		for l.UnderWay() < calls(l.now) {
			l.sent[l.Start(l.now, Operation{Body: []byte("w")})] = l.now
			l.perform()
		}
		if l.dead(l.now) && !l.stopped {
			l.stopped, l.waiting = true, nil
		}
		if l.now%(10*ms) == 0 {
			l.Tick(l.now)
			l.perform()
		}
		if l.now >= l.next {
			l.next = l.now + l.period(l.now)
			l.serve()
		}
	}
}

// perform lets requests arrive.
func (l *load) perform() {
	for _, e := range l.Effects() {
		switch q := l.Request(e.Slot); e.Verb {
		case Done:
			l.toll = max(l.toll, l.now-l.sent[e.Slot])
			l.results++
			l.Free(e.Slot)
		case Send:
			if e.New {
				l.tries++
			} else {
				l.again = append(l.again, l.now)
				l.waited = max(l.waited, l.now-l.sent[e.Slot])
			}
			arrives := !l.dead(l.now) && !(e.New && l.lost(l.tries)) || bits.OnesCount32(e.To) > 1
			if k := q.Key(); arrives && !slices.Contains(l.waiting, k) {
				l.waiting = append(l.waiting, k)
			}
		}
	}
}

// changeTime is how long the group takes to leave a primary that has stopped, from when
// all have a request.
const changeTime = 500 * ms

// serve is the client's turn.
func (l *load) serve() {
	if l.dead(l.now) {
		if len(l.again) == 0 || l.now < l.again[0]+changeTime {
			return
		}
		l.view = 1
	}
	n := min(l.turn, len(l.waiting))
	turn := l.waiting[:n]
	l.waiting = slices.Clone(l.waiting[n:])
	for i := range message.ReplicaID(4) {
		for _, k := range turn {
			if l.mute&(1<<i) == 0 && l.Calling(k.Slot) {
				l.Reply(l.now, l.reply(i, l.Request(k.Slot)))
			}
		}
	}
	l.perform()
}

func (l *load) reply(i message.ReplicaID, q *message.Request) *message.Reply {
	m := answer(i, q)
	m.View = l.view
	if a := &m.Answers[0]; l.long {
		result := make([]byte, message.ShortResult+1)
		a.Length, a.Full, a.Result = len(result), q.Replier == i || q.Replier == message.AnyReplier, nil
		if a.Proved = a.Full || q.Provers&(1<<i) != 0; a.Proved {
			a.Proof = proofOf(i, result)
		}
		if a.Full {
			a.Result = result
		}
	}
	return m
}

func always(n int) func(Time) int { return func(Time) int { return n } }

// When nothing is lost nothing is sent again, however far apart a client's turns are.
// When the group stands still for a while, one request is sent again at first.
func TestPatienceWithALoadedGroup(t *testing.T) {
	grows := func(now Time) int { return min(1+int(now/(50*ms)), 64) }
	for _, c := range []struct {
		name  string
		load  *load
		calls func(now Time) int
		again int // at most
	}{
		{"one call at a time", newLoad(1, 1, ms), always(1), 0},
		{"turns of a quarter", newLoad(64, 16, 20*ms), always(64), 0},
		{"turns of all", newLoad(64, 64, 120*ms), always(64), 0},
		{"turns that differ", func() *load {
			l, long := newLoad(64, 64, 120*ms), false
			l.period = func(Time) Time {
				if long = !long; long {
					return 190 * ms
				}
				return 120 * ms
			}
			return l
		}(), always(64), 1},
		{"turns far apart, after the first", newLoad(64, 64, 700*ms), always(64), 4},
		{"a queue that grows", newLoad(64, 8, 20*ms), grows, 0},
		{"others come", func() *load {
			l := newLoad(64, 32, 0)
			l.period = func(now Time) Time { return min(20*ms+now/20, 200*ms) }
			return l
		}(), always(64), 0},
		{"a pause", func() *load {
			l := newLoad(64, 16, 0)
			l.period = func(now Time) Time {
				if now/(20*ms) == 50 {
					return 250 * ms
				}
				return 20 * ms
			}
			return l
		}(), always(64), 1},
	} {
		c.load.run(5*time.Second, c.calls)
		if n := len(c.load.again); n > c.again || c.load.results == 0 {
			t.Errorf("%s: %d of %d requests were sent again, want <= %d; %d results",
				c.name, n, c.load.tries, c.again, c.load.results)
		}
		if first := len(c.load.again); first > 0 && c.load.again[first-1] > 2*time.Second {
			t.Errorf("%s: a request is sent again at %v, when the client knows its turns",
				c.name, c.load.again[first-1])
		}
	}
}

// One lost request is sent again, and no other, when later ones have overtaken it.
func TestOneLostRequest(t *testing.T) {
	l := newLoad(64, 16, 20*ms)
	l.lost = func(count int) bool { return count == 1000 }
	l.run(5*time.Second, always(64))
	if len(l.again) != 1 || l.waited > viewTimeout+10*ms {
		t.Errorf("%d requests were sent again, after %v; want the lost one, after at most %v",
			len(l.again), l.waited, viewTimeout)
	}
}

// A primary that stops is noticed within the timeout, by the oldest request. When that
// has its result from the next primary, the others are sent again.
func TestDeadPrimary(t *testing.T) {
	for _, slots := range []int{1, 64} {
		l := newLoad(slots, 16, 20*ms)
		l.dead = func(now Time) bool { return now >= time.Second && l.View() == 0 }
		l.run(time.Second, always(slots))
		limit := l.patience.ordered.trip.timeout()
		before := len(l.again)
		if l.run(2*time.Second, always(slots)); before > 0 || len(l.again) < slots || l.View() != 1 {
			t.Fatalf("%d slots: %d requests were sent again before it stopped, and %d after; view %d",
				slots, before, len(l.again), l.View())
		}
		if first := l.again[0] - time.Second; first > limit+10*ms {
			t.Errorf("%d slots: noticed after %v, want <= %v", slots, first, limit)
		}
		if ended := l.again[0] + changeTime + 20*ms; l.again[slots-1] > ended+10*ms {
			t.Errorf("%d slots: the last request reached all replicas at %v, and the view had changed at %v",
				slots, l.again[slots-1], ended)
		}
		if slots > 1 && l.again[1] == l.again[0] {
			t.Errorf("%d slots: two requests were sent again at first, want one", slots)
		}
	}
}

// A primary that serves no first try of a client's costs each of its calls about as long
// as it may keep everyone waiting, and no more.
func TestPrimaryThatServesNoFirstTry(t *testing.T) {
	l := newLoad(1, 1, ms)
	l.lost = func(int) bool { return true }
	l.run(10*time.Second, always(1))
	if limit := viewTimeout + 11*ms; l.toll > limit || l.results < int(10*time.Second/limit) {
		t.Errorf("a call took %v, and %d ended in 10s; want <= %v each", l.toll, l.results, limit)
	}
}

// A replica that stops while it is named for long results is waited for once.
func TestDeadReplicaAmongTheProvers(t *testing.T) {
	l := newLoad(1, 1, ms)
	l.long = true
	l.run(time.Second, always(1))
	l.mute = 1 << 2
	l.toll = 0
	if l.run(2*time.Second, always(1)); len(l.again) > 1 || l.toll > firstTimeout+11*ms {
		t.Errorf("%d calls were sent again, and one took %v; want one, after at most %v",
			len(l.again), l.toll, firstTimeout)
	}
}

// A timeout follows the answers and how much they differ, doubles when it expires, and
// returns with the next sample.
func TestRoundTrip(t *testing.T) {
	trip := roundTrip{first: firstTimeout, least: minRepeat, most: viewTimeout}
	if got := trip.timeout(); got != firstTimeout {
		t.Errorf("before the first sample: got %v, want %v", got, firstTimeout)
	}
	trip.sample(200 * ms)
	if got := trip.timeout(); got != 600*ms { // SRTT = R, RTTVAR = R/2
		t.Errorf("after the first sample: got %v, want 600ms", got)
	}
	for range 100 {
		trip.sample(200 * ms)
	}
	if got := trip.timeout(); got.Round(ms) != 200*ms+granularity {
		t.Errorf("steady: got %v, want 220ms", got)
	}
	if trip.expire(); trip.timeout() != viewTimeout {
		t.Errorf("expired once: got %v, want %v", trip.timeout(), viewTimeout)
	}
	if trip.sample(200 * ms); trip.timeout().Round(ms) != 220*ms {
		t.Errorf("after another sample: got %v, want 220ms", trip.timeout())
	}
	for range 100 {
		trip.sample(ms)
	}
	for i, want := range []Time{100, 200, 400, 400} {
		if got := trip.timeout(); got != want*ms {
			t.Errorf("expired %d times: got %v, want %v", i, got, want*ms)
		}
		trip.expire()
	}
	for range 100 {
		trip.sample(time.Minute)
	}
	if got := trip.timeout(); got != maxTimeout {
		t.Errorf("answers after a minute: got %v, want %v", got, maxTimeout)
	}
}

// A read that some replicas were asked at first and the others later took longer than an
// answer does, but all that was sent was answered: it is no sample, and ends the doubling.
func TestWidenedReadsEndTheDoubling(t *testing.T) {
	var s stream
	s.init(viewTimeout, firstTimeout, viewTimeout)
	s.answered(10*ms, 0, false, false)
	trip, calm := s.trip, s.trip.timeout()
	for range 3 {
		s.expire(s.since + s.trip.timeout())
	}
	if s.answered(s.since, s.since-60*ms, true, true); s.trip.timeout() == calm {
		t.Error("a read that was sent twice to a replica ends the doubling")
	}
	s.answered(s.since, s.since-60*ms, false, true)
	if got := s.trip.timeout(); got != calm || s.trip != trip {
		t.Errorf("the timeout is %v, want %v as before, and the estimate the same", got, calm)
	}
}
