// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bfs/pkg/pbft"
)

// The contents of a directory decide whether its replica may start: all that it must
// remember, or the mark of a replica that has never run. A directory that was lost, in
// whole or in part, holds neither.
func TestOpenDirectory(t *testing.T) {
	g, keys, _ := newGroup(4)
	write := func(names ...string) func(string) {
		return func(dir string) {
			for _, name := range names {
				if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 48), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	counter := func(first byte) func(string) {
		return func(dir string) {
			err := os.WriteFile(filepath.Join(dir, "signature.counter"), []byte{first, 0, 0, 0, 0, 0, 0, 0}, 0o600)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	mark := func(dir string) {
		if err := pbft.MarkFresh(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what string
		lay  []func(dir string)
		want string // "": it may start
	}{
		{"a first start", []func(string){mark}, ""},
		{"a later start", []func(string){write("fence", "signature.counter")}, ""},
		{"a bundle copied over it", []func(string){write("fence", "signature.counter"), mark}, ""},
		{"a first start that ended in between", []func(string){mark, counter(1)}, ""},
		{"an empty directory", nil, "no mark"},
		{"no fence", []func(string){counter(9)}, "no fence"},
		{"no fence, and a bundle copied over it", []func(string){mark, counter(9)}, "no fence"},
		{"no counter", []func(string){write("fence"), mark}, "no signature.counter"},
	} {
		dir := t.TempDir()
		for _, lay := range c.lay {
			lay(dir)
		}
		err := pbft.OpenDirectory(t.Context(), pbft.ReplicaConfig{Group: g, Self: 1, Key: keys[1], Directory: dir})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.want != "" && (!errors.Is(err, pbft.ErrForgotten) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.what, err, c.want)
		case c.want == "":
			if _, err := os.Stat(filepath.Join(dir, "fresh")); !os.IsNotExist(err) {
				t.Errorf("%s: the mark is still there", c.what)
			}
			if err := os.Remove(filepath.Join(dir, "fence")); err != nil {
				t.Errorf("%s: no fence was written: %v", c.what, err)
			}
		}
	}
}

// A recovery that a keeper has begun needs no memory, unless somebody runs under the
// replica's address. What it writes lets no other start begin, and may be replaced.
func TestOpenDirectoryForARecovery(t *testing.T) {
	g, _, _ := newGroup(4)
	for _, lost := range []struct {
		what string
		lay  func(dir string) error
	}{
		{"nothing", func(string) error { return nil }},
		{"no directory", os.Remove},
		{"a fence that was cut", func(dir string) error { return os.WriteFile(filepath.Join(dir, "fence"), []byte("cut"), 0o600) }},
	} {
		dir := t.TempDir()
		if err := lost.lay(dir); err != nil {
			t.Fatal(err)
		}
		cfg := pbft.ReplicaConfig{Group: g, Self: 1, Keeper: "socket", Directory: dir}
		if err := pbft.OpenDirectory(t.Context(), cfg); !errors.Is(err, pbft.ErrForgotten) {
			t.Errorf("%s: a start that is no recovery may begin: %v", lost.what, err)
		}
		recovery := cfg
		recovery.Recover = true
		for range 2 { // and again, before it has begun
			if err := pbft.OpenDirectory(t.Context(), recovery); err != nil {
				t.Errorf("%s: a recovery may not begin: %v", lost.what, err)
			}
		}
		if err := pbft.OpenDirectory(t.Context(), cfg); !errors.Is(err, pbft.ErrForgotten) {
			t.Errorf("%s: a start that is no recovery may follow: %v", lost.what, err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	go func() {
		if c, err := taken.Accept(); err == nil {
			_, _ = c.Write([]byte{1})
		}
	}()
	other := *g
	other.Members = slices.Clone(g.Members)
	other.Members[1].Address = taken.Addr().String()
	err = pbft.OpenDirectory(t.Context(), pbft.ReplicaConfig{Group: &other, Self: 1, Keeper: "socket",
		Directory: t.TempDir(), Recover: true})
	if !errors.Is(err, pbft.ErrRuns) {
		t.Errorf("another replica answers at this one's address: %v", err)
	}
}

// count makes a client count n times.
func count(t testing.TB, client *pbft.Client, n int) {
	t.Helper()
	for range n {
		invoke(t, client, "i", false)
	}
}

// A bundle that is copied again where a directory was lost looks like a first start. The
// others know better.
func TestFirstStartInAGroupThatHasRun(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	open := func() error {
		dir := t.TempDir()
		if err := pbft.MarkFresh(dir); err != nil {
			t.Fatal(err)
		}
		return pbft.OpenDirectory(deadline(t),
			pbft.ReplicaConfig{Group: c.g, Self: 3, Key: c.keys[3], Directory: dir, Transport: c.transport})
	}
	c.stop(3)
	if err := open(); err != nil {
		t.Fatalf("before the first checkpoint: %v", err)
	}
	count(t, client, 2*int(c.g.Limits.CheckpointPeriod))
	eventually(t, "a checkpoint is stable", func() bool {
		for _, r := range c.replicas {
			if r != nil && r.Status().Stable == 0 {
				return false
			}
		}
		return true
	})
	if err := open(); !errors.Is(err, pbft.ErrForgotten) || !strings.Contains(err.Error(), "has come to checkpoint") {
		t.Fatalf("the group has run: got %v", err)
	}
}

// A primary that is told to stop hands over: the next view is there before it stops, and
// calls go on. A backup has nothing to hand over.
func TestHandOver(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	count(t, client, 3)
	if err := c.replicas[2].HandOver(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if s := c.replicas[2].Status(); s.View != 0 {
		t.Fatalf("a backup handed over: view %d", s.View)
	}
	if err := c.replicas[0].HandOver(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if s := c.replicas[0].Status(); s.View != 1 || !s.Active {
		t.Fatalf("handed over, and in view %d, active %v", s.View, s.Active)
	}
	c.stop(0)
	count(t, client, 3)
	eventually(t, "the others are in the next view", func() bool {
		for _, r := range c.replicas[1:] {
			if s := r.Status(); s.View != 1 || !s.Active {
				return false
			}
		}
		return true
	})
}

// A primary does not wait for ever if no other replica can take over.
func TestHandOverAlone(t *testing.T) {
	c := startCluster(t, smallLimits())
	c.stop(1)
	c.stop(2)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // not a limit: it is always reached
	defer cancel()
	if err := c.replicas[0].HandOver(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want to be told that the others have not begun", err)
	}
	if err := c.replicas[0].Live(); err != nil {
		t.Errorf("in a view change for good: %v: it need not be started anew", err)
	}
	c.stop(0)
}

// BenchmarkHandOver makes the primary hand over and stop, and measures how long a client
// waits for a write that it began at that moment; compare BenchmarkPrimaryKilled.
func BenchmarkHandOver(b *testing.B) {
	c, client := pagedCluster(b, false)
	c.startPaged(3)
	fill(b, client, *viewStateFlag)
	var waits, hands []time.Duration
	for range b.N {
		pass(b, client, 3*c.g.Limits.LogSize)
		c.level(client)
		old := int(c.replicas[0].Status().Primary)
		start, handed := time.Now(), make(chan time.Duration)
		go func() {
			if err := c.replicas[old].HandOver(context.Background()); err != nil {
				b.Error(err)
			}
			took := time.Since(start)
			c.stop(old)
			handed <- took
		}()
		mustWrite(b, client, write(0, 1, 1, 1))
		waits = append(waits, time.Since(start))
		hands = append(hands, <-handed)
		mustWrite(b, client, write(0, 1, 1, 2))
		c.startPaged(old)
	}
	b.ReportMetric(milliseconds(waits, 50), "p50-ms")
	b.ReportMetric(milliseconds(waits, 100-1), "max-ms")
	b.ReportMetric(milliseconds(hands, 50), "hand-over-ms")
	b.ReportMetric(0, "ns/op")
}

// A first start that the others do not answer, for they speak another transport, asks
// again and says so, until it is told to stop.
func TestFirstStartAsksAgain(t *testing.T) {
	c := startCluster(t, smallLimits())
	c.stop(3)
	pbft.AskWithin(t, 10*time.Millisecond)
	ctx, cancel := context.WithCancel(deadline(t))
	lines := 0
	log := slog.New(slog.NewTextHandler(writer(func(b []byte) {
		if strings.Contains(string(b), "asks again") {
			if lines++; lines == 2 {
				cancel()
			}
		}
	}), nil))
	dir := t.TempDir()
	if err := pbft.MarkFresh(dir); err != nil {
		t.Fatal(err)
	}
	cfg := pbft.ReplicaConfig{Group: c.g, Self: 3, Key: c.keys[3], Directory: dir,
		Transport: pbft.TransportTLS, Logger: log}
	if err := pbft.OpenDirectory(ctx, cfg); err == nil || lines < 2 {
		t.Fatalf("got %v after %d lines in the log", err, lines)
	}
}

// A writer hands on what is written.
type writer func([]byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}

// Something that takes connections in the place of replicas that have yet to start does
// not keep the first of them from starting.
func TestFirstStartBehindProxies(t *testing.T) {
	g, keys, _ := newGroup(4)
	for _, m := range g.Members[1:] {
		l, err := net.Listen("tcp", m.Address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close()
			}
		}()
	}
	dir := t.TempDir()
	if err := pbft.MarkFresh(dir); err != nil {
		t.Fatal(err)
	}
	cfg := pbft.ReplicaConfig{Group: g, Self: 0, Key: keys[0], Directory: dir, Transport: pbft.TransportPlain}
	if err := pbft.OpenDirectory(t.Context(), cfg); err != nil {
		t.Error(err)
	}
}
