// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"bfs/cmd/internal/trust"
)

// A Keeper is the configuration of a replica's keeper: the replica's file, with the key, which the
// replica itself does not read.
type Keeper struct {
	*Replica
	Key      ed25519.PrivateKey
	Own      string // directory of the keeper's counter
	Copy     string // of the counter's copy; may be Own
	User     User   // whom the replica runs as
	Manifest string // "": any executable is started
	Period   time.Duration
}

// A User is a user of the machine, by number.
type User struct {
	UID, GID uint32
	Other    bool // than the user of this process
}

// DefaultRecoveryPeriod is the time in which each replica of a group is recovered once,
// T_w [TOCS §5.2.4].
const DefaultRecoveryPeriod = 10 * time.Minute

// leastRecoveryPeriod is a bound against a slip of the unit. A real group needs minutes.
const leastRecoveryPeriod = time.Second

// keeperFile holds the keys of a replica's file that are about its keeper.
type keeperFile struct {
	Keeper    string   `toml:"keeper"`
	Directory string   `toml:"keeper_directory"`
	Copy      string   `toml:"keeper_copy"`
	User      string   `toml:"keeper_user"`
	Manifest  string   `toml:"manifest"`
	Period    Duration `toml:"recovery_period"`
}

func defaultKeeper() keeperFile {
	return keeperFile{Directory: "keeper", Period: Duration(DefaultRecoveryPeriod)}
}

// LoadKeeper reads and checks the file of a replica that has a keeper, for the keeper.
func LoadKeeper(file string) (*Keeper, error) {
	if err := owned(file); err != nil {
		return nil, err
	}
	f := defaultReplica()
	s, err := load(file, &f)
	if err != nil {
		return nil, err
	}
	r, err := f.check(s)
	if err != nil {
		return nil, err
	}
	k := &Keeper{Replica: r, Period: time.Duration(f.Period)}
	if k.Key, err = f.readKey(s, r); err != nil {
		return nil, err
	}
	if err := owned(r.Group.File); err != nil {
		return nil, err
	}
	return k, f.keeperFile.check(s, k)
}

// owned refuses a file that the user of the replica, or any other, could change: the
// keeper obeys it.
func owned(file string) error {
	f, err := trust.OpenOwned(file)
	if err != nil {
		return err
	}
	return f.Close()
}

func (f *keeperFile) check(s *source, k *Keeper) (err error) {
	if f.Keeper == "" {
		return s.errorAt("keeper", `empty: want the path of the keeper's socket, such as "keeper.sock". `+
			"Without it the replica needs no keeper, and bfsd run is enough")
	}
	if f.Directory == "" {
		return s.errorAt("keeper_directory", "empty: want a directory for the keeper's own files")
	}
	k.Own = s.beside(f.Directory)
	k.Copy = k.Own
	if f.Copy != "" {
		k.Copy = s.beside(f.Copy)
	}
	if f.Manifest != "" {
		k.Manifest = s.beside(f.Manifest)
	}
	if k.Period != 0 && k.Period < leastRecoveryPeriod {
		return s.errorAt("recovery_period", "got %v, want 0 (never) or at least %v", f.Period, leastRecoveryPeriod)
	}
	if k.User, err = findUser(f.User); err != nil {
		return s.errorAt("keeper_user", "%v", err)
	}
	return nil
}

// findUser finds a user by name; "" is this process's.
func findUser(name string) (u User, err error) {
	own := User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if name == "" {
		return own, nil
	}
	found, err := user.Lookup(name)
	if err != nil {
		return u, fmt.Errorf("got %q, want a user of this machine: %w", name, err)
	}
	uid, err := strconv.ParseUint(found.Uid, 10, 32)
	if err != nil {
		return u, err
	}
	gid, err := strconv.ParseUint(found.Gid, 10, 32)
	if err != nil {
		return u, err
	}
	u = User{UID: uint32(uid), GID: uint32(gid)}
	u.Other = u.UID != own.UID
	if u.Other && own.UID != 0 {
		return u, fmt.Errorf("got %q: only a keeper that root starts can run its replica as another user", name)
	}
	return u, nil
}
