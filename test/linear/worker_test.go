// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"bfs/pkg/nfs3"
	"bfs/test/patience"
)

// histories holds the calls of all workers. The workers use one directory after the
// other, each with a history of its own, because a short history is judged quickly.
type histories struct {
	root   nfs3.FileHandle
	start  time.Time
	serial atomic.Int64

	mu     sync.Mutex
	place  int
	dir    nfs3.FileHandle // of the present place; nil: to be made
	calls  int             // begun there
	judged [][]porcupine.Operation
}

// callsPerPlace is the number of calls after which the workers go on to the next directory.
const callsPerPlace = 600

// enter returns the present directory. The first worker that needs a new one makes it; the others
// wait for it.
func (h *histories) enter(w *worker) (place int, dir nfs3.FileHandle, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls == callsPerPlace {
		h.place, h.calls, h.dir = h.place+1, 0, nil
	}
	if h.dir == nil {
		if h.dir, err = w.makePlace(h.place); err != nil {
			return 0, nil, err
		}
		h.judged = append(h.judged, nil)
	}
	h.calls++
	return h.place, h.dir, nil
}

func (h *histories) note(place int, op porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.judged[place] = append(h.judged[place], op)
}

// A worker makes one call after the other, all drawn from one seed.
type worker struct {
	number    int
	histories *histories
	chance    *rand.Rand
	caller    caller
	limit     time.Duration // a call that takes longer, on this machine, is given up, and may have happened

	place   int
	dir     nfs3.FileHandle
	files   []identity // handles it has seen there, the latest few
	unknown int
	longest time.Duration
	calls   int
}

func (w *worker) run(ctx context.Context) error {
	w.place = -1
	for ctx.Err() == nil {
		place, dir, err := w.histories.enter(w)
		if err != nil {
			return fmt.Errorf("worker %d: make a directory: %w", w.number, err)
		}
		if place != w.place {
			w.place, w.dir, w.files = place, dir, nil
		}
		if err := w.step(); err != nil {
			return fmt.Errorf("worker %d: %w", w.number, err)
		}
	}
	return nil
}

// makePlace tries until the directory exists. An earlier try without an answer may have made it.
func (w *worker) makePlace(place int) (dir nfs3.FileHandle, err error) {
	ctx, cancel := patience.Context(context.Background(), wholeWithin)
	defer cancel()
	where := nfs3.DirOp{Dir: w.histories.root, Name: fmt.Appendf(nil, "place%d", place)}
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, w.limit) // not a limit: then it tries again
		args := nfs3.MkdirArgs{Where: where, Attr: nfs3.Sattr3{SetMode: true, Mode: 0o755}}
		_, err = w.caller.call(try, nfs3.ProgramNFS, nfs3.ProcMkdir, args.Append(nil))
		if err == nil {
			var results []byte
			args := nfs3.LookupArgs{What: where}
			if results, err = w.caller.call(try, nfs3.ProgramNFS, nfs3.ProcLookup, args.Append(nil)); err == nil {
				cancel()
				r, err := nfs3.DecodeLookupResult(results)
				if err == nil && r.Status != nfs3.OK {
					err = r.Status
				}
				return r.Object.FileHandle(), err
			}
		}
		cancel()
	}
	return nil, err
}

// step makes one call and notes it in the history.
func (w *worker) step() error {
	in := w.choose()
	procedure, args := w.encode(in)
	ctx, cancel := context.WithTimeout(context.Background(), w.limit) // not a limit: then the call may have happened
	defer cancel()
	begin := time.Since(w.histories.start)
	results, err := w.caller.call(ctx, nfs3.ProgramNFS, procedure, args)
	end := time.Since(w.histories.start)
	var out answer
	switch {
	case err == nil:
		if out, err = decode(in.verb, results); err != nil {
			return fmt.Errorf("%v: %w", in, err)
		}
	case ctx.Err() != nil:
		out.unknown = true
		end = forever
		w.unknown++
	default:
		return fmt.Errorf("%v: %w", in, err)
	}
	w.learn(out)
	w.calls++
	w.longest = max(w.longest, min(end-begin, w.limit))
	w.histories.note(in.place, porcupine.Operation{ClientId: w.number, Input: in, Output: out,
		Call: int64(begin), Return: int64(end)})
	return nil
}

// forever is the time of return of a call that was given up.
const forever = 24 * time.Hour

func (w *worker) learn(out answer) {
	for _, e := range out.entries {
		w.learnFile(e.file)
	}
	w.learnFile(out.file)
}

func (w *worker) learnFile(f identity) {
	if f == "" {
		return
	}
	if w.files = append(w.files, f); len(w.files) > 5 {
		w.files = w.files[1:]
	}
}

// shares are the frequencies of the verbs, in percent.
var shares = [verbs]int{lookup: 14, create: 13, write: 20, read: 15, getattr: 8, truncate: 5, remove: 7,
	rename: 7, link: 7, list: 4}

func (w *worker) choose() question {
	pick := w.chance.IntN(100)
	in := question{
		serial: int(w.histories.serial.Add(1)), place: w.place, name: w.chance.IntN(names), to: w.chance.IntN(names),
		offset: w.chance.IntN(6), size: w.chance.IntN(24), mode: nfs3.CreateMode(w.chance.IntN(3)),
		empty: w.chance.IntN(2) == 0,
	}
	for in.verb = 0; pick >= shares[in.verb]; in.verb++ {
		pick -= shares[in.verb]
	}
	switch in.verb {
	case write, read, getattr, truncate, link:
		if len(w.files) == 0 {
			in.verb = lookup
			break
		}
		in.file = w.files[w.chance.IntN(len(w.files))]
	}
	in.data = fmt.Sprintf("%d.", in.serial)
	for range w.chance.IntN(8) {
		in.data += string(rune('a' + w.chance.IntN(26)))
	}
	return in
}

