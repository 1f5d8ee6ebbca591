// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/pbfttest"
	"bfs/test/patience"
)

// backUp makes an archive of a cluster under a key.
func (c *cluster) backUp(key ed25519.PrivateKey, from pbft.ReplicaID) (string, *pbft.Certificate) {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "archive")
	k, err := c.client(key).Backup(deadline(c.t), path,
		pbft.BackupConfig{Tree: pbfttest.NewMemory(), From: from, Within: patience.For(time.Minute)})
	if err != nil {
		c.t.Fatal(err)
	}
	return path, k
}

func openArchive(t *testing.T, path string) *pbft.Archive {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	a, err := pbft.OpenArchive(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// nextEpoch is a cluster of a group's next epoch that begins with an archive: other
// members, the same administrator.
func (c *cluster) nextEpoch(a *pbft.Archive) *cluster {
	c.t.Helper()
	next := newCluster(c.t, c.g.Limits, c.transport)
	raw := *next.g
	raw.Name, raw.Epoch, raw.Administrator = c.g.Name, c.g.Epoch+1, c.g.Administrator
	next.admin = c.admin
	var err error
	if raw.Origin, err = pbft.NewOrigin(c.g, a, next.service(0), nil); err != nil {
		c.t.Fatal(err)
	}
	if next.g, err = pbft.CheckGroup(raw); err != nil {
		c.t.Fatal(err)
	}
	return next
}

// restore puts an archive into a replica's directory, which is that of a replica that has
// never run.
func (c *cluster) restore(i int, a *pbft.Archive) error {
	if err := pbft.MarkFresh(c.dirs[i]); err != nil {
		c.t.Fatal(err)
	}
	return pbft.Restore(c.config(i), a, nil)
}

func (c *cluster) config(i int) pbft.ReplicaConfig {
	return pbft.ReplicaConfig{Group: c.g, Self: pbft.ReplicaID(i), Key: c.keys[i], Directory: c.dirs[i],
		Service: c.service(i), Transport: c.transport}
}

// The next epoch has all that was answered before the backup, also what no checkpoint of
// an idle group holds yet: the last few operations, the clients, and which of their
// requests were executed. What was executed after the backup is not. What the old epoch
// said counts for nothing.
func TestNextEpoch(t *testing.T) {
	c := startCluster(t, smallLimits())
	key := c.enrolled(c.client(c.admin), "rights")
	old := c.client(key)
	count(t, old, 4)
	sum := invoke(t, old, "i", false)
	path, k := c.backUp(c.admin, 3)
	if err := pbft.VouchedFor(k, c.g.Administrator, pbft.Digest{}); err != nil {
		t.Fatal(err)
	}
	count(t, old, 3) // lost
	for i := range c.replicas {
		c.stop(i)
	}

	a := openArchive(t, path)
	next := c.nextEpoch(a)
	for i := range 4 {
		if i == 2 {
			if err := pbft.MarkFresh(next.dirs[i]); err != nil {
				t.Fatal(err)
			}
			if err := pbft.OpenDirectory(deadline(t), next.config(i)); !errors.Is(err, pbft.ErrNotRestored) {
				t.Fatalf("a replica without the state may start: %v", err)
			}
		}
		for range 2 { // the first may have been interrupted
			if err := next.restore(i, a); err != nil {
				t.Fatal(err)
			}
		}
		if err := pbft.OpenDirectory(deadline(t), next.config(i)); err != nil {
			t.Fatal(err)
		}
		if err := next.restore(i, a); !errors.Is(err, pbft.ErrMemory) {
			t.Fatalf("a replica that may have started was restored: %v", err)
		}
		if s := next.start(i).Status(); s.Stable != a.Seq || s.LastExecuted != a.Seq || s.SilentUntil != 0 {
			t.Fatalf("replica %d begins with %+v, want checkpoint %d", i, s, a.Seq)
		}
	}
	client := next.client(key)
	if got := invoke(t, client, "r", true); got != sum {
		t.Fatalf("the counter is %d, want %d", got, sum)
	}
	rights, err := client.Invoke(deadline(t), []byte("w"), true)
	if err != nil || string(rights) != "rights" {
		t.Fatalf("got %q, %v", rights, err)
	}
	count(t, client, 2*int(c.g.Limits.CheckpointPeriod))
	next.agree(a.Seq, func() { invoke(t, client, "p", false) })
	next.readsNothing(c.keys[0]) // a member of the old epoch

	// A replica that has lost its directory, and is given the archive again, does not
	// pass for one that has never run.
	next.stop(3)
	next.dirs[3] = t.TempDir()
	if err := pbft.Restore(next.config(3), a, nil); !errors.Is(err, pbft.ErrNoMark) {
		t.Errorf("restored without a mark: %v", err)
	}
	if err := next.restore(3, a); err != nil {
		t.Fatal(err)
	}
	if err := pbft.OpenDirectory(deadline(t), next.config(3)); !errors.Is(err, pbft.ErrForgotten) {
		t.Errorf("a replica that had run started from the archive: %v", err)
	}
}

// A replica restarts in the new epoch, one that has lost its image fetches it, and one
// that never got the archive is made ready like one whose disk is lost.
func TestNextEpochRestarts(t *testing.T) {
	c := startCluster(t, smallLimits())
	key := c.enrolled(c.client(c.admin), "")
	sum := invoke(t, c.client(key), "i", false)
	path, _ := c.backUp(c.keys[1], 1)
	a := openArchive(t, path)
	err := pbft.VouchedFor(&a.Certificate, c.g.Administrator, pbft.Digest{})
	if !errors.Is(err, pbft.ErrNotVouchedFor) {
		t.Fatalf("nobody signed it: %v", err)
	}
	next := c.nextEpoch(a)
	for i := range 3 {
		if err := next.restore(i, a); err != nil {
			t.Fatal(err)
		}
		next.start(i)
	}
	fence, err := pbft.Replace(deadline(t), pbft.ReplicaConfig{Group: next.g, Self: 3, Key: next.keys[3],
		Directory: next.dirs[3], Transport: next.transport})
	if err != nil {
		t.Fatal(err)
	}
	client := next.client(key)
	next.start(3)
	next.agree(fence, func() { invoke(t, client, "r", false) })
	next.stop(1)
	remove(t, filepath.Join(next.dirs[1], "disk"), "pages")
	remove(t, filepath.Join(next.dirs[1], "disk"), "table")
	next.start(1)
	for life := range uint64(2) {
		for i := range 4 {
			next.stop(i)
			next.start(i)
		}
		if got := invoke(t, client, "p", false); got != sum+life+1 {
			t.Fatalf("the counter is %d, want %d", got, sum+life+1)
		}
	}
	next.stop(0)
	next.agree(a.Seq, func() { invoke(t, client, "p", false) })
}

// A replica that lies about pages is noticed, and so is one that does not answer; an
// administrator's client reads of the next.
func TestBackupOfLiars(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	c.service = func(i int) pbft.Service {
		if i == 2 {
			return lyingTally{newTally(c.g)}
		}
		return newTally(c.g)
	}
	for i := range c.replicas {
		c.start(i)
	}
	count(t, c.client(c.enrolled(c.client(c.admin), "")), 20)
	pbft.PushAtOnce(t)
	path, _ := c.backUp(c.admin, 2)
	if err := openArchive(t, path).Check(pbfttest.NewMemory(), nil); err != nil {
		t.Fatal(err)
	}
	c.stop(3)
	path, _ = c.backUp(c.admin, 3)
	if err := openArchive(t, path).Check(pbfttest.NewMemory(), nil); err != nil {
		t.Fatal(err)
	}
}

// lyingTally shows others pages that are not its own.
type lyingTally struct{ tally }

func (s lyingTally) State() pbft.State { return lyingMemory{s.Memory} }

type lyingMemory struct{ *pbfttest.Memory }

func (m lyingMemory) PageAt(n pbft.SeqNum, p pbft.PageNum) ([]byte, error) {
	b, err := m.Memory.PageAt(n, p)
	return append([]byte{b[0] + 1}, b[1:]...), err
}

// A client that is neither the administrator nor a member reads nothing, whatever its rights.
func TestClientsReadNoCheckpoints(t *testing.T) {
	c := startCluster(t, smallLimits())
	key := c.enrolled(c.client(c.admin), "")
	count(t, c.client(key), 5)
	c.readsNothing(key)
}

// readsNothing checks that the holder of a key cannot make a backup.
func (c *cluster) readsNothing(key ed25519.PrivateKey) {
	c.t.Helper()
	// The time within which this fails is no limit: it always passes.
	cfg := pbft.BackupConfig{Tree: pbfttest.NewMemory(), Within: 200 * time.Millisecond}
	if _, err := c.client(key).Backup(deadline(c.t), filepath.Join(c.t.TempDir(), "x"), cfg); err == nil {
		c.t.Error("it read the state")
	}
}

// Verify tells what is wrong with the directory of a replica that has stopped, and
// changes nothing in it.
func TestVerifyDirectory(t *testing.T) {
	pbft.ShortSegments(t)
	limits := smallLimits()
	limits.CheckpointPeriod, limits.LogSize, limits.LogBytes = 16, 32, 256<<10
	c := startCluster(t, limits)
	c.imaged(c.client(c.enrolled(c.client(c.admin), "")), 2)
	if _, err := c.verify(c.dirs[2]); err == nil {
		t.Error("a replica that runs was looked at")
	}
	stable := c.replicas[2].Status().Stable
	c.stop(2)
	for what, x := range map[string]struct {
		lie  func(t *testing.T, dir string)
		want string
	}{
		"nothing":                 {func(*testing.T, string) {}, ""},
		"the journal is gone":     {func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "disk"), "journal-") }, "records, and had"},
		"a page is overwritten":   {func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "disk", "pages"), 5, 1) }, "is not as it was written"},
		"the table's head":        {func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "disk", "table"), 30, 1) }, "the image in"},
		"the fence is gone":       {func(t *testing.T, dir string) { remove(t, dir, "fence") }, "does not know how far it may have voted"},
		"the counter is gone":     {func(t *testing.T, dir string) { remove(t, dir, "signature.counter") }, "what it may have signed"},
		"everything else is gone": {func(t *testing.T, dir string) { _ = os.RemoveAll(filepath.Join(dir, "disk")) }, "the journal and the image are gone"},
	} {
		dir := t.TempDir()
		copyDisk(t, dir, c.dirs[2])
		x.lie(t, dir)
		before := treeDigest(t, dir)
		r, err := c.verify(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.Problems, "\n"); (got == "") != (x.want == "") || !strings.Contains(got, x.want) {
			t.Errorf("%s: got %q, want %q", what, got, x.want)
		}
		if r, err := c.verifyKept(dir, "socket"); err != nil || what == "the counter is gone" && len(r.Problems) > 0 {
			t.Errorf("%s, and there is a keeper, which has a counter: got %v, %q", what, err, r.Problems)
		}
		switch far := []pbft.SeqNum{r.Image.Seq, r.Committed, r.Voted, r.Fence}; {
		case what == "nothing" && (r.Committed < stable || !slices.IsSorted(far)):
			t.Errorf("image, state, votes and fence %v, want them to rise, and the state from %d on", far, stable)
		case what == "the journal is gone" && (r.Committed != r.Image.Seq || r.Voted != r.Image.Seq):
			t.Errorf("without a journal: image, state, votes and fence %v", far)
		}
		if treeDigest(t, dir) != before {
			t.Errorf("%s: looking has changed the files", what)
		}
	}
}

