// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bfs/pkg/pbft"
)

// All replicas stop and start again: what was answered is there, once, and each remembers
// its promises.
func TestAllRestart(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	sum := uint64(0)
	for life := range 3 {
		for range 11 * life { // few or many checkpoints since
			sum = invoke(t, client, "p", false)
		}
		for i := range c.replicas {
			c.stop(i)
		}
		for i := range c.replicas {
			if r := c.start(i); r.Status().SilentUntil != 0 {
				t.Fatalf("replica %d is silent after it was stopped in good order", i)
			}
		}
		if got := invoke(t, client, "r", true); got != sum {
			t.Fatalf("after life %d the counter is %d, want %d", life, got, sum)
		}
		sum = invoke(t, client, "i", false)
	}
	c.agree(0, func() { invoke(t, client, "p", false) })
}

// A replica that is restarted is not one of the f: another may be stopped at once.
func TestRestartIsNoFault(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	for i := range c.replicas {
		for range 3 {
			invoke(t, client, "p", false)
		}
		c.stop(i)
		c.start(i)
		other := (i + 1) % 4
		c.stop(other)
		before := invoke(t, client, "i", false)
		if got := invoke(t, client, "i", false); got != before+1 {
			t.Fatalf("got %d, want %d", got, before+1)
		}
		c.start(other)
	}
	c.agree(0, func() { invoke(t, client, "p", false) })
}

// imaged calls until a replica's image holds a checkpoint, and returns the files of its disk.
func (c *cluster) imaged(client *pbft.Client, i int) string {
	c.t.Helper()
	dir := filepath.Join(c.dirs[i], "disk")
	eventually(c.t, "the image follows", func() bool {
		invoke(c.t, client, "p", false)
		return c.replicas[i].Status().Disk.Image > 0
	})
	return dir
}

// A disk that has lost, changed or forgotten something is found, and the replica comes
// back without harm.
func TestDisksThatLie(t *testing.T) {
	pbft.ShortSegments(t)
	for _, x := range []struct {
		what   string
		lie    func(t *testing.T, dir string)
		silent bool
	}{
		{"the journal is gone", func(t *testing.T, dir string) { remove(t, dir, "journal-") }, true},
		{"everything is gone", func(t *testing.T, dir string) { remove(t, dir, "") }, true},
		{"a page is overwritten", func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "pages"), 0, 1<<20) }, false},
		{"the table is overwritten", func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "table"), 4096, 1<<20) }, false},
		{"the image is gone", func(t *testing.T, dir string) { remove(t, dir, "pages"); remove(t, dir, "table") }, false},
	} {
		t.Run(x.what, func(t *testing.T) {
			limits := smallLimits()
			limits.CheckpointPeriod, limits.LogSize, limits.LogBytes = 16, 32, 256<<10
			c := startCluster(t, limits)
			client := c.client(c.enrolled(c.client(c.admin), ""))
			dir := c.imaged(client, 2)
			c.stop(2)
			x.lie(t, dir)
			log := c.logged(2)
			r := c.replicas[2]
			if silent := r.Status().SilentUntil != 0; silent != x.silent {
				t.Fatalf("silent: %v, want %v\n%s", silent, x.silent, log)
			}
			eventually(t, "it is back", func() bool {
				invoke(t, client, "p", false)
				s := r.Status()
				return s.SilentUntil == 0 && !s.Fetching && s.LastExecuted+2 >= c.replicas[1].Status().LastExecuted
			})
			c.stop(0)
			before := invoke(t, client, "i", false)
			if got := invoke(t, client, "r", true); got != before {
				t.Fatalf("got %d, want %d", got, before)
			}
		})
	}
}

func remove(t *testing.T, dir, prefix string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// overwrite inverts the bytes of a file from an offset on, at most n of them.
func overwrite(t *testing.T, name string, from, n int) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i < min(len(b), from+n); i++ {
		b[i] ^= 0x5a
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A directory that was copied yesterday and put back is found: what was promised since is
// not in it.
func TestYesterdaysDirectory(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	count(t, client, 3)
	c.stop(3)
	old := t.TempDir()
	copyDisk(t, old, filepath.Join(c.dirs[3], "disk"))
	c.start(3)
	count(t, client, 5*int(c.g.Limits.CheckpointPeriod))
	c.stop(3)
	remove(t, filepath.Join(c.dirs[3], "disk"), "")
	copyDisk(t, filepath.Join(c.dirs[3], "disk"), old)
	log := c.logged(3)
	if c.replicas[3].Status().SilentUntil == 0 {
		t.Fatalf("it votes, and does not know what it voted for:\n%s", log)
	}
	wantLine(t, log, "the journal is not whole", "an old copy was put back")
	eventually(t, "it votes again", func() bool {
		invoke(t, client, "p", false)
		return c.replicas[3].Status().SilentUntil == 0
	})
}

func copyDisk(t *testing.T, to, from string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// A replica that is stopped in order says how far its journal goes. So a journal that has lost its
// end since does not pass for one that a crash has torn.
func TestStoppedJournalIsWhole(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	disk, old := filepath.Join(c.dirs[2], "disk"), t.TempDir()
	level := func() {
		t.Helper()
		invoke(t, client, "p", false)
		eventually(t, "replica 2 has executed all", func() bool {
			return c.replicas[2].Status().LastExecuted == c.replicas[1].Status().LastExecuted
		})
	}
	level()
	if err := os.CopyFS(old, os.DirFS(disk)); err != nil {
		t.Fatal(err)
	}
	level()
	c.stop(2)
	if err := errors.Join(os.RemoveAll(disk), os.CopyFS(disk, os.DirFS(old))); err != nil {
		t.Fatal(err)
	}
	log := c.logged(2)
	if c.replicas[2].Status().SilentUntil == 0 {
		t.Errorf("an old journal was put back, and the replica trusts it:\n%s", log)
	}
}
