// SPDX-License-Identifier: Apache-2.0

package admintest

import (
	"strings"
	"testing"
)

const good = `# HELP a_total Things done.
# TYPE a_total counter
a_total{who="x",what="1"} 1
a_total{who="x",what="2"} 2
# HELP b Things there.
# TYPE b gauge
b -1.5e3
# HELP c_seconds How long.
# TYPE c_seconds histogram
c_seconds_bucket{le="1"} 1
c_seconds_bucket{le="+Inf"} 3
c_seconds_sum 4.5
c_seconds_count 3
`

func TestLintTakesAGoodPage(t *testing.T) {
	if problems := Lint(good); len(problems) != 0 {
		t.Error(problems)
	}
}

// Each change of the good page is one fault, and is named.
func TestLintNamesEachFault(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"# HELP b Things there.\n", "", "b: no HELP"},
		{"# TYPE b gauge\n", "", "b: no TYPE"},
		{"# TYPE b gauge", "# TYPE b guage", `b: type "guage"`},
		{"# TYPE b gauge", "# TYPE b counter", "b: a counter"},
		{"# TYPE a_total counter", "# TYPE a_total gauge", "a_total: a gauge"},
		{`what="2"`, `what="1"`, "twice"},
		{`what="2"`, `who="2"`, "label who twice"},
		{`what="2"`, `what=2`, "labels"},
		{"b -1.5e3\n", "b -1.5e3\n# HELP a_total Things done.\n", "a_total: its lines do not stand together"},
		{"b -1.5e3\n", "b\n", `no sample: "b"`},
		{"b -1.5e3\n", "b x\n", "value"},
		{"b -1.5e3\n", "", "b: no samples"},
		{`{le="1"} 1`, `{le="1"} 9`, "less than the bucket before"},
		{"c_seconds_count 3", "c_seconds_count 4", "not the same"},
		{"c_seconds_sum 4.5\n", "", "no sum"},
		{"c_seconds_count 3\n", "c_seconds_count 3", "does not end"},
	} {
		page := strings.Replace(good, c.old, c.new, 1)
		if page == good {
			t.Fatalf("%q is not in the page", c.old)
		}
		if problems := strings.Join(Lint(page), "\n"); !strings.Contains(problems, c.want) {
			t.Errorf("%q for %q: got %q, want %q", c.new, c.old, problems, c.want)
		}
	}
}
