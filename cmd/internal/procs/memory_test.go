// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// The limit of a process is the lowest of its control group and of those that it is in,
// in both versions.
func TestGroupMemory(t *testing.T) {
	mounted := t.TempDir()
	for name, contents := range map[string]string{
		"a/memory.max":                        "3000\n",
		"a/b/memory.max":                      "5000\n",
		"a/b/c/memory.max":                    "max\n",
		"memory/x/memory.limit_in_bytes":      "9223372036854771712\n",
		"memory/docker/memory.limit_in_bytes": "7000\n",
	} {
		file := filepath.Join(mounted, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for groups, want := range map[string]uint64{
		"":                               math.MaxUint64,
		"0::/\n":                         math.MaxUint64,
		"0::/a/b/c\n":                    3000,
		"0::/elsewhere\n":                math.MaxUint64,
		"4:cpu:/a\n3:memory:/docker/z\n": 7000,
		"3:memory:/x\n0::/a/b\n":         3000,
		"0::/../a\n":                     3000,
		"nonsense\n":                     math.MaxUint64,
	} {
		if got := groupMemory(groups, mounted); got != want {
			t.Errorf("%q: got %d, want %d", groups, got, want)
		}
	}
}

func TestResident(t *testing.T) {
	if n, err := Resident(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("this process has %d bytes resident, %v", n, err)
	}
	if have, err := Memory(); err != nil || have < 16<<20 {
		t.Errorf("this process can have %d bytes, %v", have, err)
	}
}
