// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// Stream writes one large file from its beginning to its end and reads it back.
type Stream struct {
	Target string // a directory of the file system to measure
	Size   int64  // bytes
	Drop   bool   // empty the kernel's caches before reading, which they would answer
}

// A StreamResult is one measurement.
type StreamResult struct {
	Size    int64 `json:"size"`
	Drop    bool  `json:"drop"`
	Seconds struct {
		Write float64 `json:"write"` // fsync and close included
		Read  float64 `json:"read"`
		Total float64 `json:"total"`
	} `json:"seconds"`
	Target string `json:"target"`
}

const streamBuffer = 1 << 20 // bytes a system call

// Run measures. The file is gone when it returns.
func (s Stream) Run(ctx context.Context) (r *StreamResult, err error) {
	if s.Target == "" {
		return nil, errors.New("--target is missing: name a directory of the file system to measure")
	}
	if s.Size < 1 {
		return nil, fmt.Errorf("--size: got %d, want 1 or more", s.Size)
	}
	f, err := os.CreateTemp(s.Target, "stream-")
	if err != nil {
		return nil, err
	}
	name := f.Name()
	defer func() { err = errors.Join(err, os.Remove(name)) }()
	r = &StreamResult{Size: s.Size, Drop: s.Drop, Target: s.Target}
	begin := time.Now()
	if err := s.write(ctx, f); err != nil {
		return nil, err
	}
	r.Seconds.Write = time.Since(begin).Seconds()
	if s.Drop {
		if err := dropCaches(); err != nil {
			return nil, err
		}
	}
	begin = time.Now()
	if err := s.read(ctx, name); err != nil {
		return nil, err
	}
	r.Seconds.Read = time.Since(begin).Seconds()
	r.Seconds.Total = r.Seconds.Write + r.Seconds.Read
	return r, nil
}

// mark is the byte of a buffer's first and last place that tells it from others.
func mark(off int64) byte { return byte(off/streamBuffer)*7 + 1 }

func (s *Stream) write(ctx context.Context, f *os.File) error {
	buffer := make([]byte, streamBuffer)
	for i := range buffer {
		buffer[i] = byte(i * i >> 3)
	}
	for off := int64(0); off < s.Size && ctx.Err() == nil; off += streamBuffer {
		b := buffer[:min(s.Size-off, streamBuffer)]
		b[0], b[len(b)-1] = mark(off), mark(off)
		if _, err := f.Write(b); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(ctx.Err(), f.Sync(), f.Close())
}

func (s *Stream) read(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buffer := make([]byte, streamBuffer)
	for off := int64(0); off < s.Size && ctx.Err() == nil; off += streamBuffer {
		b := buffer[:min(s.Size-off, streamBuffer)]
		if _, err := io.ReadFull(f, b); err != nil {
			return err
		}
		if b[0] != mark(off) || b[len(b)-1] != mark(off) {
			return fmt.Errorf("%s: the bytes read at %d differ from those written", name, off)
		}
	}
	return ctx.Err()
}

// dropCaches writes back the kernel's dirty pages and empties its file caches.
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)
}

// WriteTable shows the result to people.
func (r *StreamResult) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	rate := func(seconds float64) float64 { return float64(r.Size) / 1e6 / seconds }
	fmt.Fprintln(t, "MB\tWRITE s\tREAD s\tWRITE MB/s\tREAD MB/s\t")
	fmt.Fprintf(t, "%.0f\t%.3f\t%.3f\t%.0f\t%.0f\t\n",
		float64(r.Size)/1e6, r.Seconds.Write, r.Seconds.Read, rate(r.Seconds.Write), rate(r.Seconds.Read))
	return t.Flush()
}
