// SPDX-License-Identifier: Apache-2.0

// Package staged marks the directories of groups that are put up on this machine for a
// demonstration or a measurement. A replica that misbehaves refuses to run in any other group, so
// it cannot take part in one that keeps files.
package staged

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"bfs/cmd/internal/config"
)

// A Purpose is why a group is put up. It names the file that marks the directory, which holds the
// digest of the group.
type Purpose string

// The purposes.
const (
	Demo   Purpose = "demo"   // bfsd demo --byzantine
	Attack Purpose = "attack" // bfsd bench attack
)

// command is what puts such a group up.
func (p Purpose) command() string {
	if p == Demo {
		return "bfsd demo --byzantine"
	}
	return "bfsd bench attack"
}

// Mark marks the directory of a group.
func (p Purpose) Mark(dir string, g *config.Group) error {
	return os.WriteFile(filepath.Join(dir, string(p)), []byte(digest(g)+"\n"), 0o644)
}

func digest(g *config.Group) string {
	d := g.Digest()
	return hex.EncodeToString(d[:])
}

// Check refuses the file of a replica whose group was not put up for this purpose, or is not on
// this machine alone.
func (p Purpose) Check(file string) error {
	r, err := config.LoadReplica(file)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(r.File)
	if err != nil {
		return err
	}
	dir := filepath.Dir(filepath.Dir(filepath.Dir(path))) // DIR/group/hostN/replica.toml
	mark, err := os.ReadFile(filepath.Join(dir, string(p)))
	if err != nil || strings.TrimSpace(string(mark)) != digest(r.Group) {
		return fmt.Errorf("%s is not in a directory of %s, and a replica that lies belongs nowhere else: run %[2]s",
			file, p.command())
	}
	for _, m := range r.Group.Members {
		if a, err := netip.ParseAddrPort(m.Address); err != nil || !a.Addr().IsLoopback() {
			return errors.Join(fmt.Errorf("%s: member %s is not on this machine's loopback: a "+
				"replica that lies may not meet it", file, m.Address), err)
		}
	}
	return nil
}
