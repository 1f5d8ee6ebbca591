package bundle

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/pbft"
)

// Files of a relay's directory.
const (
	RelayFile    = "relay.toml"
	RelayKeyFile = "relay.key"
)

// A RelayPlan is what `bfs-relay init` writes.
type RelayPlan struct {
	Listen        string
	AdminListen   string
	Export        string
	InsecurePorts bool
	Transport     pbft.Transport
	Group         string // a group file to copy; "": none yet
}

// WriteRelay writes relay.toml, relay.key and, if the plan names one, group.toml to dir. It returns the
// public half of the new key.
func WriteRelay(dir string, p RelayPlan) (ed25519.PublicKey, error) {
	var group []byte
	if p.Group != "" {
		if _, err := config.LoadGroup(p.Group); err != nil {
			return nil, err
		}
		var err error
		if group, err = os.ReadFile(p.Group); err != nil {
			return nil, err
		}
	}
	if err := config.CheckExportPath(p.Export); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	text, err := render("relay.toml.tmpl", p)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{RelayFile, RelayKeyFile, GroupFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: exists already, and nothing is overwritten", filepath.Join(dir, name))
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := keys.Generate()
	if err != nil {
		return nil, err
	}
	if err := keys.WritePrivate(filepath.Join(dir, RelayKeyFile), key); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, RelayFile), text, 0o644); err != nil {
		return nil, err
	}
	if group != nil {
		if err := os.WriteFile(filepath.Join(dir, GroupFile), group, 0o644); err != nil {
			return nil, err
		}
	}
	return keys.Of(key), nil
}
