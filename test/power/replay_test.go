// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"bfs/pkg/pbft"
)

// A replica's disk is looked at as it was at some of the points at which its power could have
// been cut. A recording in which the replica's own writes are zeros shows that a loss is found.
// For more: go run ./test/power -replay.
func TestReplay(t *testing.T) {
	if os.Getenv("BFS_KERNEL") == "" {
		t.Skip("NOT RUN: set BFS_KERNEL=1 (make kernel-test) to run replicas under guest kernels and record a disk")
	}
	if err := errors.Join(available(), deviceMapper()); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
	s := &soak{guests: true, replays: true, rounds: 1, points: 10}
	sample(t, s)
	if x := s.done.examined; x.Looked == 0 || x.Between == 0 || x.Marks == 0 || x.Held.Records == 0 {
		t.Errorf("nothing was looked at: %+v", x)
	}
	h := s.room.(*hosts)
	x := h.all[0] // its last recording was not looked at
	job := task{Log: x.writes(), Points: 4, Promised: s.promised}
	if _, err := h.examine(t.Context(), x, job); err != nil {
		t.Errorf("the last recording: %v", err)
	}
	clearBlocks(t, x.writes())
	_, err := h.examine(t.Context(), x, job)
	found := func(as string) bool { return err != nil && strings.Contains(err.Error(), as) }
	// A block of the journal that was not written alone is still there. If it was the last before
	// the cut, it says that the records before it were durable.
	if !found("holds less than") && !found("but all up to") {
		t.Errorf("what the replica wrote is gone, and the examination says %v", err)
	}
}

// clearBlocks changes single blocks that a flush follows to zeros: those of the replica's journal.
func clearBlocks(t *testing.T, file string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	l, err := readWriteLog(f)
	must(t, err)
	for i, e := range l.entries[:len(l.entries)-1] {
		if e.writes() && !e.metadata() && i > 0 && !l.entries[i-1].writes() && l.entries[i+1].durable() {
			_, err := f.WriteAt(make([]byte, e.length), e.data)
			must(t, err)
		}
	}
}

// aLog is a log of writes with the given entries. A write has bytes of its number in the log.
func aLog(entries ...entry) []byte {
	const sector = 512
	b := make([]byte, sector)
	binary.LittleEndian.PutUint64(b, logMagic)
	binary.LittleEndian.PutUint64(b[8:], logVersion)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(entries)))
	binary.LittleEndian.PutUint32(b[24:], sector)
	for i, e := range entries {
		head := make([]byte, sector)
		for k, v := range []uint64{uint64(e.offset / sector), uint64(e.length / sector), e.flags, uint64(len(e.mark))} {
			binary.LittleEndian.PutUint64(head[8*k:], v)
		}
		copy(head[32:], e.mark)
		b = append(b, head...)
		if e.writes() {
			b = append(b, bytes.Repeat([]byte{byte(i)}, int(e.length))...)
		}
	}
	return b
}

// The log of writes is read as the kernel wrote it, and nothing else passes for one.
func TestWriteLog(t *testing.T) {
	want := []entry{
		{offset: 4096, length: 1024},
		{offset: 8192, length: 4096, flags: flagDiscard},
		{flags: flagFlush},
		{flags: flagMark, mark: standing{Records: 7}.mark()},
		{offset: 512, length: 512, flags: flagFUA | flagMetadata},
	}
	log := aLog(want...)
	l, err := readWriteLog(bytes.NewReader(log))
	must(t, err)
	for i, e := range l.entries {
		data := make([]byte, e.length)
		if e.writes() {
			must(t, l.read(&e, data))
			if !bytes.Equal(data, bytes.Repeat([]byte{byte(i)}, len(data))) {
				t.Errorf("entry %d: other data", i)
			}
		}
		e.data = 0
		if !reflect.DeepEqual(e, want[i]) {
			t.Errorf("entry %d: got %+v, want %+v", i, e, want[i])
		}
	}
	for what, change := range map[string]func([]byte) []byte{
		"is cut":           func(b []byte) []byte { return b[:len(b)-1024] },
		"has a long write": func(b []byte) []byte { b[512+15] = 0xff; return b },
		"is none":          func(b []byte) []byte { b[0]++; return b },
		"is empty":         func([]byte) []byte { return nil },
	} {
		if _, err := readWriteLog(bytes.NewReader(change(bytes.Clone(log)))); err == nil {
			t.Errorf("a log that %s is read", what)
		}
	}
}

