// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/probe"
	"bfs/pkg/pbft"
	"bfs/test/apart"
	"bfs/test/cluster"
	"bfs/test/patience"
)

func TestMain(m *testing.M) { apart.Main(m, cluster.RemoveBinaries) }

const lost = 2

// A replica loses its disk while a client writes. Replaced, it catches up, is silent
// until the group is past all it can have voted for, and then the group needs it: it
// stays alive when another is killed.
func TestReplace(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	defer cancel()
	g := cluster.ForTest(t, cluster.Config{})
	relay, err := g.AddRelay(ctx, cluster.Client{InsecurePorts: true})
	if err != nil {
		t.Fatal(err)
	}
	w := startWriter(ctx, t, fmt.Sprintf("127.0.0.1:%d", relay.Port), relay.Export)
	home := filepath.Join(g.Dir, "group", fmt.Sprintf("host%d", lost))
	file := filepath.Join(home, "replica.toml")
	c, err := config.LoadReplica(file)
	if err != nil {
		t.Fatal(err)
	}
	until(ctx, t, c.Group, lost, "has voted", func(s *pbft.Status) bool { return s.Stable > 0 })

	if _, err := g.Command(ctx, "bfsd", "replica", "replace", "--config", file, "--timeout", "5s"); err == nil {
		t.Fatal("a replica that runs was replaced")
	}
	g.Replicas[lost].Kill()
	if err := os.RemoveAll(c.Directory); err != nil {
		t.Fatal(err)
	}
	said, err := g.Command(ctx, "bfsd", "replica", "replace", "--config", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(strings.TrimSpace(said))
	if _, err := g.Command(ctx, "bfsd", "replica", "replace", "--config", file); err == nil {
		t.Error("a directory that was made ready was made ready again")
	}
	if err := g.Replicas[lost].Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Replicas[lost].Ready(ctx); err != nil {
		t.Fatal(err)
	}
	// The group may be past the fence before we can ask, so only the replica's log shows
	// that it was silent at all.
	if log := g.Replicas[lost].LogTail(50); !strings.Contains(log, "it only listens until a checkpoint is stable") {
		t.Errorf("a replica that was replaced did not begin by listening only; its log:\n%s", log)
	}
	fence := fenceIn(t, said)
	voting := until(ctx, t, c.Group, lost, "votes", func(s *pbft.Status) bool { return s.SilentUntil == 0 })
	if voting.Stable < fence {
		t.Errorf("votes at checkpoint %d, want silence until %d", voting.Stable, fence)
	}
	t.Logf("silent until %d, votes again at checkpoint %d", fence, voting.Stable)

	g.Replicas[0].Kill() // three are left, and nothing is executed without the one replaced
	w.more(20)
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// fenceIn is the checkpoint that replica replace names.
func fenceIn(t *testing.T, said string) pbft.SeqNum {
	t.Helper()
	_, after, _ := strings.Cut(said, "when checkpoint ")
	var n pbft.SeqNum
	if _, err := fmt.Sscan(after, &n); err != nil || n == 0 {
		t.Fatalf("replica replace said %q: want the number of a checkpoint in it", said)
	}
	return n
}

// until polls a replica's account of itself until it is as it should be.
func until(ctx context.Context, t *testing.T, g *config.Group, i int, what string,
	ok func(*pbft.Status) bool) *pbft.Status {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last *pbft.Status
	for {
		if s, err := ask(ctx, g.Admin[i]); err == nil {
			if last = s; ok(s) {
				return s
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: replica %d %s; last %+v", i, what, last)
		}
	}
}

func ask(ctx context.Context, address string) (*pbft.Status, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status", nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	s := new(pbft.Status)
	return s, json.NewDecoder(answer.Body).Decode(s)
}

// A writer writes files one after another, and reads each back, until it is stopped.
type writer struct {
	ended   chan struct{}
	cancel  context.CancelFunc
	written chan struct{} // after each
	err     error         // before ended is closed
}

func startWriter(ctx context.Context, t *testing.T, address, export string) *writer {
	t.Helper()
	mounted, err := probe.Mount(ctx, address, export)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &writer{ended: make(chan struct{}), cancel: cancel, written: make(chan struct{}, 1)}
	go func() {
		defer close(w.ended)
		defer mounted.Close()
		for n := 0; ctx.Err() == nil && w.err == nil; n++ {
			// Half a write is no fault of the group: the last one is finished.
			w.err = writeOne(context.WithoutCancel(ctx), mounted, n)
			select {
			case w.written <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() { _ = w.stop() })
	return w
}

func writeOne(ctx context.Context, c *probe.Client, n int) error {
	text := fmt.Appendf(nil, "this is file %d", n)
	f, err := c.Write(ctx, fmt.Sprintf("f%d", n), text)
	if err != nil {
		return fmt.Errorf("write %d: %w", n, err)
	}
	back, err := c.Read(ctx, f)
	if err == nil && string(back) != string(text) {
		err = fmt.Errorf("got %q", back)
	}
	if err != nil {
		return fmt.Errorf("read %d: %w", n, err)
	}
	return nil
}

// more waits until this many more files are written, or the writer has failed.
func (w *writer) more(files int) {
	for range files + 1 {
		select {
		case <-w.written:
		case <-w.ended:
			return
		}
	}
}

func (w *writer) stop() error {
	w.cancel()
	<-w.ended
	return w.err
}
