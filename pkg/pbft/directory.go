// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/fence"
	"bfs/pkg/pbft/internal/message"
)

const freshText = `This replica has never run. Its first start removes this file and writes what it must remember. If
the directory is ever lost, do not restore this file: run bfsd replica replace.
`

// ErrForgotten is the refusal to start a replica that may have voted and does not know for
// what: it could vote again, and say otherwise. Replace tells it how far it can have voted.
var ErrForgotten = errors.New("this replica's memory is lost: it may have voted, and does not know for what")

// ErrNotRestored is the refusal to start a replica that has never run, and whose group
// begins with a checkpoint that is not in its directory yet. Restore puts it there.
var ErrNotRestored = errors.New("this epoch of the group begins with a backup that is not in this replica's directory")

// MarkFresh makes the directory of a replica that has never run.
func MarkFresh(directory string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(directory, freshFile), []byte(freshText))
}

// OpenDirectory returns nil if the replica may start: its directory holds what it must
// remember, or the mark of a replica that has never run. The mark does not count if f+1 others
// say that the group has gone on so far that this replica must have run. A recovery that a keeper
// has begun may start without any of this, for the keeper knows that the earlier life is over.
// OpenDirectory is called once before StartReplica. It uses Group, Self, Key, Keeper, Directory,
// Transport and Recover of cfg.
func OpenDirectory(ctx context.Context, cfg ReplicaConfig) error {
	err := cfg.open(ctx)
	recovers := cfg.Recover || MustRecover(cfg.Directory)
	if errors.Is(err, ErrForgotten) && cfg.Keeper != "" && recovers {
		return cfg.lose(ctx, err)
	}
	return err
}

// lose makes durable that nothing is known of what an earlier life promised: only the
// recovery that is about to start may find out. Nobody else may run under this
// replica's address.
func (cfg *ReplicaConfig) lose(ctx context.Context, why error) error {
	if cfg.speaks(ctx, cfg.Group.Members[cfg.Self].Address) {
		return fmt.Errorf("%w; and a process answers at %s: %w", why,
			cfg.Group.Members[cfg.Self].Address, ErrRuns)
	}
	if cfg.Logger != nil {
		cfg.Logger.Error("this replica has no memory. It fetches the group's state, and is silent "+
			"until its recovery is over", "reason", why)
	}
	if err := os.MkdirAll(cfg.Directory, 0o700); err != nil {
		return err
	}
	if err := os.RemoveAll(cfg.path(fenceFile)); err != nil { // it may be no file
		return err
	}
	if err := durable.WriteFile(cfg.path(fenceFile), fence.Lost(cfg.Group.Digest())); err != nil {
		return err
	}
	return cfg.unmark()
}

// open is OpenDirectory for a start that is no recovery.
func (cfg *ReplicaConfig) open(ctx context.Context) error {
	fenced, counter, fresh := cfg.holds(fenceFile), cfg.holds(counterFile), cfg.holds(freshFile)
	if cfg.Keeper != "" { // it has the counter, and looks after it
		if fenced && !fence.Whole(cfg.path(fenceFile)) {
			return fmt.Errorf("%w: %s is cut", ErrForgotten, cfg.path(fenceFile))
		}
		counter = fenced
	}
	switch {
	case fenced && cfg.forgotten():
		return fmt.Errorf("%w: the recovery of %s is not over", ErrForgotten, cfg.Directory)
	case fenced && counter: // a mark beside them came with a bundle that was copied again
		return cfg.unmark()
	case fenced:
		return fmt.Errorf("%w: %s holds %s and no %s; move it away",
			ErrForgotten, cfg.Directory, fenceFile, counterFile)
	case counter && !(fresh && cfg.unused()):
		return fmt.Errorf("%w: %s holds %s and no %s; move it away",
			ErrForgotten, cfg.Directory, counterFile, fenceFile)
	case !fresh:
		return fmt.Errorf("%w: %s holds neither %s nor %s, and no mark %q of a replica that has never run",
			ErrForgotten, cfg.Directory, fenceFile, counterFile, freshFile)
	}
	if at, err := cfg.groupHasRun(ctx); err != nil || at != "" {
		if err == nil {
			err = fmt.Errorf("%w: %s is marked as that of a replica that has never run, and the group %s",
				ErrForgotten, cfg.Directory, at)
		}
		return err
	}
	if cfg.Group.Origin != (Origin{}) && !cfg.holds(restoredFile) {
		return fmt.Errorf("%w: %s", ErrNotRestored, cfg.Directory)
	}
	return cfg.begin()
}

