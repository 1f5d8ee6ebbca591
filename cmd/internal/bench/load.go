// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/pbft"
)

// A load keeps a number of operations outstanding at each of a number of clients: a closed
// loop, as in the paper. An operation that ends starts the next, on the goroutine it ended on.
type load struct {
	body      []byte
	result    int // bytes that each must return
	readOnly  bool
	latencies histogram
	traced    *recorder  // nil: nothing is traced
	failed    chan error // the first failure
	stopping  atomic.Bool
	running   sync.WaitGroup
}

func newLoad(o Op, readOnly bool) *load {
	return &load{body: o.body(), result: o.Result, readOnly: readOnly, failed: make(chan error, 1)}
}

// A loop is one outstanding operation after the other.
type loop struct {
	load    *load
	client  *pbft.Client
	call    pbft.Call // the same each time
	started time.Time

	id        pbft.ClientID // of what is traced
	slot      pbft.Slot
	timestamp pbft.Timestamp
}

func (l *load) start(clients []*pbft.Client, outstanding int) {
	for range outstanding {
		for _, c := range clients {
			x := &loop{load: l, client: c}
			x.call = pbft.Call{Body: l.body, ReadOnly: l.readOnly, Done: x.done}
			if l.traced != nil {
				x.id, x.call.Sending = c.Status().ID, x.sending
			}
			l.running.Add(1)
			x.next(time.Now())
		}
	}
}

// sending notes the request of the present operation.
func (x *loop) sending(slot pbft.Slot, t pbft.Timestamp) error {
	x.slot, x.timestamp = slot, t
	return nil
}

func (x *loop) next(now time.Time) {
	x.started = now
	if err := x.client.Start(x.call); err != nil {
		x.fail(err)
	}
}

func (x *loop) done(reply []byte, err error) {
	l := x.load
	switch {
	case l.stopping.Load():
		l.running.Done()
	case err != nil:
		x.fail(err)
	case len(reply) != l.result:
		x.fail(fmt.Errorf("got a result of %d bytes, want %d", len(reply), l.result))
	default:
		now := time.Now()
		l.latencies.add(now.Sub(x.started))
		if l.traced != nil {
			l.traced.add(tracedOp{x.id, x.slot, x.timestamp, pbft.Stamp(x.started.UnixNano()),
				pbft.Stamp(now.UnixNano())})
		}
		x.next(now)
	}
}

// fail ends the loop, and tells if it is the first.
func (x *loop) fail(err error) {
	select {
	case x.load.failed <- fmt.Errorf("operation: %w", err):
	default:
	}
	x.load.running.Done()
}

// stop lets the operations under way end.
func (l *load) stop(ctx context.Context) error {
	l.stopping.Store(true)
	ended := make(chan struct{})
	go func() {
		l.running.Wait()
		close(ended)
	}()
	timer := time.NewTimer(10 * time.Second)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case err := <-l.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errors.New("operations under way did not end within 10s")
	}
}
