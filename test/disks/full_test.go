// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"bfs/test/patience"
)

// roomBytes is the size of each small file system. It has room for the journal, the
// reserve and the image of a small state.
const roomBytes = 224 << 20

// startSmall starts a group in which some replicas have a small file system of their own.
func startSmall(t *testing.T, small ...int) *group {
	t.Helper()
	return startGroup(t, func(bundles string) error {
		for _, i := range small {
			state := filepath.Join(bundles, fmt.Sprintf("host%d", i), "state")
			old := t.TempDir()
			if err := os.CopyFS(old, os.DirFS(state)); err != nil {
				return err
			}
			if err := unix.Mount("tmpfs", state, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", roomBytes)); err != nil {
				t.Skipf("NOT RUN: no small file system can be mounted (needs root): %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
			if err := os.CopyFS(state, os.DirFS(old)); err != nil {
				return err
			}
		}
		return nil
	})
}

// ballast is the file that fills replica i's file system.
func (g *group) ballast(i int) string { return filepath.Join(filepath.Dir(g.disk(i)), "ballast") }

// fill fills a file system with a foreign file.
func (g *group) fill(i int) {
	g.t.Helper()
	f, err := os.Create(g.ballast(i))
	g.must(err)
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err = f.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
		} else if err != nil {
			g.t.Fatal(err)
		}
	}
}

// full counts the replicas that report a full disk.
func (g *group) full() (n int) {
	for _, r := range g.status() {
		if r.Status != nil && r.Status.Disk.Full != "" && strings.HasPrefix(r.Problem, "disk full") {
			n++
		}
	}
	return n
}

// A replica whose file system fills stands aside and says so. It takes part again when
// there is room.
func TestFullFileSystem(t *testing.T) {
	g := startSmall(t, 1)
	g.write(fileBytes)
	g.fill(1)
	patience.Until(t, "it stands aside", func() bool {
		g.write(4 * fileBytes)
		return g.full() == 1
	})
	if log := g.Replicas[1].LogTail(1000); !strings.Contains(log, "disk is full") || !strings.Contains(log, g.disk(1)) {
		t.Fatalf("it does not say where room is to be made:\n%s", log)
	}
	g.check()
	must(t, os.Remove(g.ballast(1)))
	g.agree()
	g.counts(1)
}

// When all file systems fill, a call waits, and no answered call is lost. The call ends
// when there is room, also if all replicas were killed.
func TestFullFileSystems(t *testing.T) {
	g := startSmall(t, 0, 1, 2, 3)
	for _, killed := range []bool{false, true} {
		for i := range 4 {
			g.fill(i)
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					g.write(4 * fileBytes)
				}
			}
		}()
		patience.Until(t, "more than f stand aside", func() bool { return g.full() > 1 })
		for i, r := range g.Replicas {
			if killed {
				r.Kill()
			}
			must(t, os.Remove(g.ballast(i)))
		}
		close(stop)
		for _, r := range g.Replicas {
			if killed {
				must(t, r.Restart(t.Context()))
			}
		}
		<-done
		g.check()
		g.agree()
	}
	g.spend()
}

// spend makes replicas use their reserve by removing and writing files, while their file
// systems stay full.
func (g *group) spend() {
	g.t.Helper()
	for i, r := range g.Replicas {
		g.fill(i)
		r.Kill()
		g.reserve(i, "spend")
	}
	g.restart()
	g.must(g.files.Remove(fmt.Sprintf("file-%d-%d", 4*fileBytes, 0)))
	delete(g.wrote, fmt.Sprintf("file-%d-%d", 4*fileBytes, 0))
	g.write(1000)
	g.check()
	for i, r := range g.Replicas {
		must(g.t, os.Remove(g.ballast(i)))
		r.Kill()
		g.reserve(i, "keep")
	}
	g.restart()
	g.check()
	g.agree()
}

// restart starts all replicas before it waits for any, because a replica may need others
// to be ready.
func (g *group) restart() {
	g.t.Helper()
	for _, r := range g.Replicas {
		g.must(r.Start())
	}
	for _, r := range g.Replicas {
		g.must(r.Ready(g.t.Context()))
	}
}

// reserve adds a line to a replica's configuration, or changes it.
func (g *group) reserve(i int, what string) {
	g.t.Helper()
	file := filepath.Join(g.Dir, "group", fmt.Sprintf("host%d", i), "replica.toml")
	text, err := os.ReadFile(file)
	g.must(err)
	kept, _, _ := strings.Cut(string(text), "disk_reserve")
	g.must(os.WriteFile(file, []byte(kept+fmt.Sprintf("disk_reserve = %q\n", what)), 0o600))
}