func (c *cluster) verify(dir string) (*pbft.DirectoryReport, error) { return c.verifyKept(dir, "") }

// verifyKept verifies the directory of a replica that has a keeper at a socket.
func (c *cluster) verifyKept(dir, socket string) (*pbft.DirectoryReport, error) {
	return pbft.VerifyDirectory(pbft.ReplicaConfig{
		Group: c.g, Self: 2, Directory: dir, Keeper: socket, Service: c.service(2),
	})
}

// treeDigest is over the names and contents of all files in a directory.
func treeDigest(t *testing.T, dir string) [sha256.Size]byte {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		h.Write(append([]byte(path), b...))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// reach believes one replica no further than a window above what f+1 say.
func TestReach(t *testing.T) {
	for _, x := range []struct {
		told []pbft.SeqNum
		want pbft.SeqNum
	}{
		{[]pbft.SeqNum{7, 7, 7}, 7},
		{[]pbft.SeqNum{7, 9, 8}, 9},
		{[]pbft.SeqNum{7, 1 << 40, 8}, 16},
		{[]pbft.SeqNum{0, 0, 0}, 0},
	} {
		if got := pbft.Reach(x.told, 2, 8); got != x.want {
			t.Errorf("%v: got %d, want %d", x.told, got, x.want)
		}
	}
}

// A checkpoint is kept while a backup reads it, even if many others become stable
// meanwhile. If it takes too much memory the backup begins again. When no backup reads it
// any more it is forgotten.
func TestLoan(t *testing.T) {
	for _, x := range []struct {
		pages int
		kept  bool
	}{{1 << 20, true}, {3, false}} {
		pbft.LoanPages(t, x.pages)
		c := newCluster(t, smallLimits(), pbft.TransportPlain)
		c.service = func(int) pbft.Service { return recordedTally{newTally(c.g)} }
		for i := range c.replicas {
			c.start(i)
		}
		client := c.client(c.enrolled(c.client(c.admin), ""))
		count(t, client, 20)
		path := filepath.Join(t.TempDir(), "archive")
		begun := 0
		cfg := pbft.BackupConfig{Tree: pbfttest.NewMemory(), From: 1, Within: patience.For(time.Minute),
			Progress: func(done, _ int) {
				if done == 0 {
					begun++
				}
				if begun <= 2 { // the group goes on by some windows
					count(t, client, 5*int(c.g.Limits.LogSize))
				}
			}}
		if _, err := c.client(c.admin).Backup(deadline(t), path, cfg); err != nil {
			t.Fatal(err)
		}
		if err := openArchive(t, path).Check(pbfttest.NewMemory(), nil); err != nil {
			t.Fatal(err)
		}
		if (begun == 1) != x.kept {
			t.Errorf("with room for %d pages the backup began %d times", x.pages, begun)
		}
	}
}

// recordedTally says how many pages its checkpoints hold: one each.
type recordedTally struct{ tally }

func (s recordedTally) State() pbft.State { return recordedMemory{s.Memory} }

type recordedMemory struct{ *pbfttest.Memory }

func (m recordedMemory) Recorded() int { return m.Checkpoints() }
