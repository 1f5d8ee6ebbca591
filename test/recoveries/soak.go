// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"bfs/pkg/bfs"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
	"bfs/test/cluster"
	"bfs/test/patience"
)

const (
	replicas = 4
	workers  = 3

	// Bounds of waits, on a quiet machine.
	recoverWithin = time.Minute
	moveWithin    = time.Minute // between two calls of a worker that end
	lookEvery     = 20 * time.Millisecond
)

// A soak is one run of this program.
type soak struct {
	rounds int
	base   int // MiB of files that are there before the first round
	seed   uint64
	only   string   // the intrusion of all later rounds; "": they are drawn
	plan   []string // the intrusions of the first rounds, where they are not to be drawn
	dir    string
	until  time.Time // when to end early; zero: never
	say    func(format string, args ...any)

	group   *cluster.Group
	admins  []string
	client  *pbft.Client
	files   *bfs.FS
	old     *oldFiles
	workers []*worker
	chance  *rand.Rand
	done    tally
}

// A tally holds the figures of a soak.
type tally struct {
	rounds    int
	kinds     map[string]int // rounds with each intrusion
	corrupt   int            // recoveries that reported a corrupt state
	stopped   int            // replicas that found that their root was false, and stopped themselves
	restarts  int            // recoveries begun again, after the replica found its memory false
	replaced  int            // replicas that had lost their fence
	longest   time.Duration  // a recovery, from the start of the process
	heldStill int            // times that another replica stood still while all files were read
}

func (s *soak) run(ctx context.Context) (err error) {
	s.chance = rand.New(rand.NewPCG(s.seed, 0))
	s.done.kinds = map[string]int{}
	began := time.Now()
	if err := s.begin(ctx); err != nil {
		s.end()
		return err
	}
	busy, rest := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, w := range s.workers {
		all.Go(func() { w.run(busy) })
	}
	err = s.goOn(ctx)
	rest()
	all.Wait()
	if err == nil {
		err = s.readAll(ctx)
	}
	calls := s.calls()
	s.end()
	s.say("%d rounds in %v, seed %d, %d MiB: %s; %d calls",
		s.done.rounds, time.Since(began).Round(time.Second), s.seed, s.base, s.done, calls)
	return err
}

func (t tally) String() string {
	return fmt.Sprintf("intrusions %v, %d recoveries found something corrupt, %d replicas stopped "+
		"themselves, %d recoveries were begun again, %d replicas were replaced, the longest recovery took "+
		"%v, all was read with another replica standing still %d times",
		t.kinds, t.corrupt, t.stopped, t.restarts, t.replaced, t.longest.Round(time.Millisecond), t.heldStill)
}

// goOn runs one round after the other.
func (s *soak) goOn(ctx context.Context) error {
	for n := range s.rounds {
		if !s.until.IsZero() && time.Now().After(s.until) {
			return nil
		}
		x := s.draw(n)
		if err := s.round(ctx, x); err != nil {
			return fmt.Errorf("round %d, replica %d, intrusion %q: %w", n, x.victim, x.kind, err)
		}
		if s.done.rounds++; s.done.rounds%10 == 0 {
			s.say("round %d: %s", s.done.rounds, s.done)
		}
	}
	return nil
}

// begin starts the group and its clients, and writes the old files, which the intruder changes.
func (s *soak) begin(ctx context.Context) (err error) {
	if s.group, err = cluster.Start(ctx, s.dir, cluster.Config{Replicas: replicas}); err != nil {
		return err
	}
	if s.admins, err = cluster.ReadAdmins(s.group.File(), replicas); err != nil {
		return err
	}
	if err := s.connect(ctx, s.group.File()); err != nil {
		return err
	}
	if s.old, err = writeOldFiles(s.files, s.base, s.seed); err != nil {
		return err
	}
	for i := range workers {
		w := &worker{number: i, files: s.files, old: s.old, chance: rand.New(rand.NewPCG(s.seed, uint64(i+1)))}
		if err := s.files.Mkdir(w.directory(), 0o755); err != nil {
			return err
		}
		s.workers = append(s.workers, w)
	}
	return nil
}

