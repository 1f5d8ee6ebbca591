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

// arrivals bounds how many connections a listener begins to greet. A connection costs the
// kernel and us some fifty microseconds before it brings a byte. Each address from which
// a peer was welcome lately has a share of its own, and so have the addresses that the
// caller named. Any other address, a guest, has a smaller share, and all guests together
// have one. An address cannot be forged, because TCP has answered it.
//
// A connection beyond a share is closed when it is accepted, and the share is in flood
// until it is used within its rate for a while. Even to accept and close is too dear for
// a flood, so the kernel drops most of the SYNs of a share in flood: see sieve.
type arrivals struct {
	mu      sync.Mutex
	known   map[netip.Addr]*arrival
	guests  map[netip.Addr]*arrival
	all     arrival   // all guests
	sifting bool      // some share is in flood, and tick is called until none is
	told    time.Time // when the log last told of any flood
}

// An arrival is an address that connections come from.
type arrival struct {
	share
	named   bool      // stays for ever
	welcome time.Time // when a peer was welcome last; zero: a guest
	told    time.Time // when the log last told of its flood
}

// A share is the use that an address, or all guests, make of their rate.
type share struct {
	bucket Bucket
	flood  bool    // more came than the rate allows
	came   int     // in flood: in the present tick
	pass   float64 // in flood: the part of SYNs that the kernel lets through
}

// ArrivalRate is the share of each address that is known, and of all guests together.
var ArrivalRate = Rate{PerSecond: 250, Burst: 500}

// GuestRate is the share of one address that is not known.
var GuestRate = Rate{PerSecond: 50, Burst: 150}

const (
	// maxKnown is how many addresses are known, besides those that the caller named: a
	// later one takes the place of the oldest.
	maxKnown = 1024

	// maxGuests is how many guests' shares are remembered: a later one takes the place of
	// any that is not in flood.
	maxGuests = 1024
)

func newArrivals(named []netip.Addr) *arrivals {
	a := &arrivals{known: make(map[netip.Addr]*arrival), guests: make(map[netip.Addr]*arrival)}
	for _, x := range named {
		a.known[x.Unmap()] = &arrival{named: true}
	}
	return a
}

// take reports whether one more connection from an address may begin. begun says that a flood has
// begun: tick is to be called now, and then every floodTick until it says that there is none.
func (a *arrivals) take(from netip.Addr, now time.Time) (ok, begun bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x := a.known[from]; x != nil {
		ok = x.take(ArrivalRate, now)
	} else {
		ok = a.guest(from).take(GuestRate, now) && a.all.take(ArrivalRate, now)
	}
	begun = !ok && !a.sifting
	a.sifting = a.sifting || !ok
	return ok, begun
}

// guest is the share of an address that is not known. The caller holds the lock.
func (a *arrivals) guest(from netip.Addr) *arrival {
	x := a.guests[from]
	if x != nil {
		return x
	}
	if len(a.guests) >= maxGuests {
		var gone netip.Addr
		for addr, y := range a.guests { // any: iteration begins anywhere
			if gone = addr; !y.flood {
				break
			}
		}
		delete(a.guests, gone)
	}
	x = &arrival{}
	a.guests[from] = x
	return x
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
	delete(a.guests, from)
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

// take spends one connection of the share.
func (x *share) take(r Rate, now time.Time) bool {
	if x.flood {
		x.came++
	}
	if x.bucket.Take(r, 1, now) {
		return true
	}
	if !x.flood {
		x.flood, x.came, x.pass = true, 0, firstPass
	}
	return false
}

const (
	// floodTick is how often the shares in flood are looked at.
	floodTick = 250 * time.Millisecond

	// firstPass is the part of SYNs that passes when a flood begins, twice.
	firstPass = 1.0 / 16

	// leastPass is the least part of SYNs that passes, so that we learn when a flood is over.
	leastPass = 1.0 / (1 << 12)

	// toldEvery is how often the log tells of the flood of one address.
	toldEvery = 10 * time.Minute

	// toldPause is the pause between two floods in the log, so that a stranger with many
	// addresses cannot flood the log.
	toldPause = time.Second
)

// tick sets the part of SYNs that pass, after one tick of a flood, so that connections come at
// about the share's rate. The flood ends when all pass and less than half of the rate comes.
func (x *share) tick(r Rate) {
	rate, came := r.PerSecond*floodTick.Seconds(), float64(x.came)
	x.came = 0
	switch {
	case !x.flood:
	case came > rate:
		x.pass = max(leastPass, x.pass*rate/came)
	case came > rate/2:
	case x.pass < 1:
		x.pass = min(1, 2*x.pass)
	default:
		x.flood = false
	}
}

// tick ends a tick. It returns the sieve for the next, and the addresses whose floods the log
// is to tell of; the zero address stands for all guests. over says that no share is in flood.
func (a *arrivals) tick(now time.Time) (s sieve, tell []netip.Addr, over bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.rest, over = 1, true
	one := func(addr netip.Addr, x *arrival, r Rate) {
		if x.tick(r); !x.flood {
			return
		}
		over = false
		if addr.IsValid() {
			s.floods = append(s.floods, sifted{addr, x.pass})
		} else {
			s.rest = x.pass
		}
		// If it is too early to tell now, a later tick of this flood tells.
		if now.Sub(x.told) >= toldEvery && now.Sub(a.told) >= toldPause {
			x.told, a.told = now, now
			tell = append(tell, addr)
		}
	}
	one(netip.Addr{}, &a.all, ArrivalRate)
	for addr, x := range a.known {
		one(addr, x, ArrivalRate)
		s.known = append(s.known, addr)
	}
	for addr, x := range a.guests {
		one(addr, x, GuestRate)
	}
	a.sifting = !over
	return s, tell, over
}

// floods counts the shares that are in flood.
func (a *arrivals) floods() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.sifting {
		return 0
	}
	if a.all.flood {
		n++
	}
	for _, of := range []map[netip.Addr]*arrival{a.known, a.guests} {
		for _, x := range of {
			if x.flood {
				n++
			}
		}
	}
	return n
}

// addressOf is the peer's address in one form: IPv4 is not mapped into IPv6.
func addressOf(tcp *net.TCPConn) netip.Addr {
	if a, ok := tcp.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
