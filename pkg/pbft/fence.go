package pbft

import (
	"encoding/binary"
	"fmt"
	"os"

	"bfs/pkg/pbft/internal/durable"
	"bfs/pkg/pbft/internal/message"
)

// fence is the file that remembers how far a replica may have voted, when it remembers nothing else (R-OUR-5): the
// digest of the group file, view and number, the latter 8 bytes each, little-endian. It is raised before the votes it
// covers leave. Votes in a group with another digest, such as one of an earlier epoch, bind nobody in this one.
type fence struct {
	path  string
	group Digest
	last  SeqNum
	view  View
}

const fenceSize = message.DigestSize + 16

func openFence(path string, group Digest) (*fence, error) {
	f := &fence{path: path, group: group}
	b, err := os.ReadFile(path)
	switch {
	case os.IsNotExist(err):
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("read fence: %w", err)
	case len(b) != fenceSize:
		return nil, fmt.Errorf("fence %s: got %d bytes, want %d: restore the file, or replace this replica by one with a new key", path, len(b), fenceSize)
	}
	if Digest(b[:message.DigestSize]) == group {
		f.view = View(binary.LittleEndian.Uint64(b[message.DigestSize:]))
		f.last = SeqNum(binary.LittleEndian.Uint64(b[message.DigestSize+8:]))
	}
	return f, nil
}

func (f *fence) raise(v View, n SeqNum) error {
	b := append(make([]byte, 0, fenceSize), f.group[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(v))
	if err := durable.WriteFile(f.path, binary.LittleEndian.AppendUint64(b, uint64(n))); err != nil {
		return fmt.Errorf("raise fence to %d: %w", n, err)
	}
	f.last, f.view = n, v
	return nil
}
