// SPDX-License-Identifier: Apache-2.0

// Package clitest holds helpers for the tests of both command lines.
package clitest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var rewrite = flag.Bool("rewrite", false, "write the help texts as they are now to testdata")

// Help compares the help of a command and of all below it with testdata/help.txt, and
// sees to it that each teaches: a long text, an example, and a word on every flag.
func Help(t *testing.T, root func() *cobra.Command) {
	t.Helper()
	var got strings.Builder
	walk(root(), func(c *cobra.Command) {
		path := strings.Fields(c.CommandPath())[1:]
		got.WriteString("$ " + c.CommandPath() + " --help\n")
		got.WriteString(Run(t, root(), append(path, "--help")...) + "\n")
		if c.Long == "" || c.Example == "" || c.Short == "" {
			t.Errorf("%s: want a short text, a long text and an example", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s: want a word on it", c.CommandPath(), f.Name)
			}
		})
	})
	for i, line := range strings.Split(got.String(), "\n") {
		if len(line) > 160 {
			t.Errorf("line %d is %d characters long: %s", i+1, len(line), line)
		}
	}
	golden := filepath.Join("testdata", "help.txt")
	if *rewrite {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("help differs from %s from this line on (refresh with -rewrite and read the diff): %q",
			golden, firstNew(got.String(), string(want)))
	}
}

// firstNew is the first line that is not in the other text at the same place.
func firstNew(got, want string) string {
	lines := strings.Split(want, "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(lines) || line != lines[i] {
			return line
		}
	}
	return "" // it is shorter
}

func walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, child := range c.Commands() {
		if !child.Hidden {
			walk(child, visit)
		}
	}
}

// Run runs a command line that must succeed and returns its standard output.
func Run(t *testing.T, root *cobra.Command, args ...string) string {
	t.Helper()
	out, err := Try(t, root, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", root.Name(), strings.Join(args, " "), err)
	}
	return out
}

// Try runs a command line.
func Try(t *testing.T, root *cobra.Command, args ...string) (stdout string, err error) {
	t.Helper()
	var out, hints strings.Builder
	root.SetOut(&out)
	root.SetErr(&hints)
	root.SetArgs(args)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	err = root.ExecuteContext(t.Context())
	return out.String(), err
}
