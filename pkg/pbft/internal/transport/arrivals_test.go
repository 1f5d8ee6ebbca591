// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net/netip"
	"testing"
	"time"
)

// Rates are kept for every pattern of arrivals.
func TestBucket(t *testing.T) {
	var b Bucket
	now := time.Now()
	count := func(tries int, step time.Duration) (n int) {
		for range tries {
			if now = now.Add(step); b.Take(Rate{10, 5}, 1, now) {
				n++
			}
		}
		return n
	}
	if n := count(100, 0); n != 5 {
		t.Errorf("%d at once, want the burst of 5", n)
	}
	if n := count(1000, time.Millisecond); n < 9 || n > 10 {
		t.Errorf("%d in a second, want 10 or, for rounding, one less", n)
	}
	if count(1, time.Hour); count(100, 0) != 4 {
		t.Error("more than a burst was saved up")
	}
}

// Strangers spend one share, each address that is known its own, and those that were
// named are never forgotten.
func TestArrivals(t *testing.T) {
	now := time.Now()
	named, guest := address(1), address(2)
	a := newArrivals([]netip.Addr{named})
	takes := func(from netip.Addr) bool { ok, _ := a.take(from, now); return ok }
	a.welcome(guest, now)
	for i := range 10 * int(ArrivalRate.Burst) {
		takes(address(100 + i))
	}
	if len(a.guests) > maxGuests {
		t.Errorf("%d strangers' addresses are remembered, want at most %d", len(a.guests), maxGuests)
	}
	for who, x := range map[string]netip.Addr{"named": named, "welcome before": guest} {
		if !takes(x) {
			t.Errorf("one who was %s is refused for what strangers do", who)
		}
	}
	if takes(address(3)) {
		t.Error("a stranger is let in beyond the strangers' share")
	}
	for i := range 2 * maxKnown {
		now = now.Add(time.Millisecond)
		a.welcome(address(100+i), now)
	}
	if len(a.known) > maxKnown || a.known[named] == nil || a.known[guest] != nil {
		t.Errorf("%d addresses are known; the named one %v, the oldest %v",
			len(a.known), a.known[named] != nil, a.known[guest] != nil)
	}
}

func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// One stranger's flood leaves a share to another stranger. The part of its SYNs that the
// kernel lets through falls until it makes the share's rate, and is the whole again soon
// after the flood. The operator hears of it once.
func TestFlood(t *testing.T) {
	now := time.Now()
	a := newArrivals(nil)
	flooding, other := address(1), address(2)
	told := 0
	tick := func(each int) (pass float64, taken int, over bool) {
		pass = 1
		if x := a.guests[flooding]; x != nil && x.flood {
			pass = x.pass
		}
		for range int(float64(each) * pass) {
			if ok, _ := a.take(flooding, now); ok {
				taken++
			}
		}
		now = now.Add(floodTick)
		_, tell, over := a.tick(now)
		told += len(tell)
		return pass, taken, over
	}
	tick(10000)
	if ok, _ := a.take(other, now); !ok {
		t.Error("another stranger is refused for one stranger's flood")
	}
	want := GuestRate.PerSecond * floodTick.Seconds()
	for range 20 {
		tick(10000)
	}
	if pass, taken, _ := tick(10000); float64(taken) > 1.5*want || pass*10000 > 3*want {
		t.Errorf("%v of 10,000 pass in a tick and %d are taken, want about %v", pass, taken, want)
	}
	if a.floods() != 1 || told != 1 {
		t.Errorf("%d floods, told %d times, want one and once", a.floods(), told)
	}
	ticks := 1
	for _, _, over := tick(0); !over && ticks < 100; _, _, over = tick(0) {
		ticks++
	}
	if seconds := float64(ticks) * floodTick.Seconds(); seconds > 4 || a.floods() != 0 {
		t.Errorf("the flood is over after %v s, want a few; %d are left", seconds, a.floods())
	}
	if _, begun := a.take(flooding, now); begun {
		t.Error("it begins again with the first connection")
	}
}

// However many addresses are in flood, one is told of in a second, and each has its turn once.
func TestFloodsAreToldInTurn(t *testing.T) {
	const flooding = 8
	now := time.Now()
	a := newArrivals(nil)
	turns := map[netip.Addr]int{}
	last := time.Time{}
	for range int((flooding + 2) * toldPause / floodTick) {
		for i := range flooding {
			for range 2 * int(GuestRate.Burst) {
				a.take(address(i), now)
			}
		}
		now = now.Add(floodTick)
		_, tell, _ := a.tick(now)
		for _, from := range tell {
			if now.Sub(last) < toldPause {
				t.Errorf("%v is told of %v after another", from, now.Sub(last))
			}
			last = now
			turns[from]++
		}
	}
	for from, n := range turns {
		if n != 1 {
			t.Errorf("%v is told of %d times, want once", from, n)
		}
	}
	if len(turns) != flooding+1 || turns[netip.Addr{}] != 1 {
		t.Errorf("told of %v, want %d strangers, and all together", turns, flooding)
	}
}

// Many strangers that each keep within their share are a flood together, and known
// addresses are not in it.
func TestFloodOfMany(t *testing.T) {
	now := time.Now()
	a := newArrivals([]netip.Addr{address(1)})
	begun := 0
	for i := range 2 * int(ArrivalRate.Burst) {
		if _, b := a.take(address(100+i), now); b {
			begun++
		}
	}
	a.take(address(5000), now)
	for i := range 1000 {
		a.take(address(100+i), now)
	}
	s, tell, over := a.tick(now.Add(floodTick))
	if begun != 1 || over || len(s.floods) != 0 || s.rest >= 0.1 || len(tell) != 1 || tell[0].IsValid() {
		t.Errorf("begun %d times, over %v, %+v, tell %v", begun, over, s, tell)
	}
	if len(s.known) != 1 {
		t.Errorf("%v are known, want the one that was named", s.known)
	}
}
