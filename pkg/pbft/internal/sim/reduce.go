// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"strings"
)

// Reduce leaves out of a failing schedule as many items as it can: the rest still fails,
// and would not without any one of its items.
func Reduce(s *Schedule) *Schedule {
	for again := true; again; {
		again = false
		for i := range s.items {
			if contains(s.dropped, i) {
				continue
			}
			if t := s.Without(i); t.Run().Err != nil {
				s, again = t, true
			}
		}
	}
	return s
}

// Command repeats the schedule.
func (s *Schedule) Command() string {
	c := fmt.Sprintf("go test ./pkg/pbft/internal/sim -run TestOne -sim.v -sim.seed=%d", s.Seed)
	if len(s.dropped) > 0 {
		c += " -sim.drop=" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(s.dropped)), ","), "[]")
	}
	return c
}
