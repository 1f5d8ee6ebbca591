// SPDX-License-Identifier: Apache-2.0

package bfs

import (
	"sync"
	"sync/atomic"

	"bfs/pkg/nfs3"
)

// openFiles holds the files that are open through one mount, so that Files of one file
// share their state.
type openFiles struct {
	mu    sync.Mutex
	files map[nfs3.Handle]*shared
}

// shared is the state that all Files of one file share.
type shared struct {
	users  int           // guarded by openFiles.mu
	writes atomic.Uint64 // counts changes through this mount, each of which makes read-ahead stale
	append sync.Mutex    // held from asking for the end to having written there
	lock   chan struct{} // holds a token while a File has the lock
}

func (o *openFiles) acquire(h nfs3.Handle) *shared {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.files[h]
	if s == nil {
		s = &shared{lock: make(chan struct{}, 1)}
		if o.files == nil {
			o.files = make(map[nfs3.Handle]*shared)
		}
		o.files[h] = s
	}
	s.users++
	return s
}

func (o *openFiles) release(h nfs3.Handle, s *shared) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(o.files, h)
	}
}

// changed notes that a file was changed by name.
func (o *openFiles) changed(h nfs3.Handle) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.files[h]; s != nil {
		s.writes.Add(1)
	}
}
