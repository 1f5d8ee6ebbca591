// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"time"

	"bfs/pkg/pbft"
)

// CheckKeyPeriod returns an error if session keys cannot be refreshed so often, or so rarely.
func CheckKeyPeriod(d time.Duration) error {
	if d < pbft.ShortestKeyPeriod || d > pbft.LongestKeyPeriod {
		least, most := Duration(pbft.ShortestKeyPeriod), Duration(pbft.LongestKeyPeriod)
		return fmt.Errorf("got %v, want %v to %v", Duration(d), least, most)
	}
	return nil
}

// keyPeriod checks a file's key_period.
func (s *source) keyPeriod(d Duration) (time.Duration, error) {
	if err := CheckKeyPeriod(time.Duration(d)); err != nil {
		return 0, s.errorAt("key_period", "%v", err)
	}
	return time.Duration(d), nil
}
