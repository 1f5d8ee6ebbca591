// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"bfs/cmd/internal/keys"
	"bfs/pkg/pbft"
)

// A Replica is one replica's configuration file, checked, with what it refers to.
type Replica struct {
	File        string
	Group       *Group
	Self        pbft.ReplicaID
	Key         ed25519.PrivateKey // nil: the keeper has it
	Keeper      string             // the keeper's socket; "": there is none
	Directory   string
	Listen      string // "": the member's address
	AdminListen string // "": no admin address
	Transport   pbft.Transport
	Window      int
	KeyPeriod   time.Duration
	Without     []pbft.Optimisation
	Log         Log

	SpendReserve bool // use the room that is kept on the disk for when it is full
}

// Log is how a process logs.
type Log struct {
	Level slog.Level
	JSON  bool
}

// Defaults of a replica's file.
const (
	DefaultAdminListen = "127.0.0.1:7451"
	DefaultPort        = 7450
	DefaultAdminPort   = 7451
)

// The values of disk_reserve.
const (
	reserveKeep  = "keep"
	reserveSpend = "spend"
)

type replicaFile struct {
	Group       string   `toml:"group"`
	Replica     int      `toml:"replica"`
	Key         string   `toml:"key"`
	Directory   string   `toml:"directory"`
	Listen      string   `toml:"listen"`
	AdminListen string   `toml:"admin_listen"`
	Transport   string   `toml:"transport"`
	Window      int      `toml:"window"`
	KeyPeriod   Duration `toml:"key_period"`
	Without     []string `toml:"without"`
	DiskReserve string   `toml:"disk_reserve"`
	keeperFile
	LogLevel  string `toml:"log_level"`
	LogFormat string `toml:"log_format"`
}

// LoadReplica reads and checks a replica's file, and the group file and the key it names.
func LoadReplica(file string) (*Replica, error) {
	f := defaultReplica()
	s, err := load(file, &f)
	if err != nil {
		return nil, err
	}
	return f.check(s)
}

func defaultReplica() replicaFile {
	return replicaFile{
		Group:       "group.toml",
		Replica:     -1,
		Key:         "identity.key",
		Directory:   "state",
		AdminListen: DefaultAdminListen,
		Transport:   string(pbft.TransportTLS),
		Window:      pbft.DefaultWindow,
		DiskReserve: reserveKeep,
		KeyPeriod:   Duration(pbft.DefaultKeyPeriod),
		LogLevel:    "info",
		LogFormat:   "text",
		keeperFile:  defaultKeeper(),
	}
}

func (f *replicaFile) check(s *source) (*Replica, error) {
	r := &Replica{File: s.file, Listen: f.Listen, AdminListen: f.AdminListen, Window: f.Window}
	var err error
	if r.Group, err = s.group(f.Group); err != nil {
		return nil, err
	}
	if !s.has("replica") {
		return nil, s.errorAt("replica", "missing: want the number of this host in the group file, 0 to %d",
			r.Group.N()-1)
	}
	if f.Replica < 0 || f.Replica >= r.Group.N() {
		return nil, s.errorAt("replica", "got %d, want the number of this host in the group file, 0 to %d",
			f.Replica, r.Group.N()-1)
	}
	r.Self = pbft.ReplicaID(f.Replica)
	if f.Keeper == "" {
		if r.Key, err = f.readKey(s, r); err != nil {
			return nil, err
		}
	} else {
		r.Keeper = s.beside(f.Keeper)
	}
	if f.Directory == "" {
		return nil, s.errorAt("directory", "empty: want a directory for the files that must survive a restart")
	}
	r.Directory = s.beside(f.Directory)
	if err := s.listen("listen", f.Listen); err != nil {
		return nil, err
	}
	if err := s.listen("admin_listen", f.AdminListen); err != nil {
		return nil, err
	}
	if r.Transport, err = s.transport(f.Transport); err != nil {
		return nil, err
	}
	if f.Window < 1 || f.Window > int(r.Group.Limits.LogSize) {
		return nil, s.errorAt("window", "got %d, want 1 to %d (limits.log_size)", f.Window, r.Group.Limits.LogSize)
	}
	if r.KeyPeriod, err = s.keyPeriod(f.KeyPeriod); err != nil {
		return nil, err
	}
	if r.Without, err = ParseWithout(f.Without); err != nil {
		return nil, s.errorAt("without", "%v", err)
	}
	switch f.DiskReserve {
	case reserveKeep, reserveSpend:
		r.SpendReserve = f.DiskReserve == reserveSpend
	default:
		return nil, s.errorAt("disk_reserve", "got %q, want %q or %q", f.DiskReserve, reserveKeep, reserveSpend)
	}
	r.Log, err = s.log(f.LogLevel, f.LogFormat)
	return r, err
}

