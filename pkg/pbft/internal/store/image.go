// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/message"
)

// imageEvery is how much of the disk the journal may take, in segments, before the image follows to the latest stable checkpoint. Pages that
// change often are written once in so many bytes of the journal; a restart runs the batches that it holds.
const imageEvery = 3

// OpenImage opens the image in a directory. One that is damaged is replaced by an empty one: the replica fetches its state then. It must
// not be older than the journal, whose records begin where the image was.
func (s *Store[T]) OpenImage(f disk.FS, o image.Options) error {
	im, err := image.Open(f, o)
	if errors.Is(err, image.ErrNone) || errors.Is(err, image.ErrCorrupt) {
		s.damaged = errors.Is(err, image.ErrCorrupt)
		im, err = image.Create(f, o)
	}
	if err != nil {
		return err
	}
	s.image = im
	return nil
}

// Damaged reports whether there was an image of which nothing can be trusted.
func (s *Store[T]) Damaged() bool { return s.damaged }

// Checkpoint is the one that the image holds; not ok if it holds none.
func (s *Store[T]) Checkpoint() (k message.CheckpointID, ok bool) {
	k.Seq, k.Digest, ok = s.image.Checkpoint()
	return k, ok
}

// Load offers a session what the image has.
func (s *Store[T]) Load(in image.Install) (missing []message.NodeID) { return s.image.Load(in) }

// Stable notes that a checkpoint is stable, and reports whether the image is to follow to it now.
func (s *Store[T]) Stable(k message.CheckpointID) (follow bool) {
	s.stable = k
	return s.Due()
}

// Due reports whether the image is to follow to the last stable checkpoint.
func (s *Store[T]) Due() bool {
	at, _ := s.Checkpoint()
	return !s.following && s.stable.Seq > at.Seq && s.journal.Segments() >= imageEvery
}

// Follow begins to take the image to a checkpoint, which must stay in the state until Followed or Unfollowed.
func (s *Store[T]) Follow(k message.CheckpointID) (*image.Update, error) {
	u, err := s.image.Begin(k.Seq, k.Digest)
	if err != nil {
		return nil, fmt.Errorf("follow to checkpoint %d: %w", k.Seq, err)
	}
	s.following = true
	return u, nil
}

// Followed says that an update to checkpoint n is durable: the journal needs no records of what comes before.
func (s *Store[T]) Followed(n message.SeqNum) {
	s.following = false
	s.journal.Release(n)
}

// Unfollowed says that an update was given up.
func (s *Store[T]) Unfollowed() { s.following = false }

// LastStable is the last checkpoint that Stable was told of.
func (s *Store[T]) LastStable() message.CheckpointID { return s.stable }
