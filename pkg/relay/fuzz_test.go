// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"bfs/pkg/nfs3"
)

// FuzzRecords reads any stream in any portions. A record consists of its fragments and
// never exceeds the bound, and memory is asked for before it is taken.
func FuzzRecords(f *testing.F) {
	f.Add(record([]byte("a record")), true)
	f.Add([]byte{0, 0, 0, 2, 1, 2, 0x80, 0, 0, 1, 3, 0x80, 0, 0, 0}, false)
	f.Add([]byte{0, 0, 0, 0}, true)
	f.Add(binary.BigEndian.AppendUint32(nil, lastFragment|maxRecord), false)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1}, false)
	f.Fuzz(func(t *testing.T, stream []byte, slowly bool) {
		var src io.Reader = bytes.NewReader(stream)
		if slowly {
			src = iotest.OneByteReader(src)
		}
		reserved := 0
		r := recordReader{
			buf:     make([]byte, 64),
			reserve: func(n int) error { reserved = n; return nil },
			partial: func() {}, whole: func() {},
		}
		for at := stream; ; {
			reserved = 0
			got, err := nextOf(&r, src)
			want, rest, wantErr := slowRecord(at)
			if !errors.Is(err, wantErr) || err == nil && !bytes.Equal(got, want) {
				t.Fatalf("got %x %v, want %x %v", got, err, want, wantErr)
			}
			if err != nil {
				return
			}
			if len(got) > maxRecord || len(got) > smallRecord && reserved < len(got) {
				t.Fatalf("%d bytes, %d reserved", len(got), reserved)
			}
			at = rest
		}
	})
}

// nextOf returns the next record of a stream. io.EOF only between records.
func nextOf(r *recordReader, src io.Reader) ([]byte, error) {
	for {
		record, err := r.next()
		if err != errUnfinished {
			return record, err
		}
		n, err := src.Read(r.space())
		if err == io.EOF && r.unfinished() {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		r.filled(n)
	}
}

// slowRecord is the obvious reader.
func slowRecord(b []byte) (rec, rest []byte, err error) {
	for first := true; ; first = false {
		if len(b) == 0 && first {
			return nil, nil, io.EOF
		}
		if len(b) < 4 {
			return nil, nil, io.ErrUnexpectedEOF
		}
		mark := binary.BigEndian.Uint32(b)
		n, last := int(mark&0x7fffffff), mark>>31 == 1
		b = b[4:]
		switch {
		case len(rec)+n > maxRecord:
			return nil, nil, errOversized
		case n == 0 && !last:
			return nil, nil, errEmptyFragment
		case len(b) < n:
			return nil, nil, io.ErrUnexpectedEOF
		}
		rec, b = append(rec, b[:n]...), b[n:]
		if last {
			return rec, b, nil
		}
	}
}

// FuzzHeader parses any record. A header that passes is that of a call which the replicas
// can read, with the arguments of the record, and stands in the record's memory.
func FuzzHeader(f *testing.F) {
	f.Add(rpcMessage(1, nfs3.ProgramNFS, 1, "handle"))
	f.Add(rpcMessage(1, nfs3.ProgramMount, 1, ""))
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0})
	none := make([]byte, 40)
	none[11] = 2
	f.Add(none)
	f.Fuzz(func(t *testing.T, message []byte) {
		var h header
		original := bytes.Clone(message)
		verdict := h.parse(message)
		if !bytes.Equal(message, original) {
			t.Fatal("parsing changed the record")
		}
		if verdict != proceed {
			return
		}
		args := bytes.Clone(message[h.args:])
		body := h.operation(message)
		if len(args) > nfs3.MaxArguments {
			return // records are bounded before; arguments of that size are the replicas' to refuse
		}
		c, err := nfs3.ParseCall(body)
		if err != nil {
			t.Fatalf("the group cannot read %x: %v", body, err)
		}
		if c.Program != h.program || c.Procedure != h.procedure || c.Cred.None != h.cred.None ||
			c.Cred.UID != h.cred.UID ||
			c.Cred.GID != h.cred.GID || len(c.Cred.Groups) != len(h.cred.Groups) || !bytes.Equal(c.Args, args) {
			t.Fatalf("the group reads %+v of %+v", c, h)
		}
		for i, g := range c.Cred.Groups {
			if g != h.groups[i] {
				t.Fatalf("group %d is %d, want %d", i, g, h.groups[i])
			}
		}
	})
}
