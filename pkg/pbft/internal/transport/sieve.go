// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
)

// A sieve says which part of the SYNs that come to a listener the kernel lets through; all
// other segments pass. A SYN that is dropped costs the kernel a microsecond, and its sender a
// wait, if the sender is a kernel too: it tries again after a second, two, four. Chance decides
// on each SYN, so a peer that shares its address with a flood gets through after some tries.
type sieve struct {
	floods []sifted     // addresses with rules of their own
	known  []netip.Addr // all pass, unless they are among floods
	rest   float64      // the part that passes of all others
}

// A sifted is an address of whose SYNs a part passes.
type sifted struct {
	addr netip.Addr
	pass float64
}

// maxSifted is how many addresses a sieve has rules for: those of which least passes. The
// connections of others are closed when they are accepted, as all are where the kernel
// has no sieve.
const maxSifted = 64

// worst returns the addresses that get rules.
func (s *sieve) worst() []sifted {
	slices.SortFunc(s.floods, func(a, b sifted) int {
		return cmp.Or(cmp.Compare(a.pass, b.pass), a.addr.Compare(b.addr))
	})
	return s.floods[:min(len(s.floods), maxSifted)]
}

// sieveKey makes one word of an IPv6 address. It is secret, so nobody can choose an
// address whose word is another's.
var sieveKey = [4]uint32{rand.Uint32() | 1, rand.Uint32() | 1, rand.Uint32() | 1, rand.Uint32() | 1}

// word is the number by which the filter knows an address: that of IPv4, a keyed sum of
// that of IPv6.
func word(a netip.Addr) uint32 {
	if a.Is4() {
		b := a.As4()
		return binary.BigEndian.Uint32(b[:])
	}
	b := a.As16()
	sum := uint32(0)
	for i, k := range sieveKey {
		sum += k * binary.BigEndian.Uint32(b[4*i:])
	}
	return sum
}

// A socket is a TCP listener or connection.
type socket interface {
	SyscallConn() (syscall.RawConn, error)
}