// connect enrols a client and mounts the export.
func (s *soak) connect(ctx context.Context, groupFile string) error {
	const stateSize = 8 << 30 // init's default
	group, err := cluster.ReadGroup(groupFile, stateSize)
	if err != nil {
		return err
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	_, err = s.group.Command(ctx, "bfsd", "client", "add", "--timeout", patience.For(time.Minute).String(),
		"--admin", filepath.Join(s.dir, "group", "admin"),
		"--key", "bfs-key:"+base64.StdEncoding.EncodeToString(public), "--squash", "none")
	if err != nil {
		return err
	}
	s.client, err = pbft.NewClient(pbft.ClientConfig{Group: group, Key: private, Transport: pbft.TransportTLS,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if err := s.client.Ready(ctx); err != nil {
		return err
	}
	s.files, err = bfs.Mount(ctx, s.client, "/export", nfs3.Credentials{})
	return err
}

func (s *soak) end() {
	if s.client != nil {
		_ = s.client.Close() // nothing is under way any more
	}
	if s.group != nil {
		s.group.Stop()
	}
}

func (s *soak) calls() (sum uint64) {
	for _, w := range s.workers {
		sum += w.done.Load()
	}
	return sum
}

// round lets an intruder work on one replica, stops and recovers it, and checks the outcome.
func (s *soak) round(ctx context.Context, x intrusion) error {
	p := s.group.Replicas[x.victim]
	must, err := s.intrude(ctx, &x)
	if err != nil {
		return err
	}
	r, err := s.recover(ctx, x.victim, p)
	if err != nil {
		return err
	}
	if must && !r.Corrupt {
		return errors.New("what the intruder did was not reported")
	}
	if r.Corrupt {
		s.done.corrupt++
	}
	s.done.longest = max(s.done.longest, r.Took.Duration())
	if err := s.whole(ctx); err != nil {
		return err
	}
	if x.kind != "" {
		s.done.kinds[x.kind]++
		if err := s.without(ctx, (x.victim+1+s.chance.IntN(replicas-1))%replicas); err != nil {
			return err
		}
	}
	return s.moved(ctx)
}

// recover starts a replica, as a keeper does, until it has recovered.
func (s *soak) recover(ctx context.Context, i int, p *cluster.Process) (r pbft.Recovery, err error) {
	ctx, cancel := patience.Context(ctx, recoverWithin)
	defer cancel()
	const tries = 4
	for range tries {
		if err := p.StartWith("--recover"); err != nil {
			return r, err
		}
		if r, err = s.recovered(ctx, i, p); err == nil || ctx.Err() != nil {
			return r, err
		}
		p.Kill() // it has ended
		words := p.LogTail(12)
		s.say("replica %d ended: %s", i, lastLine(words))
		if strings.Contains(words, "memory is lost") || strings.Contains(words, "restore the file") {
			if err := s.replace(ctx, i); err != nil {
				return r, err
			}
			s.done.replaced++
		} else {
			s.done.restarts++
		}
	}
	return r, fmt.Errorf("replica %d does not recover in %d starts: %w", i, tries, err)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines {
		if strings.Contains(line, "level=ERROR") {
			return line
		}
	}
	return lines[len(lines)-1]
}

// recovered waits until a replica says that its recovery is over.
func (s *soak) recovered(ctx context.Context, i int, p *cluster.Process) (r pbft.Recovery, err error) {
	for {
		if status, err := s.ask(ctx, i); err == nil && status.Recovery.Ended {
			return status.Recovery, nil
		} else if err == nil {
			r = status.Recovery
		}
		select {
		case <-p.Ended():
			return r, errors.New("it has ended")
		case <-ctx.Done():
			return r, fmt.Errorf("it has not recovered: %w: %+v", ctx.Err(), r)
		case <-time.After(lookEvery): // not a limit: how often to look
		}
	}
}

// replace follows bfsd's advice for a replica that has lost its fence.
func (s *soak) replace(ctx context.Context, i int) error {
	dir := s.stateOf(i)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	_, err := s.group.Command(ctx, "bfsd", "replica", "replace", "--config", s.group.ReplicaFile(i))
	return err
}

// ask asks a replica for its status.
func (s *soak) ask(ctx context.Context, i int) (*pbft.Status, error) {
	return cluster.Status(ctx, s.admins[i])
}

// whole waits until all replicas take part in one view, and have named the same root for
// one stable checkpoint.
func (s *soak) whole(ctx context.Context) error {
	ctx, cancel := patience.Context(ctx, recoverWithin)
	defer cancel()
	seen := map[pbft.SeqNum]map[int]string{} // root by checkpoint and replica
	for {
		missing := s.survey(ctx, seen)
		agree, err := agreed(seen)
		if err != nil || agree && missing == "" {
			return err
		}
		if err := s.failed(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the group is not whole: %w:%s checkpoints seen %v", ctx.Err(), missing, seen)
		case <-time.After(lookEvery): // not a limit: how often to look
		}
	}
}

func (s *soak) survey(ctx context.Context, seen map[pbft.SeqNum]map[int]string) (missing string) {
	views := map[pbft.View]bool{}
	for i := range replicas {
		x, err := s.ask(ctx, i)
		if err != nil {
			missing += fmt.Sprintf(" replica %d: %v;", i, err)
			continue
		}
		if !x.Active || x.SilentUntil > 0 || x.Fetching || x.Recovery.Phase != "" {
			missing += fmt.Sprintf(" replica %d: %+v;", i, *x)
			continue
		}
		views[x.View] = true
		if seen[x.Stable] == nil {
			seen[x.Stable] = map[int]string{}
		}
		seen[x.Stable][i] = x.Root
	}
	if len(views) > 1 {
		missing += fmt.Sprintf(" they are in %d views;", len(views))
	}
	return missing
}

// agreed reports whether all replicas have named a root for one checkpoint. Two roots for
// one checkpoint are an error.
func agreed(seen map[pbft.SeqNum]map[int]string) (all bool, err error) {
	for n, roots := range seen {
		first := ""
		for _, root := range roots {
			if first != "" && root != first {
				return false, fmt.Errorf("checkpoint %d has different roots: %v", n, roots)
			}
			first = root
		}
		all = all || len(roots) == replicas
	}
	return all, nil
}

// without stops a replica for a while, so that the group needs all others, and reads all
// old files.
func (s *soak) without(ctx context.Context, i int) error {
	p := s.group.Replicas[i]
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err := s.old.read(s.files.WithContext(ctx))
	if err == nil {
		err = s.moved(ctx)
	}
	if e := p.Signal(syscall.SIGCONT); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("while replica %d stood still: %w", i, err)
	}
	s.done.heldStill++
	return s.whole(ctx)
}

// moved waits until each worker has ended a call that began after now. It fails if a
// worker has found something wrong.
func (s *soak) moved(ctx context.Context) error {
	ctx, cancel := patience.Context(ctx, moveWithin)
	defer cancel()
	for i, w := range s.workers {
		for goal := w.done.Load() + 2; w.done.Load() < goal; {
			if err := s.failed(); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("worker %d is stuck: %w", i, ctx.Err())
			case <-time.After(lookEvery): // not a limit: how often to look
			}
		}
	}
	return s.failed()
}

// failed returns the error of the first worker that found something wrong, or nil.
func (s *soak) failed() error {
	for _, w := range s.workers {
		if err := w.failure(); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads every file once more, when the workers have ended.
func (s *soak) readAll(ctx context.Context) error {
	if err := s.failed(); err != nil {
		return err
	}
	for _, w := range s.workers {
		w.files = s.files.WithContext(ctx)
		for f := range w.versions {
			if err := w.read(f); err != nil {
				return err
			}
		}
	}
	return s.old.read(s.files.WithContext(ctx))
}
