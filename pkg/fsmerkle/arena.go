// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Memory outside the garbage-collected heap. A replica holds gigabytes for as long as it
// runs. On the Go heap the collector would scan them, leave headroom as large again, and
// give memory back late. Every structure whose size grows with the state is allocated here.

// The ways to get and return memory are variables for one reason: the race detector does
// not watch memory that Go did not allocate, so under it our own tests put the heap here.
var (
	mapMemory   = mapAnonymous
	unmapMemory = unix.Munmap
	giveBack    = func(b []byte) error { return unix.Madvise(b, unix.MADV_DONTNEED) }
	ready       = func(b []byte) { _ = unix.Madvise(b, unix.MADV_POPULATE_WRITE) } // from Linux 5.14 on
	protect     = func(b []byte) error { return unix.Mprotect(b, unix.PROT_READ) }
	chunkShift  = uint(14) // frames in a chunk, as a power of two: 64 MiB of addresses
)

// mapAnonymous reserves addresses. Pages of them become resident when first touched, reading as
// zeros, so an array can be as long as the page numbers it is indexed by.
func mapAnonymous(size uint64) ([]byte, error) {
	if size > math.MaxInt {
		return nil, fmt.Errorf("fsmerkle: map %d bytes: more than this machine can address", size)
	}
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("fsmerkle: map %d bytes: %w", size, err)
	}
	return b, nil
}

// must panics if memory is missing in a call that cannot fail: a replica that cannot hold
// its state has to stop.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err.Error())
	}
	return v
}

// A table is an array in mapped memory, all zeros at first, whose untouched parts cost nothing.
// T must hold no pointers.
type table[T any] struct {
	items []T
	mem   []byte
}

func newTable[T any](n uint64) (table[T], error) {
	var zero T
	mem, err := mapMemory(max(n, 1) * uint64(unsafe.Sizeof(zero)))
	if err != nil {
		return table[T]{}, err
	}
	return table[T]{unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(mem))), n), mem}, nil
}

func (t *table[T]) free() {
	if t.mem != nil {
		must(0, unmapMemory(t.mem))
	}
	*t = table[T]{}
}

// A vector is a growing list in mapped memory. T must hold no pointers.
type vector[T any] struct {
	items []T
	table table[T]
}

// vectorKeeps is the number of bytes that an emptied vector keeps for its next use.
const vectorKeeps = 1 << 20

func (v *vector[T]) push(x T) {
	if len(v.items) == cap(v.items) {
		v.reserve(len(v.items) + 1)
	}
	v.items = append(v.items, x)
}

// extend lengthens the list by n items of unspecified value.
func (v *vector[T]) extend(n int) {
	v.reserve(len(v.items) + n)
	v.items = v.items[:len(v.items)+n]
}

func (v *vector[T]) reserve(n int) {
	if n <= cap(v.items) {
		return
	}
	bigger := must(newTable[T](uint64(max(n, 2*cap(v.items), 512))))
	copy(bigger.items, v.items)
	v.items = bigger.items[:len(v.items):len(bigger.items)]
	v.table.free()
	v.table = bigger
}

func (v *vector[T]) reset() {
	if len(v.table.mem) > vectorKeeps {
		v.free()
	}
	v.items = v.items[:0]
}

func (v *vector[T]) free() {
	v.table.free()
	v.items = nil
}

// A frame is 4096 bytes of memory that a page can lie in. Frame 0 is always zeros and may not
// be written: it is where absent pages are read.
type frame uint32

const absent frame = 0

// frames finds the bytes of a frame. A copy of it stays valid for the frames that were in
// use when it was taken, because the arena only ever adds chunks.
type frames struct {
	chunks []unsafe.Pointer
	shift  uint
}

func (s frames) bytes(f frame) []byte {
	chunk := s.chunks[f>>s.shift]
	at := uintptr(f&(1<<s.shift-1)) * PageSize
	return unsafe.Slice((*byte)(unsafe.Add(chunk, at)), PageSize)
}

// Huge pages were tried: filling 1 GiB took half the system time, and first writes were
// no faster. They are not used, because the kernel may join small pages again after the
// arena gave them back.

// The arena hands out frames. Freed ones are reused last in, first out, while they are warm in
// the cache; when many lie idle the kernel gets the memory of the older half back, and these
// are cold until they are needed again.
type arena struct {
	frames
	maps  [][]byte
	fresh frame         // the first frame never handed out
	used  int           // frames handed out and not released
	keep  int           // see warmFloor
	warm  vector[frame] // released, resident, contents unspecified
	cold  vector[frame] // released, given back: all zeros when touched
}