func (w *worker) encode(in question) (procedure uint32, args []byte) {
	file := nfs3.FileHandle(in.file)
	at := func(name int) nfs3.DirOp { return nfs3.DirOp{Dir: w.dir, Name: []byte{'a' + byte(name)}} }
	switch in.verb {
	case lookup:
		return nfs3.ProcLookup, (&nfs3.LookupArgs{What: at(in.name)}).Append(nil)
	case create:
		a := nfs3.CreateArgs{Where: at(in.name), Mode: in.mode}
		if in.mode == nfs3.Exclusive {
			binary.BigEndian.PutUint64(a.Verifier[:], uint64(in.serial))
		} else {
			a.Attr = nfs3.Sattr3{SetMode: true, Mode: 0o644, SetSize: in.mode == nfs3.Unchecked && in.empty}
		}
		return nfs3.ProcCreate, a.Append(nil)
	case write:
		return nfs3.ProcWrite, (&nfs3.WriteArgs{File: file, Offset: uint64(in.offset), Stable: nfs3.FileSync,
			Data: []byte(in.data)}).Append(nil)
	case read:
		return nfs3.ProcRead, (&nfs3.ReadArgs{File: file, Count: 4096}).Append(nil)
	case getattr:
		return nfs3.ProcGetattr, (&nfs3.GetattrArgs{Object: file}).Append(nil)
	case truncate:
		return nfs3.ProcSetattr, (&nfs3.SetattrArgs{Object: file,
			New: nfs3.Sattr3{SetSize: true, Size: uint64(in.size)}}).Append(nil)
	case remove:
		return nfs3.ProcRemove, (&nfs3.RemoveArgs{Object: at(in.name)}).Append(nil)
	case rename:
		return nfs3.ProcRename, (&nfs3.RenameArgs{From: at(in.name), To: at(in.to)}).Append(nil)
	case link:
		return nfs3.ProcLink, (&nfs3.LinkArgs{File: file, Link: at(in.to)}).Append(nil)
	}
	return nfs3.ProcReaddirplus, (&nfs3.ReaddirplusArgs{Dir: w.dir, DirCount: 4096, MaxCount: 8192}).Append(nil)
}

// decode turns a call's results into an answer of the model.
func decode(v verb, results []byte) (a answer, err error) {
	var attr nfs3.PostOpAttr
	var before nfs3.PreOpAttr
	switch v {
	case lookup:
		var r nfs3.LookupResult
		r, err = nfs3.DecodeLookupResult(results)
		a.status, attr = r.Status, r.Attr
		if r.Status == nfs3.OK {
			a.file = identity(r.Object.Append(nil))
		}
	case create:
		var r nfs3.CreateResult
		r, err = nfs3.DecodeCreateResult(results)
		a.status, attr = r.Status, r.Attr
		if r.Status == nfs3.OK {
			a.file = identity(r.Object.Handle.Append(nil))
		}
	case write:
		var r nfs3.WriteResult
		r, err = nfs3.DecodeWriteResult(results)
		a.status, attr, before = r.Status, r.Wcc.After, r.Wcc.Before
	case truncate:
		var r nfs3.SetattrResult
		r, err = nfs3.DecodeSetattrResult(results)
		a.status, attr, before = r.Status, r.Wcc.After, r.Wcc.Before
	case read:
		var r nfs3.ReadResult
		r, err = nfs3.DecodeReadResult(results)
		a.status, attr = r.Status, r.Attr
		for _, piece := range r.Data {
			a.data += string(piece)
		}
	case getattr:
		var r nfs3.GetattrResult
		r, err = nfs3.DecodeGetattrResult(results)
		a.status, attr = r.Status, nfs3.PostOpAttr{Present: r.Status == nfs3.OK, Attr: r.Attr}
	case remove:
		var r nfs3.RemoveResult
		r, err = nfs3.DecodeRemoveResult(results)
		a.status = r.Status
	case rename:
		var r nfs3.RenameResult
		r, err = nfs3.DecodeRenameResult(results)
		a.status = r.Status
	case link:
		var r nfs3.LinkResult
		r, err = nfs3.DecodeLinkResult(results)
		a.status, attr = r.Status, r.Attr
	case list:
		return decodeList(results)
	}
	if attr.Present {
		a.size, a.links = int(attr.Attr.Size), int(attr.Attr.Nlink)
	}
	if before.Present {
		a.before = int(before.Attr.Size)
	}
	return a, err
}

func decodeList(results []byte) (a answer, err error) {
	r, err := nfs3.DecodeReaddirplusResult(results)
	a.status = r.Status
	for _, e := range r.Entries {
		if name := string(e.Name); name == "." || name == ".." {
			continue
		}
		if len(e.Name) != 1 || e.Name[0] < 'a' || e.Name[0] >= 'a'+names || !e.Attr.Present || !e.Handle.Present {
			return a, fmt.Errorf("got entry %q, attributes %t, handle %t", e.Name, e.Attr.Present, e.Handle.Present)
		}
		a.entries[e.Name[0]-'a'] = listed{identity(e.Handle.Handle.Append(nil)), int(e.Attr.Attr.Size),
			int(e.Attr.Attr.Nlink)}
	}
	return a, err
}
