package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/admin"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/cmd/internal/procs"
	"bfs/pkg/nfsstate/nfs3"
	"bfs/pkg/pbft"
	"bfs/pkg/relay"
)

func runCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "run --config FILE",
		Short: "serve the group's file system to this machine's kernel",
		Long: `Run serves until SIGINT or SIGTERM. It waits for the group first, as long as it takes, and prints a line "ready" on
standard output when it listens; it logs on standard error.

The configuration file, with its defaults (paths are relative to the file; unknown keys are errors):

  group          = "group.toml"        the group file
  key            = "relay.key"         the relay's private key, mode 0600, enrolled in the group
  listen         = "127.0.0.1:12049"   where the kernel finds it, for NFS and MOUNT; a loopback address
  admin_listen   = "127.0.0.1:12050"   /status, /healthz, /metrics; "" is nowhere
  export         = "/export"           what bfs-relay mount mounts
  insecure_ports = false               true takes calls from ports >= 1024: any local process may then
                                       claim to be any user
  journal        = "journal"           hides a restart from a mounted kernel; "" is nowhere
  anchor         = "anchor"            the last certified root: a group behind it is refused; "" is nowhere
  transport      = "tls"               or "plain", as in the members' files
  log_level      = "info"              debug, info, warn, error
  log_format     = "text"              or "json"`,
		Example: `  bfs-relay run --config /etc/bfs/relay.toml`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return run(c.Context(), file)
		},
	}
	c.Flags().StringVar(&file, "config", "relay.toml", "the relay's configuration file")
	return c
}

// stopWithin bounds how long calls under way may take to finish when the relay is told to stop.
const stopWithin = 5 * time.Second

func run(ctx context.Context, file string) error {
	warnings := relay.Harden() // before anything takes memory
	c, err := config.LoadRelay(file)
	if err != nil {
		return err
	}
	if c.Group.N() > 1 {
		procs.Batch()
	}
	log := cli.Logger(os.Stderr, c.Log)
	for _, w := range warnings {
		log.Warn("not hardened", "problem", w)
	}
	client, err := pbft.NewClient(pbft.ClientConfig{Group: c.Group.Group, Key: c.Key, Transport: c.Transport, Logger: log})
	if err != nil {
		return err
	}
	defer client.Close()
	log.Info("connecting", "group", c.Group.Name, "key", keys.Public(keys.Of(c.Key)).String())
	if err := waitFor(ctx, client, c, log, connect(ctx, client)); err != nil || ctx.Err() != nil {
		return err // a signal while waiting is no error
	}
	drop, err := holdTo(ctx, c, client, log)
	if err != nil {
		return err
	}
	defer drop()
	journal, err := openJournal(c)
	if err != nil {
		return err
	}
	server, err := relay.New(relay.Config{Group: client, Journal: journal, InsecurePorts: c.InsecurePorts, Log: log})
	if err == nil {
		err = serve(ctx, c, server, client, log)
	}
	// In this order: calls may still end in the journal until the client is closed.
	err = errors.Join(err, client.Close())
	if journal != nil {
		err = errors.Join(err, journal.Close())
	}
	return err
}

// patience is how long the relay waits for the group before it says so, again and again.
const patience = 15 * time.Second

// waitFor waits for something that the group must do first, as long as it takes: hosts may start in any order.
func waitFor(ctx context.Context, client *pbft.Client, c *config.Relay, log *slog.Logger, begin func(done func(error)) error) error {
	done := make(chan error, 1)
	if err := begin(func(err error) { done <- err }); err != nil {
		return err
	}
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return notReady(ctx, err, c)
		case <-ctx.Done():
			return nil
		case <-tick.C:
			log.Warn("still waiting for the group", "reached", reached(client), "needed", c.Group.Quorum())
		}
	}
}

