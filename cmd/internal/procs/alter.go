// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// AlterMemory does what an intruder in a process can do: it overwrites each place at which the
// process's writable memory holds the bytes old by others, and returns the number of places. With
// no others it only counts. It needs the right to trace the process [ptrace(2)].
func AlterMemory(pid int, old, others []byte) (places int, err error) {
	if err := asMany(old, others); err != nil {
		return 0, err
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer memory.Close()
	parts, err := writableMemory(pid)
	if err != nil {
		return 0, err
	}
	resident, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return 0, err
	}
	defer resident.Close()
	a := alteration{memory: memory, resident: resident, old: old, others: others}
	for _, p := range parts {
		if err := a.mapping(p); err != nil {
			return a.places, fmt.Errorf("alter the memory of process %d: %w", pid, err)
		}
	}
	return a.places, nil
}

// AlterFiles does the same to all files below a directory, as they are while a process
// may be changing them.
func AlterFiles(directory string, old, others []byte) (places int, err error) {
	if err := asMany(old, others); err != nil {
		return 0, err
	}
	err = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		n, err := alterFile(path, old, others)
		places += n
		return err
	})
	return places, err
}

func asMany(old, others []byte) error {
	if len(old) == 0 || others != nil && len(others) != len(old) {
		return fmt.Errorf("alter bytes: got %d for %d, want as many, and one at least", len(others), len(old))
	}
	return nil
}

func alterFile(path string, old, others []byte) (places int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	a := alteration{memory: f, old: old, others: others}
	err = a.stretch(span{0, info.Size()})
	return a.places, err
}

// A span is a range of addresses: from the first to the one after the last.
type span struct{ from, to int64 }

// writableMemory lists the mappings of a process that it can write, and that are no device's.
func writableMemory(pid int) (all []span, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), " rw") || strings.Contains(lines.Text(), " /dev/") {
			continue
		}
		var s span
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x ", &s.from, &s.to); err != nil {
			return nil, fmt.Errorf("maps of process %d: got %q: %w", pid, lines.Text(), err)
		}
		all = append(all, s)
	}
	return all, lines.Err()
}

// An alteration is under way in one memory, or one file.
type alteration struct {
	memory      *os.File
	resident    *os.File // the pagemap of the process; nil: it is a file
	old, others []byte
	places      int
	window      []byte
}

const (
	memoryPage  = 4096
	pagesAtOnce = 1 << 16 // of which the kernel is asked whether they are resident
	present     = 1 << 63 // in an entry of the pagemap [proc(5)]
)

// mapping searches the resident pages of a mapping: a state that is mapped and not used yet may be
// larger than the machine.
func (a *alteration) mapping(m span) error {
	entries := make([]byte, 8*pagesAtOnce)
	for at := m.from; at < m.to; at += pagesAtOnce * memoryPage {
		pages := min(int64(pagesAtOnce), (m.to-at)/memoryPage)
		n, err := a.resident.ReadAt(entries[:8*pages], at/memoryPage*8)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for _, s := range residentSpans(entries[:n], at) {
			if err := a.stretch(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// residentSpans joins neighbouring pages that are present.
func residentSpans(entries []byte, at int64) (all []span) {
	for ; len(entries) >= 8; entries, at = entries[8:], at+memoryPage {
		if binary.LittleEndian.Uint64(entries)&present == 0 {
			continue
		}
		if last := len(all) - 1; last >= 0 && all[last].to == at {
			all[last].to += memoryPage
		} else {
			all = append(all, span{at, at + memoryPage})
		}
	}
	return all
}

// stretch searches mapped memory, a mebibyte at a time. Memory that is unmapped meanwhile is passed
// over.
func (a *alteration) stretch(s span) error {
	const atOnce = 1 << 20
	if a.window == nil {
		a.window = make([]byte, atOnce+len(a.old)-1)
	}
	for at := s.from; at < s.to; at += atOnce {
		b := a.window[:min(int64(len(a.window)), s.to-at)]
		n, _ := a.memory.ReadAt(b, at) // a part that was unmapped does not matter
		if err := a.replace(b[:n], at); err != nil {
			return err
		}
	}
	return nil
}

// replace overwrites the matches in b, which was read at address at.
func (a *alteration) replace(b []byte, at int64) error {
	for from := 0; ; {
		i := bytes.Index(b[from:], a.old)
		if i < 0 {
			return nil
		}
		a.places++
		if a.others != nil {
			if _, err := a.memory.WriteAt(a.others, at+int64(from+i)); err != nil {
				return err
			}
		}
		from += i + len(a.old)
	}
}
