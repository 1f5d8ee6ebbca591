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
	"time"

	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/fence"
	"bfs/pkg/pbft/internal/message"
)

const freshText = `This replica has never run. Its first start removes this file and writes what it must remember. If
the directory is ever lost, do not restore this file: run bfsd replica replace.
`

// ErrForgotten is the refusal to start a replica that may have voted and does not know for what: it could vote again, and
// say otherwise. Replace tells it how far it can have voted.
var ErrForgotten = errors.New("this replica's memory is lost: it may have voted, and does not know for what")

// ErrNotRestored is the refusal to start a replica that has never run, and whose group begins with a checkpoint that is not in its
// directory yet. Restore puts it there.
var ErrNotRestored = errors.New("this epoch of the group begins with a backup that is not in this replica's directory")

// MarkFresh makes the directory of a replica that has never run.
func MarkFresh(directory string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(directory, freshFile), []byte(freshText))
}

// OpenDirectory returns nil if the replica may start: its directory holds what it must remember, or the mark of a
// replica that has never run, and no f+1 others say that the group has gone on so far that it must have. It is called once
// before StartReplica. Group, Self, Key, Directory and Transport of cfg count.
func OpenDirectory(ctx context.Context, cfg ReplicaConfig) error {
	fenced, counter, fresh := cfg.holds(fenceFile), cfg.holds(counterFile), cfg.holds(freshFile)
	if cfg.Keeper != "" { // it has the counter, and looks after it
		counter = fenced
	}
	switch {
	case fenced && counter: // a mark beside them came with a bundle that was copied again
		return cfg.unmark()
	case fenced:
		return fmt.Errorf("%w: %s holds %s and no %s; move it away", ErrForgotten, cfg.Directory, fenceFile, counterFile)
	case counter && !(fresh && cfg.unused()):
		return fmt.Errorf("%w: %s holds %s and no %s; move it away", ErrForgotten, cfg.Directory, counterFile, fenceFile)
	case !fresh:
		return fmt.Errorf("%w: %s holds neither %s nor %s, and no mark %q of a replica that has never run", ErrForgotten,
			cfg.Directory, fenceFile, counterFile, freshFile)
	}
	if at, err := cfg.groupHasRun(ctx); err != nil || at != "" {
		if err == nil {
			err = fmt.Errorf("%w: %s is marked as that of a replica that has never run, and the group %s", ErrForgotten, cfg.Directory, at)
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
	dialWithin  = 300 * time.Millisecond // for other replicas to take a connection, if they run, and
	greetWithin = 2 * time.Second        // to say something on it
)

// askWithin is how long f+1 of those that run have to answer. Then all are asked again. (A variable for tests.)
var askWithin = 15 * time.Second

// groupHasRun says how far the group has come, as f+1 of the others tell, "" if they tell that it has not, or if too few
// run: the replicas of a new group start in any order. Of a quorum that runs f+1 must answer; until they do they are asked again, and the
// log says so.
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
		silent := fmt.Errorf("%d of the other replicas listen and %d answer, want %d, to know whether this one ran before: "+
			"do they have this very group file and transport?", running, len(answers), cfg.Group.Weak())
		if cfg.Logger != nil {
			cfg.Logger.Warn("this replica cannot start yet, and asks again", "reason", silent)
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("%w: %w", silent, ctx.Err())
		}
	}
}

// ask asks the others for their stable checkpoints, until f+1 have answered or askWithin has passed.
func (cfg *ReplicaConfig) ask(ctx context.Context) ([]*message.ReplyStable, error) {
	client, done, err := cfg.newClient()
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	return client.askOthers(ctx, cfg.Self, cfg.Group.Weak()), nil
}

// reached says how far the group has come if so many answers say that it has come beyond the checkpoint with which it began.
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

// listening counts the other replicas that run: that take a connection and speak first on it, as a replica does. Something else may
// take connections in the place of a replica that has yet to start.
func (cfg *ReplicaConfig) listening(ctx context.Context) (n int) {
	up := make(chan bool, cfg.Group.N())
	dialer := net.Dialer{Timeout: dialWithin}
	for i, m := range cfg.Group.Members {
		if ReplicaID(i) == cfg.Self {
			up <- false
			continue
		}
		go func() {
			c, err := dialer.DialContext(ctx, "tcp", m.Address)
			if err != nil {
				up <- false
				return
			}
			defer func() { _ = c.Close() }()
			_ = c.SetReadDeadline(time.Now().Add(greetWithin))
			_, err = io.ReadFull(c, make([]byte, 1))
			up <- err == nil
		}()
	}
	for range cfg.Group.N() {
		if <-up {
			n++
		}
	}
	return n
}

// askOthers asks for the stable checkpoint until so many of the others have answered, or ctx is done.
func (c *Client) askOthers(ctx context.Context, self ReplicaID, enough int) []*message.ReplyStable {
	q, err := c.newStableQuery()
	if err != nil {
		return nil
	}
	again := time.NewTicker(stableAgain)
	defer again.Stop()
	for {
		c.askAll(q)
		all := c.answersOf(q, self)
		select {
		case <-q.enough:
			return c.answersOf(q, self)
		case <-again.C:
			if len(all) >= enough {
				return all
			}
		case <-ctx.Done():
			return all
		}
	}
}

func (c *Client) answersOf(q *stableQuery, self ReplicaID) (all []*message.ReplyStable) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, a := range q.answers {
		if a != nil && ReplicaID(i) != self {
			all = append(all, a)
		}
	}
	return all
}
