// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// The load of the honest client: this many WRITEs of this many bytes outstanding.
const (
	honestOutstanding = 8
	honestBytes       = 1 << 10
)

// An honest client makes calls on some lanes, on each of them one when the last answer is there.
type honest struct {
	stopping atomic.Bool
	running  sync.WaitGroup
	mu       sync.Mutex
	done     uint64
	last     time.Time // when an operation ended last
	stall    time.Duration
	since    time.Time // when that stall began
	err      error

	latencies histogram
	counted   *counts // of the latencies, at the last count
}

// A lane is one call of an honest client after the other.
type lane interface {
	next() pbft.Call          // without its Done
	judge(reply []byte) error // of the call that was made last; its two statuses are OK
}

// same is a lane whose calls are all the same.
type same pbft.Call

func (s same) next() pbft.Call  { return pbft.Call(s) }
func (same) judge([]byte) error { return nil }

// newHonest is an honest client that writes.
func newHonest(c *pbft.Client, file nfs3.FileHandle) *honest {
	var lanes []lane
	for i := range honestOutstanding {
		lanes = append(lanes, same(writeCall(file, uint64(i*honestBytes), make([]byte, honestBytes))))
	}
	return startHonest(c, lanes)
}

func writeCall(file nfs3.FileHandle, offset uint64, data []byte) pbft.Call {
	a := nfs3.WriteArgs{File: file, Offset: offset, Stable: nfs3.FileSync, Data: data}
	return pbft.Call{Body: body(nfs3.ProgramNFS, nfs3.ProcWrite, a.Append(nil))}
}

func readCall(file nfs3.FileHandle, offset uint64, count uint32) pbft.Call {
	a := nfs3.ReadArgs{File: file, Offset: offset, Count: count}
	return pbft.Call{Body: body(nfs3.ProgramNFS, nfs3.ProcRead, a.Append(nil)), ReadOnly: true}
}

func startHonest(c *pbft.Client, lanes []lane) *honest {
	h := &honest{last: time.Now(), counted: &counts{}}
	for _, l := range lanes {
		h.running.Add(1)
		h.call(c, l)
	}
	return h
}

// call makes the next call of a lane, whose end makes the one after it.
func (h *honest) call(c *pbft.Client, l lane) {
	begun := time.Now()
	call := l.next()
	call.Done = func(reply []byte, err error) {
		h.latencies.add(time.Since(begun))
		if err == nil {
			err = judge(l, reply)
		}
		if !h.note(err) {
			h.running.Done()
			return
		}
		h.call(c, l)
	}
	if err := c.Start(call); err != nil {
		h.note(err)
		h.running.Done()
	}
}

func judge(l lane, reply []byte) error {
	if len(reply) < 8 || [8]byte(reply) != [8]byte{} {
		return fmt.Errorf("an honest call was answered %.64x", reply)
	}
	return l.judge(reply)
}

// note counts an operation that ended, and reports whether to go on.
func (h *honest) note(err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && h.err == nil && !h.stopping.Load() {
		h.err = err
	}
	now := time.Now()
	if d := now.Sub(h.last); d > h.stall {
		h.stall, h.since = d, h.last
	}
	h.done, h.last = h.done+1, now
	return err == nil && !h.stopping.Load()
}

// trouble is an error if an operation failed, or if none ended for longer than a time since the
// last count.
func (h *honest) trouble(longest time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return fmt.Errorf("the honest client: %w", h.err)
	}
	if stall := max(h.stall, time.Since(h.last)); stall > longest {
		return fmt.Errorf("the honest client was served nothing for %v, want at most %v",
			stall.Round(time.Millisecond), longest)
	}
	return nil
}

// count returns the operations done since the last count, and the longest time in which none ended.
func (h *honest) count() (done uint64, stall time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	done, stall, err = h.done, max(h.stall, time.Since(h.last)), h.err
	h.done, h.stall = 0, 0
	return done, stall, err
}

// latency returns the latencies since the last time it was asked for.
func (h *honest) latency() *counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.latencies.counts()
	since := now.since(h.counted)
	h.counted = now
	return since
}

// stalled is when the longest stall since the last count began.
func (h *honest) stalled() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.last) > h.stall {
		return h.last
	}
	return h.since
}

func (h *honest) stop() { h.stopping.Store(true) }
