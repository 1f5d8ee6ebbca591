package pbft

import (
	"encoding/binary"
	"fmt"
	"os"

	"bfs/pkg/pbft/internal/durable"
)

// fence is the file that remembers how far a replica may have voted, when it remembers nothing else (R-OUR-5):
// view and number, 8 bytes each, little-endian. It is raised before the votes it covers leave.
type fence struct {
	path string
	last SeqNum
}

func openFence(path string) (*fence, error) {
	b, err := os.ReadFile(path)
	switch {
	case os.IsNotExist(err):
		return &fence{path: path}, nil
	case err != nil:
		return nil, fmt.Errorf("read fence: %w", err)
	case len(b) != 16:
		return nil, fmt.Errorf("fence %s: got %d bytes, want 16: restore the file, or replace this replica by one with a new key", path, len(b))
	}
	return &fence{path: path, last: SeqNum(binary.LittleEndian.Uint64(b[8:]))}, nil
}

func (f *fence) raise(v View, n SeqNum) error {
	b := binary.LittleEndian.AppendUint64(nil, uint64(v))
	if err := durable.WriteFile(f.path, binary.LittleEndian.AppendUint64(b, uint64(n))); err != nil {
		return fmt.Errorf("raise fence to %d: %w", n, err)
	}
	f.last = n
	return nil
}