// readKey reads the key that the file names, which must be this replica's.
func (f *replicaFile) readKey(s *source, r *Replica) (ed25519.PrivateKey, error) {
	key, err := s.key(f.Key)
	if err == nil && !keys.Of(key).Equal(r.Group.Members[r.Self].Key) {
		err = s.errorAt("key", "%s holds %v, which is not the key of replica %d in %s",
			f.Key, keys.Public(keys.Of(key)), f.Replica, r.Group.File)
	}
	return key, err
}

// ParseWithout reads the names of optimisations.
func ParseWithout(names []string) (all []pbft.Optimisation, err error) {
	for _, name := range names {
		o := pbft.Optimisation(name)
		if !slices.Contains(pbft.Optimisations(), o) {
			return nil, fmt.Errorf("got %q, want some of %q", name, pbft.Optimisations())
		}
		all = append(all, o)
	}
	return all, nil
}

// CheckDurability accepts the modes that there are.
func CheckDurability(d pbft.Durability) error {
	switch d {
	case pbft.DurabilityDisk, pbft.DurabilityReplicated:
		return nil
	}
	return fmt.Errorf("got %q, want %q or %q", d, pbft.DurabilityDisk, pbft.DurabilityReplicated)
}

// beside resolves a path in the file against the file's own directory.
func (s *source) beside(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(s.file), path)
}

// group loads the group file that key "group" names. Its errors speak of that file,
// unless it is not there.
func (s *source) group(path string) (*Group, error) {
	if path == "" {
		return nil, s.errorAt("group", "empty: want the path of the group file")
	}
	g, err := LoadGroup(s.beside(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.errorAt("group", "%v: copy there the group file that `bfsd init` made", err)
	}
	return g, err
}

func (s *source) key(path string) (ed25519.PrivateKey, error) {
	if path == "" {
		return nil, s.errorAt("key", "empty: want the path of a private key")
	}
	key, err := keys.ReadPrivate(s.beside(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.errorAt("key", "%v: it is one of the files that init made, and cannot be made again", err)
	}
	if err != nil {
		return nil, s.errorAt("key", "%v", err)
	}
	return key, nil
}

func (s *source) listen(key, address string) error {
	if address == "" {
		return nil
	}
	if err := checkListen(address); err != nil {
		return s.errorAt(key, "%v", err)
	}
	return nil
}

func (s *source) transport(name string) (pbft.Transport, error) {
	switch t := pbft.Transport(name); t {
	case pbft.TransportTLS, pbft.TransportPlain:
		return t, nil
	}
	return "", s.errorAt("transport", "got %q, want %q or %q", name, pbft.TransportTLS, pbft.TransportPlain)
}

func (s *source) log(level, format string) (l Log, err error) {
	if err := l.Level.UnmarshalText([]byte(level)); err != nil {
		return l, s.errorAt("log_level", "got %q, want debug, info, warn or error", level)
	}
	switch format {
	case "text", "json":
		l.JSON = format == "json"
		return l, nil
	}
	return l, s.errorAt("log_format", "got %q, want text or json", format)
}