// begin writes the memory of a replica that has voted for nothing, and takes the mark away last.
func (cfg *ReplicaConfig) begin() error {
	if err := cfg.writeCounter(1); err != nil {
		return err
	}
	if err := durable.WriteFile(cfg.path(fenceFile), fence.First(cfg.Group.Digest())); err != nil {
		return err
	}
	return cfg.unmark()
}

const (
	dialWithin  = 300 * time.Millisecond // for a replica that runs to take a connection, and
	greetWithin = 2 * time.Second        // to say something on it
)

// askWithin is the time in which f+1 of the replicas that run are to answer. Then all are
// asked again. (A variable for tests.)
var askWithin = 15 * time.Second

// groupHasRun says how far the group has come, as f+1 of the others tell. It returns ""
// if they tell that the group has not gone on, or if too few run: the replicas of a new
// group start in any order. If a quorum runs, f+1 of it must answer; until they do all
// are asked again, and the log says so.
func (cfg *ReplicaConfig) groupHasRun(ctx context.Context) (at string, err error) {
	for {
		running := cfg.listening(ctx)
		if running < cfg.Group.Weak() {
			return "", nil
		}
		answers, err := cfg.ask(ctx)
		if err != nil {
			return "", err
		}
		if running < cfg.Group.Quorum() || len(answers) >= cfg.Group.Weak() {
			return reached(answers, cfg.Group.Weak(), cfg.Group.Origin.Seq), nil
		}
		silent := fmt.Errorf("%d of the other replicas listen and %d answer, want %d, to know whether this "+
			"one ran before: do they have this very group file and transport?", running, len(answers), cfg.Group.Weak())
		if cfg.Logger != nil {
			cfg.Logger.Warn("this replica cannot start yet, and asks again", "reason", silent)
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("%w: %w", silent, ctx.Err())
		}
	}
}

// ask asks the others for their stable checkpoints, until f+1 have answered or askWithin
// has passed.
func (cfg *ReplicaConfig) ask(ctx context.Context) ([]*message.ReplyStable, error) {
	client, done, err := cfg.newClient()
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	return client.stable.askOthers(ctx, cfg.Self, cfg.Group.Weak()), nil
}

// forgotten reports whether the fence was lost, and a recovery is to find out what it
// said.
func (cfg *ReplicaConfig) forgotten() bool {
	f, err := fence.Open(cfg.path(fenceFile), cfg.Group.Digest())
	return err == nil && f.IsLost()
}

// reached says how far the group has come, if enough answers say that it has come beyond
// the checkpoint with which it began.
func reached(answers []*message.ReplyStable, enough int, begun SeqNum) string {
	moved := []*message.ReplyStable{}
	for _, a := range answers {
		if a.Seq > begun || a.View > 0 {
			moved = append(moved, a)
		}
	}
	if len(moved) < enough {
		return ""
	}
	return fmt.Sprintf("has come to checkpoint %d of view %d", moved[0].Seq, moved[0].View)
}

// listening counts the other replicas that run: each takes a connection and speaks first on
// it. Another program may take connections in the place of a replica that has yet to start.
func (cfg *ReplicaConfig) listening(ctx context.Context) (n int) {
	up := make(chan bool, cfg.Group.N())
	for i, m := range cfg.Group.Members {
		if ReplicaID(i) == cfg.Self {
			up <- false
			continue
		}
		go func() { up <- cfg.speaks(ctx, m.Address) }()
	}
	for range cfg.Group.N() {
		if <-up {
			n++
		}
	}
	return n
}

// speaks reports whether something takes a connection at an address and speaks first on
// it.
func (cfg *ReplicaConfig) speaks(ctx context.Context, address string) bool {
	dialer := net.Dialer{Timeout: dialWithin}
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(greetWithin))
	_, err = io.ReadFull(c, make([]byte, 1))
	return err == nil
}

// askOthers asks for the stable checkpoint until enough of the others have answered, or
// ctx is done.
func (x *stableQuestion) askOthers(ctx context.Context, self ReplicaID, enough int) []*message.ReplyStable {
	q, err := x.begin()
	if err != nil {
		return nil
	}
	again := time.NewTicker(stableAgain)
	defer again.Stop()
	for {
		x.send(q)
		all := x.answersOf(q, self)
		select {
		case <-q.enough:
			return x.answersOf(q, self)
		case <-again.C:
			if len(all) >= enough {
				return all
			}
		case <-ctx.Done():
			return all
		}
	}
}

func (x *stableQuestion) answersOf(q *stableQuery, self ReplicaID) (all []*message.ReplyStable) {
	x.wires.mu.Lock()
	defer x.wires.mu.Unlock()
	for i, a := range q.answers {
		if a != nil && ReplicaID(i) != self {
			all = append(all, a)
		}
	}
	return all
}

