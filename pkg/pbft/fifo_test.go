// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"math/rand/v2"
	"testing"
)

// Values leave a queue in the order in which they came, whatever the number that waits, and the
// queue takes no more memory than for twice what ever waited.
func TestFIFO(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	var q fifo[int]
	came, left, most := 0, 0, 0
	for range 100000 {
		if came == left || came-left < 100 && chance.IntN(2) == 0 {
			q.push(came)
			came++
		} else {
			if got := *q.first(); got != left {
				t.Fatalf("%d leaves, want %d", got, left)
			}
			q.drop()
			left++
		}
		if most = max(most, came-left); q.len() != came-left {
			t.Fatalf("%d wait, want %d", q.len(), came-left)
		}
	}
	if len(q.ring) > 2*most {
		t.Errorf("memory for %d, and at most %d waited", len(q.ring), most)
	}
}

// A push into a queue that is full all the time moves nothing: a client holds its lock meanwhile.
func TestFIFOMovesNothing(t *testing.T) {
	var q fifo[int]
	for range 1000 {
		q.push(0)
	}
	for q.len() < len(q.ring) {
		q.push(0)
	}
	for range 2 * q.len() {
		q.drop()
		first := q.first()
		if q.push(0); q.first() != first {
			t.Fatal("a push moved the values that wait")
		}
	}
}
