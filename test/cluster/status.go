// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"bfs/pkg/pbft"
	"bfs/pkg/relay"
	"bfs/test/patience"
)

// answerIn bounds a replica's answer, on a quiet machine.
const answerIn = 2 * time.Second

// Status asks the replica whose administration has this address for its status.
func Status(ctx context.Context, admin string) (*pbft.Status, error) {
	s := new(pbft.Status)
	if err := ask(ctx, admin, s); err != nil {
		return nil, err
	}
	return s, nil
}

// ask decodes the status page at an address into s.
func ask(ctx context.Context, admin string, s any) error {
	ctx, cancel := patience.Context(ctx, answerIn)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/status", nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return json.NewDecoder(answer.Body).Decode(s)
}

// callsWithin bounds how long AwaitCalls waits.
const callsWithin = 10 * time.Second

// AwaitCalls waits until that many calls of the relay's kernels are under way at once.
func (r *Relay) AwaitCalls(ctx context.Context, calls int) error {
	ctx, cancel := patience.Context(ctx, callsWithin)
	defer cancel()
	admin := fmt.Sprintf("127.0.0.1:%d", r.Port+1)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var s struct{ Relay relay.Stats }
		if err := ask(ctx, admin, &s); err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		if s.Relay.InFlight >= calls {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %d calls under way, want %d: %w", r.Name, s.Relay.InFlight, calls, ctx.Err())
		case <-tick.C:
		}
	}
}
