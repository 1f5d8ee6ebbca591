// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/pkg/pbft"
)

// Exit codes of verify. Any other failure is 1.
const (
	exitDamaged       = 2
	exitNotVouchedFor = 3
)

func verifyCommand() *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify ARCHIVE|DIRECTORY",
		Short: "check an archive, or the directory of a replica that is not running",
		Long: `Verify reads everything and changes nothing.

Of an archive it checks every block, that the pages have the root of the checkpoint that the archive names, and
that this root is vouched for: by the signature of the administrator whose key is in the group file, or because
it is the one that --root gives. The group file may be that of a later epoch.

Of a replica's directory it checks the journal, every page of the image, and that the journal reaches as far as
the replica remembers. DIRECTORY is the replica's bundle, which holds replica.toml, or its state directory. The
replica must not run.

The exit code is 0 if all is well, 2 if something is damaged or false, 3 if an archive is undamaged and nobody
vouches for it, and 1 if it could not be checked.`,
		Example: `  bfsd verify bfs-monday.archive --group bundles/group.toml
  bfsd verify bfs-monday.archive --group group.toml \
    --root 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  bfsd verify /etc/bfs/host2`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, args[0]) },
	}
	c.Flags().StringVar(&o.group, "group", "",
		"the group file (default: "+bundle.GroupFile+" here, or with the directory)")
	c.Flags().StringVar(&o.root, "root", "", "of an archive: the root that its checkpoint must have, in hexadecimal")
	return c
}

type verifyOptions struct{ group, root string }

func (o *verifyOptions) run(c *cobra.Command, path string) error {
	root, err := parseRoot(o.root)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return o.archive(c, path, root)
	case o.root != "":
		return errors.New("--root is for archives: a replica's directory has the root of its own checkpoint")
	}
	return o.directory(c, path)
}

// archive checks an archive.
func (o *verifyOptions) archive(c *cobra.Command, path string, root pbft.Digest) error {
	file := o.group
	if file == "" {
		file = bundle.GroupFile
	}
	g, err := config.LoadGroup(file)
	if err != nil {
		return named(err, c, "group")
	}
	service, free, err := newFiles(g)
	if err != nil {
		return err
	}
	defer func() { _ = free() }()
	a, done, err := openArchive(path)
	if err != nil {
		return o.verdict(c, err)
	}
	defer func() { _ = done() }()
	p := newProgress(c, "checking")
	err = a.Check(service.State().(pbft.Tree), func(pages uint64) { p.show(pages, a.Pages) })
	p.end()
	if err != nil {
		return o.verdict(c, fmt.Errorf("%s: %w", path, err))
	}
	if err := pbft.VouchedFor(&a.Certificate, g.Administrator, root); err != nil {
		return o.verdict(c, fmt.Errorf("%s: %w", path, err))
	}
	by := "signed by the administrator in " + file
	if !root.IsZero() {
		by = "with the root that --root gives"
	}
	fmt.Fprintf(c.OutOrStdout(), "%s is well: %s, %s\n  root:   %x\n", path, describe(&a.Certificate), by, a.Root[:])
	return nil
}

// verdict prints what is wrong with an archive, and chooses the exit code.
func (o *verifyOptions) verdict(c *cobra.Command, err error) error {
	code := 0
	switch {
	case errors.Is(err, pbft.ErrNotVouchedFor):
		code = exitNotVouchedFor
		err = fmt.Errorf("%w. It is undamaged; compare this root with the one that bfsd backup "+
			"printed, or give that with --root", err)
	case errors.Is(err, pbft.ErrDamaged), errors.Is(err, pbft.ErrFalse), errors.Is(err, pbft.ErrNoArchive):
		code = exitDamaged
	default:
		return err
	}
	fmt.Fprintln(c.ErrOrStderr(), err)
	return cli.Exit(code)
}

// directory checks what a replica has on disk.
func (o *verifyOptions) directory(c *cobra.Command, path string) error {
	cfg, g, err := o.replicaAt(path)
	if err != nil {
		return err
	}
	service, free, err := newFiles(g)
	if err != nil {
		return err
	}
	defer func() { _ = free() }()
	cfg.Group, cfg.Service = g.Group, service
	report, err := pbft.VerifyDirectory(cfg)
	if err != nil {
		return err
	}
	for _, text := range report.Problems {
		fmt.Fprintln(c.ErrOrStderr(), text)
	}
	out := c.OutOrStdout()
	for _, text := range report.Notes {
		fmt.Fprintf(out, "note: %s\n", text)
	}
	if len(report.Problems) > 0 {
		return cli.Exit(exitDamaged)
	}
	fmt.Fprintf(out, "%s is well: the journal has %d records, and the image is at checkpoint %d with %d pages\n",
		cfg.Directory, report.Records, report.Image.Seq, report.Pages)
	return nil
}

// replicaAt finds the state directory and the group file of a replica.
func (o *verifyOptions) replicaAt(path string) (cfg pbft.ReplicaConfig, g *config.Group, err error) {
	cfg.Directory = path
	file := o.group
	r, err := bundleOf(path)
	if err != nil {
		return cfg, nil, err
	}
	if r != nil {
		cfg.Directory, cfg.Self, cfg.Keeper, g = r.Directory, r.Self, r.Keeper, r.Group
		if file == "" {
			return cfg, g, nil
		}
	}
	if file == "" {
		file = filepath.Join(path, "..", bundle.GroupFile)
	}
	g, err = config.LoadGroup(file)
	return cfg, g, err
}

// bundleOf is the configuration of the replica whose bundle or state directory a path is; nil if
// that is not known.
func bundleOf(path string) (*config.Replica, error) {
	file := filepath.Join(path, bundle.ReplicaFile)
	if _, err := os.Stat(file); err == nil {
		return config.LoadReplica(file)
	}
	r, err := config.LoadReplica(filepath.Join(path, "..", bundle.ReplicaFile))
	if err != nil {
		return nil, nil // it is somebody else's matter
	}
	state, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if named, err := os.Stat(r.Directory); err != nil || !os.SameFile(state, named) {
		return nil, nil
	}
	return r, nil
}
