// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/importer"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
)

// No files of these packages use one another in a circle, and no type of the core is
// larger than it should be.
func TestNoCircles(t *testing.T) {
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "source", nil)
	for _, directory := range []string{"../../pkg/pbft", "../../pkg/pbft/internal/core"} {
		r, err := read(fset, imports, directory)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.circles {
			t.Errorf("%s: the files %v use one another in a circle: let one of them record what became true, "+
				"and its caller act on it", directory, c)
		}
		if directory == "../../pkg/pbft" {
			continue // Status is a table of all that a replica tells of itself
		}
		for _, l := range append(r.structs, r.methods...) {
			t.Errorf("%s: %v is more than %d fields or %d methods: give a part of its state a type",
				directory, l, maxFields, maxMethods)
		}
	}
}

// tableRow is a row of the table of files in a package comment: names of files, and a tab
// before them.
var tableRow = regexp.MustCompile(`(?m)^//\t((?:\w+\.go +)+)`)

// Each file of the core is in the table of its package comment, and uses only files that
// stand above it there.
func TestTheCoreUsesWhatStandsAbove(t *testing.T) {
	const directory = "../../pkg/pbft/internal/core"
	comment, err := os.ReadFile(directory + "/core.go")
	if err != nil {
		t.Fatal(err)
	}
	place := map[string]int{}
	for _, row := range tableRow.FindAllStringSubmatch(string(comment), -1) {
		for _, name := range strings.Fields(row[1]) {
			place[name] = len(place) + 1
		}
	}
	fset := token.NewFileSet()
	r, err := read(fset, importer.ForCompiler(fset, "source", nil), directory)
	if err != nil {
		t.Fatal(err)
	}
	for from, uses := range r.uses {
		if place[from] == 0 {
			t.Errorf("%s is not in the table of the package comment of core", from)
		}
		for to := range uses {
			if place[to] >= place[from] {
				t.Errorf("%s uses %s, which does not stand above it in the table of the package comment of core",
					from, to)
			}
		}
	}
}
