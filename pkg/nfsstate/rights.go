// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"bfs/pkg/nfs3"
)

// Bounds of a client's rights.
const (
	MaxRights = 1024 // bytes of the encoding
	MaxGrants = 16
	MaxRanges = 16 // in each of a grant's two maps

	MaxClientName = 64
)

// Nobody is the user and the group that squashed callers become, unless a grant names others.
const Nobody uint32 = 65534

// Squash says which of a client's users are made anonymous.
type Squash uint8

// The values of Squash.
const (
	SquashNone Squash = 0
	SquashRoot Squash = 1 // user 0 and group 0
	SquashAll  Squash = 2
)

// Rights are the actions that the group grants one client. The library keeps their
// encoding in the client's record and hands it to Execute with every operation, so they
// bind a hostile relay too.
//
//	version  u8   1, or 2 if the client has a name
//	count    u8   grants
//	expires  u64  Unix nanoseconds, 0 never
//	name     u8 length and as many bytes; only in version 2, and not empty
//	grants, in the order of their exports:
//	  export   u32
//	  flags    u8   bit 0: read-only; bits 1 and 2: squash
//	  anonUID  u32
//	  anonGID  u32
//	  count    u8   ranges of user ids, then as many of: from u32, to u32, count u32; rising, apart
//	  count    u8   ranges of group ids, in the same form
//
// All numbers are big-endian. Equal rights have equal encodings.
type Rights struct {
	Name    string  // for people; grants nothing. "": none
	Expires uint64  // the agreed time, Unix nanoseconds, from which nothing is granted; 0 is never
	Grants  []Grant // rising by Export
}

// A Grant is a client's rights on one export.
type Grant struct {
	Export   uint32
	ReadOnly bool
	Squash   Squash
	AnonUID  uint32
	AnonGID  uint32

	// The maps turn the ids of the client's users into those of the export, in credentials and in
	// the attributes that a call sets: an id in no range is anonymous. Attributes that the client
	// reads are turned back: an id of the export that no range leads to is Nobody. So the owner
	// of a file is itself on both sides. Without ranges ids are taken, and shown, as they are.
	UIDs []IDRange
	GIDs []IDRange
}

// An IDRange maps From, From+1, … to To, To+1, …; Count of them.
type IDRange struct{ From, To, Count uint32 }

// ErrRights is the refusal of bytes that are not Rights.
var ErrRights = errors.New("malformed rights")

// Append appends the encoding of r to b. It is canonical if Check finds nothing.
func (r *Rights) Append(b []byte) []byte {
	version := byte(1)
	if r.Name != "" {
		version = 2
	}
	b = append(b, version, byte(len(r.Grants)))
	b = binary.BigEndian.AppendUint64(b, r.Expires)
	if version == 2 {
		b = append(append(b, byte(len(r.Name))), r.Name...)
	}
	for i := range r.Grants {
		g := &r.Grants[i]
		b = binary.BigEndian.AppendUint32(b, g.Export)
		flags := byte(g.Squash) << 1
		if g.ReadOnly {
			flags |= 1
		}
		b = append(b, flags)
		b = binary.BigEndian.AppendUint32(b, g.AnonUID)
		b = binary.BigEndian.AppendUint32(b, g.AnonGID)
		b = appendRanges(b, g.UIDs)
		b = appendRanges(b, g.GIDs)
	}
	return b
}

func appendRanges(b []byte, ranges []IDRange) []byte {
	b = append(b, byte(len(ranges)))
	for _, r := range ranges {
		b = binary.BigEndian.AppendUint32(b, r.From)
		b = binary.BigEndian.AppendUint32(b, r.To)
		b = binary.BigEndian.AppendUint32(b, r.Count)
	}
	return b
}

// Check returns an error if r cannot be granted.
func (r *Rights) Check() error {
	if len(r.Grants) > MaxGrants {
		return fmt.Errorf("%w: got %d grants, want <= %d", ErrRights, len(r.Grants), MaxGrants)
	}
	if err := CheckClientName(r.Name); r.Name != "" && err != nil {
		return fmt.Errorf("%w: %w", ErrRights, err)
	}
	last := uint32(0)
	for i := range r.Grants {
		g := &r.Grants[i]
		if g.Export <= last {
			return fmt.Errorf("%w: grant for export %d after %d", ErrRights, g.Export, last)
		}
		last = g.Export
		if err := g.check(); err != nil {
			return fmt.Errorf("%w: export %d: %w", ErrRights, g.Export, err)
		}
	}
	if n := len(r.Append(nil)); n > MaxRights {
		return fmt.Errorf("%w: got %d bytes, want <= %d", ErrRights, n, MaxRights)
	}
	return nil
}

