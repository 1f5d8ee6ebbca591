// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/admin"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/procs"
	"bfs/cmd/internal/version"
	"bfs/cmd/internal/watch"
	"bfs/pkg/pbft"
)

// replicaKeys is the part of help that lists the configuration file.
const replicaKeys = `The configuration file, with its defaults (paths are relative to the file, unknown keys
are errors):

  group        = "group.toml"       the group file
  replica      = (none)             this host's number in it
  key          = "identity.key"     this host's private key, mode 0600
  directory    = "state"            files that must survive a restart
  listen       = ""                 host:port for members and clients; "" is the address in the group file
  admin_listen = "127.0.0.1:7451"   /status, /livez, /readyz, /metrics; "" is nowhere
  transport    = "tls"              or "plain"
  window       = 2                  batches under way at the primary
  key_period   = "1m"               session keys are refreshed so often: 1s to 1h
  without      = []                 optimisations to do without, for measurements: "tentative", "piggyback",
                                    "digest-replies", "batching", "sparing", "separate"
  disk_reserve = "keep"             or "spend": use what is kept for a full disk, see OPERATING
  keeper       = ""                 the socket of bfsd keeper, which then holds the key and runs this replica; see
                                    its help for the keys keeper_directory, keeper_copy, keeper_user, manifest,
                                    recovery_period
  log_level    = "info"             debug, info, warn, error
  log_format   = "text"             or "json"

The group file, the same for all members and clients, explains its keys itself. One of them says when a write is safe:

  durability   = "disk"             or "replicated", in the memory of several hosts`

func runCommand() *cobra.Command {
	var file string
	var recovers bool
	c := &cobra.Command{
		Use:   "run --config FILE",
		Short: "run one replica",
		Long: `Run runs one replica of a group until SIGINT or SIGTERM. It prints a line "ready" on standard output
when it listens, and logs on standard error. Its exit code is 3 if it has stopped because its state
was not the group's, because its disk failed, or, under a keeper, because its memory is lost: its next
start is to be a recovery then, as bfsd keeper makes it.

` + replicaKeys,
		Example: `  bfsd run --config /etc/bfs/replica.toml
  curl -s http://127.0.0.1:7451/status`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			err := serve(c.Context(), file, pbft.StartReplica, newFiles, recovers)
			if errors.Is(err, pbft.ErrRecover) {
				return cli.NewCoded(err, watch.ExitRecover)
			}
			return named(err, c, "config")
		},
	}
	c.Flags().StringVar(&file, "config", "replica.toml", "the replica's configuration file")
	c.Flags().BoolVar(&recovers, "recover", false,
		"recover: trust nothing that is read until the group has confirmed it; bfsd keeper sets this")
	return c
}

func norepCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "norep --config FILE",
		Short: "run the same service unreplicated, for comparison",
		Long: `Norep serves the same file system to the same relay over the same wire, from one process and without
ordering: the paper's NO-REP. It survives no fault, and shows by comparison the cost of agreement.
Its group has one member: bfsd init --hosts HOST makes one.

` + replicaKeys,
		Example: `  bfsd init --loopback 1 --out norep
  bfsd norep --config norep/host0/replica.toml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return named(serve(c.Context(), file, pbft.StartUnreplicated, newFiles, false), c, "config")
		},
	}
	c.Flags().StringVar(&file, "config", "replica.toml", "the configuration file")
	return c
}

// stopWithin bounds the orderly end. After it the process exits with its work unfinished.
const stopWithin = 10 * time.Second

type (
	starter func(pbft.ReplicaConfig) (*pbft.Replica, error)
	maker   func(*config.Group) (service pbft.Service, free func() error, err error)
)

// serve runs a replica of a service until ctx ends or the replica stops itself. Its
// start is a recovery, or not.
func serve(ctx context.Context, file string, start starter, service maker, recovers bool) error {
	c, err := config.LoadReplica(file)
	if err != nil {
		return err
	}
	if c.Group.N() > 1 {
		procs.Batch()
	}
	procs.FloorHeap()
	if c.Keeper != "" {
		procs.NameSelf("bfsd")
	}
	log := cli.Logger(os.Stderr, c.Log).With("replica", c.Self)
	ignoreHangups(ctx, log)
	if err := os.MkdirAll(c.Directory, 0o700); err != nil {
		return err
	}
	cfg := pbft.ReplicaConfig{
		Group: c.Group.Group, Self: c.Self, Key: c.Key, Keeper: c.Keeper, Directory: c.Directory, Listen: c.Listen,
		Transport: c.Transport, Logger: log, Window: c.Window, KeyPeriod: c.KeyPeriod, Without: c.Without,
		SpendReserve: c.SpendReserve, Recover: recovers,
	}
	if err := openDirectory(ctx, file, cfg); err != nil {
		return err
	}
	procs.LimitHeap(heapMemory(c.Group, 0)) // who is enrolled is in the state
	warnMemory(log, c.Group, 0)
	s, free, err := service(c.Group)
	if err != nil {
		return err
	}
	cfg.Service = s
	replica, err := start(cfg)
	if err != nil {
		free()
		return err
	}
	watching, watched := context.WithCancel(ctx)
	defer watched()
	go watchMemory(watching, log, c.Group, replica.Enrolled)
	a, err := admin.Serve(c.AdminListen, replicaSources(replica, c.Group))
	if err != nil {
		return stop(replica, a, free, err)
	}
	warnDisk(log, c.Group, replica.Status().Disk, c.Directory)
	digest := c.Group.Digest()
	log.Info("serving", "group", c.Group.Name, "digest", fmt.Sprintf("%x", digest[:8]), "members", c.Group.N(),
		"admin", a.Address(), "transport", c.Transport, "durability", c.Group.Durability)
	cli.SayReady()
	select {
	case <-ctx.Done():
		log.Info("stopping", "why", "signal")
		handOver(replica, log)
	case <-replica.Done():
		log.Error("stopped by itself", "why", replica.Err())
	}
	return stop(replica, a, free, nil)
}

// openDirectory refuses to start a replica that has lost its memory, and names the next
// step. A group of one may start, because it has nobody to contradict.
func openDirectory(ctx context.Context, file string, cfg pbft.ReplicaConfig) error {
	if cfg.Group.N() == 1 {
		return nil
	}
	err := pbft.OpenDirectory(ctx, cfg)
	if errors.Is(err, pbft.ErrNotRestored) {
		return fmt.Errorf("%w. Run\n  bfsd restore replica --config %s --archive ARCHIVE\nand start it again",
			err, file)
	}
	if errors.Is(err, pbft.ErrForgotten) && cfg.Keeper != "" {
		return fmt.Errorf("%w. Its keeper is to %w, which needs nothing of what is lost", err, pbft.ErrRecover)
	}
	if errors.Is(err, pbft.ErrForgotten) {
		return fmt.Errorf("%w. Run\n  bfsd replica replace --config %s\nand start it again; it may not start "+
			"before, because two different votes of one replica can cost the group its files", err, file)
	}
	return err
}

// handOverWithin bounds how long a primary that is told to stop waits for the others to
// go on without it.
const handOverWithin = 2 * time.Second

func handOver(r *pbft.Replica, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), handOverWithin)
	defer cancel()
	if err := r.HandOver(ctx); err != nil {
		log.Warn("the others must notice by themselves that this primary is gone", "err", err)
	}
}

// ignoreHangups has SIGHUP do nothing except log a line: there is no file to read again,
// and logs go to standard error.
func ignoreHangups(ctx context.Context, log *slog.Logger) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hangups)
		for {
			select {
			case <-hangups:
				log.Info("SIGHUP is ignored: a changed configuration counts from the next start")
			case <-ctx.Done():
				return
			}
		}
	}()
}

func replicaSources(r *pbft.Replica, g *config.Group) admin.Sources {
	n := g.N()
	return admin.Sources{
		Status: func() any {
			return admin.ReplicaStatus{Status: r.Status(), Program: version.Of(), Memory: memory(g, r.Enrolled())}
		},
		Live:   r.Live,
		Health: func() error { return admin.ReplicaReady(r.Status(), n) },
		Metrics: func(w io.Writer) {
			admin.ReplicaMetrics(w, r.Status(), n)
			admin.MemoryMetrics(w, memory(g, r.Enrolled()))
		},
		Help: admin.ReplicaHelp,
	}
}

// stop ends everything in order and returns the first thing that went wrong.
func stop(r *pbft.Replica, a *admin.Server, free func() error, first error) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if err := a.Close(ctx); err != nil {
		slog.Warn("admin address", "problem", err)
	}
	err := r.Close(ctx)
	if err == nil {
		err = free() // only after the replica has released the pages
	}
	if r.Err() != nil {
		err = r.Err()
	}
	if first != nil {
		return first
	}
	return err
}
