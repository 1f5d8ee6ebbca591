// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bfs/test/patience"
)

// A damage is a change of a replica's disk while the replica is down.
type damage struct {
	what string
	do   func(t *testing.T, disk string)
	says string // the log has it when the replica runs again; "": perhaps nothing was hit that it needs
}

const (
	journalBad = "the journal is not whole"
	imageBad   = "the image of the state is not as it was written"
)

func damages() (all []damage) {
	for i, where := range []string{"start", "middle", "end"} {
		all = append(all,
			damage{"the journal is overwritten at its " + where, func(t *testing.T, disk string) {
				overwriteEach(t, disk, "journal-*", i)
			}, ""},
			damage{"pages are overwritten at their " + where, func(t *testing.T, disk string) {
				overwriteEach(t, disk, "pages", i)
			}, ""},
			damage{"the table is overwritten at its " + where, func(t *testing.T, disk string) {
				overwriteEach(t, disk, "table", i)
			}, ""})
	}
	all[0].says, all[2].says = journalBad, imageBad // what lies there is always needed
	return append(all,
		damage{"the pages are cut short", func(t *testing.T, disk string) {
			truncate(t, filepath.Join(disk, "pages"))
		}, imageBad},
		damage{"the table is cut short", func(t *testing.T, disk string) {
			truncate(t, filepath.Join(disk, "table"))
		}, ""},
		damage{"the directory is removed", func(t *testing.T, disk string) { must(t, os.RemoveAll(disk)) }, journalBad})
}

// The group serves the right bytes after any damage to the disk of a stopped replica. The
// replica says what is wrong, and votes again after its start.
func TestDamagedDisks(t *testing.T) {
	g := startGroup(t, nil)
	g.image(2)
	for _, x := range damages() {
		t.Run(strings.ReplaceAll(x.what, " ", "_"), func(t *testing.T) {
			h := *g
			h.t = t
			h.suffer(2, x)
			g.next = h.next
		})
		if t.Failed() {
			return
		}
	}
	t.Run("counts", func(t *testing.T) {
		h := *g
		h.t = t
		h.counts(2)
	})
}

// suffer damages a replica's disk while the replica is down, and starts it again.
func (g *group) suffer(i int, x damage) {
	g.t.Helper()
	g.image(i)
	g.agree()
	r := g.Replicas[i]
	before := len(r.LogTail(1 << 20))
	r.Kill()
	x.do(g.t, g.disk(i))
	g.write(fileBytes)
	g.must(r.Start())
	g.must(r.Ready(g.t.Context()))
	g.check()
	g.agree()
	if log := r.LogTail(1 << 20)[before:]; !strings.Contains(log, x.says) {
		g.t.Fatalf("it does not say %q:\n%s", x.says, log)
	}
	g.counts(i)
}

// An old copy of a disk is put back. The replica has made promises since that it does not
// know. It says so, keeps silent, and votes again when the others have passed all that it
// can have promised.
func TestYesterdaysDisk(t *testing.T) {
	g := startGroup(t, nil)
	g.write(fileBytes)
	r, old := g.Replicas[1], t.TempDir()
	r.Terminate()
	must(t, os.CopyFS(old, os.DirFS(g.disk(1))))
	g.must(r.Restart(t.Context()))
	fence, err := os.ReadFile(filepath.Join(g.disk(1), "..", "fence"))
	g.must(err)
	patience.Until(t, "the fence is raised", func() bool {
		g.write(10)
		now, err := os.ReadFile(filepath.Join(g.disk(1), "..", "fence"))
		return err == nil && !bytes.Equal(now, fence)
	})
	g.agree()
	r.Kill()
	must(t, os.RemoveAll(g.disk(1)))
	must(t, os.CopyFS(g.disk(1), os.DirFS(old)))
	g.must(r.Restart(t.Context()))
	g.check()
	g.agree()
	log := r.LogTail(1000)
	if !strings.Contains(log, journalBad) || !strings.Contains(log, "an old copy was put back") {
		t.Fatalf("it does not say that its journal is old:\n%s", log)
	}
	g.counts(1)
}

// A replica whose whole directory is gone does not start. It names the command after
// which it starts anew.
func TestLostDirectory(t *testing.T) {
	g := startGroup(t, nil)
	g.write(fileBytes)
	r := g.Replicas[3]
	r.Terminate()
	state := filepath.Dir(g.disk(3))
	must(t, os.RemoveAll(state))
	must(t, r.Start())
	err := r.Ready(t.Context())
	config := filepath.Join(filepath.Dir(state), "replica.toml")
	if err == nil || !strings.Contains(err.Error(), "bfsd replica replace --config "+config) {
		t.Fatalf("it starts, or does not say what to do: %v", err)
	}
	r.Kill()
	g.command("replica", "replace", "--config", config)
	g.must(r.Restart(t.Context()))
	g.check()
	g.agree()
	g.counts(3)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// damagedBytes is the number of bytes that are overwritten at a place.
const damagedBytes = 64 << 10

// overwriteEach inverts bytes of all files that match a pattern and are not empty: at the start
// (0), in the middle (1) or at the end (2) of their contents.
func overwriteEach(t *testing.T, disk, pattern string, where int) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(disk, pattern))
	must(t, err)
	for _, name := range names {
		b, err := os.ReadFile(name)
		must(t, err)
		end := len(b)
		for end > 0 && b[end-1] == 0 {
			end--
		}
		from := max(0, min(end-damagedBytes, end*where/2))
		for i := from; i < min(end, from+damagedBytes); i++ {
			b[i] ^= 0x5a
		}
		must(t, os.WriteFile(name, b, 0o600))
	}
	if len(names) == 0 || slices.Contains(names, "") {
		t.Fatalf("there is no %s in %s", pattern, disk)
	}
}

// truncate cuts off the last half of a file.
func truncate(t *testing.T, name string) {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	must(t, os.Truncate(name, info.Size()/2))
}