func (g *Grant) check() error {
	if g.Squash > SquashAll {
		return fmt.Errorf("squash %d", g.Squash)
	}
	for _, x := range [...]struct {
		what string
		err  error
	}{
		{"anonymous user", nfs3.CheckID(g.AnonUID)},
		{"anonymous group", nfs3.CheckID(g.AnonGID)},
		{"map of users", CheckMap(g.UIDs)},
		{"map of groups", CheckMap(g.GIDs)},
	} {
		if x.err != nil {
			return fmt.Errorf("%s: %w", x.what, x.err)
		}
	}
	return nil
}

// CheckMap returns an error if ranges are no map of users or groups.
func CheckMap(ranges []IDRange) error {
	if len(ranges) > MaxRanges {
		return fmt.Errorf("got %d ranges, want <= %d", len(ranges), MaxRanges)
	}
	next := uint64(0)
	for _, r := range ranges {
		end := uint64(r.From) + uint64(r.Count)
		switch {
		case r.Count == 0:
			return fmt.Errorf("range %d:%d:%d is empty", r.From, r.To, r.Count)
		case uint64(r.From) < next:
			return fmt.Errorf("range %d:%d:%d begins below %d, where the one before it ends",
				r.From, r.To, r.Count, next)
		case end > uint64(nfs3.NoID) || uint64(r.To)+uint64(r.Count) > uint64(nfs3.NoID):
			return fmt.Errorf("range %d:%d:%d goes beyond %d, the last id there is", r.From, r.To, r.Count, nfs3.NoID-1)
		}
		next = end
	}
	return nil
}

// ParseRights reads Rights. It refuses encodings that Append does not write.
func ParseRights(b []byte) (Rights, error) {
	if len(b) > MaxRights || len(b) < 10 || b[0] != 1 && b[0] != 2 {
		return Rights{}, fmt.Errorf("%w: %d bytes", ErrRights, len(b))
	}
	p := rightsParser{b: b[2:]}
	r := Rights{Expires: uint64(p.u32())<<32 | uint64(p.u32())}
	if b[0] == 2 {
		r.Name = p.name()
	}
	for range min(int(b[1]), MaxGrants) {
		g := Grant{Export: p.u32()}
		flags := p.u8()
		g.ReadOnly, g.Squash = flags&1 != 0, Squash(flags>>1)
		g.AnonUID, g.AnonGID = p.u32(), p.u32()
		g.UIDs, g.GIDs = p.ranges(), p.ranges()
		r.Grants = append(r.Grants, g)
	}
	if p.short || !bytes.Equal(r.Append(nil), b) {
		return Rights{}, fmt.Errorf("%w: not canonical", ErrRights)
	}
	return r, r.Check()
}

type rightsParser struct {
	b     []byte
	short bool
}

func (p *rightsParser) u8() (v byte) {
	if len(p.b) < 1 {
		p.short = true
		return 0
	}
	v, p.b = p.b[0], p.b[1:]
	return v
}

func (p *rightsParser) u32() (v uint32) {
	if len(p.b) < 4 {
		p.short, p.b = true, nil
		return 0
	}
	v, p.b = binary.BigEndian.Uint32(p.b), p.b[4:]
	return v
}

func (p *rightsParser) name() string {
	n := int(p.u8())
	if n > len(p.b) {
		p.short, p.b = true, nil
		return ""
	}
	name := string(p.b[:n])
	p.b = p.b[n:]
	return name
}

// CheckClientName returns an error if a client cannot have this name.
func CheckClientName(name string) error {
	ok := len(name) >= 1 && len(name) <= MaxClientName
	for _, c := range []byte(name) {
		ok = ok && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			bytes.IndexByte([]byte("._-@:"), c) >= 0)
	}
	if !ok {
		return fmt.Errorf("got the name %q, want 1 to %d letters, digits, '.', '_', '-', '@' or ':'",
			name, MaxClientName)
	}
	return nil
}

