// SPDX-License-Identifier: Apache-2.0

package bfs_test

import (
	"fmt"
	"testing"
	"testing/fstest"
)

// The library's own judge of io/fs, links and a long directory included.
func TestFS(t *testing.T) {
	fsys, _ := mount(t)
	ok(t, fsys.MkdirAll("a/b/c", 0o755))
	ok(t, fsys.WriteFile("a/empty", nil, 0o600))
	ok(t, fsys.WriteFile("a/b/file", []byte("text\n"), 0o644))
	ok(t, fsys.WriteFile("a/b/long", make([]byte, 9000), 0o644))
	ok(t, fsys.Symlink("b/file", "a/link"))
	ok(t, fsys.Symlink("../file", "a/b/c/up"))
	ok(t, fsys.Mkdir("many", 0o755))
	for i := range 40 {
		ok(t, fsys.WriteFile(fmt.Sprintf("many/%04d", i), nil, 0o644))
	}
	if err := fstest.TestFS(fsys, "a/empty", "a/b/file", "a/b/long", "a/b/c", "many/0000", "many/0039"); err != nil {
		t.Error(err)
	}
	sub, err := fsys.Sub("a/b")
	ok(t, err)
	if err := fstest.TestFS(sub, "file", "long", "c"); err != nil {
		t.Error(err)
	}
}