// connect waits until a quorum has exchanged keys with us.
func connect(ctx context.Context, client *pbft.Client) func(done func(error)) error {
	return func(done func(error)) error {
		go func() { done(client.Ready(ctx)) }()
		return nil
	}
}

// ask calls NFS's procedure that does nothing: replicas exchange keys with anybody, and whether the group knows us
// shows with the first call.
func ask(client *pbft.Client) func(done func(error)) error {
	return func(done func(error)) error {
		return client.Start(pbft.Call{
			Body:     nfs3.AppendCall(nil, &nfs3.Call{Program: nfs3.ProgramNFS, Cred: nfs3.Credentials{None: true}}),
			ReadOnly: true,
			Done:     func(_ []byte, err error) { done(err) },
		})
	}
}

// notReady says what keeps the group from knowing us. A signal while waiting is no error.
func notReady(ctx context.Context, err error, c *config.Relay) error {
	switch {
	case err == nil || ctx.Err() != nil:
		return nil
	case errors.Is(err, pbft.ErrNotEnrolled):
		return fmt.Errorf("%w: have the administrator run\n  bfsd client add --admin admin --key %v --export %s",
			err, keys.Public(keys.Of(c.Key)), c.Export)
	}
	return err
}

// reached counts the replicas there is a connection to.
func reached(client *pbft.Client) (n int) {
	for _, connected := range client.Status().Connected {
		if connected {
			n++
		}
	}
	return n
}

// holdTo refuses a group that is behind what this relay has seen certified, and goes on keeping what it sees, until
// drop.
func holdTo(ctx context.Context, c *config.Relay, client *pbft.Client, log *slog.Logger) (drop func(), err error) {
	if c.Anchor == "" {
		return func() {}, nil
	}
	anchor, err := relay.OpenAnchor(c.Anchor, c.Group.Group, log)
	if err != nil {
		return nil, err
	}
	if err := anchor.Check(ctx, client); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		anchor.Run(ctx, client)
	}()
	return func() { cancel(); <-done }, nil
}

func openJournal(c *config.Relay) (*relay.Journal, error) {
	if c.Journal == "" {
		return nil, nil
	}
	digest := c.Group.Digest()
	return relay.OpenJournal(c.Journal, relay.JournalOptions{
		Slots: c.Group.Limits.Slots,
		Owner: sha256.Sum256(append(digest[:], keys.Of(c.Key)...)),
	})
}

// serve listens until ctx ends, then lets calls under way finish.
func serve(ctx context.Context, c *config.Relay, server *relay.Server, client *pbft.Client, log *slog.Logger) error {
	if err := server.Resume(); err != nil { // before any other call
		return err
	}
	if err := waitFor(ctx, client, c, log, ask(client)); err != nil || ctx.Err() != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	a, err := admin.Serve(c.AdminListen, sources(server, client, c.Group.Quorum()))
	if err != nil {
		listener.Close()
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	log.Info("serving", "address", listener.Addr(), "admin", a.Address(), "insecure_ports", c.InsecurePorts)
	cli.SayReady()
	select {
	case err = <-served:
	case <-ctx.Done():
		log.Info("stopping", "why", "signal")
	}
	end, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if e := a.Close(end); e != nil {
		log.Warn("admin address", "problem", e)
	}
	if e := server.Shutdown(end); e != nil {
		log.Warn("calls were cut off; kernels will send them again", "problem", e)
	}
	return err
}

func sources(server *relay.Server, client *pbft.Client, quorum int) admin.Sources {
	return admin.Sources{
		Status: func() any {
			return struct {
				Client pbft.ClientStatus `json:"client"`
				Relay  relay.Stats       `json:"relay"`
			}{client.Status(), server.Stats()}
		},
		Health: func() error {
			if n := reached(client); n < quorum {
				return fmt.Errorf("reaches %d replicas, want %d", n, quorum)
			}
			return nil
		},
		Metrics: func(w io.Writer) { writeMetrics(w, server.Stats(), client.Status()) },
	}
}
