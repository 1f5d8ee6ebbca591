// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/procs"
	"bfs/cmd/internal/watch"
	"bfs/pkg/pbft"
)

// keeperKeys is the part of help that lists what the keeper reads of the replica's file.
const keeperKeys = `Keys of the replica's file for its keeper, with their defaults:

  keeper           = ""         the keeper's socket, such as "keeper.sock"; "" is no keeper: bfsd run reads the key
  keeper_directory = "keeper"   what the keeper must remember; only its user may write there
  keeper_copy      = ""         a second directory for that, best on another disk; "" is the first
  keeper_user      = ""         the user whom the replica runs as, if root starts the keeper; "" is the keeper's own
  manifest         = ""         the executables that may run, signed by the administrator; "" is any: see bfsd manifest
  recovery_period  = "10m"      each replica is recovered once in this time; "0s" is never`

func keeperCommand() *cobra.Command {
	var file string
	c := cli.Group(&cobra.Command{
		Use:   "keeper --config FILE",
		Short: "hold a replica's key in a process of its own, run the replica, and recover it on schedule",
		Long: `Keeper runs one replica as its child, in place of bfsd run. It alone reads the replica's private
key. The replica asks it for signatures on a Unix socket, and the keeper signs what proves the
replica's identity to its peers, and nothing else. So an intruder who loses the replica's process
loses the replica's identity as well.

The keeper starts the replica again when it ends or hangs. Before each start it compares the program with the
manifest, which the administrator signs (bfsd manifest sign). Once in recovery_period it recovers the replica: the
keeper lets it hand over, stops it, kills every process that it has left behind, and starts it anew. The keeper does
so only while all other replicas take part. A replica that objects for ever is ignored after three turns, if the
group has its files on disk. A replica whose directory is lost is recovered at once, and needs nothing of it.

What the keeper protects depends on users. If root starts it, and keeper_user is set, the replica's user can neither
read the key nor replace the program. If the replica's own user starts it, it protects against mistakes, and against
an intruder who cannot read files.

` + keeperKeys,
		Example: `  bfsd init --keeper --hosts a.example,b.example,c.example,d.example --out bundles
  bfsd keeper --config /etc/bfs/host2/replica.toml
  bfsd recover 2 --config /etc/bfs/host2/replica.toml`,
	}, keeperRenewCommand())
	c.RunE = func(c *cobra.Command, _ []string) error { return named(keep(c.Context(), file), c, "config") }
	c.Flags().StringVar(&file, "config", "replica.toml", "the replica's configuration file")
	return c
}

// keep runs a replica's keeper until ctx ends. The replica is run by bfsd run, or, until
// its first recovery, by another command.
func keep(ctx context.Context, file string, first ...string) error {
	c, err := config.LoadKeeper(file)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := procs.Hide(); err != nil {
		return fmt.Errorf("keep other processes from the key in memory: %w", err)
	}
	log := cli.Logger(os.Stderr, c.Log).With("keeper", c.Self)
	ignoreHangups(ctx, log)
	warnKeeper(log, c)
	w := watch.New(c, program, log)
	w.First = first
	k, err := pbft.StartKeeper(pbft.KeeperConfig{
		Group: c.Group.Group, Self: c.Self, Key: c.Key, Directory: c.Own, Copy: c.Copy, Socket: c.Keeper,
		Users: users(c.User.UID), Operators: users(), Logger: log,
		Status:  w.Status,
		Recover: func(force bool) (string, error) { return w.Recover(ctx, force) },
	})
	if errors.Is(err, pbft.ErrKeeperMemory) {
		return fmt.Errorf("%w.\nWhat the replica promised may be an old copy too: unless you know better, "+
			"move its directory %s away. Then run\n  bfsd keeper renew --config %s\nthen start the keeper "+
			"again and, if you moved the directory, run\n  bfsd replica replace --config %s",
			err, c.Directory, file, file)
	}
	if err != nil {
		return err
	}
	w.TakeSerial, w.Grant, w.Ended, w.Ready = k.TakeSerial, k.Grant, k.Disconnect, cli.SayReady
	log.Info("keeping", "socket", c.Keeper, "program", program, "manifest", c.Manifest, "recovery_period", c.Period)
	return errors.Join(w.Run(ctx), k.Close())
}

// users are root, this process's user, and others.
func users(others ...uint32) []uint32 {
	all := append(others, 0, uint32(os.Geteuid()))
	slices.Sort(all)
	return slices.Compact(all)
}

// warnKeeper logs what this configuration does not protect.
func warnKeeper(log *slog.Logger, c *config.Keeper) {
	if !c.User.Other {
		log.Warn("the replica runs as the keeper's own user, who can read the key: set keeper_user, " +
			"and have root start the keeper")
	}
	if c.Manifest == "" {
		log.Warn("the program is not judged before it is started: set manifest")
	}
}

func keeperRenewCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "renew --config FILE",
		Short: "make what a keeper must remember anew, after it is lost or an old copy was put back",
		Long: `Renew writes the files of keeper_directory and keeper_copy anew: the counter of signatures goes on
above every value that was used, and the serial number of the manifest is kept if either directory
still has it. If neither has it, put the newest manifest in place before the keeper starts, because
it cannot tell an older one.

Stop the keeper first. If keeper_directory is an old copy, the replica's own directory may be one too, and lack
the replica's later promises: move it away, and run bfsd replica replace once the keeper runs again.`,
		Example: `  bfsd keeper renew --config /etc/bfs/host2/replica.toml`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := config.LoadKeeper(file)
			if err != nil {
				return named(err, c, "config")
			}
			serial, err := pbft.RenewKeeper(k.Own, k.Copy)
			if err != nil {
				return err
			}
			return say(c.OutOrStdout(), "the keeper of replica %d remembers manifest %d, and counts "+
				"above all signatures before\n", k.Self, serial)
		},
	}
	c.Flags().StringVar(&file, "config", "replica.toml", "the replica's configuration file")
	return c
}

func say(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format, args...)
	return err
}

func recoverCommand() *cobra.Command {
	var (
		file    string
		force   bool
		timeout time.Duration
	)
	c := &cobra.Command{
		Use:   "recover N --config FILE",
		Short: "have replica N recovered now",
		Long: `Recover asks the keeper of replica N, on N's own host, to recover it now and not at its next turn.
Root and the keeper's user may ask. The keeper refuses while another replica is away, behind, silent
or recovering, and names the reasons. Recover returns when the new process is ready.`,
		Example: `  bfsd recover 2 --config /etc/bfs/host2/replica.toml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := config.LoadReplica(file)
			switch {
			case err != nil:
				return named(err, c, "config")
			case args[0] != fmt.Sprint(r.Self):
				return fmt.Errorf("%s is replica %d's, and N is %q: name the file of replica N, on its host",
					file, r.Self, args[0])
			case r.Keeper == "":
				return fmt.Errorf("%s: replica %d has no keeper: restart it, or set keeper (see bfsd keeper --help)",
					file, r.Self)
			case timeout <= 0:
				return fmt.Errorf("--timeout: got %v, want more than 0, such as 2m", timeout)
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			done, err := pbft.AskRecovery(ctx, r.Keeper, force)
			if err != nil {
				return err
			}
			return say(c.OutOrStdout(), "%s\n", done)
		},
	}
	f := c.Flags()
	f.StringVar(&file, "config", "replica.toml", "the replica's configuration file")
	f.BoolVar(&force, "force", false, "recover it although the group cannot spare it")
	f.DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait for the new process")
	return c
}
