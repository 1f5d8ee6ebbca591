// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/fence"
	"bfs/pkg/pbft/internal/message"
)

// recovering holds the state of a replica's recovery that the core does not have: its
// progress, and what the replica's directory says of it. It is under the replica's lock.
type recovering struct {
	cfg     *ReplicaConfig
	log     *slog.Logger
	fence   *fence.Fence
	signer  auth.Signer    // of the long-term key
	asked   bool           // the signer is asked for a recovery request
	signing sync.WaitGroup // for the goroutine that asks it
	started time.Time      // when the replica was
	phase   core.Phase
	since   time.Time // when the phase began
	parts   Parts
	over    time.Time // when it ended; zero: it has not, or there was none
	full    bool      // the journal could not be written anew, for there was no room
	found   bool      // the directory held something that a correct replica does not leave
	lost    bool      // it held no fence
	blank   bool      // nothing of what it holds is believed, but the fence if there is one
}

// note times the phases of the recovery.
func (x *recovering) note(c *core.Core) {
	phase, _, _ := c.Recovery()
	if !x.cfg.Recover || phase == x.phase {
		return
	}
	now := time.Now()
	took := Seconds(now.Sub(x.since))
	switch x.phase {
	case core.NotRecovering:
		x.parts.Load = Seconds(now.Sub(x.started))
	case core.Estimating:
		x.parts.Estimate = took
	case core.Requesting:
		x.parts.Request = took
	case core.Checking:
		x.parts.Check = took
	}
	x.phase, x.since = phase, now
}

const recoveringText = "This replica is recovering, and has been started for that.\n"

// recoveryStarts is how many starts of a recovery believe what the directory holds. If
// none of them comes to its end, the directory may be the cause, and the next start
// believes nothing of it.
const recoveryStarts = 2

// falseText is another line: the recovery has found that the replica's memory cannot be
// true, and the next start reports that.
const falseText = "What it remembers is false.\n"

// begin marks a recovery that begins, and returns its nonce. Nothing of journal and
// image is believed if the fence is lost, or if earlier starts have not come to their
// end: an intruder may have seen to that.
func (x *recovering) begin(lost bool) (nonce uint64, err error) {
	var b [8]byte
	rand.Read(b[:])
	starts, err := os.ReadFile(x.cfg.path(recoveringFile))
	if errors.Is(err, syscall.EISDIR) { // an intruder's
		err = os.RemoveAll(x.cfg.path(recoveringFile))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("begin a recovery: %w", err)
	}
	x.found, x.lost = lost || bytes.Contains(starts, []byte(falseText)), lost
	many := bytes.Count(starts, []byte("\n")) >= recoveryStarts
	if x.blank = lost || many; x.blank {
		if err := x.fence.Distrust(); err != nil {
			return 0, err
		}
	}
	if many {
		x.log.Warn("the last recoveries did not come to their end: this one believes "+
			"nothing of what the directory holds", "directory", x.cfg.Directory)
	} else if err := durable.WriteFile(x.cfg.path(recoveringFile), append(starts, recoveringText...)); err != nil {
		return 0, fmt.Errorf("mark a recovery: %w", err)
	}
	x.log.Info("this start is a recovery: what this replica remembers is believed within the " +
		"bounds that the others give it")
	return binary.LittleEndian.Uint64(b[:]) | 1, nil
}

// request lets the signer make a recovery request. It needs no lock.
func (x *recovering) request(bound SeqNum) (*message.Request, error) {
	count, err := x.signer.Count()
	if err != nil {
		return nil, err
	}
	m := message.Recovery{Replica: x.cfg.Self, Counter: count, Bound: bound}
	signature, err := x.signer.Sign(m.AppendCovered(nil, x.cfg.Group.Digest()))
	if err != nil {
		return nil, err
	}
	return m.Request(signature), nil
}

// distrust makes the next start ignore the contents of the directory, because the other
// replicas contradict them. It returns the reason why this replica stops.
func (x *recovering) distrust(e *core.Effect) error {
	err := x.fence.Distrust() // which knows no bound of what was promised, if the fence was lost
	if !x.lost {
		err = x.fence.Reset(e.View, e.Seq, true)
	}
	if err != nil {
		return err
	}
	if err := x.markFalse(); err != nil {
		x.log.Warn("the next start will not report that this one found something corrupt", "err", err)
	}
	return falseMemory(e.Reason)
}

// stray makes the next start a recovery that ignores the contents of the journal: this
// replica's state is not the group's, so its memory, its disk or its program is at fault.
// The fence still covers all promises that the replica may have made. stray returns the
// reason why this replica stops.
func (x *recovering) stray(why string) error {
	if err := x.fence.Distrust(); err != nil {
		x.log.Warn("the next start may believe what is on this disk", "err", err)
	}
	if err := x.markFalse(); err != nil {
		x.log.Warn("the next start is a recovery only if it is told to be", "err", err)
	}
	return falseMemory(why)
}

func falseMemory(why string) error {
	return fmt.Errorf("this replica's memory is false: %s: its next start sets it aside and fetches the "+
		"group's state. Look for how the host was changed, and %w", why, ErrRecover)
}

// markFalse makes the next start a recovery that knows the damage that this one found.
func (x *recovering) markFalse() error {
	text, err := os.ReadFile(x.cfg.path(recoveringFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil && !bytes.Contains(text, []byte(falseText)) {
		err = durable.WriteFile(x.cfg.path(recoveringFile), append(text, falseText...))
	}
	if err != nil {
		return fmt.Errorf("mark a recovery: %w", err)
	}
	return nil
}

// end brings the directory to its state after a recovery.
func (x *recovering) end(e *core.Effect) error {
	if err := x.fence.Reset(e.View, e.Seq, false); err != nil {
		return err
	}
	if err := x.unmark(); err != nil {
		return fmt.Errorf("end a recovery: %w", err)
	}
	return nil
}

// ended logs a recovery that has ended.
func (x *recovering) ended(c *core.Core) {
	x.over = time.Now()
	_, point, astray := c.Recovery()
	ms := func(d Seconds) time.Duration { return d.Duration().Round(time.Millisecond) }
	x.log.Info("this replica has recovered",
		"point", point, "took", x.over.Sub(x.started).Round(time.Millisecond), "corrupt", astray || x.found,
		"load", ms(x.parts.Load), "estimate", ms(x.parts.Estimate), "request", ms(x.parts.Request),
		"check", ms(x.parts.Check))
}

// unmark removes the mark of a recovery, unless the journal may still hold what an
// intruder put there.
func (x *recovering) unmark() error {
	if x.full {
		return nil
	}
	if err := os.Remove(x.cfg.path(recoveringFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// status is the recovery as status shows it.
func (x *recovering) status(c *core.Core) (s Recovery) {
	if !x.cfg.Recover {
		return s
	}
	phase, point, astray := c.Recovery()
	s = Recovery{Phase: phase.String(), Point: point, Took: Seconds(time.Since(x.started)), Parts: x.parts,
		Corrupt: astray || x.found}
	if phase == core.NotRecovering {
		s.Took = Seconds(x.over.Sub(x.started))
		s.Ended, s.Ago = true, Seconds(time.Since(x.over))
	}
	return s
}
