// SPDX-License-Identifier: Apache-2.0

package test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// helpPages is what --help prints, by command: the golden files that the commands' own
// tests keep true.
func helpPages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, program := range []string{"bfsd", "bfs-relay"} {
		text, err := os.ReadFile("../cmd/" + program + "/testdata/help.txt")
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range strings.Split("\n"+string(text), "\n$ ")[1:] {
			command, rest, _ := strings.Cut(page, " --help\n")
			pages[command] = rest
		}
	}
	return pages
}

// Commands, flags and configuration keys that OPERATING and README name exist.
func TestOperatingNamesWhatThereIs(t *testing.T) {
	pages := helpPages(t)
	everything := ""
	for _, page := range pages {
		everything += page
	}
	flagged := regexp.MustCompile(`--[a-z][a-z-]*`)
	command := regexp.MustCompile("(?:^|[`$#] | {2}|`)((?:bfsd|bfs-relay)(?: [a-z]+)*)([^`]*)")
	key := regexp.MustCompile("`([a-z]+_[a-z_]+|[a-z_]+ = [^`]+)`")
	for _, file := range []string{"../docs/OPERATING.md", "../README.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		commands := 0
		for _, line := range strings.Split(string(text), "\n") {
			for _, m := range command.FindAllStringSubmatch(line, -1) {
				page, known := pages[m[1]]
				switch {
				case !strings.Contains(m[1], " "):
					continue // it speaks of the program
				case !known:
					t.Errorf("%s: there is no %s", file, m[1])
				}
				commands++
				for _, flag := range flagged.FindAllString(m[2], -1) {
					if !strings.Contains(page, flag+" ") {
						t.Errorf("%s: %s has no %s", file, m[1], flag)
					}
				}
			}
			for _, flag := range flagged.FindAllString(line, -1) {
				if !strings.Contains(line, "systemctl") && !strings.Contains(everything, flag+" ") {
					t.Errorf("%s: no command has %s", file, flag)
				}
			}
			for _, m := range key.FindAllStringSubmatch(line, -1) {
				name, _, _ := strings.Cut(m[1], " = ")
				if !regexp.MustCompile(`(?m)^  ` + name + ` +=`).MatchString(everything) {
					t.Errorf("%s: no configuration file has the key %s", file, name)
				}
			}
		}
		if commands == 0 {
			t.Errorf("%s names no command", file)
		}
	}
}
