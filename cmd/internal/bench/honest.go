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

// An honest client makes the same calls again and again, each when its last answer is there.
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

// newHonest is an honest client that writes.
func newHonest(c *pbft.Client, file nfs3.FileHandle) *honest {
	var calls []pbft.Call
	for i := range honestOutstanding {
		a := nfs3.WriteArgs{File: file, Offset: uint64(i * honestBytes), Stable: nfs3.FileSync}
		a.Data = make([]byte, honestBytes)
		calls = append(calls, pbft.Call{Body: body(nfs3.ProgramNFS, nfs3.ProcWrite, a.Append(nil))})
	}
	return startHonest(c, calls)
}

func startHonest(c *pbft.Client, calls []pbft.Call) *honest {
	h := &honest{last: time.Now(), counted: &counts{}}
	for _, call := range calls {
		begun := time.Now()
		call.Done = func(reply []byte, err error) {
			h.latencies.add(time.Since(begun))
			begun = time.Now()
			if h.note(reply, err) && c.Start(call) == nil {
				return
			}
			h.running.Done()
		}
		h.running.Add(1)
		if err := c.Start(call); err != nil {
			h.note(nil, err)
			h.running.Done()
		}
	}
	return h
}

// note counts an operation that ended, and reports whether to go on.
func (h *honest) note(reply []byte, err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && (len(reply) < 8 || [8]byte(reply) != [8]byte{}) {
		err = fmt.Errorf("an honest call was answered %.64x", reply)
	}
	if err != nil && h.err == nil {
		h.err = err
	}
	now := time.Now()
	if d := now.Sub(h.last); d > h.stall {
		h.stall, h.since = d, h.last
	}
	h.done, h.last = h.done+1, now
	return err == nil && !h.stopping.Load()
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
