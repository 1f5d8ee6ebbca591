// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// sizes are the numbers of replicas that these tests try.
var sizes = []int{4, 5, 6, 7, 8, 9, 10, 12, 31, message.MaxReplicas}

// reachable is a group of n of which only the replicas in up hear each other.
func reachable(t *testing.T, n int, up ...int) *play {
	p := &play{}
	p.command(t, fmt.Sprintf("group n=%d k=2 l=4 quiet=1", n))
	is := make([]bool, n)
	for _, i := range up {
		is[i] = true
	}
	for i := range n {
		for j := range n {
			p.cut[[2]int{i, j}] = !is[i] || !is[j]
		}
	}
	return p
}

// upTo are the replicas from first to n-1, at most count of them.
func upTo(first, n, count int) (up []int) {
	for i := first; i < n && len(up) < count; i++ {
		up = append(up, i)
	}
	return up
}

// A quorum of a group orders and makes a checkpoint stable, and one replica fewer does neither,
// whatever n is [TOCS §4.3, §4.4].
func TestQuorumOrders(t *testing.T) {
	for _, n := range sizes {
		q := message.GroupSize(n).Quorum()
		for up, want := range map[int]message.SeqNum{q: 2, q - 1: 0} {
			p := reachable(t, n, upTo(0, n, up)...)
			for k := range 2 {
				p.command(t, fmt.Sprintf("request t=%d op=x to=0", k+1))
				p.command(t, "deliver")
			}
			for i := range up {
				if c := p.cores[i]; c.LastExecuted() != want || c.Stable().Seq != want {
					t.Errorf("n = %d, %d of them up: replica %d has executed %d and %d is stable, want %d",
						n, up, i, c.LastExecuted(), c.Stable().Seq, want)
				}
			}
		}
	}
}

// A quorum without the first primary begins the next view with what prepared in the last, and one
// replica fewer begins none. What prepared is known to f+1 of them: they are as many of those left
// of a quorum when f are faulty and k away [TOCS §4.5].
func TestQuorumChangesView(t *testing.T) {
	for _, n := range sizes {
		size := message.GroupSize(n)
		q := size.Quorum()
		if n-1 < q {
			continue
		}
		for up, active := range map[int]bool{q: true, q - 1: false} {
			p := reachable(t, n, upTo(0, n, q)...)
			p.command(t, "request op=x to=0")
			p.command(t, "deliver")
			decided, _ := p.cores[1].Committed(1)
			// Of the quorum that prepared, as many are gone as can be: the replicas
			// beside it come in their place.
			gone := size.Faulty() + size.Away()
			later := upTo(gone, n, up)
			heard := reachable(t, n, later...)
			p.cut = heard.cut
			for _, i := range later {
				p.command(t, fmt.Sprintf("leave at=%d v=%d", i, later[0]))
			}
			p.command(t, "deliver")
			for _, i := range later {
				c := p.cores[i]
				if _, is := c.View(); is != active {
					t.Fatalf("n = %d, %d of them up: is the view active at replica %d: %v, want %v",
						n, up, i, is, active)
				}
				if d, ok := c.Prepared(1); active && (!ok || d != decided || decided.IsZero()) {
					t.Errorf("n = %d: replica %d has %v prepared as number 1, and %v was decided", n, i, d, decided)
				}
			}
		}
	}
}

// The sender of a VIEW-CHANGE is faulty and shows it to the new primary and to one replica only,
// which is away when the others ask for it. In a group of six the new primary does not use it
// before two have acknowledged it, or the view could not begin.
func TestAcksOfSix(t *testing.T) {
	p := reachable(t, 6, 0, 1, 2, 3)
	p.cut[[2]int{0, 3}] = true // of what 0 says 3 hears nothing
	for _, i := range []int{0, 2, 3} {
		p.command(t, fmt.Sprintf("leave at=%d v=1", i))
	}
	p.command(t, "deliver")
	if v, _ := p.cores[1].View(); v != 1 || p.cores[1].LeftFor(0) != 1 || p.cores[1].Beginning() != nil {
		t.Fatal("a VIEW-CHANGE that one replica has acknowledged was used")
	}
	p.cut = reachable(t, 6, 1, 3, 4, 5).cut // now 2 is away
	for range 2 {
		p.command(t, "tick n=9")
		p.command(t, "deliver")
	}
	for _, i := range []int{1, 3, 4, 5} {
		if v, active := p.cores[i].View(); v != 1 || !active {
			t.Errorf("replica %d is in view %d, active %v; want view 1, active", i, v, active)
		}
	}
}
