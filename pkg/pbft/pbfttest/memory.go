// Package pbfttest helps to test programs that are replicated with pbft.
package pbfttest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"bfs/pkg/pbft"
)

// Memory is a State for tests and examples: a map of pages, copied whole at every checkpoint and hashed whole
// for every root. It is slow and obvious.
type Memory struct {
	pages       map[pbft.PageNum][]byte
	checkpoints map[pbft.SeqNum]map[pbft.PageNum][]byte
}

var _ pbft.State = (*Memory)(nil)

// NewMemory returns a State whose pages are all zeros.
func NewMemory() *Memory {
	return &Memory{pages: map[pbft.PageNum][]byte{}, checkpoints: map[pbft.SeqNum]map[pbft.PageNum][]byte{}}
}

var zeros [pbft.PageSize]byte

// Page implements pbft.State.
func (m *Memory) Page(n pbft.PageNum) []byte {
	if p := m.pages[n]; p != nil {
		return p
	}
	return zeros[:]
}

// Modify implements pbft.State.
func (m *Memory) Modify(n pbft.PageNum) []byte {
	if m.pages[n] == nil {
		m.pages[n] = make([]byte, pbft.PageSize)
	}
	return m.pages[n]
}

// Freeze implements pbft.State.
func (m *Memory) Freeze(seq pbft.SeqNum, rooted func(pbft.Digest)) {
	m.checkpoints[seq] = clone(m.pages)
	if rooted != nil {
		root := m.Root()
		go rooted(root)
	}
}

// Root hashes the pages as they are now.
func (m *Memory) Root() (d pbft.Digest) {
	h := sha256.New()
	for _, n := range slices.Sorted(maps.Keys(m.pages)) {
		if p := m.pages[n]; string(p) != string(zeros[:]) {
			h.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
			h.Write(p)
		}
	}
	h.Sum(d[:0])
	return d
}

// Discard implements pbft.State.
func (m *Memory) Discard(below pbft.SeqNum) {
	maps.DeleteFunc(m.checkpoints, func(seq pbft.SeqNum, _ map[pbft.PageNum][]byte) bool { return seq < below })
}

// Rollback implements pbft.State.
func (m *Memory) Rollback(to pbft.SeqNum) error {
	pages, ok := m.checkpoints[to]
	if !ok {
		return fmt.Errorf("no checkpoint %d", to)
	}
	m.pages = clone(pages)
	maps.DeleteFunc(m.checkpoints, func(seq pbft.SeqNum, _ map[pbft.PageNum][]byte) bool { return seq > to })
	return nil
}

func clone(pages map[pbft.PageNum][]byte) map[pbft.PageNum][]byte {
	c := make(map[pbft.PageNum][]byte, len(pages))
	for n, p := range pages {
		c[n] = slices.Clone(p)
	}
	return c
}
