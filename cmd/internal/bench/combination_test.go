// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"maps"
	"strings"
	"testing"

	"bfs/pkg/pbft"
)

// Each part that takes a replica gets one, and the replica that is observed gets none.
func TestCombine(t *testing.T) {
	c, err := combine("replica-late+common+primary-single+replica-fetches", 10)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int]string{0: "primary-single", 8: "replica-late", 7: "replica-fetches"}
	if got := c.offences(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if want := By("replica+client+primary+replica"); c.by() != want {
		t.Errorf("got %q, want %q", c.by(), want)
	}
	var backups []string
	for _, o := range Offenders() {
		if o.By == ByReplica {
			backups = append(backups, o.Name)
		}
	}
	for n := leastN; n <= mostN; n++ {
		most := min(pbft.GroupSize(n).Faulty(), len(backups))
		c, err := combine(strings.Join(backups[:most], "+"), n)
		if err != nil || len(c.offences()) != most || c.offences()[observer] != "" {
			t.Errorf("n=%d: got %v and %v, want %d replicas other than %d", n, c.offences(), err, most, observer)
		}
	}
}

func TestCombineRefuses(t *testing.T) {
	for _, x := range []struct {
		name string
		n    int
		want string
	}{
		{"common+nothing", 4, `attack: got "nothing", want one of`},
		{"common+", 4, `attack: got "", want one of`},
		{"common+replica-late+common", 4, "common is in it twice"},
		{"primary-single+primary-slow-20", 10, "2 parts are the primary's"},
		{"replica-late+replica-fetches", 6, "2 replicas of 6 offend, want 1 at most, which is f: name fewer, or use --n 7"},
		{"primary-single+replica-late", 4, "2 replicas of 4 offend"},
	} {
		if _, err := combine(x.name, x.n); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s in a group of %d: got %v, want %q in it", x.name, x.n, err, x.want)
		}
	}
	for _, n := range []int{1, 3, 33} {
		if err := (Attack{N: n}).Run(t.Context(), nil); err == nil || !strings.HasPrefix(err.Error(), "--n") {
			t.Errorf("n=%d: got %v, want an error about --n", n, err)
		}
	}
}
