// SPDX-License-Identifier: Apache-2.0

package bfs

import (
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"bfs/pkg/nfs3"
)

// window is how many READs or WRITEs one transfer has under way.
const window = 8

// readAt fills p from offset off of a file, as far as the file goes; eof says that it ended.
func (f *FS) readAt(h nfs3.Handle, p []byte, off uint64) (n int, eof bool, err error) {
	var ended atomic.Bool
	n, err = split(len(p), func(from, to int) (int, error) {
		n := 0
		for from+n < to {
			k, eof, err := f.read(h, p[from+n:to], off+uint64(from+n))
			n += k
			if eof {
				ended.Store(true)
			}
			if eof || err != nil {
				return n, err
			}
		}
		return n, nil
	})
	return n, ended.Load() && err == nil, err
}

// read is one READ [RFC1813 §3.3.6].
func (f *FS) read(h nfs3.Handle, p []byte, off uint64) (n int, eof bool, err error) {
	a := &nfs3.ReadArgs{File: h.FileHandle(), Offset: off, Count: uint32(len(p))}
	r, err := nfs(f, nfs3.ProcRead, a, nfs3.DecodeReadResult)
	if err == nil {
		err = statusError(r.Status)
	}
	if err != nil {
		return 0, false, err
	}
	for _, piece := range r.Data {
		n += copy(p[n:], piece)
	}
	if n == 0 && !r.EOF {
		return 0, false, io.ErrNoProgress
	}
	return n, r.EOF, nil
}

// writeAt writes p at offset off. When it returns without an error all of it is as
// durable as the group: FILE_SYNC.
func (f *FS) writeAt(h nfs3.Handle, p []byte, off uint64) (int, error) {
	return split(len(p), func(from, to int) (int, error) {
		n := 0
		for from+n < to {
			k, err := f.write(h, p[from+n:to], off+uint64(from+n))
			n += k
			if err != nil {
				return n, err
			}
		}
		return n, nil
	})
}

// write is one WRITE [RFC1813 §3.3.7].
func (f *FS) write(h nfs3.Handle, p []byte, off uint64) (int, error) {
	a := &nfs3.WriteArgs{File: h.FileHandle(), Offset: off, Stable: nfs3.FileSync, Data: p}
	r, err := call(f.ctx, f.mount, nfs3.ProgramNFS, nfs3.ProcWrite, a, len(p), nfs3.DecodeWriteResult)
	if err == nil {
		err = statusError(r.Status)
	}
	switch n := int(r.Count); {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.ErrShortWrite
	case n > len(p):
		return 0, syscall.EIO
	default:
		return n, nil
	}
}

// split runs do on the parts of [0, size), each at most one call's worth and a few at a
// time. It returns how much was done from the start without a gap, and the error that
// made the gap. A part that does less than it was asked ends the transfer.
func split(size int, do func(from, to int) (int, error)) (int, error) {
	if size <= nfs3.MaxTransfer {
		return do(0, size)
	}
	parts := (size + nfs3.MaxTransfer - 1) / nfs3.MaxTransfer
	done, errs := make([]int, parts), make([]error, parts)
	var next atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range min(window, parts) {
		wg.Go(func() {
			for !stop.Load() {
				i := int(next.Add(1)) - 1
				if i >= parts {
					return
				}
				from, to := i*nfs3.MaxTransfer, min((i+1)*nfs3.MaxTransfer, size)
				done[i], errs[i] = do(from, to)
				if errs[i] != nil || done[i] < to-from {
					stop.Store(true)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for i := range parts {
		total += done[i]
		if errs[i] != nil || total < min((i+1)*nfs3.MaxTransfer, size) {
			return total, errs[i]
		}
	}
	return total, nil
}
