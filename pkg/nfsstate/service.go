// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// Config holds the values that decide results, which must be alike at all replicas; and
// the machine's clock, which decides nothing by itself.
type Config struct {
	Pages    uint64   // of the whole state, the library's included
	Reserved uint64   // the first pages, which are the library's; at least 1
	Inodes   uint64   // 0: one for each page
	Epoch    uint64   // of the group's life; a new one makes clients send uncommitted data again
	Exports  []Export // that the state begins with, numbered from 1 on

	Created time.Time // of these exports' roots; the zero time is shown as 1970

	Now        func() time.Time // the machine's clock, for Choose and Accept; nil is time.Now
	ClockBound time.Duration    // how far from it another replica's proposal may be; 0 is DefaultClockBound
}

// DefaultClockBound is large, because a refusal by backups costs a view change, and it
// also bounds how wrong the agreed time can be.
const DefaultClockBound = 5 * time.Minute

const maxPages = math.MaxUint32

// An FS is the file system: a deterministic state machine over the pages of a store. It is a
// pbft.Service, and can be called without a group too. One goroutine at a time calls its methods.
type FS struct {
	config Config
	store  *fsmerkle.Store
	at     layout

	procedures [nfs3.ProcCommit + 1]procedure // of NFS, by number

	// The fields below are memory that no result depends on.
	call    nfs3.Call       // of the operation that runs
	asking  caller          // of the same
	known   [64]knownRights // by client, so that rights are parsed once
	pieces  [][]byte        // of READ, lent to the codec
	listing []nfs3.Entry    // of READDIR, lent to the codec
	plus    []nfs3.EntryPlus
	reply   []byte // of the last operation
}

var (
	_ pbft.Service   = (*FS)(nil)
	_ pbft.Versioned = state{}
	_ pbft.Renewer   = (*FS)(nil)
	_ pbft.Recorded  = state{}
)

// New returns the file system that lies on the pages of store, or makes an empty one if
// they are all zero.
func New(store *fsmerkle.Store, c Config) (*FS, error) {
	if c.Inodes == 0 {
		c.Inodes = c.Pages
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.ClockBound == 0 {
		c.ClockBound = DefaultClockBound
	}
	if c.Reserved == 0 || uint64(store.Limit()) < c.Pages {
		return nil, fmt.Errorf("nfsstate: got %d reserved pages, want >= 1, and a store of %d pages, want >= %d",
			c.Reserved, store.Limit(), c.Pages)
	}
	at, err := layoutOf(&c)
	if err != nil {
		return nil, err
	}
	fs := &FS{config: c, store: store, at: at}
	fs.procedures = fs.nfsProcedures()
	if le.Uint64(fs.read(at.super)[superMagic:]) != 0 {
		return fs, fs.formatted()
	}
	fs.format()
	for i := range c.Exports {
		if err := checkExport(&c.Exports[i]); err != nil {
			return nil, err
		}
		if _, st := fs.addExport(nfs3.MakeTime3(c.Created), &c.Exports[i]); st != nfs3.OK {
			return nil, fmt.Errorf("nfsstate: export %q: %w", c.Exports[i].Name, st)
		}
	}
	return fs, nil
}

// A caller is the client and user of the operation that runs.
type caller struct {
	now    nfs3.Time3 // the operation's time
	clock  uint64     // the same in Unix nanoseconds
	client pbft.ClientID
	rights *Rights           // nil: none
	cred   *nfs3.Credentials // as the client's machine says
	blocks []pbft.Digest     // of the end of the operation, as far as the library has them

	// Set by open, for the export of the handle:
	grant    *Grant
	who      Cred
	readOnly bool
}

// block returns the digest of the pageSize bytes that begin fromEnd bytes before the end
// of the operation, if the library has digested exactly these.
func (c *caller) block(fromEnd int) (d pbft.Digest, ok bool) {
	if n := fromEnd / pageSize; fromEnd%pageSize == 0 && 0 < n && n <= len(c.blocks) {
		return c.blocks[len(c.blocks)-n], true
	}
	return d, false
}

// Execute runs one operation, at the agreed time.
func (fs *FS) Execute(op pbft.Operation) (reply []byte, wrote bool) {
	c, err := fs.begins(&op)
	if err != nil {
		return refuse(nfs3.GarbageArgs), false
	}
	c.blocks = op.Blocks
	c.clock = fs.clock(op.Choice)
	c.now = timeOf(c.clock)
	if fs.onlyReads(&fs.call) {
		return fs.answer(c, &fs.call), false
	}
	le.PutUint64(fs.modify(fs.at.super)[superClock:], c.clock)
	reply = fs.answer(c, &fs.call)
	fs.reclaim(reclaimPages)
	return reply, true
}

// Query answers an operation that only reads. Its time is that of the last operation that
// wrote. For a client whose rights have expired by this machine's clock it is not ok, so
// that the agreed clock decides, in Execute.
func (fs *FS) Query(op pbft.Operation) (reply []byte, ok bool) {
	c, err := fs.begins(&op)
	if err != nil {
		return refuse(nfs3.GarbageArgs), true
	}
	if !fs.onlyReads(&fs.call) {
		return nil, false
	}
	if c.rights != nil && c.rights.Expires > 0 {
		if c.rights.Expires <= uint64(fs.config.Now().UnixNano()) {
			return nil, false
		}
		c.clock = le.Uint64(fs.read(fs.at.super)[superClock:]) // the answer depends on it only here
		c.now = timeOf(c.clock)
	}
	return fs.answer(c, &fs.call), true
}

// begins parses an operation into fs.call and returns its caller. Both lie in the FS and
// are used again by the next operation: the procedures are func values, so anything given
// to one would otherwise be allocated for each operation.
func (fs *FS) begins(op *pbft.Operation) (*caller, error) {
	call, err := nfs3.ParseCall(op.Body)
	if err != nil {
		return nil, err
	}
	fs.call = call
	fs.asking = caller{client: op.Client, rights: fs.rightsOf(op), cred: &fs.call.Cred}
	return &fs.asking, nil
}

// onlyReads says whether a call changes nothing, not even the clock.
func (fs *FS) onlyReads(call *nfs3.Call) bool {
	return nfs3.ReadOnly(call.Program, call.Procedure) ||
		call.Program == nfs3.ProgramAdmin && call.Procedure == AdminExportList
}

// Choose proposes this machine's time, as Unix nanoseconds [TOCS §7.2].
func (fs *FS) Choose(pbft.SeqNum) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(fs.config.Now().UnixNano(), 0)))
}

