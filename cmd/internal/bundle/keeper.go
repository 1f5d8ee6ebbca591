// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/ed25519"
	"os"
	"path/filepath"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/manifest"
	"bfs/pkg/pbft"
)

// sign makes the first manifest of a group whose replicas have keepers.
func (p *Plan) sign(administrator ed25519.PrivateKey, groupFile string) error {
	if !p.Keeper || p.Program == "" {
		return nil
	}
	g, err := config.LoadGroup(groupFile)
	if err != nil {
		return err
	}
	d, err := manifest.OfFile(p.Program)
	if err != nil {
		return err
	}
	m := &manifest.Manifest{Group: g.Digest(), Serial: 1, Allowed: []manifest.Digest{d}}
	p.manifest, err = manifest.Sign(m, administrator)
	return err
}

// writeKeeper adds to a host's bundle what its keeper needs.
func (p *Plan) writeKeeper(dir string) error {
	if err := pbft.MarkFreshKeeper(filepath.Join(dir, KeeperDir), ""); err != nil {
		return err
	}
	if p.manifest != nil {
		if err := WriteManifest(filepath.Join(dir, ManifestFile), p.manifest); err != nil {
			return err
		}
	}
	_, err := config.LoadKeeper(filepath.Join(dir, ReplicaFile))
	return err
}

// WriteManifest replaces a manifest's file, so that a crash leaves the old manifest or the new.
// Everybody may read it.
func WriteManifest(file string, text []byte) error {
	temp := file + ".new"
	if err := os.WriteFile(temp, text, 0o644); err != nil {
		return err
	}
	if err := syncPath(temp); err != nil {
		return err
	}
	if err := os.Rename(temp, file); err != nil {
		return err
	}
	return syncPath(filepath.Dir(file))
}
