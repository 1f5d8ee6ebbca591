// SPDX-License-Identifier: Apache-2.0

package pbft

import "time"

// syncTimes counts how long syncs of the journal took, in classes of powers of two.
type syncTimes struct {
	counts [syncClasses]uint64 // of class i: at most leastSync << i; of the last one: all that took longer
	sum    time.Duration
	last   time.Time // when one ended
}

const (
	leastSync   = 64 * time.Microsecond
	syncClasses = 17 // the last but one ends at two seconds
)

func (s *syncTimes) note(took time.Duration) {
	i := 0
	for i < syncClasses-1 && took > leastSync<<i {
		i++
	}
	s.counts[i]++
	s.sum += took
	s.last = time.Now()
}

// A Histogram counts lengths of time in classes.
type Histogram struct {
	Count   uint64   `json:"count"`
	Sum     Seconds  `json:"sum_seconds"`
	P50     Seconds  `json:"p50_seconds"` // the upper end of the class that it lies in
	P99     Seconds  `json:"p99_seconds"`
	Classes []uint64 `json:"-"` // how many there are in each class
}

// SyncClass is the upper end of class i of a Histogram; there is none of the last.
func SyncClass(i int) (end time.Duration, ok bool) { return leastSync << i, i < syncClasses-1 }

func (s *syncTimes) histogram() (h Histogram) {
	h.Sum, h.Classes = Seconds(s.sum), append(h.Classes, s.counts[:]...)
	for _, n := range s.counts {
		h.Count += n
	}
	h.P50, h.P99 = s.quantile(h.Count, 50), s.quantile(h.Count, 99)
	return h
}

// quantile is the upper end of the class in which the p-th percentile of n is; that of the last is twice the one before.
func (s *syncTimes) quantile(n uint64, p uint64) Seconds {
	var below uint64
	for i, c := range s.counts {
		if below += c; c > 0 && below*100 >= n*p {
			return Seconds(leastSync << i)
		}
	}
	return 0
}