// Accept says whether a proposed time is near this machine's.
func (fs *FS) Accept(_ pbft.SeqNum, choice []byte) bool {
	if len(choice) != 8 {
		return false
	}
	t := binary.BigEndian.Uint64(choice)
	if t > maxClock {
		return false
	}
	off := time.Unix(0, int64(t)).Sub(fs.config.Now())
	return off.Abs() <= fs.config.ClockBound
}

// maxClock is the last time that fits the protocol's 32 bits of seconds.
const maxClock = (1<<32)*uint64(time.Second) - 1

// clock returns the time of an operation: the proposed time, but later than all before,
// so that no two operations that write have the same time and time never goes back. A
// choice that is no time is ignored.
func (fs *FS) clock(choice []byte) uint64 {
	next := min(le.Uint64(fs.read(fs.at.super)[superClock:])+1, maxClock)
	if len(choice) != 8 {
		return next
	}
	if t := binary.BigEndian.Uint64(choice); t > next && t <= maxClock {
		return t
	}
	return next
}

func timeOf(nanoseconds uint64) nfs3.Time3 {
	s := uint64(time.Second)
	return nfs3.Time3{Seconds: uint32(nanoseconds / s), Nanoseconds: uint32(nanoseconds % s)}
}

// knownRights are the rights of a client that called before.
type knownRights struct {
	client pbft.ClientID
	raw    []byte
	rights *Rights
}

// rightsOf parses an operation's rights, or finds them parsed. Only equal bytes of the
// same client count as found.
func (fs *FS) rightsOf(op *pbft.Operation) *Rights {
	k := &fs.known[uint64(op.Client)%uint64(len(fs.known))]
	if k.raw != nil && k.client == op.Client && bytes.Equal(k.raw, op.Rights) {
		return k.rights
	}
	*k = knownRights{client: op.Client, raw: append(make([]byte, 0, len(op.Rights)), op.Rights...)}
	if r, err := ParseRights(op.Rights); err == nil {
		k.rights = &r
	}
	return k.rights
}

// enter looks up the caller's rights on an export. It answers ACCES for an export that
// the client was not granted, whether it exists or not.
func (c *caller) enter(export uint32) nfs3.Status {
	if c.rights == nil || c.rights.Expires > 0 && c.clock >= c.rights.Expires {
		return nfs3.ErrAcces
	}
	g := c.rights.grant(export)
	if g == nil {
		return nfs3.ErrAcces
	}
	c.grant, c.who, c.readOnly = g, g.cred(c.cred), g.ReadOnly
	return nfs3.OK
}

// open loads the inode that a handle names. If it names none, in stays without a number,
// and has no attributes.
func (fs *FS) open(c *caller, fh nfs3.FileHandle, in *inode) nfs3.Status {
	h, ok := fh.Parse()
	if !ok {
		return nfs3.ErrBadHandle
	}
	if st := c.enter(h.Export); st != nfs3.OK {
		return st
	}
	if h.Inode < uint64(firstInode) || h.Inode >= fs.config.Inodes {
		return nfs3.ErrStale
	}
	fs.load(inodeNum(h.Inode), in)
	if in.kind == 0 || in.generation != h.Generation || uint32(in.export) != h.Export {
		in.num = 0
		return nfs3.ErrStale
	}
	return nfs3.OK
}

// openDir is open for a directory. Another object is loaded nevertheless, because the
// reply holds its attributes.
func (fs *FS) openDir(c *caller, fh nfs3.FileHandle, in *inode) nfs3.Status {
	st := fs.open(c, fh, in)
	if st == nfs3.OK && in.kind != nfs3.TypeDir {
		return nfs3.ErrNotDir
	}
	return st
}

// state lends the pages to the library.
type state struct{ fs *FS }

// State is the file system's memory.
func (fs *FS) State() pbft.State { return state{fs} }

func (s state) Page(n pbft.PageNum) []byte   { return s.fs.store.Read(fsmerkle.PageNum(n)) }
func (s state) Modify(n pbft.PageNum) []byte { return s.fs.store.Modify(fsmerkle.PageNum(n)) }

func (s state) Begin(n pbft.SeqNum)   { s.fs.store.Begin(fsmerkle.Seq(n)) }
func (s state) Observe()              { s.fs.store.Observe() }
func (s state) Observed() pbft.SeqNum { return pbft.SeqNum(s.fs.store.Observed()) }

func (s state) Freeze(seq pbft.SeqNum, rooted func(root pbft.Digest)) {
	s.fs.store.Freeze(fsmerkle.Seq(seq), func(d fsmerkle.Digest) { rooted(pbft.Digest(d)) })
}

func (s state) Discard(below pbft.SeqNum) { s.fs.store.Discard(fsmerkle.Seq(below)) }

// Rollback drops nothing of FS, because the memory beside the pages depends on Execute's
// arguments only.
func (s state) Rollback(to pbft.SeqNum) error { return s.fs.store.Rollback(fsmerkle.Seq(to)) }
