// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"bfs/pkg/nfs3"
)

// serve answers the calls of one connection in turn. answer returns the reply to a call,
// without its record mark.
func serve(t *testing.T, answer func(xid, procedure uint32) []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			var mark [4]byte
			if _, err := io.ReadFull(conn, mark[:]); err != nil {
				return
			}
			call := make([]byte, binary.BigEndian.Uint32(mark[:])&^(1<<31))
			if _, err := io.ReadFull(conn, call); err != nil {
				return
			}
			reply := answer(binary.BigEndian.Uint32(call), binary.BigEndian.Uint32(call[20:]))
			// In two fragments, as a server may.
			half := len(reply) / 2
			b := binary.BigEndian.AppendUint32(nil, uint32(half))
			b = append(b, reply[:half]...)
			b = binary.BigEndian.AppendUint32(b, uint32(len(reply)-half)|1<<31)
			if _, err := conn.Write(append(b, reply[half:]...)); err != nil {
				return
			}
		}
	}()
	return l.Addr().String()
}

func head(xid uint32, words ...uint32) (b []byte) {
	for _, v := range append([]uint32{xid}, words...) {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func TestWriteAndRead(t *testing.T) {
	handle := nfs3.Handle{Export: 1, Inode: 2, Generation: 3}
	text := []byte("some bytes")
	address := serve(t, func(xid, procedure uint32) []byte {
		b := head(xid, 1, 0, 0, 0, 0)
		switch procedure {
		case nfs3.MountProcMnt:
			return (&nfs3.MountResult{Status: nfs3.MountOK, Handle: handle, Flavors: []uint32{1}}).Append(b)
		case nfs3.ProcCreate:
			return (&nfs3.CreateResult{Status: nfs3.OK, Object: nfs3.PostFH(handle)}).Append(b)
		case nfs3.ProcWrite:
			return (&nfs3.WriteResult{Status: nfs3.OK, Count: uint32(len(text)), Committed: nfs3.FileSync}).Append(b)
		}
		return (&nfs3.ReadResult{Status: nfs3.OK, EOF: true, Data: [][]byte{text}}).Append(b)
	})
	c, err := Mount(t.Context(), address, "/export")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file, err := c.Write(t.Context(), "name", text)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Read(t.Context(), file); err != nil || !bytes.Equal(got, text) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRefusalsAreErrors(t *testing.T) {
	for want, reply := range map[string]func(xid uint32) []byte{
		"no reply to this call":  func(xid uint32) []byte { return head(xid+1, 1, 0, 0, 0, 0, 0) },
		"denied":                 func(xid uint32) []byte { return head(xid, 1, 1, 0, 0, 0, 0) },
		"accept status 4":        func(xid uint32) []byte { return head(xid, 1, 0, 0, 0, 4) },
		"malformed reply":        func(xid uint32) []byte { return head(xid, 1, 0, 0, 1<<31, 0, 0) },
		"refused with status 13": func(xid uint32) []byte { return head(xid, 1, 0, 0, 0, 0, 13) },
	} {
		address := serve(t, func(xid, _ uint32) []byte { return reply(xid) })
		if _, err := Mount(t.Context(), address, "/export"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address := serve(t, func(xid, _ uint32) []byte {
		cancel()
		return head(xid) // too short to be a reply
	})
	if _, err := Mount(ctx, address, "/export"); err == nil {
		t.Error("mounted")
	} else if !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "no reply") {
		t.Errorf("got %v", err)
	}
}

// Any bytes from a server give a result or an error.
func FuzzReply(f *testing.F) {
	f.Add(head(1, 1, 0, 0, 0, 0, 0))
	f.Add(head(1, 1, 0, 0, 400, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if results, err := accepted(b, 1); err == nil && len(results) > len(b)-24 {
			t.Errorf("got %d bytes of results from %d", len(results), len(b))
		}
	})
}
