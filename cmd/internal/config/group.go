// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"bfs/cmd/internal/keys"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// A Group is the group file: everything members and clients share, checked.
type Group struct {
	*pbft.Group
	File    string
	Admin   []string // by replica: host:port of its admin address, or ""
	State   State
	Exports []Export
}

// State is the part of the group's configuration that describes the replicated state,
// besides the limits.
type State struct {
	Size       Size // of the whole state, the library's pages included
	Inodes     uint64
	ClockBound time.Duration // how far a primary's time may be from a backup's clock [TOCS §7.2]
	Created    time.Time     // of the exports that the group begins with; zero: not given, clients see 1970
}

// An Export is one file system that the group begins with.
type Export struct {
	Path   string // "/" and a name
	Mode   Mode
	UID    uint32
	GID    uint32
	Quota  Size   // 0: as much as the state has room for
	Inodes uint64 // 0: as many as the state has room for
}

// Name is the export without its slash.
func (e Export) Name() string { return strings.TrimPrefix(e.Path, "/") }

// Bounds of the group file's values.
const (
	maxStateSize = 8 << 40
	maxExports   = 64
	minClock     = time.Second
	maxClock     = 24 * time.Hour
)

// Defaults of the group file, which `bfsd init` writes out.
const (
	DefaultStateSize  = Size(8 << 30)
	DefaultClockBound = 10 * time.Minute

	// DefaultMode is the mode of an export's root directory: every user of a client that
	// may write can make files and directories there, and cannot touch those of others.
	// With root squashed, as by default, no user could open up a directory that root owns.
	DefaultMode = Mode(0o1777)
)

// BytesPerInode decides the default number of inodes: one for as many bytes of state.
// Inodes that were never used take no memory.
const BytesPerInode = pbft.PageSize

type groupFile struct {
	Name          string       `toml:"name"`
	Epoch         uint64       `toml:"epoch"`
	Administrator string       `toml:"administrator"`
	Durability    string       `toml:"durability"`
	Members       []memberFile `toml:"members"`
	Limits        limitsFile   `toml:"limits"`
	State         stateFile    `toml:"state"`
	Exports       []exportFile `toml:"exports"`
	Origin        originFile   `toml:"origin"`
}

type memberFile struct {
	Address string `toml:"address"`
	Admin   string `toml:"admin"`
	Key     string `toml:"key"`
}

type limitsFile struct {
	CheckpointPeriod uint32 `toml:"checkpoint_period"`
	CheckpointBytes  Size   `toml:"checkpoint_bytes"`
	LogSize          uint32 `toml:"log_size"`
	Clients          uint32 `toml:"clients"`
	Slots            uint32 `toml:"slots"`
	Operation        uint32 `toml:"operation"`
	Reply            uint32 `toml:"reply"`
	BatchBytes       uint32 `toml:"batch_bytes"`
	BatchCount       uint32 `toml:"batch_count"`
	BatchCost        Size   `toml:"batch_cost"`
	LogBytes         Size   `toml:"log_bytes"`
}

type stateFile struct {
	Size       Size     `toml:"size"`
	Inodes     uint64   `toml:"inodes"`
	ClockBound Duration `toml:"clock_bound"`

	Created time.Time `toml:"created"`
}

type exportFile struct {
	Path   string `toml:"path"`
	Mode   string `toml:"mode"`
	UID    uint32 `toml:"uid"`
	GID    uint32 `toml:"gid"`
	Quota  Size   `toml:"quota"`
	Inodes uint64 `toml:"inodes"`
}

// LoadGroup reads and checks a group file.
func LoadGroup(file string) (*Group, error) {
	l := pbft.DefaultLimits()
	f := groupFile{
		Epoch:      1,
		Durability: string(pbft.DurabilityDisk),
		Limits:     limitsOf(l),
		State:      stateFile{Size: DefaultStateSize, ClockBound: Duration(DefaultClockBound)},
	}
	s, err := load(file, &f)
	if err != nil {
		return nil, err
	}
	return f.check(s)
}

func limitsOf(l pbft.Limits) limitsFile {
	return limitsFile{
		CheckpointPeriod: uint32(l.CheckpointPeriod),
		CheckpointBytes:  Size(l.CheckpointBytes),
		LogSize:          uint32(l.LogSize),
		Clients:          uint32(l.Clients),
		Slots:            uint32(l.Slots),
		Operation:        uint32(l.Operation),
		Reply:            uint32(l.Reply),
		BatchBytes:       uint32(l.BatchBytes),
		BatchCount:       uint32(l.BatchCount),
		BatchCost:        Size(l.BatchCost),
		LogBytes:         Size(l.LogBytes),
	}
}

