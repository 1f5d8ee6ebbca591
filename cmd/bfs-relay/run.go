// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/admin"
	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/cmd/internal/procs"
	"bfs/pkg/pbft"
	"bfs/pkg/relay"
)

func runCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "run --config FILE",
		Short: "serve the group's file system to this machine's kernel",
		Long: `Run serves until SIGINT or SIGTERM. It waits for the group first, as long as it takes, and prints
a line "ready" on standard output when it listens; it logs on standard error.

The configuration file, with its defaults (paths are relative to the file; unknown keys are errors):

  group          = "group.toml"        the group file
  key            = "relay.key"         the relay's private key, mode 0600, enrolled in the group
  listen         = "127.0.0.1:12049"   where the kernel finds it, for NFS and MOUNT; a loopback address
  admin_listen   = "127.0.0.1:12050"   /status, /livez, /readyz, /metrics; "" is nowhere
  export         = "/export"           the export that bfs-relay mount mounts
  insecure_ports = false               true takes calls from ports >= 1024: any local process may then
                                       claim to be any user
  journal        = "journal"           hides a restart from a mounted kernel; "" is nowhere
  anchor         = "anchor"            the last certified root: a group behind it is refused; "" is nowhere
  transport      = "tls"               or "plain", as in the members' files
  key_period     = "1m"                session keys are refreshed so often: 1s to 1h
  log_level      = "info"              debug, info, warn, error
  log_format     = "text"              or "json"`,
		Example: `  bfs-relay run --config /etc/bfs/relay.toml`,
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return run(c.Context(), file)
		},
	}
	c.Flags().StringVar(&file, "config", "relay.toml", "the relay's configuration file")
	return c
}

// whichFile adds to the error, if the configuration file was not found, how to name it.
func whichFile(file string, err error) error {
	if info, e := os.Stat(file); e == nil && info.IsDir() {
		return fmt.Errorf("%s: is a directory: give --config %s", file, filepath.Join(file, bundle.RelayFile))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: give --config FILE, the %s that bfs-relay init made", err, bundle.RelayFile)
	}
	return err
}

// noArguments refuses arguments, which are most often a file without its flag.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("got the argument %q, want flags only, such as in `%s`", args[0], c.UseLine())
	}
	return nil
}

// stopWithin bounds how long calls under way may take to finish when the relay is told to stop.
const stopWithin = 5 * time.Second

func run(ctx context.Context, file string) error {
	warnings := relay.Harden() // before anything takes memory
	c, err := config.LoadRelay(file)
	if err != nil {
		return whichFile(file, err)
	}
	if c.Group.N() > 1 {
		procs.Batch()
	}
	log := cli.Logger(os.Stderr, c.Log)
	for _, w := range warnings {
		log.Warn("not hardened", "problem", w)
	}
	if why := relay.PortRule(c.InsecurePorts); why != "" {
		log.Warn("not hardened", "problem", why)
	}
	unlock, err := lockKey(c.KeyFile)
	if err != nil {
		return err
	}
	defer unlock()
	client, err := pbft.NewClient(pbft.ClientConfig{
		Group: c.Group.Group, Key: c.Key, Transport: c.Transport, KeyPeriod: c.KeyPeriod, Logger: log,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	p := &probe{client: client, config: c}
	var serving atomic.Pointer[relay.Server]
	a, err := admin.Serve(c.AdminListen, sources(&serving, p))
	if err != nil {
		return fmt.Errorf("%w (%s: admin_listen): end the other program, or name another port", err, c.File)
	}
	log.Info("connecting", "group", c.Group.Name, "key", keys.Public(keys.Of(c.Key)).String(), "admin", a.Address())
	err = serveGroup(ctx, c, client, p, &serving, log)
	end, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if e := a.Close(end); e != nil {
		log.Warn("admin address", "problem", e)
	}
	return err
}

// serveGroup waits for the group, and serves kernels until ctx ends.
func serveGroup(
	ctx context.Context, c *config.Relay, client *pbft.Client, p *probe,
	serving *atomic.Pointer[relay.Server], log *slog.Logger,
) error {
	anchor, err := openAnchor(c, log) // files first, so that an error in them shows at once
	if err != nil {
		return err
	}
	journal, err := openJournal(c)
	if err != nil {
		return err
	}
	err = serveFrom(ctx, client, p, anchor, relay.Config{
		Group: client, Journal: journal, InsecurePorts: c.InsecurePorts, Cause: p.Cause, Log: log,
	}, serving)
	// In this order: calls may still end in the journal until the client is closed.
	err = errors.Join(err, client.Close())
	if journal != nil {
		err = errors.Join(err, journal.Close())
	}
	return err
}

// serveFrom is serveGroup with its files open.
func serveFrom(
	ctx context.Context, client *pbft.Client, p *probe, anchor *relay.Anchor, rc relay.Config,
	serving *atomic.Pointer[relay.Server],
) error {
	if err := waitFor(ctx, p, rc.Log, connect(ctx, client)); err != nil || ctx.Err() != nil {
		return err // a signal while waiting is no error
	}
	drop, err := holdTo(ctx, anchor, client)
	if err != nil {
		return err
	}
	defer drop()
	server, err := relay.New(rc)
	if err != nil {
		return err
	}
	serving.Store(server)
	return serve(ctx, server, p, rc.Log)
}

// patience is how long the relay waits for the group before it says so, again and again.
const patience = 15 * time.Second

// waitFor repeats begin until the group answers, as long as it takes: hosts may start in any order.
func waitFor(ctx context.Context, p *probe, log *slog.Logger, begin func(done func(error)) error) error {
	done := make(chan error, 1)
	if err := begin(func(err error) { done <- err }); err != nil {
		return err
	}
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return notReady(ctx, err, p.config)
		case <-ctx.Done():
			return nil
		case <-tick.C:
			log.Warn("still waiting for the group", "why", cmp.Or(p.unreached(),
				"enough replicas are connected, but do not answer: ask them with `bfsd status`"))
		}
	}
}

