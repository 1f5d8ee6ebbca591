// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/importer"
	"go/token"
	"testing"
)

// No files of these packages use one another in a circle, and no type of the core is larger than it should be.
func TestNoCircles(t *testing.T) {
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "source", nil)
	for _, directory := range []string{"../../pkg/pbft", "../../pkg/pbft/internal/core"} {
		r, err := read(fset, imports, directory)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.circles {
			t.Errorf("%s: the files %v use one another in a circle: have one of them record what became true, and its caller act on it", directory, c)
		}
		if directory == "../../pkg/pbft" {
			continue // Status is a table of all that a replica tells of itself
		}
		for _, l := range append(r.structs, r.methods...) {
			t.Errorf("%s: %v is more than %d fields or %d methods: give a part of its state a type", directory, l, maxFields, maxMethods)
		}
	}
}