func (f limitsFile) limits() pbft.Limits {
	l := pbft.DefaultLimits() // for the keys that the file does not hold
	l.CheckpointPeriod = pbft.SeqNum(f.CheckpointPeriod)
	l.CheckpointBytes = int(min(f.CheckpointBytes, 1<<50))
	l.LogSize = pbft.SeqNum(f.LogSize)
	l.Clients = int(f.Clients)
	l.Slots = int(f.Slots)
	l.Operation = int(f.Operation)
	l.Reply = int(f.Reply)
	l.BatchBytes = int(f.BatchBytes)
	l.BatchCount = int(f.BatchCount)
	l.BatchCost = int(min(f.BatchCost, 1<<50))
	l.LogBytes = int(min(f.LogBytes, 1<<50))
	return l
}

func (f *groupFile) check(s *source) (*Group, error) {
	g := &Group{File: s.file}
	raw := pbft.Group{Name: f.Name, Epoch: f.Epoch, Limits: f.Limits.limits(),
		Durability: pbft.Durability(f.Durability)}
	var err error
	if f.Administrator == "" {
		return nil, s.errorAt("administrator",
			"missing: want the administrator's public key, as admin/admin.key has it")
	}
	if raw.Administrator, err = keys.ParsePublic(f.Administrator); err != nil {
		return nil, s.errorAt("administrator", "%v", err)
	}
	for i, m := range f.Members {
		member, err := m.check(s, i)
		if err != nil {
			return nil, err
		}
		raw.Members = append(raw.Members, member)
		g.Admin = append(g.Admin, m.Admin)
	}
	if err := checkAddresses(s, f.Members); err != nil {
		return nil, err
	}
	if g.State, err = f.State.check(s, raw.Limits); err != nil {
		return nil, err
	}
	if g.Exports, err = checkExports(s, f.Exports); err != nil {
		return nil, err
	}
	raw.Service = g.State.digest(g.Exports)
	if raw.Origin, err = f.Origin.check(s); err != nil {
		return nil, err
	}
	if g.Group, err = pbft.CheckGroup(raw); err != nil {
		return nil, s.fromGroup(err)
	}
	return g, f.Origin.verify(s, g.Group)
}

// checkAddresses refuses two members, or a member and an admin address, at one place.
func checkAddresses(s *source, members []memberFile) error {
	taken := map[string]string{}
	for i, m := range members {
		for _, a := range []struct{ key, address string }{{"address", m.Address}, {"admin", m.Admin}} {
			key := fmt.Sprintf("members[%d].%s", i, a.key)
			if other, ok := taken[a.address]; ok && a.address != "" {
				return s.errorAt(key, "got %q, which is %s too: want an address and port of its own for each",
					a.address, other)
			}
			taken[a.address] = key
		}
	}
	return nil
}

func (m memberFile) check(s *source, i int) (pbft.Member, error) {
	at := func(key string) string { return fmt.Sprintf("members[%d].%s", i, key) }
	if err := checkAddress(m.Address); err != nil {
		return pbft.Member{}, s.errorAt(at("address"), "%v", err)
	}
	if m.Admin != "" {
		if err := checkAddress(m.Admin); err != nil {
			return pbft.Member{}, s.errorAt(at("admin"), "%v", err)
		}
	}
	key, err := keys.ParsePublic(m.Key)
	if err != nil {
		return pbft.Member{}, s.errorAt(at("key"), "%v", err)
	}
	return pbft.Member{Address: m.Address, Key: key}, nil
}

// LeastStateSize is the smallest state.size: clients and slots take at most half of it,
// and 64 MiB leave room for some files. It is a multiple of 1 MiB, to be readable. Limits
// that no group may have are refused later.
func LeastStateSize(l pbft.Limits) Size {
	if l.Clients >= 1<<16 || l.Slots > 1<<12 {
		return 64 << 20
	}
	reserved := uint64(pbft.ReservedPages(l)) * pbft.PageSize
	return Size(max(64<<20, (2*reserved+1<<20-1)>>20<<20))
}

func (f stateFile) check(s *source, l pbft.Limits) (State, error) {
	st := State{Size: f.Size, Inodes: f.Inodes, ClockBound: time.Duration(f.ClockBound), Created: f.Created}
	if least := LeastStateSize(l); st.Size < least || st.Size > maxStateSize || st.Size%pbft.PageSize != 0 {
		return st, s.errorAt("state.size", "got %v, want %v to %v, a multiple of %d bytes (%d clients with "+
			"%d slots each take up to half of the least)", st.Size, least, Size(maxStateSize),
			pbft.PageSize, l.Clients, l.Slots)
	}
	if st.Inodes == 0 {
		st.Inodes = uint64(st.Size) / BytesPerInode
	}
	if most := uint64(st.Size) / 1024; st.Inodes < 16 || st.Inodes > most {
		return st, s.errorAt("state.inodes", "got %d, want 16 to %d (one for each KiB of state.size)", st.Inodes, most)
	}
	if st.ClockBound < minClock || st.ClockBound > maxClock {
		return st, s.errorAt("state.clock_bound", "got %v, want %v to %v", st.ClockBound, minClock, Duration(maxClock))
	}
	if c := st.Created; !c.IsZero() && (!nfs3.MakeTime3(c).Time().Equal(c) || c.Location() == time.Local) {
		return st, s.errorAt("state.created",
			"got %s, want a time from 1970 to 2106 that names its zone, such as 2026-01-31T12:00:00Z",
			c.Format(time.DateTime))
	}
	return st, nil
}