// ErrRuns refuses to replace a replica that runs: two replicas with one key are a faulty one.
var ErrRuns = errors.New("the replica that is to be replaced answers: stop it first, and for good")

// Replace readies an empty directory for a replica whose disk is lost and whose key is not.
// It uses Group, Self, Key, Directory and Transport of cfg. Without Replace the replica
// could vote again for what it voted for before, and say otherwise. Replace returns the
// fence that it wrote: the replica votes when a checkpoint at or above it is stable.
//
// Replace requires that the lost replica has stopped for ever. It needs the answers of a
// quorum of the others.
func Replace(ctx context.Context, cfg ReplicaConfig) (last SeqNum, err error) {
	for _, name := range []string{fenceFile, counterFile} {
		if name == fenceFile && cfg.forgotten() {
			continue
		}
		if _, err := os.Lstat(cfg.path(name)); !os.IsNotExist(err) {
			return 0, fmt.Errorf("%s holds a file %q: this replica's memory is here, so start "+
				"it, or name an empty directory", cfg.Directory, name)
		}
	}
	client, done, err := cfg.newClient()
	if err != nil {
		return 0, err
	}
	defer done()
	reached, view, err := client.stable.reachedBeyond(ctx, cfg.Self)
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(cfg.Directory, 0o700); err != nil {
		return 0, err
	}
	// The counter of the key's signatures goes on above every value that was used
	// [R-PR-4]. Counters begin at 1 and rise by one for each signature, so they never
	// come near the clock's nanoseconds. Peers do not compare them over connections, so a
	// clock that is wrong does no harm.
	if err := cfg.writeCounter(uint64(time.Now().UnixNano())); err != nil {
		return 0, err
	}
	f, err := fence.Open(cfg.path(fenceFile), cfg.Group.Digest())
	if err != nil {
		return 0, err
	}
	last = reached + 2*cfg.Group.Limits.LogSize
	if err := f.Reset(view, last, true); err != nil {
		return 0, err
	}
	return last, cfg.unmark()
}

// replaceAgain is the pause before the others are asked again.
const replaceAgain = 200 * time.Millisecond

// reachedBeyond is a number s such that no vote of replica lost is for a number above
// s+2L, L being the log's size, and the view that it had reached.
//
// The lost replica voted up to L above its stable checkpoint. A quorum executed up to
// that checkpoint, and q-1-f replicas of this quorum are correct and not the lost one.
// Each of them executed no further than L above its own stable checkpoint. One of them is
// in any quorum of the n-1 others, because q-1-f + q > n-1: the highest answer will do. A
// lie upwards would keep the replica silent for long, so the highest answer is believed
// when f+1 of the others have come as far.
//
// The view matters because a VIEW-CHANGE of the lost replica may still be used, and says that
// the replica has voted for nothing else. A replica that has this VIEW-CHANGE tells of its view.
func (x *stableQuestion) reachedBeyond(ctx context.Context, lost ReplicaID) (s SeqNum, v View, err error) {
	again := time.NewTicker(replaceAgain)
	defer again.Stop()
	for known := false; ; known = true {
		q, err := x.ask(ctx)
		if err != nil {
			return 0, 0, err
		}
		others, err := x.others(q, lost)
		if err != nil {
			return 0, 0, err
		}
		if !known {
			for _, a := range others {
				s = max(s, a.Seq)
			}
		}
		reached := 0
		for _, a := range others {
			if a.Seq >= s {
				reached++
			}
		}
		if reached >= x.wires.group.Weak() {
			return s, leftFor(others, x.wires.group.F()), nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return 0, 0, fmt.Errorf("one replica says that checkpoint %d is stable, and no other comes so far: %w",
				s, ctx.Err())
		}
	}
}

// leftFor is the highest view that the answers name, as far as it can be true: a correct
// replica leaves a view that others have begun, and at most f faulty primaries in a row
// make it go on alone.
func leftFor(others []*message.ReplyStable, f int) View {
	views := make([]View, 0, len(others))
	for _, a := range others {
		views = append(views, a.View)
	}
	slices.Sort(views)
	common := views[len(views)-1-f]
	return min(views[len(views)-1], common+1+View(f))
}

// others are the answers of all but the lost replica, which must not answer.
func (x *stableQuestion) others(q *stableQuery, lost ReplicaID) (all []*message.ReplyStable, err error) {
	x.wires.mu.Lock()
	defer x.wires.mu.Unlock()
	if q.answers[lost] != nil {
		return nil, ErrRuns
	}
	for _, a := range q.answers {
		if a != nil {
			all = append(all, a)
		}
	}
	return all, nil
}
