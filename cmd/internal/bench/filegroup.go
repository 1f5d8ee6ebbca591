// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"time"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/cmd/internal/procs"
	"bfs/cmd/internal/staged"
	"bfs/pkg/bfs"
	"bfs/pkg/nfs3"
	"bfs/pkg/nfsstate"
	"bfs/pkg/pbft"
)

// A fileGroup is a group that serves files, its replicas processes of their own, and one
// client of it in this process.
type fileGroup struct {
	setup    fileGroupConfig
	replicas []*procs.Child // by number
	group    *config.Group
	dir      string // of the bundles
	config   pbft.ClientConfig
	client   *pbft.Client
	others   []*pbft.Client // that are closed with it
	files    *bfs.FS
}

type fileGroupConfig struct {
	Program string // bfsd
	Dir     string // for bundles and logs
	N       int
	Size    int64 // of the state, at least

	Transport  pbft.Transport  // "": plain
	Durability pbft.Durability // "": disk

	Offences map[int]string // by the number of the replica that commits it; the others are correct
}

// The sizes that a group of file servers can have, besides 1.
const (
	leastN = 4
	mostN  = 32
)

func checkN(n int) error {
	if n < leastN || n > mostN {
		return fmt.Errorf("--n: got %d, want %d to %d", n, leastN, mostN)
	}
	return nil
}

// startFileGroup starts a group and mounts its export. When it fails it removes
// everything that it started.
func startFileGroup(ctx context.Context, c fileGroupConfig) (g *fileGroup, err error) {
	if c.Transport == "" {
		c.Transport = pbft.TransportPlain
	}
	if c.Durability == "" {
		c.Durability = pbft.DurabilityDisk
	}
	if err := config.CheckDurability(c.Durability); err != nil {
		return nil, fmt.Errorf("--durability: %w", err)
	}
	g = &fileGroup{setup: c, replicas: make([]*procs.Child, c.N), dir: filepath.Join(c.Dir, "group")}
	defer func() {
		if err != nil {
			g.stop()
		}
	}()
	base, err := procs.FreePorts(2 * c.N)
	if err != nil {
		return nil, err
	}
	dir := g.dir
	plan := bundle.Plan{
		Name: "files", Hosts: bundle.Loopback(c.N, base),
		Size:   max(config.Size(c.Size), config.LeastStateSize(pbft.DefaultLimits())),
		Limits: pbft.DefaultLimits(), Transport: c.Transport, Durability: c.Durability, Window: pbft.DefaultWindow,
		LogLevel: "warn", Exports: []string{exportPath},
	}
	if err := bundle.Write(dir, plan); err != nil {
		return nil, err
	}
	if g.group, err = config.LoadGroup(filepath.Join(dir, bundle.GroupFile)); err != nil {
		return nil, err
	}
	if len(c.Offences) > 0 {
		if err := staged.Attack.Mark(c.Dir, g.group); err != nil {
			return nil, err
		}
	}
	for i := range c.N {
		if err := g.start(i); err != nil {
			return nil, err
		}
	}
	for _, r := range g.replicas {
		if err := r.Ready(ctx); err != nil {
			return nil, err
		}
	}
	g.config = pbft.ClientConfig{Group: g.group.Group, Transport: c.Transport}
	return g, g.connect(ctx)
}

const exportPath = "/export"

func (g *fileGroup) stop() {
	if g.client != nil {
		g.client.Close()
	}
	for _, c := range g.others {
		c.Close()
	}
	for _, r := range g.replicas {
		if r != nil {
			r.Kill()
		}
	}
}

// connect enrols a client with all rights and mounts its export.
func (g *fileGroup) connect(ctx context.Context) error {
	key, err := g.enrol(ctx, false)
	if err != nil {
		return err
	}
	g.config.Key = key
	if g.client, err = g.open(ctx, key); err != nil {
		return err
	}
	g.files, err = bfs.Mount(ctx, g.client, exportPath, nfs3.Credentials{})
	return err
}

// enrol makes a client's key, with the right to write or without.
func (g *fileGroup) enrol(ctx context.Context, readOnly bool) (ed25519.PrivateKey, error) {
	key, err := keys.Generate()
	if err != nil {
		return nil, err
	}
	return key, g.enrolKey(ctx, key, readOnly)
}

// enrolAbove makes the key of a client whose number is above the first client's, which then stays
// the lowest: some offences pick out the client of the lowest number.
func (g *fileGroup) enrolAbove(ctx context.Context, readOnly bool) (ed25519.PrivateKey, error) {
	first := pbft.ClientOf(keys.Of(g.config.Key))
	for {
		key, err := keys.Generate()
		if err != nil {
			return nil, err
		}
		if pbft.ClientOf(keys.Of(key)) > first {
			return key, g.enrolKey(ctx, key, readOnly)
		}
	}
}

func (g *fileGroup) enrolKey(ctx context.Context, key ed25519.PrivateKey, readOnly bool) error {
	admin, err := keys.ReadPrivate(filepath.Join(g.dir, bundle.AdminDir, bundle.AdminKeyFile))
	if err != nil {
		return err
	}
	administrator, err := g.open(ctx, admin)
	if err != nil {
		return err
	}
	defer administrator.Close()
	grant := nfsstate.Grant{Export: 1, ReadOnly: readOnly, AnonUID: nfsstate.Nobody, AnonGID: nfsstate.Nobody}
	rights := nfsstate.Rights{Grants: []nfsstate.Grant{grant}}
	return administrator.Enrol(ctx, keys.Of(key), rights.Append(nil))
}

func (g *fileGroup) open(ctx context.Context, key ed25519.PrivateKey) (*pbft.Client, error) {
	cfg := g.config
	cfg.Key = key
	return g.openAs(ctx, cfg)
}

func (g *fileGroup) openAs(ctx context.Context, cfg pbft.ClientConfig) (*pbft.Client, error) {
	c, err := pbft.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	if err := c.Ready(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// clientConfig returns the configuration of a client whose key is in a file.
func clientConfig(g *config.Group, file string, transport pbft.Transport) (pbft.ClientConfig, error) {
	key, err := keys.ReadPrivate(file)
	return pbft.ClientConfig{Group: g.Group, Key: key, Transport: transport}, err
}

// cpu is the processor time that the replicas have used.
func (g *fileGroup) cpu() (total time.Duration, err error) {
	for _, r := range g.replicas {
		d, err := procs.CPU(r.PID())
		if err != nil {
			return 0, fmt.Errorf("%s: %w", r.Name, err)
		}
		total += d
	}
	return total, nil
}
