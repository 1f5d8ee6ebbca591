// SPDX-License-Identifier: Apache-2.0

package nfsstate_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"bfs/pkg/nfs3"
	"bfs/pkg/nfsstate"
	"bfs/pkg/nfsstate/internal/model"
	"bfs/pkg/pbft"
)

const fuzzPages = 2048

// furnished is a small file system with something in it, frozen as checkpoint 1.
func furnished(f *testing.F, learn func(pbft.Operation)) *subject {
	s := newSubject(f, fuzzPages)
	roots, paths := s.roots(f)
	w := model.NewWorkload(3, 1, roots, paths)
	for range 600 {
		_, call := w.Next()
		op := operation(0, &call, s.Choose(0))
		reply, _ := s.Execute(op)
		w.Learn(call, reply[4:])
		learn(op)
	}
	s.freeze(f, 1)
	return s
}

// script cuts fuzzed bytes into operations: two bytes of length, one that says which client
// calls and whether rights and choice are bytes of the script too, and then the body.
func script(b []byte) (ops []pbft.Operation) {
	take := func(n int) []byte {
		v := b[:min(n, len(b))]
		b = b[len(v):]
		return v
	}
	for len(b) >= 3 && len(ops) < 8 {
		n, flags := int(binary.BigEndian.Uint16(b)), b[2]
		b = b[3:]
		client := int(flags & 0x0f)
		op := pbft.Operation{Client: pbft.ClientID(100 + client)}
		if client < len(principals) {
			op.Rights = principals[client].Append(nil)
		} else {
			op.Rights = take(40)
		}
		if client == 15 {
			op.Client, op.Rights = pbft.Administrator, nil
		}
		if flags&0x10 != 0 {
			op.Choice = take(8)
		}
		op.Body = take(n)
		ops = append(ops, op)
	}
	return ops
}

// line is one operation of a script.
func line(client byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(body)))
	return append(append(b, client), body...)
}

// FuzzOperations gives any bytes to two instances that begin alike: none panics, Query
// and Execute answer alike, a Query changes nothing, replies and roots are the same, and
// the state stays in order.
func FuzzOperations(f *testing.F) {
	seen := 0
	a := furnished(f, func(op pbft.Operation) {
		if seen++; seen%6 == 0 && len(op.Body) < 1000 {
			f.Add(append(line(0, op.Body), line(byte(seen)%5, op.Body)...))
		}
	})
	b := furnished(f, func(pbft.Operation) {})
	f.Add(line(15, nfsstate.ExportAddCall(&nfsstate.Export{Name: "new", Mode: 0o755})))
	quota, mode := uint64(4096), uint32(0o700)
	f.Add(line(15, nfsstate.ExportSetCall(1, &nfsstate.Change{QuotaBytes: &quota, Mode: &mode})))
	f.Add(line(15, nfsstate.ExportRemoveCall(1)))
	f.Add(line(0, nfsstate.ExportListCall()))
	f.Fuzz(func(t *testing.T, input []byte) {
		for _, s := range []*subject{a, b} {
			if err := s.State().Rollback(1); err != nil {
				t.Fatal(err)
			}
		}
		for _, op := range script(input) {
			queried, only := a.Query(op)
			queried = bytes.Clone(queried)
			got, wrote := a.Execute(op)
			if only && (wrote || !bytes.Equal(queried, got)) {
				t.Fatalf("%+v\nonly reads, but wrote %v; Query gives\n%x\nExecute\n%x", op, wrote, queried, got)
			}
			if want, _ := b.Execute(nfsstate.Digested(op, len(op.Body))); !bytes.Equal(got, want) {
				t.Fatalf("%+v\ngot\n%x\nand\n%x", op, got, want)
			}
			if _, _, err := nfs3.ParseReply(got); err != nil || len(got) > nfs3.MaxTransfer+1024 {
				t.Fatalf("%+v\nreply of %d bytes: %v", op, len(got), err)
			}
		}
		if one, two := a.freeze(t, 2), b.freeze(t, 2); one != two {
			t.Fatalf("got roots %x and %x", one, two)
		}
		if err := a.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzRights gives any bytes to the reader of rights. Rights that it accepts are encoded
// again to the same bytes.
func FuzzRights(f *testing.F) {
	for i := range principals {
		f.Add(principals[i].Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := nfsstate.ParseRights(b)
		if err != nil {
			return
		}
		if again := r.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("got %x, want %x", again, b)
		}
		if err := r.Check(); err != nil {
			t.Fatalf("%x is parsed, but %v", b, err)
		}
	})
}
