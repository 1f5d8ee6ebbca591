// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"strconv"
	"time"
)

// Seconds is a time.Duration that JSON has as a number of seconds.
type Seconds time.Duration

// Duration is s as the library of Go has it.
func (s Seconds) Duration() time.Duration { return time.Duration(s) }

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', -1, 64), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(string(b), 64)
	*s = Seconds(v * float64(time.Second))
	return err
}
