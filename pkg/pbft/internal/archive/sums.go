// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"cmp"
	"slices"

	"bfs/pkg/pbft/internal/image"
)

// sums holds the digests of a tree of which most pages may be zeros: for each level the
// digests that are not zero, by index.
type sums struct {
	tree   image.Tree
	top    NodeID
	fanout uint64
	levels [][]sum
}

type sum struct {
	index  uint64
	digest Digest
}

// add adds a page above those so far.
func (s *sums) add(n PageNum, d Digest) {
	if s.levels == nil {
		s.levels = make([][]sum, 1)
	}
	s.levels[0] = append(s.levels[0], sum{uint64(n), d})
}

func (s *sums) pages() int { return len(s.levels[0]) }

// inRange reports whether the tree has a page of this number.
func (s *sums) inRange(n PageNum) bool {
	first := uint64(n)
	for range s.top.Level {
		first /= s.fanout
	}
	return first == 0
}

// replace gives pages other digests.
func (s *sums) replace(pages []sum) {
	for _, p := range pages {
		if i, ok := s.find(0, p.index); ok {
			s.levels[0][i] = p
		}
	}
	if len(pages) > 0 {
		s.build()
	}
}

// build computes the interior nodes, and returns the root.
func (s *sums) build() Digest {
	if s.levels == nil {
		s.levels = make([][]sum, 1)
	}
	s.levels = s.levels[:1]
	for level := uint8(1); level <= s.top.Level; level++ {
		var nodes []sum
		for below := s.levels[level-1]; len(below) > 0; {
			index := below[0].index / s.fanout
			n := 0
			for n < len(below) && below[n].index/s.fanout == index {
				n++
			}
			nodes = append(nodes, sum{index, s.tree.Combine(NodeID{Level: level, Index: index}, s.spread(below[:n]))})
			below = below[n:]
		}
		s.levels = append(s.levels, nodes)
	}
	return s.root()
}

// spread is all children of a node, of which some are given.
func (s *sums) spread(some []sum) []Digest {
	all := make([]Digest, s.fanout)
	for _, x := range some {
		all[x.index%s.fanout] = x.digest
	}
	return all
}

// root is the digest at the top, which even a tree of zeros has.
func (s *sums) root() Digest {
	if top := s.levels[s.top.Level]; len(top) > 0 {
		return top[0].digest
	}
	return s.tree.Combine(s.top, make([]Digest, s.fanout))
}

func (s *sums) find(level uint8, index uint64) (int, bool) {
	return slices.BinarySearchFunc(s.levels[level], index, func(x sum, index uint64) int {
		return cmp.Compare(x.index, index)
	})
}

func (s *sums) children(id NodeID) []Digest {
	from, _ := s.find(id.Level-1, id.Index*s.fanout)
	to, _ := s.find(id.Level-1, (id.Index+1)*s.fanout)
	return s.spread(s.levels[id.Level-1][from:to])
}

func (s *sums) digest(n PageNum) Digest {
	if i, ok := s.find(0, uint64(n)); ok {
		return s.levels[0][i].digest
	}
	return Digest{}
}
