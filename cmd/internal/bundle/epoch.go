// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/pbft"
)

// An Epoch holds the settings from which the bundles of a group's next epoch are made,
// which begins with a backup.
type Epoch struct {
	Old        *config.Group // of the epoch before
	Key        ed25519.PrivateKey
	Passphrase []byte // seals the administrator's key again; nil: not sealed
	Hosts      []Host
	Origin     pbft.Origin
	Transport  pbft.Transport
}

// HostsOf are a group's hosts as they are. Admin addresses listen on each host's
// loopback, or on the network.
func HostsOf(g *config.Group, network bool) (hosts []Host) {
	for i, m := range g.Members {
		h := Host{Address: m.Address, Admin: g.Admin[i]}
		if name, port, err := net.SplitHostPort(h.Admin); err == nil && !network {
			h.AdminListen = net.JoinHostPort(loopbackOf(name), port)
		}
		hosts = append(hosts, h)
	}
	return hosts
}

// Next is a group in its next epoch, yet without keys of its members, and without the
// checkpoint with which it begins.
func Next(old *config.Group) (*config.Group, error) {
	next, raw := *old, *old.Group
	raw.Epoch, raw.Durability, raw.Origin = raw.Epoch+1, pbft.DurabilityDisk, pbft.Origin{}
	g, err := pbft.CheckGroup(raw)
	next.Group = g
	return &next, err
}

// WriteEpoch writes the bundles to dir, which must not exist or be empty. All hosts get new keys,
// so replicas of the old epoch cannot speak in this one; the administrator and the clients keep
// their keys.
func WriteEpoch(dir string, e Epoch) error { return build(dir, e.write) }

func (e Epoch) write(dir string) error {
	text, members, err := e.group()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, GroupFile)
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	if _, err := config.LoadGroup(file); err != nil {
		return fmt.Errorf("the group file of the new epoch cannot be made of %s: %w", e.Old.File, err)
	}
	p := Plan{Name: e.Old.Name, Hosts: e.Hosts, Transport: e.Transport, Window: pbft.DefaultWindow,
		Passphrase: e.Passphrase}
	for i, key := range members {
		if err := p.writeHost(HostDir(dir, i), i, key, text); err != nil {
			return err
		}
	}
	return p.writeAdmin(filepath.Join(dir, AdminDir), e.Key, text)
}

// group makes the members' keys and the group file.
func (e Epoch) group() (text []byte, members []ed25519.PrivateKey, err error) {
	next, err := Next(e.Old)
	if err != nil {
		return nil, nil, err
	}
	if len(e.Hosts) != len(next.Members) {
		return nil, nil, fmt.Errorf("got %d hosts, want as many as the group has: %d", len(e.Hosts), len(next.Members))
	}
	raw := *next.Group
	raw.Members, raw.Origin = nil, e.Origin
	var values []memberValues
	for _, h := range e.Hosts {
		key, err := keys.Generate()
		if err != nil {
			return nil, nil, err
		}
		members = append(members, key)
		raw.Members = append(raw.Members, pbft.Member{Address: h.Address, Key: keys.Of(key)})
		values = append(values, memberValues{h, keys.Public(keys.Of(key)).String()})
	}
	g, err := pbft.CheckGroup(raw)
	if err != nil {
		return nil, nil, err
	}
	old, err := os.ReadFile(e.Old.File)
	if err != nil {
		return nil, nil, err
	}
	added, err := render("epoch.toml.tmpl", epochValues{Members: values, Old: e.Old, Group: g,
		First: hex.EncodeToString(g.Origin.First[:]), Root: hex.EncodeToString(g.Origin.Root[:]),
		Signature: base64.StdEncoding.EncodeToString(ed25519.Sign(e.Key, g.OriginCovered()))})
	return edit(string(old), g.Epoch, string(added)), members, err
}

type epochValues struct {
	Members   []memberValues
	Old       *config.Group
	Group     *pbft.Group
	First     string // hexadecimal, as is
	Root      string
	Signature string
}

var (
	tableLine      = regexp.MustCompile(`^\s*\[`)
	replacedTable  = regexp.MustCompile(`^\s*(\[\[\s*members\s*\]\]|\[\s*origin\s*\])`)
	epochLine      = regexp.MustCompile(`(?m)^\s*epoch\s*=.*$`)
	durabilityLine = regexp.MustCompile(`(?m)^\s*durability\s*=.*$`)
)

// edit makes a new epoch's group file of the old one's text: another number, and other
// members. Everything else stays as it was written. If the old file is written in a way
// that this does not meet, the signature does not fit the result.
func edit(old string, epoch uint64, tables string) []byte {
	var kept []string
	skip := false
	for _, line := range strings.Split(strings.TrimRight(old, "\n"), "\n") {
		if tableLine.MatchString(line) {
			skip = replacedTable.MatchString(line)
		}
		if !skip {
			kept = append(kept, line)
		}
	}
	text := strings.Join(kept, "\n") + "\n"
	number := fmt.Sprintf("epoch = %d", epoch)
	if at := epochLine.FindStringIndex(text); at != nil {
		text = text[:at[0]] + number + text[at[1]:]
	} else {
		text = number + "\n" + text
	}
	return []byte(durabilityLine.ReplaceAllString(text, `durability = "disk"`) + tables)
}
