// SPDX-License-Identifier: Apache-2.0

package client

import "testing"

// A replica that comes in time for one result is not named for the next, which would wait for it.
func TestNamedReplicasExecuteFirst(t *testing.T) {
	a := audience{cfg: &Config{Replicas: 4}}
	a.init(a.cfg, &play{})
	for _, by := range []uint32{0b0111, 0b0111, 0b1111, 0b0111, 0b1110, 0b0111} {
		a.answered(false, &Finding{By: by})
		for range 8 {
			replier, provers := a.replier(0, false, false, 1)
			if replier == 3 || provers&0b1000 != 0 {
				t.Fatalf("after results from %s: %d returns the result, %s prove it",
					names(by), replier, names(provers))
			}
		}
	}
	if a.answered(false, &Finding{By: 0b1110}); a.first(0)&0b1000 != 0 {
		t.Error("one of the last two results came without replica 3")
	}
	if a.answered(false, &Finding{By: 0b1110}); a.first(0)&0b1000 == 0 {
		t.Error("the last two results came from replica 3")
	}
}
