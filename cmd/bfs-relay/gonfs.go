// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/bfs"
	"bfs/pkg/bfs/gonfs"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// gonfsOptions are the flags of gonfs.
type gonfsOptions struct {
	file, listen, export string
	uid, gid             uint32
	groups               []uint
}

func gonfsCommand() *cobra.Command {
	var o gonfsOptions
	c := &cobra.Command{
		Use:   "gonfs --config FILE [--listen ADDRESS]",
		Short: "serve the group's file system by go-nfs instead of the relay",
		Long: `Gonfs serves NFSv3 and MOUNT until SIGINT or SIGTERM, as run does and with the same configuration
file, but by the go-nfs library over the Go file system. It is there for comparison and as a second
way in; run is the better server. Its limits for a kernel:

  - all calls act as one user, --uid and --gid, whichever user makes them; ACCESS grants everything
  - a connection has one call under way at a time, and a call is several operations of the group
  - no hard links, no device nodes, no exclusive create; CREATE empties a file that is there
  - handles name paths: they are stale after a restart, and when another client renames
  - MOUNT knows no EXPORT, and go-nfs's answer to it is no RPC: libnfs needs auto-traverse-mounts=0

Beside a relay it needs a key of its own, and so a directory of its own (bfs-relay init). Only one export is served. The
admin address and the journal of the configuration file are not used.`,
		Example: `  bfs-relay gonfs --config /etc/bfs/relay.toml --listen 127.0.0.1:12051 --uid 1000 --gid 1000
  mount -t nfs -o vers=3,proto=tcp,mountproto=tcp,nolock,port=12051,mountport=12051 127.0.0.1:/export /mnt
  nfs-ls 'nfs://127.0.0.1/export?version=3&nfsport=12051&mountport=12051&auto-traverse-mounts=0'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return runGonfs(c.Context(), &o) },
	}
	c.Flags().StringVar(&o.file, "config", "relay.toml", "the relay's configuration file")
	c.Flags().StringVar(&o.listen, "listen", "", `where to serve; "" is the configuration's listen`)
	c.Flags().StringVar(&o.export, "export", "", `the export to serve; "" is the configuration's export`)
	c.Flags().Uint32Var(&o.uid, "uid", 0, "the user that all calls act as")
	c.Flags().Uint32Var(&o.gid, "gid", 0, "the group that all calls act as")
	c.Flags().UintSliceVar(&o.groups, "groups", nil, "further groups, at most 16")
	return c
}

func (o *gonfsOptions) credentials() (c nfs3.Credentials, err error) {
	c.UID, c.GID = o.uid, o.gid
	for _, g := range o.groups {
		if uint64(g) > math.MaxUint32 {
			return c, fmt.Errorf("--groups: got %d, want <= %d", g, uint32(math.MaxUint32))
		}
		c.Groups = append(c.Groups, uint32(g))
	}
	return c, nil
}

// listenLoopback listens at a loopback address, which only this machine can reach,
// because NFS calls are not protected.
func listenLoopback(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		l.Close()
		return nil, fmt.Errorf("--listen: got %q, want a loopback address", address)
	}
	return l, nil
}

func runGonfs(ctx context.Context, o *gonfsOptions) error {
	cred, err := o.credentials()
	if err != nil {
		return err
	}
	c, err := config.LoadRelay(o.file)
	if err != nil {
		return whichFile(o.file, err)
	}
	unlock, err := lockKey(c.KeyFile)
	if err != nil {
		return err
	}
	defer unlock()
	if o.listen == "" {
		o.listen = c.Listen
	}
	if o.export == "" {
		o.export = c.Export
	}
	log := cli.Logger(os.Stderr, c.Log)
	slog.SetDefault(log) // go-nfs speaks through package log, which then speaks through this
	client, err := pbft.NewClient(pbft.ClientConfig{
		Group: c.Group.Group, Key: c.Key, Transport: c.Transport, KeyPeriod: c.KeyPeriod, Logger: log,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	log.Info("connecting", "group", c.Group.Name, "key", keys.Public(keys.Of(c.Key)).String())
	if err := client.Ready(ctx); err != nil {
		return notReady(ctx, err, c)
	}
	fsys, err := bfs.Mount(ctx, client, o.export, cred)
	if err != nil {
		return err
	}
	listener, err := listenLoopback(o.listen)
	if err != nil {
		return err
	}
	log.Info("serving", "address", listener.Addr(), "export", o.export, "uid", o.uid, "gid", o.gid)
	cli.SayReady()
	return gonfs.Serve(ctx, listener, gonfs.Config{FS: fsys, Export: o.export,
		InsecurePorts: c.InsecurePorts, Log: log})
}
