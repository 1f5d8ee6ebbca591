// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// Columns at which lines of Go files end. A tab counts 4.
const (
	lineEnds    = 120
	commentEnds = 100 // of text that is wrapped at 90
)

var (
	// wrapped is a line of text in a comment: no code, no table, no directive.
	wrapped = regexp.MustCompile(`^// \S`)

	// tableRow is a row of a table: a value or a key and its value, on one line.
	tableRow = regexp.MustCompile("^(\\{.*\\},?|[\"`].*,)$")
)

func TestLinesEnd(t *testing.T) {
	for _, pkg := range packages(t) {
		if pkg == "test/mutants" { // its list is a table of other files' lines
			continue
		}
		files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		var long []string
		for _, file := range files {
			long = append(long, linesTooLong(t, file)...)
		}
		if len(long) > 0 {
			t.Errorf("%s has %d lines that are too long. Break them at column %d, or name a part of them with a "+
				"variable; wrap comments at 90. A tab counts 4, and rows of a test's table may be longer.\n%s",
				pkg, len(long), lineEnds, strings.Join(long, "\n"))
		}
	}
}

// linesTooLong names the lines of a file that are too long.
func linesTooLong(t *testing.T, file string) (long []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(text), "\n") {
		said, most := strings.TrimSpace(line), lineEnds
		if wrapped.MatchString(said) {
			most = commentEnds
		}
		if strings.HasSuffix(file, "_test.go") && tableRow.MatchString(said) {
			continue
		}
		if n := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")); n > most {
			long = append(long, fmt.Sprintf("%s:%d: %d columns", file, i+1, n))
		}
	}
	return long
}