// An examination stops after flushes only, as often as it is told to, and at the odd ones first.
func TestPoints(t *testing.T) {
	var entries []entry
	odd := map[int]bool{}
	for i := range 100 {
		entries = append(entries, entry{offset: 4096, length: 4096})
		if i%25 == 10 {
			entries = append(entries, entry{offset: 4096, length: 4096})
			odd[len(entries)] = true
		}
		entries = append(entries, entry{flags: flagFlush})
		if i%2 == 0 {
			entries = append(entries, entry{flags: flagMark, mark: standing{}.mark()})
		}
	}
	l, err := readWriteLog(bytes.NewReader(aLog(entries...)))
	must(t, err)
	for points, want := range map[int]int{0: 100, 1: 1, 20: 20, 99: 99, 1000: 100} {
		x := examination{task: task{Points: points}, log: l, chance: rand.New(rand.NewPCG(1, 1))}
		stops := x.choose()
		if len(stops) != want {
			t.Errorf("%d points: stops at %d, want %d", points, len(stops), want)
		}
		marks := 0
		for i := range stops {
			if !l.entries[i].durable() {
				t.Errorf("stops after %+v", l.entries[i])
			}
			if i+1 < len(l.entries) && l.entries[i+1].mark != "" {
				marks++
			}
		}
		if points == 20 && marks < points/2 {
			t.Errorf("stops before %d marks", marks)
		}
		for i := range odd {
			if points == 20 && !stops[i] {
				t.Errorf("does not stop after the two writes before entry %d", i)
			}
		}
	}
}

// A part of the writes before a flush is made of beginnings of them, and now and then of none, all
// and some. Metadata is not torn.
func TestParts(t *testing.T) {
	writes := []entry{
		{offset: 0, length: 4096}, {offset: 4096, length: 4096, flags: flagMetadata}, {offset: 8192, length: 8192},
		{offset: 16384, length: 512},
	}
	x := examination{chance: rand.New(rand.NewPCG(1, 1))}
	seen := map[int]int{}
	torn := 0
	for range 300 {
		part := x.part(writes)
		seen[len(part)]++
		for _, p := range part {
			switch {
			case p.length%512 != 0 || p.length > p.entry.length:
				t.Errorf("got %v", p)
			case p.length != p.entry.length && p.offset < 8192:
				t.Errorf("metadata is torn: %v", p)
			case p.length != p.entry.length:
				torn++
			}
		}
	}
	if len(seen) != len(writes)+1 || torn == 0 {
		t.Errorf("got parts of %v writes, and %d writes torn", seen, torn)
	}
}

// A directory that holds less than was promised is told from one that does not, in each number.
func TestStandings(t *testing.T) {
	full := standing{View: 2, Fence: 3, Voted: 4, Committed: 5, Image: 6, Records: 7}
	if got, err := parseMark(full.mark()); err != nil || got != full || strings.ContainsAny(full.mark(), " \t") {
		t.Errorf("mark %q: got %+v, %v", full.mark(), got, err)
	}
	for _, less := range []standing{{View: 1}, {Fence: 1}, {Voted: 1}, {Committed: 1}, {Image: 1}, {Records: 1}} {
		if none := (standing{}); none.lacks(less) == "" || less.lacks(none) != "" {
			t.Errorf("%+v and nothing are not told apart", less)
		}
		if full.lacks(less) != "" || full.and(less) != full {
			t.Errorf("%+v is more than %+v", less, full)
		}
	}
	r := pbft.DirectoryReport{View: 2, Fence: 3, Voted: 4, Committed: 5, Image: pbft.Certified{Seq: 6}, Records: 7}
	if got := standingOf(&r); got != full {
		t.Errorf("got %+v, want %+v", got, full)
	}
}
