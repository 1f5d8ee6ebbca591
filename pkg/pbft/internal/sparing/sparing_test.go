// SPDX-License-Identifier: Apache-2.0

package sparing

import (
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// No replica is spared when each batch waits for a message to the spared one, however
// many batches are under way. While the others do without it, some batches that were
// proposed since the last write to it are executed by the next.
func TestSparingNoticesThatBatchesWait(t *testing.T) {
	type moment struct {
		under              bool
		executed, proposed message.SeqNum
	}
	for _, c := range []struct {
		name    string
		moments []moment
		waited  bool
	}{
		{"one batch a tick", []moment{{true, 6, 7}, {true, 7, 8}, {true, 8, 9}}, true},
		{"a window of two, all of it a tick", []moment{{true, 6, 8}, {true, 8, 10}, {true, 10, 12}}, true},
		{"a window of eight, all of it a tick", []moment{{true, 8, 16}, {true, 16, 24}}, true},
		{"nothing is executed", []moment{{true, 6, 8}, {true, 6, 8}}, true},
		{"many batches a tick", []moment{{true, 6, 8}, {true, 31, 33}, {true, 57, 59}}, false},
		{"few, quickly", []moment{{false, 6, 6}, {true, 7, 8}, {false, 8, 8}, {true, 8, 9}}, false},
		{"nothing", []moment{{false, 6, 6}, {false, 6, 6}}, false},
	} {
		var s Sparing
		waited := false
		for _, m := range c.moments {
			waited = s.waited(m.under, m.executed, m.proposed) || waited
		}
		if waited != c.waited {
			t.Errorf("%s: got %t, want %t", c.name, waited, c.waited)
		}
	}
}

// A vote is missing if it is that of a backup that is not spared.
func TestSparingNoticesThatAVoteIsMissing(t *testing.T) {
	for _, c := range []struct {
		view  message.View
		voted uint32
		lacks bool
	}{
		{0, 0b0110, false}, {0, 0b1110, false}, {0, 0b1010, true}, {0, 0b1100, true}, {0, 0, true},
		{2, 0b1001, false}, {2, 0b0011, true},
	} {
		s := Sparing{Group: 4}
		if got := s.lacks(c.view, c.voted); got != c.lacks {
			t.Errorf("view %d, voted %04b: got %t, want %t", c.view, c.voted, got, c.lacks)
		}
	}
}

// After a refresh of keys no replica is spared for a moment, and none counts as slow
// because of it.
func TestRefreshEndsSparingForAMoment(t *testing.T) {
	var s Sparing
	s.waited(true, 6, 7)
	if s.Refreshed(); s.brisk != refreshTicks || s.waited(true, 6, 7) {
		t.Errorf("nobody is spared for %d ticks, want %d; and somebody is called slow", s.brisk, refreshTicks)
	}
	s.brisk = 50
	if s.Refreshed(); s.brisk != 50 {
		t.Error("a refresh ends a longer time without sparing")
	}
	for _, late := range []int{0, settleTicks - 1, settleTicks} {
		s = Sparing{}
		s.Refreshed()
		for range late {
			s.Tick(true)
		}
		want := refreshTicks
		if late == settleTicks {
			want = briskTicks
		}
		if s.blame(); s.brisk != want {
			t.Errorf("batches wait %d ticks after a refresh: nobody is spared for %d ticks, want %d",
				late, s.brisk, want)
		}
	}
}
