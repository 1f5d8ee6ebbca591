// SPDX-License-Identifier: Apache-2.0

package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// ownLimits matches the ways to wait for a fixed time, in Go and in the scripts that guests run.
var ownLimits = map[string]*regexp.Regexp{
	".go": regexp.MustCompile(`\b(context\.With(Timeout|Deadline)|time\.(After|AfterFunc|NewTimer|Sleep)|net\.DialTimeout)\(|Deadline\(time\.Now\(\)`),
	".sh": regexp.MustCompile(`\b(timeout|sleep) [0-9.]+\b`),
	".pl": regexp.MustCompile(`\b(sleep|alarm)\b[ (]|\bselect[ (]undef`),
}

// notALimit explains, on the same line, why a fixed time is right.
const notALimit = " not a limit: "

// Tests take their time limits from package patience, which knows how fast the machine is. Another
// fixed time says on its line what else it is.
func TestLimitsScaleWithTheMachine(t *testing.T) {
	for _, root := range []string{"../cmd", "../pkg", "../test"} {
		err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			fixed := ownLimits[filepath.Ext(file)]
			if err != nil || d.IsDir() || fixed == nil || !isTest(file) {
				return err
			}
			text, err := os.ReadFile(file)
			for i, line := range strings.Split(string(text), "\n") {
				if fixed.MatchString(line) && !strings.Contains(line, notALimit) {
					t.Errorf("%s:%d: use test/patience, or say%swhy: %s", file, i+1, notALimit, strings.TrimSpace(line))
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// isTest reports whether a file is a test's whose waits are checked: the files of this
// rule itself, and programs that measure for a given time, are not.
func isTest(file string) bool {
	in := func(dir string) bool { return strings.HasPrefix(filepath.ToSlash(file), dir) }
	switch {
	case in("../test/patience/"), in("../test/limits_test.go"):
		return false
	case in("../test/bench/"): // it measures, for as long as it is told
		return false
	}
	return in("../test/") || strings.HasSuffix(file, "_test.go")
}
