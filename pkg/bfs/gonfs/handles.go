// SPDX-License-Identifier: Apache-2.0

package gonfs

import (
	"container/list"
	"crypto/rand"
	"encoding/binary"
	"strings"
	"sync"
)

// DefaultHandles is how many handles are known at once. Each takes some 300 bytes.
const DefaultHandles = 1 << 16

// handleSize is the length of a handle in bytes: the server's number and the path's.
const handleSize = 16

type handle [handleSize]byte

// handles maps paths to the handles that go-nfs's clients keep. At the limit the longest
// unused one is forgotten; the root, number 0, never is.
type handles struct {
	mu       sync.Mutex
	server   uint64 // of this life, so that another's handles are stale
	last     uint64
	limit    int
	recent   *list.List // of *named, most recent first
	byHandle map[handle]*list.Element
	byPath   map[string]*list.Element
}

type named struct {
	handle handle
	path   string
}

func newHandles(limit int) *handles {
	if limit <= 0 {
		limit = DefaultHandles
	}
	var b [8]byte
	rand.Read(b[:])
	return &handles{
		server: binary.BigEndian.Uint64(b[:]), limit: limit, recent: list.New(),
		byHandle: make(map[handle]*list.Element), byPath: make(map[string]*list.Element),
	}
}

func (t *handles) number(n uint64) (h handle) {
	binary.BigEndian.PutUint64(h[:], t.server)
	binary.BigEndian.PutUint64(h[8:], n)
	return h
}

// of returns the handle of a path; "" is the root.
func (t *handles) of(path string) handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	if path == "" {
		return t.number(0)
	}
	if e := t.byPath[path]; e != nil {
		t.recent.MoveToFront(e)
		return e.Value.(*named).handle
	}
	if t.recent.Len() >= t.limit {
		t.forget(t.recent.Back())
	}
	t.last++
	n := &named{t.number(t.last), path}
	e := t.recent.PushFront(n)
	t.byHandle[n.handle], t.byPath[path] = e, e
	return n.handle
}

// path returns the path of a handle. It is not ok if the handle is stale, or of another server.
func (t *handles) path(b []byte) (path string, ok bool) {
	if len(b) != handleSize {
		return "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	h := handle(b)
	if h == t.number(0) {
		return "", true
	}
	e := t.byHandle[h]
	if e == nil {
		return "", false
	}
	t.recent.MoveToFront(e)
	return e.Value.(*named).path, true
}

func (t *handles) forget(e *list.Element) {
	n := t.recent.Remove(e).(*named)
	delete(t.byHandle, n.handle)
	delete(t.byPath, n.path)
}

// removed makes the handle of a path stale.
func (t *handles) removed(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byPath[path]; e != nil {
		t.forget(e)
	}
}

// moved lets handles follow a rename of a file, or of a directory with all below it.
func (t *handles) moved(from, to string) {
	if from == to {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byPath[to]; e != nil {
		t.forget(e)
	}
	var below []*list.Element
	for path, e := range t.byPath {
		if path == from || strings.HasPrefix(path, from+"/") {
			below = append(below, e)
		}
	}
	for _, e := range below {
		n := e.Value.(*named)
		delete(t.byPath, n.path)
		n.path = to + strings.TrimPrefix(n.path, from)
		t.byPath[n.path] = e
	}
}
