// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/manifest"
)

func manifestCommand() *cobra.Command {
	return cli.Group(&cobra.Command{
		Use:   "manifest",
		Short: "sign the list of programs that keepers may start",
		Long: `A keeper starts no program that the manifest does not name. The manifest is a short text, signed by
the administrator, for one group file: the digests of the programs, and a serial number. A keeper
takes no manifest with a lower number than one it has taken.`,
		Example: `  bfsd manifest sign --admin bundles/admin`,
	}, manifestSignCommand())
}

func manifestSignCommand() *cobra.Command {
	var (
		a      administrator
		out    string
		serial uint64
	)
	c := &cobra.Command{
		Use:   "sign [PROGRAM...]",
		Short: "sign a manifest for these programs, or for this one",
		Long: `Sign writes a manifest beside the administrator's key, with a serial number one above that of the
manifest there.

To upgrade a group: sign a manifest that names the old program and the new one; put it on every host, as the file
that the key manifest of replica.toml names; replace the program on one host after the other, each time asking
bfsd status --can-stop and restarting the keeper; then sign one that names the new program alone. A host whose group
file has changed needs a new manifest too.`,
		Example: `  bfsd manifest sign --admin bundles/admin new/bfsd /usr/local/bin/bfsd
  scp bundles/admin/manifest c.example:/etc/bfs/host2/manifest`,
		RunE: func(c *cobra.Command, programs []string) error {
			g, key, _, err := a.open()
			if err != nil {
				return err
			}
			if out == "" {
				out = filepath.Join(filepath.Dir(a.keyFile()), bundle.ManifestFile)
			}
			m := &manifest.Manifest{Group: g.Digest(), Serial: serial}
			if serial == 0 {
				old, err := manifest.Read(out, g.Administrator, g.Digest())
				switch {
				case err == nil:
					m.Serial = old.Serial + 1
				case errors.Is(err, fs.ErrNotExist):
					m.Serial = 1
				default:
					return fmt.Errorf("%w: give --serial, above that of the last manifest", err)
				}
			}
			if m.Allowed, err = digests(programs); err != nil {
				return err
			}
			text, err := manifest.Sign(m, key)
			if err != nil {
				return err
			}
			if err := bundle.WriteManifest(out, text); err != nil {
				return err
			}
			return say(c.OutOrStdout(), "%s: manifest %d names %d programs; put it on every host\n",
				out, m.Serial, len(m.Allowed))
		},
	}
	a.fileFlags(c)
	f := c.Flags()
	f.StringVar(&out, "out", "", "the file to write (default: "+bundle.ManifestFile+" beside the administrator's key)")
	f.Uint64Var(&serial, "serial", 0, "the serial number; 0 is one above that of the file that is replaced")
	return c
}

// digests returns the digests of the programs, or of this program if there are none.
func digests(programs []string) (all []manifest.Digest, err error) {
	if len(programs) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		programs = []string{self}
	}
	for _, p := range programs {
		d, err := manifest.OfFile(p)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}