func (p *rightsParser) ranges() (r []IDRange) {
	for range min(int(p.u8()), MaxRanges) {
		r = append(r, IDRange{From: p.u32(), To: p.u32(), Count: p.u32()})
	}
	return r
}

// grant returns the grant on an export, nil if there is none.
func (r *Rights) grant(e uint32) *Grant {
	for i := range r.Grants {
		if r.Grants[i].Export == e {
			return &r.Grants[i]
		}
	}
	return nil
}

// A Cred is the caller's identity after squash and maps: the ids that modes are compared with.
type Cred struct {
	UID    uint32
	GID    uint32
	groups [nfs3.MaxGroups]uint32
	count  int
}

// cred returns the caller's identity in the export.
func (g *Grant) cred(c *nfs3.Credentials) (who Cred) {
	if c.None || g.Squash == SquashAll {
		who.UID, who.GID = g.AnonUID, g.AnonGID // and no groups
		return who
	}
	who.UID = g.mapped(c.UID, g.UIDs, g.AnonUID)
	who.GID = g.mapped(c.GID, g.GIDs, g.AnonGID)
	for _, id := range c.Groups {
		if who.count < len(who.groups) {
			who.groups[who.count] = g.mapped(id, g.GIDs, g.AnonGID)
			who.count++
		}
	}
	return who
}

// mapped is an id of the client's as the export knows it.
func (g *Grant) mapped(id uint32, ranges []IDRange, anonymous uint32) uint32 {
	switch {
	case id == nfs3.NoID, g.Squash == SquashAll, id == 0 && g.Squash == SquashRoot:
		return anonymous
	case len(ranges) == 0:
		return id
	}
	for _, r := range ranges {
		if id >= r.From && id-r.From < r.Count {
			return r.To + (id - r.From)
		}
	}
	return anonymous
}

// shown is an id of the export's as the client knows it: the first that the map turns into it.
func shown(id uint32, ranges []IDRange) uint32 {
	if len(ranges) == 0 {
		return id
	}
	for _, r := range ranges {
		if id >= r.To && id-r.To < r.Count {
			return r.From + (id - r.To)
		}
	}
	return Nobody
}

// wanted returns the attributes that a call asks to set, in the export's ids: they are
// mapped as those in credentials are.
func (g *Grant) wanted(s nfs3.Sattr3) nfs3.Sattr3 {
	if s.SetUID = s.SetUID && s.UID != nfs3.NoID; s.SetUID {
		s.UID = g.mapped(s.UID, g.UIDs, g.AnonUID)
	} else {
		s.UID = 0
	}
	if s.SetGID = s.SetGID && s.GID != nfs3.NoID; s.SetGID {
		s.GID = g.mapped(s.GID, g.GIDs, g.AnonGID)
	} else {
		s.GID = 0
	}
	return s
}

// root says whether modes do not hold the caller back.
func (c *Cred) root() bool { return c.UID == 0 }

// member says whether the caller is of a group.
func (c *Cred) member(gid uint32) bool {
	if c.GID == gid {
		return true
	}
	for _, g := range c.groups[:c.count] {
		if g == gid {
			return true
		}
	}
	return false
}

// Permissions, as in one class of the mode.
const (
	mayRead  = 4
	mayWrite = 2
	mayExec  = 1
)

// may reports whether the mode gives the caller all of these permissions. The first class
// that it belongs to decides: owner, group or others. Root may do everything, except
// execute a file that has no execute permission at all.
func (c *Cred) may(in *inode, want uint32) bool {
	if c.root() {
		return want&mayExec == 0 || in.kind == nfs3.TypeDir || in.mode&0o111 != 0
	}
	class := in.mode
	switch {
	case c.UID == in.uid:
		class >>= 6
	case c.member(in.gid):
		class >>= 3
	}
	return class&want == want
}

// mayData is may for READ, WRITE and the size. The owner always may, because it may have
// opened the file before it changed the mode, and a user who may execute a file may read
// it [RFC1813 §4.4].
func (c *Cred) mayData(in *inode, want uint32) bool {
	return c.UID == in.uid || c.may(in, want) || want == mayRead && c.may(in, mayExec)
}
