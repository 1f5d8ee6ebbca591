// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"errors"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/pbft"
)

// ready refuses to serve a checkpoint that is still being hashed, so that ordering does
// not wait for it.
func (s state) ready(seq pbft.SeqNum) error {
	err := s.fs.store.Ready(fsmerkle.Seq(seq))
	if errors.Is(err, fsmerkle.ErrUnhashed) {
		return pbft.ErrNotYet
	}
	return err
}

// Children implements pbft.State.
func (s state) Children(seq pbft.SeqNum, id pbft.NodeID) ([]pbft.Digest, error) {
	if err := s.ready(seq); err != nil {
		return nil, err
	}
	digests, err := s.fs.store.Children(fsmerkle.Seq(seq), fsmerkle.NodeID(id))
	if err != nil {
		return nil, err
	}
	children := make([]pbft.Digest, len(digests))
	for i, d := range digests {
		children[i] = pbft.Digest(d)
	}
	return children, nil
}

// PageAt implements pbft.State.
func (s state) PageAt(seq pbft.SeqNum, n pbft.PageNum) ([]byte, error) {
	if err := s.ready(seq); err != nil {
		return nil, err
	}
	return s.fs.store.PageAt(fsmerkle.Seq(seq), fsmerkle.PageNum(n))
}

// Install implements pbft.State. The live pages go back to the last checkpoint, because later
// changes are superseded, and the session has to begin from pages whose digests are known.
func (s state) Install(seq pbft.SeqNum, root pbft.Digest) (pbft.Install, error) {
	if held := s.fs.store.Checkpoints(); len(held) > 0 {
		if err := s.Rollback(pbft.SeqNum(held[len(held)-1])); err != nil {
			return nil, err
		}
	}
	session, err := s.fs.store.Install(fsmerkle.Seq(seq), fsmerkle.Digest(root))
	if err != nil {
		return nil, err
	}
	return &install{session}, nil
}

// install lends fsmerkle's session to the library.
type install struct{ *fsmerkle.Install }

var _ pbft.LendingInstall = (*install)(nil)

func (i *install) Wants(max int) []pbft.NodeID {
	wants := i.Install.Wants(max)
	nodes := make([]pbft.NodeID, len(wants))
	for k, id := range wants {
		nodes[k] = pbft.NodeID(id)
	}
	return nodes
}

func (i *install) OfferNode(id pbft.NodeID, children []pbft.Digest) error {
	digests := make([]fsmerkle.Digest, len(children))
	for k, d := range children {
		digests[k] = fsmerkle.Digest(d)
	}
	return i.Install.OfferNode(fsmerkle.NodeID(id), digests)
}

func (i *install) OfferPage(n pbft.PageNum, contents []byte) error {
	return i.Install.OfferPage(fsmerkle.PageNum(n), contents)
}

// Pages implements pbft.Sized.
func (s state) Pages() int { return int(s.fs.store.Used()) }

// Recorded implements pbft.Recorded.
func (s state) Recorded() int { return int(s.fs.store.Recorded()) }

// Digest implements pbft.Digester.
func (state) Digest(n pbft.PageNum, contents []byte) pbft.Digest {
	return pbft.Digest(fsmerkle.DigestPage(fsmerkle.PageNum(n), contents))
}

// Shape returns the root's name, and how many children each interior node has.
func (s state) Shape() (top pbft.NodeID, fanout int) {
	return pbft.NodeID(s.fs.store.Top()), fsmerkle.Fanout
}

// Combine returns the digest of an interior node from its children's. It may be called on
// any goroutine.
func (s state) Combine(id pbft.NodeID, children []pbft.Digest) pbft.Digest {
	var family [fsmerkle.Fanout]fsmerkle.Digest
	for i := range family {
		family[i] = fsmerkle.Digest(children[i])
	}
	return pbft.Digest(s.fs.store.Combine(fsmerkle.NodeID(id), family[:]))
}

func (i *install) OfferDigested(n pbft.PageNum, contents []byte, d pbft.Digest) error {
	return i.Install.OfferDigested(fsmerkle.PageNum(n), contents, fsmerkle.Digest(d))
}

// Ready makes lent memory resident. It may be called on any goroutine.
func (i *install) Ready(lent []byte) { fsmerkle.Ready(lent) }

func (i *install) Retry(id pbft.NodeID) { i.Install.Retry(fsmerkle.NodeID(id)) }

func (i *install) Retarget(seq pbft.SeqNum, root pbft.Digest) error {
	return i.Install.Retarget(fsmerkle.Seq(seq), fsmerkle.Digest(root))
}
