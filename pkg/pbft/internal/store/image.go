// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"

	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/message"
)

// imageEvery is how much of the disk the journal may take, in segments, before the image
// follows to the latest stable checkpoint. A page that changes often is then written to the
// image once for that much of the journal. A restart runs the batches that are in the journal.
const imageEvery = 3

// following is an update of the image under way.
//
// The state keeps the checkpoint until all pages are copied, and with it all later checkpoints. So
// an update that has not copied them when the group has come a window further is abandoned, and the
// next one copies twice as much under one taking of the caller's lock. After some of them an update
// copies everything at once.
type following struct {
	to        message.CheckpointID // number 0: there is none
	copied    bool                 // the state no longer needs to keep the checkpoint
	abandoned bool
	step      int // pages that are copied at once
}

// leastStep is how many pages an update copies at once, at first: some tens of microseconds.
const leastStep = 64

// mostStep is more pages than any state has.
const mostStep = 1 << 31

// OpenImage opens the image. One that is damaged is replaced by an empty one: damaged says so, and
// the replica fetches its state.
func (s *Store[T]) OpenImage(pages message.PageNum, t image.Tree) (damaged bool, err error) {
	o := image.Options{Group: s.options.Group, Pages: pages, Tree: t, Reserve: s.options.ReserveBytes / pageBytes}
	im, err := image.Open(s.options.Disk, o)
	if damaged = errors.Is(err, image.ErrCorrupt); damaged || errors.Is(err, image.ErrNone) {
		im, err = image.Create(s.options.Disk, o)
	}
	if s.image = im; err == nil {
		s.at, _, _ = im.Checkpoint()
	}
	return damaged, err
}

// pageBytes is the length of a page.
const pageBytes = 4096

// A Session takes a state to a checkpoint: a pbft.Install as far as it is needed here.
type Session interface {
	image.Install
	Done() bool
	Commit() error
	Abort()
}

// LoadState takes a state to the image's checkpoint, by a session that install opens, and returns
// the checkpoint. If there is none, or if the image lacks some of its nodes and pages, the state
// stays as it is, and the checkpoint is zero.
func (s *Store[T]) LoadState(
	install func(message.SeqNum, message.Digest) (Session, error),
) (k message.CheckpointID, lacks int, err error) {
	seq, root, ok := s.image.Checkpoint()
	if !ok {
		return k, 0, nil
	}
	session, err := install(seq, root)
	if err != nil {
		return k, 0, err
	}
	if missing := s.image.Load(session); len(missing) > 0 || !session.Done() {
		session.Abort()
		return k, len(missing), nil
	}
	return message.CheckpointID{Seq: seq, Digest: root}, 0, session.Commit()
}

// Feed offers the image's nodes and pages to a session that fetches a later checkpoint, unless the
// image is being changed.
func (s *Store[T]) Feed(in image.Install) {
	if s.update.to.Seq == 0 {
		s.image.Load(in)
	}
}

// Stable notes that a checkpoint is stable, and reports whether the image is to follow to it now.
func (s *Store[T]) Stable(k message.CheckpointID) (follow bool) {
	if u := &s.update; u.to.Seq > 0 && !u.copied && k.Seq > u.to.Seq+message.SeqNum(s.options.Limits.WindowLength) {
		u.abandoned = true
	}
	return s.Behind(k.Seq) && s.journal.Segments() >= imageEvery
}

// Behind reports whether the image holds an earlier checkpoint than n and no update is under way.
func (s *Store[T]) Behind(n message.SeqNum) bool {
	return s.update.to.Seq == 0 && n > s.at
}

// Follow begins to take the image to a checkpoint.
func (s *Store[T]) Follow(k message.CheckpointID) (*image.Update, error) {
	u, err := s.image.Begin(k.Seq, k.Digest)
	if err != nil {
		return nil, fmt.Errorf("follow to checkpoint %d: %w", k.Seq, err)
	}
	s.update = following{to: k, step: max(s.update.step, leastStep)}
	return u, nil
}

// Updating returns the checkpoint that an update under way takes the image to; its number is 0 if
// there is none.
func (s *Store[T]) Updating() message.CheckpointID { return s.update.to }

// Keeps is the lowest checkpoint that the state must keep when n is stable.
func (s *Store[T]) Keeps(n message.SeqNum) message.SeqNum {
	if u := &s.update; u.to.Seq > 0 && !u.copied && !u.abandoned {
		return min(n, u.to.Seq)
	}
	return n
}

// Abandoned reports whether the update is to be given up: see following.
func (s *Store[T]) Abandoned() bool { return s.update.abandoned }

// Copy makes an update copy some pages from the state. The update is done when all are
// copied; then the state need not keep the checkpoint.
func (s *Store[T]) Copy(u *image.Update, from image.Source) (done bool, err error) {
	done, err = u.Step(from, s.update.step)
	s.update.copied = done && err == nil
	return done, err
}

// Followed says that the update is durable: the journal needs no records of batches up to its
// checkpoint that are stable. A state that was fetched may be ahead of what is stable here, and P
// and Q have what lies between.
func (s *Store[T]) Followed(stable message.SeqNum) {
	s.journal.Release(min(s.update.to.Seq, stable))
	s.at = s.update.to.Seq
	s.update = following{}
}

// GiveUp ends an update that is not committed.
func (s *Store[T]) GiveUp(u *image.Update) {
	u.Abort()
	s.given++
	step := s.update.step
	if s.update.abandoned {
		step = min(2*step, mostStep)
	}
	s.update = following{step: step}
}