// digest returns the digest of the service's part of the configuration that all must
// share; each handshake compares it.
func (s State) digest(exports []Export) pbft.Digest {
	b := []byte("bfs files v1")
	u := func(v uint64) { b = binary.LittleEndian.AppendUint64(b, v) }
	u(uint64(s.Size))
	u(s.Inodes)
	u(uint64(s.ClockBound))
	u(uint64(len(exports)))
	for _, e := range exports {
		u(uint64(len(e.Path)))
		b = append(b, e.Path...)
		for _, v := range []uint64{uint64(e.Mode), uint64(e.UID), uint64(e.GID), uint64(e.Quota), e.Inodes} {
			u(v)
		}
	}
	if !s.Created.IsZero() {
		u(uint64(s.Created.UnixNano()))
	}
	return sha256.Sum256(b)
}

// Pages is the state's size in pages.
func (s State) Pages() uint64 { return uint64(s.Size) / pbft.PageSize }

var exportPath = regexp.MustCompile(`^/[A-Za-z0-9._-]{1,64}$`)

// CheckExportPath returns an error if an export cannot have this path.
func CheckExportPath(path string) error {
	if !exportPath.MatchString(path) || path == "/." || path == "/.." {
		return fmt.Errorf("got %q, want / and a name of 1 to 64 letters, digits, '.', '_' or '-', such as /export",
			path)
	}
	return nil
}

func checkExports(s *source, files []exportFile) ([]Export, error) {
	if len(files) > maxExports {
		return nil, s.errorAt("exports", "got %d, want at most %d", len(files), maxExports)
	}
	var all []Export
	for i, f := range files {
		at := func(key string) string { return fmt.Sprintf("exports[%d].%s", i, key) }
		if err := CheckExportPath(f.Path); err != nil {
			return nil, s.errorAt(at("path"), "%v", err)
		}
		for j := range i {
			if files[j].Path == f.Path {
				return nil, s.errorAt(at("path"), "got %q a second time", f.Path)
			}
		}
		if err := nfs3.CheckID(f.UID); err != nil {
			return nil, s.errorAt(at("uid"), "%v", err)
		}
		if err := nfs3.CheckID(f.GID); err != nil {
			return nil, s.errorAt(at("gid"), "%v", err)
		}
		e := Export{Path: f.Path, Mode: DefaultMode, UID: f.UID, GID: f.GID, Quota: f.Quota, Inodes: f.Inodes}
		if f.Mode != "" {
			var err error
			if e.Mode, err = parseMode(f.Mode); err != nil {
				return nil, s.errorAt(at("mode"), "%v", err)
			}
		}
		all = append(all, e)
	}
	return all, nil
}

// Export finds an export by its path. Properties that the file does not name have their defaults.
func (g *Group) Export(path string) (e Export, named bool) {
	for _, e := range g.Exports {
		if e.Path == path {
			return e, true
		}
	}
	return Export{Path: path, Mode: DefaultMode}, false
}

var (
	replicaPrefix = regexp.MustCompile(`^replica (\d+): `)
	limitPrefix   = regexp.MustCompile(`^([a-z_]+): `)
)

// fromGroup finds the key that an error of pbft.CheckGroup is about.
func (s *source) fromGroup(err error) error {
	text := err.Error()
	if m := replicaPrefix.FindStringSubmatch(text); m != nil {
		return s.errorAt("members["+m[1]+"]", "%s", text[len(m[0]):])
	}
	if rest, ok := strings.CutPrefix(text, "replicas: "); ok {
		return s.errorAt("members", "%s", rest)
	}
	if m := limitPrefix.FindStringSubmatch(text); m != nil {
		key := m[1]
		if key != "name" && key != "administrator" && key != "origin" {
			key = "limits." + key
		}
		return s.errorAt(key, "%s", text[len(m[0]):])
	}
	return s.errorAt("", "%s", text)
}

// checkAddress wants host:port with a port that can be connected to.
func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil || !IsHost(host) {
		return fmt.Errorf("got %q, want host:port, and no blanks", a)
	}
	return checkPort(port)
}

// IsHost reports whether a text can be the name or the address of a host.
func IsHost(name string) bool {
	return name != "" && len(name) <= 253 && !strings.ContainsFunc(name, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || c == '/'
	})
}

// checkListen wants host:port too, but the host may be empty (all addresses) and the port 0 (any).
func checkListen(a string) error {
	_, port, err := net.SplitHostPort(a)
	if err != nil {
		return fmt.Errorf("got %q, want host:port", a)
	}
	if port == "0" {
		return nil
	}
	return checkPort(port)
}

func checkPort(port string) error {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("got port " + strconv.Quote(port) + ", want 1 to 65535")
	}
	return nil
}
