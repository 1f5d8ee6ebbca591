// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net/netip"
	"testing"
	"time"
)

// Rates are kept whatever the pattern of what comes.
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

// Strangers spend one share, each address that is known its own, and those that were named are never forgotten.
func TestArrivals(t *testing.T) {
	address := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}) }
	now := time.Now()
	named, guest := address(1), address(2)
	a := newArrivals([]netip.Addr{named})
	a.welcome(guest, now)
	for i := range 10 * int(ArrivalRate.Burst) {
		a.take(address(100+i), now)
	}
	for who, x := range map[string]netip.Addr{"named": named, "welcome before": guest} {
		if !a.take(x, now) {
			t.Errorf("one who was %s is refused for what strangers do", who)
		}
	}
	if a.take(address(3), now) {
		t.Error("a stranger is let in beyond the strangers' share")
	}
	for i := range 2 * maxKnown {
		now = now.Add(time.Millisecond)
		a.welcome(address(100+i), now)
	}
	if len(a.known) > maxKnown || a.known[named] == nil || a.known[guest] != nil {
		t.Errorf("%d addresses are known; the named one %v, the oldest %v", len(a.known), a.known[named] != nil, a.known[guest] != nil)
	}
}
