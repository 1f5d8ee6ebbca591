// SPDX-License-Identifier: Apache-2.0

package message

import "testing"

// Everything that docs/decisions/0011-any-n.md builds on, for each size a group can have.
func TestGroupSizes(t *testing.T) {
	for n := GroupSize(4); n <= MaxReplicas; n++ {
		f, q, k := n.Faulty(), n.Quorum(), n.Away()
		for _, x := range []struct {
			what  string
			holds bool
		}{
			{"n >= 3f+1", int(n) >= 3*f+1},
			{"f is the largest", int(n) < 3*(f+1)+1},
			{"two quorums share f+1", 2*q-int(n) >= f+1},
			{"no smaller quorum would do", 2*(q-1)-int(n) < f+1},
			{"those that are neither faulty nor away are a quorum", int(n)-f-k == q && k >= 0},
			{"a quorum has f+1 correct members, also without those away", q-f-k >= f+1},
			{"those present can acknowledge", n.Acks() <= q-2},
			{"f of those who acknowledged are correct and present, with a faulty sender or one that is away", n.Acks() >= 2*f-1+k},
			{"the paper's counts for 3f+1", int(n) != 3*f+1 || q == 2*f+1 && k == 0 && n.Acks() == 2*f-1},
		} {
			if !x.holds {
				t.Errorf("n = %d, f = %d, q = %d, k = %d: not so: %s", n, f, q, k, x.what)
			}
		}
	}
	for n, want := range map[GroupSize][4]int{1: {0, 1, 0, 0}, 4: {1, 3, 0, 1}, 5: {1, 4, 0, 2},
		6: {1, 4, 1, 2}, 7: {2, 5, 0, 3}} {
		if got := [4]int{n.Faulty(), n.Quorum(), n.Away(), n.Acks()}; got != want {
			t.Errorf("n = %d: got f, q, k, acks = %v, want %v", n, got, want)
		}
	}
}
