// SPDX-License-Identifier: Apache-2.0

package core

import "testing"

// A pause doubles between its bounds, and is halved for each of its lengths that pass in peace.
func TestPauseGrowsAndShrinks(t *testing.T) {
	var p pause
	tick := 0
	for _, want := range []int{10, 20, 40, 40} {
		p.begin(tick, 10, 40)
		if p.ticks != want || p.over(tick+want-1) || !p.over(tick+want) {
			t.Fatalf("a pause of %d ticks until %d, want %d from %d on", p.ticks, p.until, want, tick)
		}
		tick = p.until
	}
	if p.halve(tick + 39); p.ticks != 40 {
		t.Fatalf("%d ticks after 39 of good behaviour, want 40", p.ticks)
	}
	if p.halve(tick + 40 + 20); p.ticks != 10 {
		t.Fatalf("%d ticks after 60 of good behaviour, want 10", p.ticks)
	}
	if p.forget(tick+100, 10); p.ticks != 10 {
		t.Fatal("a pause is forgotten too soon")
	}
	if p.forget(tick+101, 10); p.ticks != 0 {
		t.Fatal("a pause is never forgotten")
	}
}

// A limit lets one thing through in its time, and one with a burst so many at once.
func TestLimit(t *testing.T) {
	var one, three limit
	passed := [2]int{}
	for tick := range 20 {
		for range 5 {
			if one.take(tick, 5, 1) {
				passed[0]++
			}
			if three.take(tick, 5, 3) {
				passed[1]++
			}
		}
	}
	if want := [2]int{4, 6}; passed != want {
		t.Fatalf("%v passed in 20 ticks, want %v", passed, want)
	}
	one.restart(20, 5)
	if one.allows(24) || !one.allows(25) {
		t.Fatal("a limit that was restarted at 20 does not end at 25")
	}
}
