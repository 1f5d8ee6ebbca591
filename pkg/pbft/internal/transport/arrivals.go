// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Rate is a rate limit with a burst.
type Rate struct{ PerSecond, Burst float64 }

// A Bucket holds the rest of a rate's burst. The zero Bucket is full. Its owner locks it.
type Bucket struct {
	spent float64
	at    time.Time // when spent was right
}

// Take reports whether n can be taken, and takes them.
func (b *Bucket) Take(r Rate, n float64, now time.Time) bool {
	b.spent = max(0, b.spent-r.PerSecond*now.Sub(b.at).Seconds())
	b.at = now
	if b.spent+n > r.Burst {
		return false
	}
	b.spent += n
	return true
}

// arrivals bounds how many connections a listener begins to greet. A connection costs the kernel
// and us some fifty microseconds before it has said anything, so connections that come too often
// are closed when they are accepted. Each address that was welcome lately has a share of its own,
// and so has each that the caller named; all others share one. An address cannot be made up,
// because TCP has answered it.
type arrivals struct {
	mu     sync.Mutex
	known  map[netip.Addr]*arrival
	others Bucket
}

type arrival struct {
	bucket  Bucket
	named   bool      // stays for ever
	welcome time.Time // when a connection from there was welcome last
}

// ArrivalRate is each share of arrivals.
var ArrivalRate = Rate{PerSecond: 250, Burst: 500}

// maxKnown is how many addresses are known, besides those that the caller named: a later one takes the place of the
// oldest.
const maxKnown = 1024

func newArrivals(named []netip.Addr) *arrivals {
	a := &arrivals{known: make(map[netip.Addr]*arrival)}
	for _, x := range named {
		a.known[x.Unmap()] = &arrival{named: true}
	}
	return a
}

// take reports whether one more connection from an address may begin.
func (a *arrivals) take(from netip.Addr, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x := a.known[from]; x != nil {
		return x.bucket.Take(ArrivalRate, 1, now)
	}
	return a.others.Take(ArrivalRate, 1, now)
}

// welcome notes that a connection from this address was welcome.
func (a *arrivals) welcome(from netip.Addr, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x := a.known[from]; x != nil {
		x.welcome = now
		return
	}
	if len(a.known) >= maxKnown {
		a.forgetOldest()
	}
	a.known[from] = &arrival{welcome: now}
}

// forgetOldest makes room for one more address, if it can. The caller holds the lock.
func (a *arrivals) forgetOldest() {
	var oldest netip.Addr
	for addr, x := range a.known {
		if !x.named && (!oldest.IsValid() || x.welcome.Before(a.known[oldest].welcome)) {
			oldest = addr
		}
	}
	delete(a.known, oldest)
}

// addressOf is the peer's, the same however it is written.
func addressOf(tcp *net.TCPConn) netip.Addr {
	if a, ok := tcp.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
