// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

const (
	lookEvery  = 10 * time.Second
	lookWithin = 10 * time.Second
	looksLost  = 3 // in a row, and the replica hangs
)

// look asks a replica's admin address whether the replica must be started anew. Nil: it
// need not be.
func look(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/livez", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("it says %s", answer.Status)
	}
	return nil
}

// looks looks at a replica again and again until ctx ends or looksLost looks in a row
// have failed; then it returns the last failure.
func looks(ctx context.Context, address string, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for lost := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := look(ctx, address)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			lost = 0
		default:
			if lost++; lost >= looksLost {
				return err
			}
		}
	}
}
