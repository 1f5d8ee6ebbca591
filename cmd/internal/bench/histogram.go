// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram counts durations in buckets whose width is at most 1/64 of their lower end,
// which is as exact as percentiles need to be. Any goroutine may add.
type histogram struct{ buckets [histogramSize]atomic.Uint64 }

const (
	subBits       = 6
	subBuckets    = 1 << subBits
	maxExponent   = 42 // 2^43 ns is more than two hours
	histogramSize = (maxExponent - subBits + 2) << subBits
)

func (h *histogram) add(d time.Duration) { h.buckets[bucketOf(d)].Add(1) }

// counts copies the buckets. A value added meanwhile may be in the copy or not.
func (h *histogram) counts() *counts {
	c := new(counts)
	for i := range c {
		c[i] = h.buckets[i].Load()
	}
	return c
}

type counts [histogramSize]uint64

// since returns the values added between an earlier copy and this one.
func (c *counts) since(earlier *counts) *counts {
	d := new(counts)
	for i := range d {
		d[i] = c[i] - earlier[i]
	}
	return d
}

// add adds other counts.
func (c *counts) add(other *counts) {
	for i := range c {
		c[i] += other[i]
	}
}

func (c *counts) total() (n uint64) {
	for _, v := range c {
		n += v
	}
	return n
}

// quantile returns the q-quantile of the durations, 0 if there are none.
func (c *counts) quantile(q float64) time.Duration {
	total := c.total()
	rank := uint64(q * float64(total))
	for i, n := range c {
		if n > rank {
			return middleOf(i)
		}
		rank -= n
	}
	for i := len(c) - 1; i >= 0; i-- { // q is 1
		if c[i] > 0 {
			return middleOf(i)
		}
	}
	return 0
}

// bucketOf: up to 64 ns each nanosecond has its bucket, from there on each power of two has 64.
func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < subBuckets {
		return int(v)
	}
	exponent := bits.Len64(v) - 1
	if exponent > maxExponent {
		return histogramSize - 1
	}
	return (exponent-subBits+1)<<subBits | int(v>>(exponent-subBits))&(subBuckets-1)
}

func middleOf(i int) time.Duration {
	if i < subBuckets {
		return time.Duration(i)
	}
	exponent := i>>subBits + subBits - 1
	width := uint64(1) << (exponent - subBits)
	return time.Duration((uint64(i&(subBuckets-1))|subBuckets)*width + width/2)
}