// An arena keeps at most warmFloor + used/warmShare idle frames resident: small enough to stay
// within two hundredths of the data, large enough that a steady load never asks the kernel.
const (
	warmFloor = 1024
	warmShare = 512
)

func newArena() (arena, error) {
	a := arena{frames: frames{shift: chunkShift}, fresh: 1, keep: warmFloor}
	if err := a.addChunk(); err != nil {
		return a, err
	}
	if err := protect(a.maps[0][:PageSize]); err != nil {
		a.free()
		return a, fmt.Errorf("fsmerkle: protect the zero frame: %w", err)
	}
	return a, nil
}

func (a *arena) addChunk() error {
	mem, err := mapMemory(PageSize << a.shift)
	if err != nil {
		return err
	}
	a.maps = append(a.maps, mem)
	a.chunks = append(a.chunks, unsafe.Pointer(unsafe.SliceData(mem)))
	return nil
}

// readied is how many fresh frames are made resident in one call: a third of the cost of
// touching one by one.
const readied = 64

// take returns a frame, and whether it is known to hold zeros.
func (a *arena) take() (f frame, zeros bool) {
	a.used++
	if n := len(a.warm.items); n > 0 {
		f = a.warm.items[n-1]
		a.warm.items = a.warm.items[:n-1]
		return f, false
	}
	if f, ok := a.takeCold(); ok {
		return f, true
	}
	if f = a.takeFresh(); f%readied == 0 {
		ready(a.run(f, readied))
	}
	return f, true
}

func (a *arena) takeCold() (f frame, ok bool) {
	n := len(a.cold.items)
	if n == 0 {
		return absent, false
	}
	f = a.cold.items[n-1]
	a.cold.items = a.cold.items[:n-1]
	return f, true
}

// takeFresh returns the next frame that was never handed out.
func (a *arena) takeFresh() (f frame) {
	if a.fresh == math.MaxUint32 {
		panic("fsmerkle: out of frames: 16 TiB are in use")
	}
	if int(a.fresh>>a.shift) == len(a.chunks) {
		must(0, a.addChunk())
	}
	f = a.fresh
	a.fresh++
	return f
}

// run finds the bytes of n frames in a row, which lie in one chunk.
func (a *arena) run(first frame, n int) []byte {
	return unsafe.Slice(unsafe.SliceData(a.bytes(first)), n*PageSize)
}

// takeRun returns frames that lie in a row, at least one and at most max. They are not made
// resident, and their contents are unspecified.
func (a *arena) takeRun(max int) (first frame, n int) {
	first, _ = a.takeCold()
	if first == absent {
		first = a.takeFresh()
		for n = 1; n < max && a.fresh&(1<<a.shift-1) != 0 && a.fresh < math.MaxUint32; n++ {
			a.fresh++
		}
	} else {
		for n = 1; n < max && a.nextCold(first+frame(n)); n++ {
			a.cold.items = a.cold.items[:len(a.cold.items)-1]
		}
	}
	a.used += n
	return first, n
}

// nextCold reports whether frame f is the next cold one, and not the first of its chunk.
func (a *arena) nextCold(f frame) bool {
	n := len(a.cold.items)
	return n > 0 && a.cold.items[n-1] == f && f&(1<<a.shift-1) != 0
}

func (a *arena) takeZeroed() frame {
	f, zeros := a.take()
	if !zeros {
		clear(a.bytes(f))
	}
	return f
}

// release takes a frame back; releasing the absent frame does nothing.
func (a *arena) release(f frame) {
	if f == absent {
		return
	}
	a.used--
	a.warm.push(f)
	if len(a.warm.items) > a.keep+a.used/warmShare {
		a.cool()
	}
}

// cool gives the memory of the older half of the idle frames back, neighbours in one call.
func (a *arena) cool() {
	warm := a.warm.items
	old := warm[:len(warm)/2]
	slices.Sort(old)
	for i := 0; i < len(old); {
		j := i + 1
		for j < len(old) && old[j] == old[j-1]+1 && old[j]>>a.shift == old[i]>>a.shift {
			j++
		}
		must(0, giveBack(a.run(old[i], j-i)))
		i = j
	}
	// Backwards, so that the lowest numbers are reused first and memory stays dense.
	for i := len(old) - 1; i >= 0; i-- {
		a.cold.push(old[i])
	}
	a.warm.items = warm[:copy(warm, warm[len(old):])]
}

func (a *arena) free() {
	for _, m := range a.maps {
		must(0, unmapMemory(m))
	}
	a.warm.free()
	a.cold.free()
	*a = arena{}
}
