// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// Every mistake has its place: a change of the code that a mutant changes must change the
// mutant too.
func TestEveryMutantHasItsPlace(t *testing.T) {
	for _, m := range append(slices.Clone(mutants), slices.Collect(maps.Values(also))...) {
		source, err := os.ReadFile("../../" + m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), m.old); n != 1 {
			t.Errorf("%q: its place occurs %d times in %s, want once", m.name, n, m.file)
		}
	}
}
