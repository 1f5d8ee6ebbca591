// SPDX-License-Identifier: Apache-2.0

package core

import (
	"errors"
	"fmt"

	"bfs/pkg/pbft/internal/message"
)

// toy is a state of a root and three pages whose contents say which checkpoint they are
// of: enough of a tree for transcripts of its fetching.
type toy struct {
	seq  message.SeqNum
	want []message.NodeID
	left map[message.NodeID]bool
}

const toyPages = 3

func newToy(n message.SeqNum) *toy {
	s := &toy{}
	_ = s.Retarget(n, message.Digest{})
	return s
}

func (s *toy) Retarget(n message.SeqNum, _ message.Digest) error {
	root := message.NodeID{Level: 1}
	s.seq, s.want, s.left = n, []message.NodeID{root}, map[message.NodeID]bool{root: true}
	return nil
}

func (s *toy) Wants(max int) []message.NodeID {
	n := min(max, len(s.want), 2)
	w := s.want[:n:n]
	s.want = s.want[n:]
	return w
}

var errFalse = errors.New("false")

func (s *toy) OfferNode(id message.NodeID, children []message.Digest) error {
	if !s.left[id] || children[0] != (message.Digest{byte(s.seq)}) {
		return errFalse
	}
	delete(s.left, id)
	for i := range uint64(toyPages) {
		page := message.NodeID{Index: i}
		s.left[page] = true
		s.want = append(s.want, page)
	}
	return nil
}

func (s *toy) OfferPage(n message.PageNum, contents []byte) error {
	id := message.NodeID{Index: uint64(n)}
	if !s.left[id] || string(contents) != toyPage(s.seq, id) {
		return errFalse
	}
	delete(s.left, id)
	return nil
}

func (s *toy) Retry(id message.NodeID) {
	if s.left[id] {
		s.want = append(s.want, id)
	}
}

func (s *toy) Done() bool { return len(s.left) == 0 }

func toyPage(seq message.SeqNum, id message.NodeID) string {
	return fmt.Sprintf("page %d at %d", id.Index, seq)
}

// serve answers a FETCH as an honest replica, or a liar, does.
func (p *play) serve(i int, m *message.Fetch) *message.Data {
	answer := &message.Data{Seq: m.Seq, Tag: m.Tag, From: message.ReplicaID(i)}
	if m.Seq != p.cores[i].stable.Seq {
		answer.Gone = true
		return answer
	}
	for _, id := range m.Nodes {
		b := []byte(toyPage(m.Seq, id))
		if id.Level == 1 {
			root := message.Digest{byte(m.Seq)}
			b = root[:]
		}
		if p.liars[i] {
			b[0]++
		}
		answer.Items = append(answer.Items, message.Item{Node: id, Bytes: b})
	}
	return answer
}
