package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/admin"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/procs"
	"bfs/pkg/pbft"
)

// replicaKeys is the part of help that lists the configuration file.
const replicaKeys = `The configuration file, with its defaults (paths are relative to the file; unknown keys are errors):

  group        = "group.toml"       the group file
  replica      = (none)             this host's number in it
  key          = "identity.key"     this host's private key, mode 0600
  directory    = "state"            what must survive a restart
  listen       = ""                 host:port for members and clients; "" is the address in the group file
  admin_listen = "127.0.0.1:7451"   /status, /healthz, /metrics; "" is nowhere
  transport    = "tls"              or "plain"
  durability   = "disk"             not there yet: say "replicated"
  window       = 2                  batches under way at the primary
  without      = []                 optimisations to do without, for measurements: "tentative", "piggyback",
                                    "digest-replies", "batching", "sparing", "separate"
  log_level    = "info"             debug, info, warn, error
  log_format   = "text"             or "json"`

func runCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "run --config FILE",
		Short: "run one replica",
		Long: `Run runs one replica of a group until SIGINT or SIGTERM. It prints a line "ready" on standard output when it
listens, and logs on standard error.

` + replicaKeys,
		Example: `  bfsd run --config /etc/bfs/replica.toml
  curl -s http://127.0.0.1:7451/status`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return serve(c.Context(), file, pbft.StartReplica, newFiles)
		},
	}
	c.Flags().StringVar(&file, "config", "replica.toml", "the replica's configuration file")
	return c
}

func norepCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "norep --config FILE",
		Short: "run the same service unreplicated, for comparison",
		Long: `Norep serves the same file system to the same relay over the same wire, from one process and without ordering:
what the paper calls NO-REP. It survives no fault, and shows what agreement costs. Its group has one
member: bfsd init --hosts HOST makes one.

` + replicaKeys,
		Example: `  bfsd init --loopback 1 --out norep
  bfsd norep --config norep/host0/replica.toml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return serve(c.Context(), file, pbft.StartUnreplicated, newFiles)
		},
	}
	c.Flags().StringVar(&file, "config", "replica.toml", "the configuration file")
	return c
}

// stopWithin bounds the orderly end; then the process leaves what is left to its exit.
const stopWithin = 10 * time.Second

type (
	starter func(pbft.ReplicaConfig) (*pbft.Replica, error)
	maker   func(*config.Group) (service pbft.Service, free func() error, err error)
)

// serve runs a replica of a service until ctx ends or the replica stops itself.
func serve(ctx context.Context, file string, start starter, service maker) error {
	c, err := config.LoadReplica(file)
	if err != nil {
		return err
	}
	if c.Group.N() > 1 {
		procs.Batch()
	}
	procs.FloorHeap()
	log := cli.Logger(os.Stderr, c.Log).With("replica", c.Self)
	if err := os.MkdirAll(c.Directory, 0o700); err != nil {
		return err
	}
	s, free, err := service(c.Group)
	if err != nil {
		return err
	}
	replica, err := start(pbft.ReplicaConfig{
		Group: c.Group.Group, Self: c.Self, Key: c.Key, Directory: c.Directory, Listen: c.Listen,
		Transport: c.Transport, Service: s, Logger: log, Window: c.Window, Without: c.Without,
	})
	if err != nil {
		free()
		return err
	}
	a, err := admin.Serve(c.AdminListen, replicaSources(replica, c.Group.N()))
	if err != nil {
		return stop(replica, a, free, err)
	}
	digest := c.Group.Digest()
	log.Info("serving", "group", c.Group.Name, "digest", fmt.Sprintf("%x", digest[:8]), "members", c.Group.N(),
		"admin", a.Address(), "transport", c.Transport, "durability", c.Durability)
	cli.SayReady()
	select {
	case <-ctx.Done():
		log.Info("stopping", "why", "signal")
	case <-replica.Done():
		log.Error("stopped by itself", "why", replica.Err())
	}
	return stop(replica, a, free, nil)
}

func replicaSources(r *pbft.Replica, n int) admin.Sources {
	return admin.Sources{
		Status:  func() any { return r.Status() },
		Health:  func() error { return admin.ReplicaHealth(r.Status(), n) },
		Metrics: func(w io.Writer) { admin.ReplicaMetrics(w, r.Status()) },
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
		err = free() // only behind a replica that has let go of the pages
	}
	if r.Err() != nil {
		err = r.Err()
	}
	if first != nil {
		return first
	}
	return err
}
