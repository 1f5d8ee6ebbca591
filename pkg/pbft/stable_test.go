// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"testing"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/pbfttest"
)

// A client learns the group's stable checkpoint, certified by f+1 replicas.
func TestStable(t *testing.T) {
	g, client := startGroup(t, 4, func(g *pbft.Group) pbft.Service {
		return counter{pbfttest.NewMemory(), g.ReservedPages()}
	})
	c := client()
	certified, reached, err := c.Stable(t.Context())
	if err != nil || certified.Seq != 0 || reached != 0 || certified.Root.IsZero() {
		t.Fatalf("at the start: got %v, %d, %v; want the initial state", certified, reached, err)
	}
	for range g.Limits.CheckpointPeriod {
		if _, err := c.Invoke(t.Context(), nil, false); err != nil {
			t.Fatal(err)
		}
	}
	for certified.Seq == 0 { // roots are computed beside the ordering: the certificate comes soon
		if certified, reached, err = c.Stable(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if certified.Seq != g.Limits.CheckpointPeriod || reached < certified.Seq {
		t.Errorf("got %v, %d; want checkpoint %d", certified, reached, g.Limits.CheckpointPeriod)
	}
}
