// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/config"
	"bfs/pkg/pbft"
)

func backupCommand() *cobra.Command {
	o := backupOptions{from: -1}
	c := &cobra.Command{
		Use:   "backup (--admin DIR | --config FILE) -o ARCHIVE",
		Short: "write the state of the group to a file",
		Long: `Backup has the group take a checkpoint of everything that was answered so far, and writes it to an
archive: all exports with their files, the clients and their rights. An idle group takes it within a
second; a busy one does not stop.

The checkpoint is the one that f+1 of a quorum of the replicas name. Its pages come from one replica, and are
believed because they lead to the root of that checkpoint, so a replica that lies is noticed, and another is
asked. With --admin the administrator's key signs which checkpoint this is, and bfsd verify and bfsd restore
need nothing else later. With --config, on the host of a replica, its key signs, which convinces nobody by
itself: keep the root that is printed, apart from the archive.

With --config and --offline the archive is made of what this host's replica, which must not run, has on its
disk. This is for a group that has lost its state and has no backup, see bfsd restore group.

A replica keeps the checkpoint while it is read, as long as what is written meanwhile takes no more memory than
an eighth of the state (or 64 MiB). If more is written the backup begins again by itself, up to twelve times.

The archive holds all files in the clear. It is made with mode 0600. Nothing is overwritten.`,
		Example: `  bfsd backup --admin bundles/admin -o bfs-monday.archive
  bfsd backup --config /etc/bfs/replica.toml -o /backup/bfs-monday.archive
  bfsd backup --config /etc/bfs/replica.toml --offline --at 5120 -o host2.archive
  bfsd verify bfs-monday.archive --group bundles/group.toml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	o.administrator.flags(c)
	f := c.Flags()
	f.StringVar(&o.config, "config", "", "instead of --admin: the configuration file of the replica on this host")
	f.BoolVar(&o.offline, "offline", false, "with --config: read the replica's directory, and not the group")
	f.Uint64Var(&o.at, "at", 0, "with --offline: archive the state after this batch (default: the last "+
		"that is known to have committed)")
	f.StringVarP(&o.out, "out", "o", "", "the archive to make")
	f.IntVar(&o.from, "from", -1, "the number of the replica that is to be read first "+
		"(default: this host's, or the last)")
	return c
}

type backupOptions struct {
	administrator
	config  string
	out     string
	from    int
	offline bool
	at      uint64
}

func (o *backupOptions) run(c *cobra.Command) error {
	switch _, err := os.Lstat(o.out); {
	case o.out == "":
		return errors.New("-o is missing: name the archive to make")
	case err == nil:
		return fmt.Errorf("%s: exists already, and nothing is overwritten", o.out)
	case o.offline && o.config == "":
		return errors.New("--offline needs --config: name the configuration file of the replica on this host")
	case o.at > 0 && !o.offline:
		return errors.New("--at needs --offline: a group that runs takes its checkpoints itself")
	case o.offline:
		return o.fromDisk(c)
	}
	if err := o.checkTimeout(); err != nil {
		return err
	}
	g, key, transport, err := o.who(c)
	if err != nil {
		return err
	}
	if g.N() == 1 {
		return errors.New("a group of one has no checkpoints: stop it and copy its files through a mount instead")
	}
	if o.from < 0 {
		o.from = g.N() - 1
	}
	if o.from >= g.N() {
		return fmt.Errorf("--from: got %d, want the number of a replica, 0 to %d", o.from, g.N()-1)
	}
	certificate, err := o.write(c, g, key, transport)
	if err != nil {
		return explain(err, g)
	}
	o.explain(c, certificate)
	return nil
}

// who reads a key that may read everything: the administrator's, or the key of this host.
func (o *backupOptions) who(c *cobra.Command) (*config.Group, ed25519.PrivateKey, pbft.Transport, error) {
	if o.config == "" {
		g, key, _, err := o.open()
		return g, key, pbft.Transport(o.transport), err
	}
	if c.Flags().Changed("admin") {
		return nil, nil, "", errors.New("--admin and --config exclude each other")
	}
	r, err := config.LoadReplica(o.config)
	if err != nil {
		return nil, nil, "", named(err, c, "config")
	}
	if o.from < 0 {
		o.from = int(r.Self)
	}
	return r.Group, r.Key, r.Transport, nil
}

func (o *backupOptions) write(c *cobra.Command, g *config.Group, key ed25519.PrivateKey,
	transport pbft.Transport) (*pbft.Certificate, error) {
	ctx := c.Context()
	service, free, err := newFiles(g)
	if err != nil {
		return nil, err
	}
	defer func() { _ = free() }()
	client, err := pbft.NewClient(pbft.ClientConfig{Group: g.Group, Key: key, Transport: transport,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	ready, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := client.Ready(ready); err != nil {
		return nil, err
	}
	p := newProgress(c, "reading")
	defer p.end()
	return client.Backup(ctx, o.out, pbft.BackupConfig{Tree: service.State().(pbft.Tree), From: pbft.ReplicaID(o.from),
		Within: o.timeout, Progress: func(done, whole int) { p.show(uint64(done), uint64(whole)) }})
}

// fromDisk makes an archive from the disk of this host's replica.
func (o *backupOptions) fromDisk(c *cobra.Command) error {
	r, err := config.LoadReplica(o.config)
	if err != nil {
		return named(err, c, "config")
	}
	service, free, err := newFiles(r.Group)
	if err != nil {
		return err
	}
	defer func() { _ = free() }()
	p := newProgress(c, "reading")
	config := pbft.ReplicaConfig{Group: r.Group.Group, Self: r.Self, Key: r.Key,
		Directory: r.Directory, Service: service}
	k, err := pbft.BackupDirectory(c.Context(), config, o.out, pbft.Offline{
		At:       pbft.SeqNum(o.at),
		Progress: func(done, whole int) { p.show(uint64(done), uint64(whole)) },
		Warn:     func(text string) { fmt.Fprintln(c.ErrOrStderr(), text) },
	})
	p.end()
	if err != nil {
		return err
	}
	o.explain(c, k)
	return nil
}

func (o *backupOptions) explain(c *cobra.Command, k *pbft.Certificate) {
	byAdministrator := o.config == ""
	signed := "signed by the administrator"
	if !byAdministrator {
		signed = "signed by this host alone"
	}
	out := c.OutOrStdout()
	fmt.Fprintf(out, "wrote %s: %s, %s\n", o.out, describe(k), signed)
	fmt.Fprintf(out, "  root:   %x\n", k.Root[:])
	switch {
	case byAdministrator:
	case o.offline:
		fmt.Fprintln(out, "  f+1 such archives of one checkpoint, from different hosts, are "+
			"enough for bfsd restore group")
	default:
		fmt.Fprintln(out, "  keep this root, apart from the archive: bfsd verify and bfsd restore take it with --root")
	}
}

// describe says in a line what an archive holds.
func describe(k *pbft.Certificate) string {
	return fmt.Sprintf("checkpoint %d of epoch %d of group %s, %d pages (%s)",
		k.Seq, k.Epoch, strconv.Quote(k.Name), k.Pages, roughly(k.Pages*pbft.PageSize))
}

// roughly writes a size for people.
func roughly(bytes uint64) string {
	switch {
	case bytes >= 10<<30:
		return fmt.Sprintf("%d GiB", bytes>>30)
	case bytes >= 10<<20:
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d KiB", bytes>>10)
}
