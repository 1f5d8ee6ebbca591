// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"bfs/pkg/internal/disk"
	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/message"
)

// recovering is what a replica knows of its recovery, beside the core. It is under the replica's lock.
type recovering struct {
	signer  auth.Signer
	asked   bool           // the signer is asked for a recovery request
	signing sync.WaitGroup // for the goroutine that asks it
	phase   core.Phase
	since   time.Time // when it began
	parts   Parts
	ended   time.Time // zero: it is not over, or there was none
	full    bool      // the journal could not be written anew, for there was no room
	found   bool      // the directory held something that a correct replica does not leave
}

// noteRecovery notes when the recovery comes to its next phase. The caller holds the lock.
func (r *Replica) noteRecovery() {
	x := &r.recovery
	phase, _, _ := r.core.Recovery()
	if !r.cfg.Recover || phase == x.phase {
		return
	}
	now := time.Now()
	took := Seconds(now.Sub(x.since))
	switch x.phase {
	case core.NotRecovering:
		x.parts.Load = Seconds(now.Sub(r.started))
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

// recoveryStarts is how many starts of a recovery believe what the directory holds. If none of them came to its end, that may be why.
const recoveryStarts = 2

// falseText is another line: the recovery has found that the replica's memory cannot be true, and the next start reports that.
const falseText = "What it remembers is false.\n"

// beginRecovery is the nonce of a recovery that begins.
func (r *Replica) beginRecovery() (nonce uint64, err error) {
	var b [8]byte
	rand.Read(b[:])
	starts, err := os.ReadFile(r.cfg.path(recoveringFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("begin a recovery: %w", err)
	}
	r.recovery.found = bytes.Contains(starts, []byte(falseText))
	if bytes.Count(starts, []byte("\n")) >= recoveryStarts {
		r.log.Warn("the last recoveries did not come to their end: this one believes nothing of what the directory holds", "directory", r.cfg.Directory)
		if err := r.fence.Distrust(); err != nil {
			return 0, err
		}
	} else if err := durable.WriteFile(r.cfg.path(recoveringFile), append(starts, recoveringText...)); err != nil {
		return 0, fmt.Errorf("mark a recovery: %w", err)
	}
	r.log.Info("this start is a recovery: what this replica remembers is believed within the bounds that the others give it")
	return binary.LittleEndian.Uint64(b[:]) | 1, nil
}

// recoveryEffect does what a recovery asks for, our own or another replica's.
func (r *Replica) recoveryEffect(e *core.Effect) {
	switch e.Verb {
	case core.Renew:
		r.renewing(r.keeper.store.Renew(e.Records...))
	case core.Renewed:
		durable, err := r.keeper.store.Renewed(e.Seq, e.Records...)
		if r.renewing(err); r.err == nil {
			r.keeper.store.Flushed(durable, r.say)
		}
	case core.Hush:
		r.mute = true
	case core.Refresh:
		r.refreshKeyOf(e.To)
	case core.Sign:
		r.signRecovery(e.Seq)
	case core.Distrust:
		r.distrust(e)
	case core.Healed:
		r.healed(e)
	}
}

// signRecovery makes the recovery request and has it ordered. The core asks again if it cannot be made now. The keeper may hang, so it is
// asked without the lock, and not for a second request meanwhile.
func (r *Replica) signRecovery(bound SeqNum) {
	x := &r.recovery
	if x.asked || r.stopping {
		return
	}
	x.asked = true
	x.signing.Go(func() {
		request, err := r.recoveryRequest(bound)
		r.enter()
		defer r.leave()
		x.asked = false
		switch {
		case r.stopping, r.aside(): // the core asks again when this replica comes back
		case err != nil:
			r.warn("cannot sign the recovery request: this replica goes on recovering, and tries again", "err", err)
		default:
			r.core.Signed(request)
		}
	})
}

// recoveryRequest has the signer make a recovery request.
func (r *Replica) recoveryRequest(bound SeqNum) (*message.Request, error) {
	count, err := r.recovery.signer.Count()
	if err != nil {
		return nil, err
	}
	x := message.Recovery{Replica: r.cfg.Self, Counter: count, Bound: bound}
	signature, err := r.recovery.signer.Sign(x.AppendCovered(nil, r.group.Digest()))
	if err != nil {
		return nil, err
	}
	return x.Request(signature), nil
}

// signedRecovery checks the signature of a recovery request.
func (r *Replica) signedRecovery(q *message.Request, who *remote) bool {
	x, ok := message.RecoveryOf(q)
	if !ok || int(x.Replica) >= r.group.N() {
		return false
	}
	if peer := who.session.Peer; peer.IsReplica() && !r.peers[peer.Replica].signatures.spend(time.Now()) {
		return false
	}
	return ed25519.Verify(r.group.Members[x.Replica].Key, x.AppendCovered(nil, r.group.Digest()), q.Signature)
}

// answerRecovery answers a recovery request that was executed before, and reports whether it was.
func (r *Replica) answerRecovery(i ReplicaID, q *message.Request) bool {
	if !q.Authentic || r.core == nil {
		return false
	}
	_, seen := r.seen(q)
	if seen {
		last := r.exec.Ledger().Recovery(i)
		r.core.AnswerRecovery(i, last.Seq, last.Timestamp)
	}
	return seen
}

// tellRecoveries tells the core of the recovery requests that have come into the state.
func (r *Replica) tellRecoveries() {
	for _, x := range r.exec.News() {
		if r.core != nil {
			r.recovered[x.Replica] = time.Now()
			r.log.Info("a replica recovers", "replica", x.Replica, "batch", x.Seq)
			r.core.Recovered(x.Replica, x.Seq, x.Bound, x.Timestamp)
		}
	}
}

// recoveredAgo is how long ago a recovery request of replica i was executed here, 0 if none was since the start. The caller holds the lock.
func (r *Replica) recoveredAgo(i ReplicaID) Seconds {
	if r.recovered[i].IsZero() {
		return 0
	}
	return Seconds(time.Since(r.recovered[i]))
}

// distrust has the next start believe nothing of what the directory holds, and stops the replica: the others' word says that it cannot be.
func (r *Replica) distrust(e *core.Effect) {
	if err := r.fence.Reset(e.View, e.Seq, true); err != nil {
		r.fail(err)
		return
	}
	if err := r.markFalse(); err != nil {
		r.log.Warn("the next start will not report that this one found something corrupt", "err", err)
	}
	r.failFalse(e.Reason)
}

// stray has the next start be a recovery that believes nothing of what the journal holds, and stops the replica: its state is not the
// group's, so its memory, its disk or its program is at fault. What it may have promised stays noted.
func (r *Replica) stray(why string) {
	if err := r.fence.Distrust(); err != nil {
		r.log.Warn("the next start may believe what this one has on its disk", "err", err)
	}
	if err := r.markFalse(); err != nil {
		r.log.Warn("the next start is no recovery unless somebody says so", "err", err)
	}
	r.failFalse(why)
}

// ErrRecover is part of the error of a replica that has stopped because what it holds, or has on its disk, is not the group's, or may not
// be. Its next start is to be a recovery.
var ErrRecover = errors.New("start it again as a recovery, as bfsd keeper does (bfsd run --recover)")

func (r *Replica) failFalse(why string) {
	r.fail(fmt.Errorf("this replica's memory is false: %s: its next start sets it aside and fetches the group's state. Look for how the host"+
		" was changed, and %w", why, ErrRecover))
}

// MustRecover reports whether the next start of the replica with this directory is a recovery, whatever is asked for: the last recovery
// has not come to its end, or the replica has found that its state is false.
func MustRecover(directory string) bool {
	_, err := os.Lstat(filepath.Join(directory, recoveringFile))
	return err == nil
}

// markFalse has the next start be a recovery, and know what this one found.
func (r *Replica) markFalse() error {
	text, err := os.ReadFile(r.cfg.path(recoveringFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil && !bytes.Contains(text, []byte(falseText)) {
		err = durable.WriteFile(r.cfg.path(recoveringFile), append(text, falseText...))
	}
	if err != nil {
		return fmt.Errorf("mark a recovery: %w", err)
	}
	return nil
}

// healed ends the recovery.
func (r *Replica) healed(e *core.Effect) {
	if err := r.fence.Reset(e.View, e.Seq, false); err != nil {
		r.fail(err)
		return
	}
	if err := r.unmarkRecovery(); err != nil {
		r.fail(fmt.Errorf("end a recovery: %w", err))
		return
	}
	r.exec.Settled(r.core.Stable().Seq)
	r.noteRecovery()
	x := &r.recovery
	x.ended = time.Now()
	_, point, astray := r.core.Recovery()
	corrupt := astray || r.recovery.found
	ms := func(d Seconds) time.Duration { return d.Duration().Round(time.Millisecond) }
	r.log.Info("this replica has recovered", "point", point, "took", x.ended.Sub(r.started).Round(time.Millisecond), "corrupt", corrupt,
		"load", ms(x.parts.Load), "estimate", ms(x.parts.Estimate), "request", ms(x.parts.Request), "check", ms(x.parts.Check))
}

// renewing takes the result of writing the journal anew.
func (r *Replica) renewing(err error) {
	switch {
	case err == nil:
	case disk.IsFull(err):
		r.recovery.full = true
		r.stepAside(err)
	default:
		r.failDisk(err)
	}
}

// unmarkRecovery removes the mark of a recovery, unless the journal may still hold what an intruder put there.
func (r *Replica) unmarkRecovery() error {
	if r.recovery.full {
		return nil
	}
	if err := os.Remove(r.cfg.path(recoveringFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// recoveryStatus is the recovery as status shows it.
func (r *Replica) recoveryStatus() (s Recovery) {
	if !r.cfg.Recover {
		return s
	}
	phase, point, astray := r.core.Recovery()
	s = Recovery{Phase: phase.String(), Point: point, Took: Seconds(time.Since(r.started)), Parts: r.recovery.parts,
		Corrupt: astray || r.recovery.found}
	if phase == core.NotRecovering {
		s.Took = Seconds(r.recovery.ended.Sub(r.started))
		s.Ended, s.Ago = true, Seconds(time.Since(r.recovery.ended))
	}
	return s
}
