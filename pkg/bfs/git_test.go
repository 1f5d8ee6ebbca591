// SPDX-License-Identifier: Apache-2.0

package bfs_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"bfs/pkg/bfs"
)

// origin makes a repository on the local disk, with a history, and returns the files of
// its last commit.
func origin(t *testing.T, commits int) (dir string, files map[string][]byte) {
	t.Helper()
	dir, files = t.TempDir(), make(map[string][]byte)
	repo, err := git.PlainInit(dir, false)
	ok(t, err)
	tree, err := repo.Worktree()
	ok(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range commits {
		name := fmt.Sprintf("dir%d/file%d", i%3, i)
		files[name] = bytes.Repeat(fmt.Appendf(nil, "commit %d, %x\n", i, r.Uint64()), 1+r.IntN(300))
		files["log"] = append(files["log"], fmt.Sprintf("%d\n", i)...)
		for _, n := range []string{name, "log"} {
			ok(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, n)), 0o777))
			ok(t, os.WriteFile(filepath.Join(dir, n), files[n], 0o644))
			_, err := tree.Add(n)
			ok(t, err)
		}
		who := &object.Signature{Name: "A", Email: "a@example.org", When: time.Unix(int64(1e9+i), 0)}
		_, err = tree.Commit(fmt.Sprintf("number %d", i), &git.CommitOptions{Author: who})
		ok(t, err)
	}
	return dir, files
}

// openGit opens the repository in a directory of the file system.
func openGit(t *testing.T, b *bfs.Billy, dir string, clone *git.CloneOptions) *git.Repository {
	t.Helper()
	tree, err := b.Chroot(dir)
	ok(t, err)
	dot, err := tree.Chroot(".git")
	ok(t, err)
	storage := filesystem.NewStorage(dot, cache.NewObjectLRUDefault())
	var repo *git.Repository
	if clone != nil {
		repo, err = git.Clone(storage, tree, clone)
	} else {
		repo, err = git.Open(storage, tree)
	}
	ok(t, err)
	return repo
}

// A repository is cloned straight into four replicas, and read back through another mount: its
// history, its files, and a status that finds nothing to say. Then a commit is made there.
func TestCloneIntoGroup(t *testing.T) {
	const commits = 12
	dir, files := origin(t, commits)
	client := newGroup(t)
	there := mountOn(t, client, "/export", root)
	openGit(t, there.Billy(), "work/clone", &git.CloneOptions{URL: dir})

	fsys := mountOn(t, client, "/export/work", root)
	repo := openGit(t, fsys.Billy(), "clone", nil)
	checkHistory(t, repo, commits)
	checkTree(t, fsys, "clone", files)
	checkClean(t, repo)

	ok(t, fsys.WriteFile("clone/log", []byte("rewritten\n"), 0o644))
	tree, err := repo.Worktree()
	ok(t, err)
	_, err = tree.Add("log")
	ok(t, err)
	who := &object.Signature{Name: "B", Email: "b@example.org", When: time.Unix(2e9, 0)}
	_, err = tree.Commit("in the clone", &git.CommitOptions{Author: who})
	ok(t, err)
	checkHistory(t, openGit(t, there.Billy(), "work/clone", nil), commits+1)
	checkClean(t, repo)
}

func checkHistory(t *testing.T, repo *git.Repository, commits int) {
	t.Helper()
	log, err := repo.Log(&git.LogOptions{})
	ok(t, err)
	n := 0
	ok(t, log.ForEach(func(*object.Commit) error { n++; return nil }))
	if n != commits {
		t.Errorf("log: got %d commits, want %d", n, commits)
	}
}

func checkClean(t *testing.T, repo *git.Repository) {
	t.Helper()
	tree, err := repo.Worktree()
	ok(t, err)
	status, err := tree.Status()
	ok(t, err)
	if !status.IsClean() {
		t.Errorf("status: got\n%v, want nothing", status)
	}
}

// checkTree compares the files below dir, except .git, with the expected ones.
func checkTree(t *testing.T, fsys fs.FS, dir string, files map[string][]byte) {
	t.Helper()
	var got []string
	err := fs.WalkDir(fsys, dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == ".git":
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		rel := name[len(dir)+1:]
		got = append(got, rel)
		data, err := fs.ReadFile(fsys, name)
		if err == nil && !bytes.Equal(data, files[rel]) {
			t.Errorf("%s: got %d bytes, want other %d", rel, len(data), len(files[rel]))
		}
		return err
	})
	ok(t, err)
	var want []string
	for name := range files {
		want = append(want, name)
	}
	slices.Sort(want)
	slices.SortFunc(got, func(a, b string) int { return bytes.Compare([]byte(a), []byte(b)) })
	if !slices.Equal(got, want) {
		t.Errorf("files: got %q, want %q", got, want)
	}
}

// Bulk data goes through a group too: data written in many calls at once is read back unchanged.
func TestBulkThroughGroup(t *testing.T) {
	fsys := mountOn(t, newGroup(t), "/export", root)
	data := make([]byte, 9<<20+123)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(data)
	file, err := fsys.Create("big")
	ok(t, err)
	n, err := io.Copy(file, bytes.NewReader(data))
	ok(t, err)
	ok(t, file.Close())
	got, err := fsys.ReadFile("big")
	ok(t, err)
	if n != int64(len(data)) || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, wrote %d, want %d alike", len(got), n, len(data))
	}
	if i, err := fsys.Stat(path.Join(".", "big")); err != nil || i.Size() != n {
		t.Errorf("stat: got %v, %v", i, err)
	}
}
