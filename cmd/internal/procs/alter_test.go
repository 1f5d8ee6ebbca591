// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Bytes that lie across the border of two reads are found too, and nothing else is changed.
func TestAlterFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	old, others := []byte("something true"), []byte("something else")
	text := bytes.Repeat([]byte{7}, 3<<20)
	want := bytes.Clone(text)
	for _, at := range []int{0, 1<<20 - 5, 2 << 20, len(text) - len(old)} {
		copy(text[at:], old)
		copy(want[at:], others)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := AlterFiles(filepath.Dir(file), old, nil); n != 4 || err != nil {
		t.Fatalf("found %d places, %v, want 4", n, err)
	}
	if n, err := AlterFiles(filepath.Dir(file), old, others); n != 4 || err != nil {
		t.Fatalf("altered %d places, %v, want 4", n, err)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file is not as it should be: %v", err)
	}
	if _, err := AlterFiles(filepath.Dir(file), old, others[1:]); err == nil {
		t.Error("took fewer bytes than there were")
	}
}

// A process has from then on what AlterMemory has put into its memory: here a variable of
// its environment.
func TestAlterMemory(t *testing.T) {
	c := exec.Command("cat")
	c.Env = []string{"VALUE=something true"}
	stdin, err := c.StdinPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		_ = c.Wait() // cat ends with its input
	}()
	n, err := AlterMemory(c.Process.Pid, []byte("something true"), []byte("something else"))
	if errors.Is(err, fs.ErrPermission) {
		t.Skip("NOT RUN: this user may not trace processes here")
	}
	if err != nil || n == 0 {
		t.Fatalf("altered %d places, %v, want one at least", n, err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", c.Process.Pid))
	if err != nil || !bytes.Contains(text, []byte("VALUE=something else")) {
		t.Errorf("the process has %q, %v", text, err)
	}
	if n, err := AlterMemory(c.Process.Pid, []byte("something true"), nil); n != 0 || err != nil {
		t.Errorf("%d places are left, %v", n, err)
	}
}
