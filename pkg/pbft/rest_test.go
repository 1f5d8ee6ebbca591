// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"testing"
	"time"
)

// Long reads have a share of a replica's time, of all a client's connections together;
// those that read at once share it.
func TestRest(t *testing.T) {
	now := time.Now()
	var r reader
	const d = time.Millisecond
	if got, want := r.took(d, 1, 1, now), (readShare-1)*d; got != want {
		t.Errorf("after %v a client rests for %v, want %v", d, got, want)
	}
	if got, want := r.took(d, 1, 1, now), 2*(readShare-1)*d; got != want {
		t.Errorf("on a second connection it rests for %v, want %v", got, want)
	}
	now = now.Add(time.Minute)
	if got, want := r.took(d, 3, 1, now), 3*(readShare-1)*d; got != want {
		t.Errorf("one of three clients rests for %v, want %v", got, want)
	}
	now = now.Add(time.Minute)
	if got, want := r.took(d, 1, 0.25, now), (readShare-1)*d/4; got != want {
		t.Errorf("after %v a client rests for %v where others want a quarter of the time, want %v", d, got, want)
	}
	if got := r.took(time.Hour, 1, 1, now); got != longestRest {
		t.Errorf("a client rests for %v, want at most %v", got, longestRest)
	}
}
