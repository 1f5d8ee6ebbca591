// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"encoding/binary"
	"os"
	"testing"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// StepDown has a primary leave its view, as it will before a proactive recovery. It reports whether we were one.
func (r *Replica) StepDown() bool {
	r.enter()
	defer r.leave()
	before, _ := r.core.View()
	r.core.StepDown()
	after, _ := r.core.View()
	return after > before
}

// Executes returns what executes requests on a service, and reports of each whether it ran.
func Executes(g *Group, s Service) (func(r *message.Request) (ran bool), error) {
	x, err := newExecutor(g, s)
	return func(r *message.Request) bool {
		_, ran := x.Execute(r, nil)
		return ran
	}, err
}

// BoundSignatures has replicas that are started from now on check no more than n signatures a second for another, until the test ends.
func BoundSignatures(t testing.TB, n int) {
	old := signaturesPerSecond
	signaturesPerSecond = n
	t.Cleanup(func() { signaturesPerSecond = old })
}

// AskWithin has others answer a first start within d, until the test ends.
func AskWithin(t testing.TB, d time.Duration) {
	old := askWithin
	askWithin = d
	t.Cleanup(func() { askWithin = old })
}

// ShortSegments has the journals of replicas that are started from now on have short segments, so that the image follows soon,
// until the test ends.
func ShortSegments(t testing.TB) {
	old := leastSegment
	leastSegment = 4096
	t.Cleanup(func() { leastSegment = old })
}

// WriteFence writes a fence as an intruder may.
func WriteFence(t testing.TB, path string, g *Group, n SeqNum, v View) {
	t.Helper()
	digest := g.Digest()
	b := binary.LittleEndian.AppendUint64(digest[:], uint64(v))
	b = binary.LittleEndian.AppendUint64(b, uint64(n))
	if err := os.WriteFile(path, binary.LittleEndian.AppendUint64(b, 0), 0o600); err != nil {
		t.Fatal(err)
	}
}
