// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/ed25519"
	"net"
	"time"

	"bfs/pkg/pbft"
)

// A Relay is a relay's configuration file, checked, with what it refers to.
type Relay struct {
	File          string
	Group         *Group
	Key           ed25519.PrivateKey
	KeyFile       string
	Listen        string
	AdminListen   string // "": no admin address
	Export        string // that `bfs-relay mount` mounts
	InsecurePorts bool
	Journal       string // "": none
	Anchor        string // "": none
	Transport     pbft.Transport
	KeyPeriod     time.Duration
	Log           Log
}

// Defaults of a relay's file. The ports need no root.
const (
	DefaultRelayListen      = "127.0.0.1:12049"
	DefaultRelayAdminListen = "127.0.0.1:12050"
	DefaultExport           = "/export"
)

type relayFile struct {
	Group         string   `toml:"group"`
	Key           string   `toml:"key"`
	Listen        string   `toml:"listen"`
	AdminListen   string   `toml:"admin_listen"`
	Export        string   `toml:"export"`
	InsecurePorts bool     `toml:"insecure_ports"`
	Journal       string   `toml:"journal"`
	Anchor        string   `toml:"anchor"`
	Transport     string   `toml:"transport"`
	KeyPeriod     Duration `toml:"key_period"`
	LogLevel      string   `toml:"log_level"`
	LogFormat     string   `toml:"log_format"`
}

// LoadRelay reads and checks a relay's file, and the group file and the key it names.
func LoadRelay(file string) (*Relay, error) {
	f := defaultRelay()
	s, err := load(file, &f)
	if err != nil {
		return nil, err
	}
	return f.check(s)
}

func defaultRelay() relayFile {
	return relayFile{
		Group:       "group.toml",
		Key:         "relay.key",
		Listen:      DefaultRelayListen,
		AdminListen: DefaultRelayAdminListen,
		Export:      DefaultExport,
		Journal:     "journal",
		Anchor:      "anchor",
		Transport:   string(pbft.TransportTLS),
		KeyPeriod:   Duration(pbft.DefaultKeyPeriod),
		LogLevel:    "info",
		LogFormat:   "text",
	}
}

// CheckRelay checks the text of a relay's file that is yet to be written, but not the
// files it names.
func CheckRelay(text []byte) error {
	f := defaultRelay()
	s, err := decode("relay.toml", text, &f)
	if err != nil {
		return err
	}
	_, err = f.checkItself(s)
	return err
}

func (f *relayFile) check(s *source) (*Relay, error) {
	group, err := s.group(f.Group)
	if err != nil {
		return nil, err
	}
	key, err := s.key(f.Key)
	if err != nil {
		return nil, err
	}
	r, err := f.checkItself(s)
	if err != nil {
		return nil, err
	}
	r.Group, r.Key, r.KeyFile = group, key, s.beside(f.Key)
	return r, nil
}

// checkItself checks everything but the files that this one names.
func (f *relayFile) checkItself(s *source) (*Relay, error) {
	r := &Relay{File: s.file, Listen: f.Listen, AdminListen: f.AdminListen, Export: f.Export,
		InsecurePorts: f.InsecurePorts}
	if err := checkListen(f.Listen); err != nil {
		return nil, s.errorAt("listen", "%v", err)
	}
	if !loopback(f.Listen) {
		return nil, s.errorAt("listen", "got %q, want a loopback address, such as %s: NFS calls are not "+
			"protected, so a relay serves its own host only; give each client machine a relay of its own",
			f.Listen, DefaultRelayListen)
	}
	if err := s.listen("admin_listen", f.AdminListen); err != nil {
		return nil, err
	}
	if f.AdminListen == f.Listen {
		return nil, s.errorAt("admin_listen", "got %q, which is also what listen says: want two ports", f.AdminListen)
	}
	if err := CheckExportPath(f.Export); err != nil {
		return nil, s.errorAt("export", "%v", err)
	}
	if f.Journal != "" {
		r.Journal = s.beside(f.Journal)
	}
	if f.Anchor != "" {
		r.Anchor = s.beside(f.Anchor)
	}
	if r.Journal != "" && r.Journal == r.Anchor {
		return nil, s.errorAt("anchor", "got %q, which is also what journal says: want two files", f.Anchor)
	}
	var err error
	if r.Transport, err = s.transport(f.Transport); err != nil {
		return nil, err
	}
	if r.KeyPeriod, err = s.keyPeriod(f.KeyPeriod); err != nil {
		return nil, err
	}
	r.Log, err = s.log(f.LogLevel, f.LogFormat)
	return r, err
}

// LoadRelayMount reads a relay's file for the mount command. Its user, root, need not be
// the relay's user, so neither key nor group file is touched.
func LoadRelayMount(file string) (listen, export string, err error) {
	f := defaultRelay()
	s, err := load(file, &f)
	if err != nil {
		return "", "", err
	}
	if err := checkListen(f.Listen); err != nil {
		return "", "", s.errorAt("listen", "%v", err)
	}
	return f.Listen, f.Export, nil
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
