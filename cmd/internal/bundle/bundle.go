// SPDX-License-Identifier: Apache-2.0

// Package bundle writes the files that `bfsd init` makes: the group file, one join bundle
// for each host, and the administrator's bundle.
//
//	DIR/group.toml                                shared by members and clients; nothing secret
//	DIR/host0/{group.toml,replica.toml,identity.key}   to be carried to host 0, and so on, with
//	DIR/host0/state/fresh                              the mark of a replica that has never run
//	DIR/host0/{manifest,keeper/...}                    with keepers: the manifest, and what the keeper remembers
//	DIR/admin/{group.toml,admin.key}              to be kept away from all hosts, with the manifest, if any
//
// Everything is written beside DIR first and renamed there when it is complete and reads back well.
package bundle

import (
	"crypto/ed25519"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/pbft"
)

// A Host is one member to be.
type Host struct {
	Address     string // where the others find it
	Admin       string // where `bfsd status` asks
	Listen      string // "": Address
	AdminListen string // "": Admin
}

// A Plan holds the settings from which a group's files are made.
type Plan struct {
	Name       string
	Hosts      []Host
	Exports    []string // paths
	Size       config.Size
	Limits     pbft.Limits
	Transport  pbft.Transport
	Durability pbft.Durability
	Window     int
	KeyPeriod  config.Duration // 0: pbft.DefaultKeyPeriod
	Without    []string        // optimisations; for measurements
	LogLevel   string          // "": info
	Keeper     bool            // each replica has one
	Program    string          // the executable that the manifest names; "": there is no manifest
	Passphrase []byte          // seals the administrator's key; nil: not sealed
	Created    time.Time       // of the first exports; zero: now

	manifest []byte // that the administrator has signed
}

// Files in a bundle.
const (
	GroupFile    = "group.toml"
	ReplicaFile  = "replica.toml"
	IdentityFile = "identity.key"
	AdminKeyFile = "admin.key"
	AdminDir     = "admin"
	StateDir     = "state"
	ManifestFile = "manifest"
	KeeperDir    = "keeper"
)

// HostDir is the directory of host i's bundle.
func HostDir(dir string, i int) string { return filepath.Join(dir, "host"+strconv.Itoa(i)) }

// Hosts parses the list of --hosts: names or addresses, with or without a port.
func Hosts(list []string) ([]Host, error) {
	var hosts []Host
	for _, h := range list {
		name, port, err := net.SplitHostPort(h)
		if err != nil {
			name, port = strings.Trim(h, "[]"), strconv.Itoa(config.DefaultPort)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || n == 65535 || !config.IsHost(name) {
			return nil, fmt.Errorf("host %q: want a name or an address, or either with "+
				":port (1 to 65534), and no blanks", h)
		}
		admin := strconv.FormatUint(n+1, 10)
		hosts = append(hosts, Host{
			Address:     net.JoinHostPort(name, port),
			Admin:       net.JoinHostPort(name, admin),
			AdminListen: net.JoinHostPort(loopbackOf(name), admin),
		})
	}
	return hosts, nil
}

// loopbackOf is where a host's admin address listens unless the administrator wants it on the
// network: it has no authentication. A host that is named by a loopback address listens there.
func loopbackOf(name string) string {
	if ip, err := netip.ParseAddr(name); err == nil && ip.IsLoopback() {
		return name
	}
	return "127.0.0.1"
}

// Loopback makes n hosts on this machine, on ports from base on, two each.
func Loopback(n, base int) []Host {
	var hosts []Host
	for i := range n {
		hosts = append(hosts, Host{
			Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(base+2*i)),
			Admin:   net.JoinHostPort("127.0.0.1", strconv.Itoa(base+2*i+1)),
		})
	}
	return hosts
}

//go:embed *.tmpl
var texts embed.FS

var templates = template.Must(template.New("").ParseFS(texts, "*.tmpl"))

// Write writes the plan to dir, which must not exist or be empty.
func Write(dir string, p Plan) error { return build(dir, p.write) }

// build writes a directory beside dir, and then renames it to dir.
func build(dir string, write func(temp string) error) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s: is not empty, and nothing is overwritten: remove it or name another directory", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), "."+filepath.Base(dir)+".unfinished-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) // nothing is there after the rename
	if err := write(temp); err != nil {
		return ofPlan(err)
	}
	if err := syncTree(temp); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Clean(dir)); err != nil {
		return err
	}
	return syncPath(filepath.Dir(filepath.Clean(dir)))
}

