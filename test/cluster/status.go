// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"bfs/pkg/pbft"
	"bfs/test/patience"
)

// answerIn bounds a replica's answer, on a quiet machine.
const answerIn = 2 * time.Second

// Status asks the replica whose administration has this address for its status.
func Status(ctx context.Context, admin string) (*pbft.Status, error) {
	ctx, cancel := patience.Context(ctx, answerIn)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/status", nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	s := new(pbft.Status)
	return s, json.NewDecoder(answer.Body).Decode(s)
}
