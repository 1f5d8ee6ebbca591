// SPDX-License-Identifier: Apache-2.0

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

// A RelayPlan holds the settings from which `bfs-relay init` makes its files.
type RelayPlan struct {
	Listen        string
	AdminListen   string
	Export        string
	InsecurePorts bool
	Transport     pbft.Transport
	Group         string // a group file to copy; "": none yet
}

// WriteRelay writes relay.toml, relay.key and, if the plan names one, group.toml to dir.
// It returns the public half of the new key. bfs-relay run accepts the files; if
// WriteRelay fails it has written nothing.
func WriteRelay(dir string, p RelayPlan) (ed25519.PublicKey, error) {
	text, err := render("relay.toml.tmpl", p)
	if err != nil {
		return nil, err
	}
	if err := config.CheckRelay(text); err != nil {
		return nil, ofPlan(err)
	}
	var group []byte
	if p.Group != "" {
		if _, err := config.LoadGroup(p.Group); err != nil {
			return nil, fmt.Errorf("group file: %w", err)
		}
		if group, err = os.ReadFile(p.Group); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{RelayFile, RelayKeyFile, GroupFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: exists already, and nothing is overwritten: "+
				"remove it or name another directory", filepath.Join(dir, name))
		}
	}
	return writeRelay(dir, text, group)
}

// writeRelay makes the files below a name of their own and renames them, relay.toml last:
// where that is, all is.
func writeRelay(dir string, text, group []byte) (ed25519.PublicKey, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	temp, err := os.MkdirTemp(dir, ".unfinished-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	key, err := keys.Generate()
	if err != nil {
		return nil, err
	}
	if err := keys.WritePrivate(filepath.Join(temp, RelayKeyFile), key); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(temp, RelayFile), text, 0o644); err != nil {
		return nil, err
	}
	names := []string{RelayKeyFile, RelayFile}
	if group != nil {
		if err := os.WriteFile(filepath.Join(temp, GroupFile), group, 0o644); err != nil {
			return nil, err
		}
		names = []string{GroupFile, RelayKeyFile, RelayFile}
	}
	if err := syncTree(temp); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(temp, name), filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return keys.Of(key), errors.Join(syncPath(dir), syncPath(filepath.Dir(filepath.Clean(dir))))
}
