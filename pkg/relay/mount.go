// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"slices"
	"sync"
)

// Bounds of MOUNT [RFC1813 appendix I §5.1] and of our list.
const (
	maxMountPath = 1024
	maxMounts    = 1024
)

// A mountList is the list that DUMP shows: host and path of each mount through this
// relay, oldest first. RFC 1813 calls it advisory [RFC1813 appendix I §5.2.2]: nothing is
// decided by it, and it ends with the relay. When it is full the oldest entry goes.
type mountList struct {
	mu      sync.Mutex
	entries []mounted
}

type mounted struct{ host, path string }

func (l *mountList) add(m mounted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.entries, m) {
		return
	}
	if len(l.entries) >= maxMounts {
		l.entries = slices.Delete(l.entries, 0, 1)
	}
	l.entries = append(l.entries, m)
}

func (l *mountList) remove(m mounted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = slices.DeleteFunc(l.entries, func(e mounted) bool { return e == m })
}

func (l *mountList) removeHost(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = slices.DeleteFunc(l.entries, func(e mounted) bool { return e.host == host })
}

// appendDump appends the results of DUMP.
func (l *mountList) appendDump(b []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		b = binary.BigEndian.AppendUint32(b, 1)
		b = appendString(b, e.host)
		b = appendString(b, e.path)
	}
	return binary.BigEndian.AppendUint32(b, 0)
}

// appendString appends s as XDR has it: length, bytes, zeros to the next word [RFC4506 §4.11].
func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	b = append(b, s...)
	for range -len(s) & 3 {
		b = append(b, 0)
	}
	return b
}

// parseMountPath reads the only argument of MNT and UMNT, a path.
func parseMountPath(args []byte) (string, bool) {
	w := words{b: args}
	n := w.u32()
	if w.short || n > maxMountPath {
		return "", false
	}
	start := w.at
	w.skip(n)
	if w.short || w.at != len(args) {
		return "", false
	}
	return string(args[start : start+int(n)]), true
}
