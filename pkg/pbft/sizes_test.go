// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"testing"

	"bfs/pkg/pbft"
)

// Six replicas serve without two of them, the first primary and one that has to fetch the
// state when it is back; and without their memory these two take part again.
func TestSixWithoutTwo(t *testing.T) {
	c := newClusterOf(t, 6, smallLimits(), pbft.TransportPlain, pbft.DurabilityReplicated)
	for i := range 5 {
		c.start(i)
	}
	client := c.client(c.enrolled(c.client(c.admin), ""))
	if got := invoke(t, client, "i", false); got != 1 {
		t.Fatalf("the first call returns %d", got)
	}
	c.stop(0)
	for want := uint64(2); want < 40; want++ {
		if got := invoke(t, client, "i", false); got != want {
			t.Fatalf("with four of six: got %d, want %d", got, want)
		}
	}
	if got := invoke(t, client, "r", true); got != 39 {
		t.Errorf("a read with four of six: got %d, want 39", got)
	}
	stable := c.replicas[1].Status().Stable
	c.start(5)
	c.start(0)
	c.agree(stable, func() { invoke(t, client, "i", false) })
	eventually(t, "all six vote", func() bool {
		invoke(t, client, "i", false)
		for _, r := range c.replicas {
			if r.Status().SilentUntil > 0 {
				return false
			}
		}
		return true
	})
}