// ofPlan leaves out the file and the line of a configuration error: the file never came to be.
func ofPlan(err error) error {
	var wrong *config.Error
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s: %s", wrong.Key, wrong.Problem)
	}
	return err
}

func (p *Plan) write(dir string) error {
	group, members, err := p.generate()
	if err != nil {
		return err
	}
	text, err := render("group.toml.tmpl", group)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, GroupFile), text, 0o644); err != nil {
		return err
	}
	if _, err := config.LoadGroup(filepath.Join(dir, GroupFile)); err != nil {
		return err // the plan was wrong; the error says which key it became
	}
	if err := p.sign(group.adminKey, filepath.Join(dir, GroupFile)); err != nil {
		return err
	}
	for i, key := range members {
		if err := p.writeHost(HostDir(dir, i), i, key, text); err != nil {
			return err
		}
	}
	return p.writeAdmin(filepath.Join(dir, AdminDir), group.adminKey, text)
}

func (p *Plan) writeHost(dir string, i int, key ed25519.PrivateKey, group []byte) error {
	h := p.Hosts[i]
	v := replicaValues{Plan: *p, Replica: i, Host: h}
	if v.AdminListen == "" {
		v.AdminListen = h.Admin
	}
	if v.KeyPeriod == 0 {
		v.KeyPeriod = config.Duration(pbft.DefaultKeyPeriod)
	}
	if v.LogLevel == "" {
		v.LogLevel = "info"
	}
	text, err := render("replica.toml.tmpl", v)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, GroupFile), group, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, ReplicaFile), text, 0o644); err != nil {
		return err
	}
	if err := keys.WritePrivate(filepath.Join(dir, IdentityFile), key); err != nil {
		return err
	}
	if err := pbft.MarkFresh(filepath.Join(dir, StateDir)); err != nil {
		return err
	}
	if p.Keeper {
		return p.writeKeeper(dir)
	}
	_, err = config.LoadReplica(filepath.Join(dir, ReplicaFile))
	return err
}

func (p *Plan) writeAdmin(dir string, key ed25519.PrivateKey, group []byte) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, GroupFile), group, 0o644); err != nil {
		return err
	}
	if p.manifest != nil {
		if err := WriteManifest(filepath.Join(dir, ManifestFile), p.manifest); err != nil {
			return err
		}
	}
	file := filepath.Join(dir, AdminKeyFile)
	if p.Passphrase != nil {
		return keys.Seal(file, key, p.Passphrase)
	}
	return keys.WritePrivate(file, key)
}

// groupValues holds the values of the group file's template.
type groupValues struct {
	Plan
	Administrator   string
	Members         []memberValues
	ClockBound      string
	BatchCost       string
	LogBytes        string
	CheckpointBytes string

	adminKey ed25519.PrivateKey
}

type memberValues struct {
	Host
	Key string
}

type replicaValues struct {
	Plan
	Host
	Replica int
}

// generate makes all keys.
func (p *Plan) generate() (v groupValues, members []ed25519.PrivateKey, err error) {
	v = groupValues{
		Plan:            *p,
		ClockBound:      config.Duration(config.DefaultClockBound).String(),
		BatchCost:       config.Size(p.Limits.BatchCost).String(),
		LogBytes:        config.Size(p.Limits.LogBytes).String(),
		CheckpointBytes: config.Size(p.Limits.CheckpointBytes).String(),
	}
	if v.Created.IsZero() {
		v.Created = time.Now().UTC().Truncate(time.Second)
	}
	if v.adminKey, err = keys.Generate(); err != nil {
		return v, nil, err
	}
	v.Administrator = keys.Public(keys.Of(v.adminKey)).String()
	for _, h := range p.Hosts {
		key, err := keys.Generate()
		if err != nil {
			return v, nil, err
		}
		members = append(members, key)
		v.Members = append(v.Members, memberValues{Host: h, Key: keys.Public(keys.Of(key)).String()})
	}
	return v, members, nil
}

func render(name string, values any) ([]byte, error) {
	var b strings.Builder
	if err := templates.ExecuteTemplate(&b, name, values); err != nil {
		return nil, err
	}
	return []byte(b.String()), nil
}
