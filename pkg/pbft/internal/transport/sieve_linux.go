// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"fmt"
	"math"
	"net"

	"golang.org/x/sys/unix"
)

// The sieve is a socket filter in classic BPF, which the kernel runs on what comes to the
// listening socket, and which needs no privilege. Its machine has an accumulator, an
// index register, and memory M, of which M[0] holds a random number here and M[1] a sum.
// [linux: Documentation/networking/filter.rst]
const (
	loadWord   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS // of the packet
	loadByte   = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
	loadM      = unix.BPF_LD | unix.BPF_MEM
	loadIndexM = unix.BPF_LDX | unix.BPF_MEM
	loadZero   = unix.BPF_LD | unix.BPF_IMM
	storeM     = unix.BPF_ST
	and        = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	multiply   = unix.BPF_ALU | unix.BPF_MUL | unix.BPF_K
	addIndex   = unix.BPF_ALU | unix.BPF_ADD | unix.BPF_X
	jump       = unix.BPF_JMP | unix.BPF_JA
	ifEqual    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	ifAtLeast  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	end        = unix.BPF_RET | unix.BPF_K

	tcpFlags   = 13         // offset in the TCP header, where a socket's filter finds the packet begin
	ipHeader   = 0xfff00000 // offset of the IP header
	source4    = ipHeader + 12
	source6    = ipHeader + 8
	random     = 0xfffff000 + 56 // "offset" of a random number
	syn, ack   = 0x02, 0x10
	anyPacket  = math.MaxUint32
	blockSpace = 240 // instructions that a comparison, which skips at most 255, may be from the end of its block
)

// A filter is a program that is being written.
type filter []unix.SockFilter

func (p *filter) do(op uint16, k uint32) { *p = append(*p, unix.SockFilter{Code: op, K: k}) }

// skip compares the accumulator with k. It skips yes instructions if the comparison
// holds, and no instructions if it does not.
func (p *filter) skip(op uint16, k uint32, yes, no int) {
	*p = append(*p, unix.SockFilter{Code: op, K: k, Jt: uint8(yes), Jf: uint8(no)})
}

// filter writes the program: a segment that is no SYN passes; then the accumulator takes
// the source's word, and each rule compares it.
func (s *sieve) filter() filter {
	var p filter
	p.do(loadByte, tcpFlags)
	p.do(and, syn|ack)
	p.skip(ifEqual, syn, 1, 0)
	p.do(end, anyPacket)
	p.do(loadWord, random)
	p.do(storeM, 0)
	p.do(loadByte, ipHeader)
	p.do(and, 0xf0)
	p.skip(ifEqual, 0x40, 0, 2)
	p.do(loadWord, source4)
	p.do(jump, 2+5*uint32(len(sieveKey)))
	p.do(loadZero, 0)
	p.do(storeM, 1)
	for i, k := range sieveKey {
		p.do(loadWord, source6+4*uint32(i))
		p.do(multiply, k)
		p.do(loadIndexM, 1)
		p.do(addIndex, 0)
		p.do(storeM, 1)
	}
	for _, x := range s.worst() {
		p.skip(ifEqual, word(x.addr), 0, 4)
		p.passPart(x.pass)
	}
	if s.rest < 1 {
		p.passAll(s)
		p.passPart(s.rest)
	}
	p.do(end, anyPacket)
	return p
}

// passPart ends the program: chance lets a part of the SYNs that come here pass.
func (p *filter) passPart(part float64) {
	p.do(loadM, 0)
	p.skip(ifAtLeast, uint32(min(part*(1<<32), math.MaxUint32)), 1, 0)
	p.do(end, anyPacket)
	p.do(end, 0)
}

// passAll ends the program for known addresses, all of whose SYNs pass. They are many, so
// each has a single instruction, and skips to the end of its block.
func (p *filter) passAll(s *sieve) {
	for known := s.known; len(known) > 0; {
		n := min(len(known), blockSpace)
		for i, a := range known[:n] {
			p.skip(ifEqual, word(a), n-i, 0)
		}
		p.do(jump, 1)
		p.do(end, anyPacket)
		known = known[n:]
	}
}

// attach makes the kernel sift the packets that come to the listener from now on.
// Connections inherit the filter, see detach.
func (s *sieve) attach(tcp *net.TCPListener) error {
	p := s.filter()
	program := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	return control(tcp, func(fd int) error {
		err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
		if errors.Is(err, unix.ENOMEM) { // the old filter and this one together are more than a socket may have
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
			err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
		}
		return err
	})
}

// detach removes the filter from a listener, or from a connection that has inherited one.
func detach(s socket) {
	_ = control(s, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) })
}

func control(s socket, f func(fd int) error) error {
	raw, err := s.SyscallConn()
	if err == nil {
		var refused error
		if err = raw.Control(func(fd uintptr) { refused = f(int(fd)) }); err == nil {
			err = refused
		}
	}
	if err != nil {
		return fmt.Errorf("transport: socket filter: %w", err)
	}
	return nil
}
