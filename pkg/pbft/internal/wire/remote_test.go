// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"testing"

	"bfs/pkg/pbft/internal/transport"
)

// Frames that are kept outlive those of the transport's that they were copied from, and each other.
func TestKeptFrames(t *testing.T) {
	var who Remote
	var kept [][]byte
	for i := range 300 {
		frame := bytes.Repeat([]byte{byte(i)}, i*transport.Keep/290)
		kept = append(kept, who.Keep(frame))
		if len(frame) <= transport.Keep {
			clear(frame)
		}
	}
	for i, frame := range kept {
		if want := bytes.Repeat([]byte{byte(i)}, i*transport.Keep/290); !bytes.Equal(frame, want) {
			t.Fatalf("frame %d of %d bytes is not what it was", i, len(want))
		}
		_ = append(frame, 'x') // appending to one frame does not write on the next
	}
}