// connect waits until a quorum has exchanged keys with this client.
func connect(ctx context.Context, client *pbft.Client) func(done func(error)) error {
	return func(done func(error)) error {
		go func() { done(client.Ready(ctx)) }()
		return nil
	}
}

// ask calls NFS's procedure NULL. Replicas exchange keys with any client, so only the
// answer to a call shows whether the group has enrolled this one.
func ask(client caller) func(done func(error)) error {
	return func(done func(error)) error {
		return client.Start(nullCall(func(_ []byte, err error) { done(err) }))
	}
}

// notReady explains why the group does not know this client. A signal while waiting is no error.
func notReady(ctx context.Context, err error, c *config.Relay) error {
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return explain(err, c)
}

// explain adds the next step to an error of the group.
func explain(err error, c *config.Relay) error {
	if errors.Is(err, pbft.ErrNotEnrolled) {
		return fmt.Errorf("%w, or not any more (revoked, expired): have the administrator run\n"+
			"  bfsd client add --admin admin --key %v --export %s",
			err, keys.Public(keys.Of(c.Key)), c.Export)
	}
	return err
}

// openAnchor returns nil if the configuration wants none.
func openAnchor(c *config.Relay, log *slog.Logger) (*relay.Anchor, error) {
	if c.Anchor == "" {
		return nil, nil
	}
	return relay.OpenAnchor(c.Anchor, c.Group.Group, log)
}

// holdTo refuses a group that is behind a checkpoint that this relay has seen certified,
// and keeps newer certified checkpoints until drop. A nil anchor checks nothing.
func holdTo(ctx context.Context, anchor *relay.Anchor, client *pbft.Client) (drop func(), err error) {
	if anchor == nil {
		return func() {}, nil
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
	// Calls under way go on in the group's next epoch: its slots have the timestamps of this
	// one.
	digest := c.Group.Lineage()
	return relay.OpenJournal(c.Journal, relay.JournalOptions{
		Slots: c.Group.Limits.Slots,
		Owner: sha256.Sum256(append(digest[:], keys.Of(c.Key)...)),
	})
}

// serve listens until ctx ends, then lets calls under way finish.
func serve(ctx context.Context, server *relay.Server, p *probe, log *slog.Logger) error {
	if err := server.Resume(); err != nil { // before any other call
		return err
	}
	if err := waitFor(ctx, p, log, ask(p.client)); err != nil || ctx.Err() != nil {
		return err
	}
	listener, err := net.Listen("tcp", p.config.Listen)
	if err != nil {
		return fmt.Errorf("%w (%s: listen): end the other program, or name another port", err, p.config.File)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	p.serves(server.Oldest)
	ctx, cancel := context.WithCancel(ctx)
	probed := make(chan struct{})
	go func() {
		defer close(probed)
		p.run(ctx, log)
	}()
	log.Info("serving", "address", listener.Addr(), "insecure_ports", p.config.InsecurePorts)
	cli.SayReady()
	select {
	case err = <-served:
	case <-ctx.Done():
		log.Info("stopping", "why", "signal")
	}
	cancel()
	<-probed
	end, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if e := server.Shutdown(end); e != nil {
		log.Warn("calls were cut off; kernels will send them again", "problem", e)
	}
	return err
}

// sources are the admin pages, of a relay that may not serve yet.
func sources(serving *atomic.Pointer[relay.Server], p *probe) admin.Sources {
	stats := func() (s relay.Stats) {
		if server := serving.Load(); server != nil {
			s = server.Stats()
		}
		return s
	}
	return admin.Sources{
		Status: func() any {
			return struct {
				Client pbft.ClientStatus `json:"client"`
				Relay  relay.Stats       `json:"relay"`
			}{p.client.Status(), stats()}
		},
		Live: func() error {
			if server := serving.Load(); server != nil {
				return server.Alive()
			}
			return nil
		},
		Health:  p.Ready,
		Metrics: func(w io.Writer) { writeMetrics(w, p.Ready() == nil, stats(), p.client.Status()) },
		Help:    metricsHelp,
	}
}
