// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/pkg/pbft"
)

func restoreCommand() *cobra.Command {
	return cli.Group(&cobra.Command{
		Use:   "restore",
		Short: "begin a new epoch of a group that has lost its state",
		Long: `When more than f replicas have lost their memory, nobody can tell what the group answered last, and
only its administrator may begin it again: in a new epoch, with the state of a backup. What was
answered after the backup is lost.

  1. The administrator makes the files of the epoch with bfsd restore group: a group file that names the backup's
     checkpoint, and a bundle for each host, under new keys.
  2. Each host gets its bundle and the archive, and bfsd restore replica puts the state into its directory.
  3. bfsd run, on each host. Clients keep their keys and rights, and get the new group file.

Stop what is left of the old replicas first, for good.`,
		Example: `  bfsd restore group --admin bundles/admin --archive bfs-monday.archive --out bundles2
  bfsd restore replica --config /etc/bfs/replica.toml --archive bfs-monday.archive`,
	}, restoreGroupCommand(), restoreReplicaCommand())
}

func restoreGroupCommand() *cobra.Command {
	var o restoreGroupOptions
	c := &cobra.Command{
		Use:   "group --admin DIR --archive ARCHIVE --out DIR",
		Short: "make the files of a group's next epoch, which begins with a backup",
		Long: `Group checks an archive and makes a directory as bfsd init does: a group file of the next epoch, a
bundle for each host, with a new key, and one for the administrator, whose key stays. It does not
speak to any replica.

The group file names the checkpoint of the archive, and the administrator signs it, so all hosts begin with the
same state or not at all. Its other keys are those of the old group file, with one exception: durability is
"disk".

The archive must be signed by the administrator, or have the root that --root gives. If there is no such
archive, some hosts may have kept enough of what their replicas knew: make an archive of each with bfsd backup
--offline, and give them all. The highest checkpoint counts of which f+1 hosts have the same root. Hosts that
came to different batches make their archives anew with --at the batch to which f+1 of them came.`,
		Example: `  bfsd restore group --admin bundles/admin --archive bfs-monday.archive --out bundles2
  bfsd restore group --admin bundles/admin --archive bfs-monday.archive --out bundles2 \
    --hosts e,f,g,h --admin-on-network
  bfsd restore group --admin bundles/admin --archive host0.archive --archive host2.archive --out bundles2`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	o.administrator.fileFlags(c)
	f := c.Flags()
	f.StringVar(&o.transport, "transport", string(pbft.TransportTLS), "tls, or plain for benchmarks and private wires")
	f.StringArrayVar(&o.archives, "archive", nil,
		"the archive that bfsd backup made; more than one: of different hosts, made with --offline")
	f.StringVar(&o.root, "root", "", "the root that the archive's checkpoint must have, in hexadecimal")
	f.StringVar(&o.out, "out", "", "the directory to make")
	f.StringSliceVar(&o.hosts, "hosts", nil, "the hosts, if they are others: as many as before, as for bfsd init")
	f.BoolVar(&o.network, "admin-on-network", false,
		"admin addresses listen where members do, for bfsd status from elsewhere")
	return c
}

type restoreGroupOptions struct {
	administrator
	archives []string
	root     string
	out      string
	hosts    []string
	network  bool
}

func (o *restoreGroupOptions) run(c *cobra.Command) error {
	root, err := parseRoot(o.root)
	switch {
	case err != nil:
		return err
	case len(o.archives) == 0:
		return errors.New("--archive is missing: name the archive that bfsd backup made")
	case o.out == "":
		return errors.New("--out is missing: name the directory to make")
	}
	g, key, passphrase, err := o.open()
	if err != nil {
		return err
	}
	hosts := bundle.HostsOf(g, o.network)
	if len(o.hosts) > 0 {
		if hosts, err = bundle.Hosts(o.hosts); err != nil {
			return err
		}
		for i := range hosts {
			if o.network {
				hosts[i].AdminListen = hosts[i].Admin
			}
		}
	}
	archive, err := o.choose(g, root)
	if err != nil {
		return err
	}
	origin, err := o.origin(c, g, archive)
	if err != nil {
		return err
	}
	if err := bundle.WriteEpoch(o.out, bundle.Epoch{Old: g, Key: key, Passphrase: passphrase,
		Hosts: hosts, Origin: origin, Transport: pbft.Transport(o.transport)}); err != nil {
		return err
	}
	out := c.OutOrStdout()
	fmt.Fprintf(out, "made epoch %d of group %s in %s; it begins with checkpoint %d of epoch %d\n",
		g.Epoch+1, g.Name, o.out, origin.Seq, g.Epoch)
	fmt.Fprintf(out, "  carry:  %s0 and the archive to the first host, and so on; then there:\n",
		filepath.Join(o.out, "host"))
	fmt.Fprintf(out, "            bfsd restore replica --config replica.toml --archive %s\n", filepath.Base(archive))
	fmt.Fprintln(out, "            bfsd run --config replica.toml")
	fmt.Fprintf(out, "  carry:  %s to each client machine, and start its relay again\n",
		filepath.Join(o.out, bundle.GroupFile))
	fmt.Fprintf(out, "  keep:   %s; the old epoch's files are of no more use\n", filepath.Join(o.out, bundle.AdminDir))
	return nil
}

// choose finds the archive whose checkpoint is vouched for: one by the administrator or
// --root, several by each other.
func (o *restoreGroupOptions) choose(g *config.Group, root pbft.Digest) (file string, err error) {
	var certificates []pbft.Certificate
	for _, name := range o.archives {
		a, done, err := openArchive(name)
		if err != nil {
			return "", err
		}
		if err := done(); err != nil {
			return "", err
		}
		certificates = append(certificates, a.Certificate)
	}
	if len(certificates) > 1 {
		return o.agreed(g, certificates)
	}
	if err := pbft.VouchedFor(&certificates[0], g.Administrator, root); err != nil {
		return "", fmt.Errorf("%s: %w: give the root that bfsd backup printed with --root", o.archives[0], err)
	}
	return o.archives[0], nil
}

// agreed finds an archive of the highest checkpoint that f+1 members have signed alike.
func (o *restoreGroupOptions) agreed(g *config.Group, certificates []pbft.Certificate) (file string, err error) {
	if o.root != "" {
		return "", errors.New("--root is for one archive: several vouch for each other")
	}
	voters := map[pbft.Certified]map[pbft.ReplicaID]bool{}
	best, said := pbft.Certified{}, ""
	for i := range certificates {
		c := &certificates[i]
		who, ok := g.VouchingMember(c)
		if !ok {
			return "", fmt.Errorf("%s: no member of %s signed it: make it with bfsd backup "+
				"--config FILE --offline, on the host", o.archives[i], g.File)
		}
		k := pbft.Certified{Seq: c.Seq, Root: c.Root}
		if voters[k] == nil {
			voters[k] = map[pbft.ReplicaID]bool{}
		}
		voters[k][who] = true
		said += fmt.Sprintf("\n  %s: replica %d, checkpoint %d, root %x", o.archives[i], who, c.Seq, c.Root[:])
		if len(voters[k]) >= g.Weak() && k.Seq > best.Seq {
			best, file = k, o.archives[i]
		}
	}
	if file == "" {
		return "", fmt.Errorf("no %d hosts have one checkpoint with one root, so it is not certain "+
			"what the group's state was:%s", g.Weak(), said)
	}
	return file, nil
}

// origin checks an archive, and computes the root of its state in the next epoch.
func (o *restoreGroupOptions) origin(c *cobra.Command, g *config.Group,
	archive string) (origin pbft.Origin, err error) {
	a, done, err := openArchive(archive)
	if err != nil {
		return origin, err
	}
	defer func() { _ = done() }()
	next, err := bundle.Next(g)
	if err != nil {
		return origin, err
	}
	service, free, err := newFiles(next)
	if err != nil {
		return origin, err
	}
	defer func() { _ = free() }()
	p := newProgress(c, "checking")
	defer p.end()
	if origin, err = pbft.NewOrigin(g.Group, a, service, func(pages uint64) { p.show(pages, a.Pages) }); err != nil {
		return origin, fmt.Errorf("%s: %w", archive, err)
	}
	return origin, nil
}

func restoreReplicaCommand() *cobra.Command {
	var file, archive string
	c := &cobra.Command{
		Use:   "replica --config FILE --archive ARCHIVE",
		Short: "put the state of a backup into the directory of a replica that has never run",
		Long: `Replica checks an archive against the root in the group file, and writes its state to the replica's
directory. Then bfsd run may start the replica. It refuses a directory that holds what a replica
remembers of an earlier life. After an error it may be run again.

Run it on every host. A host that cannot get the archive, one of f at most, is started when the others run:
bfsd replica replace makes its directory ready, and it fetches the state from them.`,
		Example: `  bfsd restore replica --config /etc/bfs/replica.toml --archive bfs-monday.archive
  bfsd run --config /etc/bfs/replica.toml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if archive == "" {
				return errors.New("--archive is missing: name the archive that bfsd backup made")
			}
			return restoreReplica(c, file, archive)
		},
	}
	c.Flags().StringVar(&file, "config", "replica.toml", "the replica's configuration file")
	c.Flags().StringVar(&archive, "archive", "", "the archive that bfsd backup made")
	return c
}

func restoreReplica(c *cobra.Command, file, archive string) error {
	r, err := config.LoadReplica(file)
	if err != nil {
		return named(err, c, "config")
	}
	a, done, err := openArchive(archive)
	if err != nil {
		return err
	}
	defer func() { _ = done() }()
	service, free, err := newFiles(r.Group)
	if err != nil {
		return err
	}
	defer func() { _ = free() }()
	p := newProgress(c, "writing")
	err = pbft.Restore(pbft.ReplicaConfig{Group: r.Group.Group, Self: r.Self,
		Directory: r.Directory, Service: service}, a, func(pages uint64) { p.show(pages, a.Pages) })
	p.end()
	if errors.Is(err, pbft.ErrDamaged) || errors.Is(err, pbft.ErrFalse) {
		return fmt.Errorf("%s: %w", archive, err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "%s is ready for replica %d, with checkpoint %d (%d pages): start "+
		"it with bfsd run --config %s\n", r.Directory, r.Self, a.Seq, a.Pages, file)
	return nil
}
