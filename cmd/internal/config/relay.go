package config

import (
	"crypto/ed25519"
	"net"

	"bfs/pkg/pbft"
)

// A Relay is a relay's configuration file, checked, with what it refers to.
type Relay struct {
	File          string
	Group         *Group
	Key           ed25519.PrivateKey
	Listen        string
	AdminListen   string // "": no admin address
	Export        string // what `bfs-relay mount` mounts
	InsecurePorts bool
	Journal       string // "": none
	Anchor        string // "": none
	Transport     pbft.Transport
	Log           Log
}

// Defaults of a relay's file. The ports need no root.
const (
	DefaultRelayListen      = "127.0.0.1:12049"
	DefaultRelayAdminListen = "127.0.0.1:12050"
	DefaultExport           = "/export"
)

type relayFile struct {
	Group         string `toml:"group"`
	Key           string `toml:"key"`
	Listen        string `toml:"listen"`
	AdminListen   string `toml:"admin_listen"`
	Export        string `toml:"export"`
	InsecurePorts bool   `toml:"insecure_ports"`
	Journal       string `toml:"journal"`
	Anchor        string `toml:"anchor"`
	Transport     string `toml:"transport"`
	LogLevel      string `toml:"log_level"`
	LogFormat     string `toml:"log_format"`
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
		LogLevel:    "info",
		LogFormat:   "text",
	}
}

func (f *relayFile) check(s *source) (*Relay, error) {
	r := &Relay{File: s.file, Listen: f.Listen, AdminListen: f.AdminListen, Export: f.Export, InsecurePorts: f.InsecurePorts}
	var err error
	if r.Group, err = s.group(f.Group); err != nil {
		return nil, err
	}
	if r.Key, err = s.key(f.Key); err != nil {
		return nil, err
	}
	if err := checkListen(f.Listen); err != nil {
		return nil, s.errorAt("listen", "%v", err)
	}
	if !loopback(f.Listen) {
		return nil, s.errorAt("listen", "got %q, want a loopback address: what NFS says is not protected, so a relay serves its own host only", f.Listen)
	}
	if err := s.listen("admin_listen", f.AdminListen); err != nil {
		return nil, err
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
	if r.Transport, err = s.transport(f.Transport); err != nil {
		return nil, err
	}
	r.Log, err = s.log(f.LogLevel, f.LogFormat)
	return r, err
}

// LoadRelayMount reads a relay's file for the mount command's sake: root mounts, who need not
// be the relay's user, so neither key nor group file is touched.
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
