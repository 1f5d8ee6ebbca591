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
	"bfs/pkg/bfs"
	"bfs/pkg/nfsstate"
	"bfs/pkg/nfsstate/nfs3"
	"bfs/pkg/pbft"
)

// A fileGroup is a group that serves files, its replicas processes of their own, and one client of it in this process.
type fileGroup struct {
	replicas []*procs.Child
	group    *config.Group
	client   *pbft.Client
	files    *bfs.FS
}

type fileGroupConfig struct {
	Program string // bfsd
	Dir     string // for bundles and logs
	N       int
	Size    int64 // of the state, at least
}

// startFileGroup starts a group and mounts its export. What it started in vain is gone when it fails.
func startFileGroup(ctx context.Context, c fileGroupConfig) (g *fileGroup, err error) {
	g = &fileGroup{}
	defer func() {
		if err != nil {
			g.stop()
		}
	}()
	base, err := procs.FreePorts(2 * c.N)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.Dir, "group")
	plan := bundle.Plan{
		Name: "files", Hosts: bundle.Loopback(c.N, base), Size: max(config.Size(c.Size), config.LeastStateSize(pbft.DefaultLimits())), Limits: pbft.DefaultLimits(),
		Transport: pbft.TransportPlain, Durability: config.DurabilityReplicated, Window: pbft.DefaultWindow, LogLevel: "warn", Exports: []string{"/export"},
	}
	if err := bundle.Write(dir, plan); err != nil {
		return nil, err
	}
	for i := range c.N {
		name := fmt.Sprintf("replica%d", i)
		file := filepath.Join(bundle.HostDir(dir, i), bundle.ReplicaFile)
		r, err := procs.Start(name, filepath.Join(c.Dir, name+".log"), c.Program, "run", "--config", file)
		if err != nil {
			return nil, err
		}
		g.replicas = append(g.replicas, r)
	}
	for _, r := range g.replicas {
		if err := r.Ready(ctx); err != nil {
			return nil, err
		}
	}
	if g.group, err = config.LoadGroup(filepath.Join(dir, bundle.GroupFile)); err != nil {
		return nil, err
	}
	return g, g.connect(ctx, filepath.Join(dir, bundle.AdminDir, bundle.AdminKeyFile))
}

func (g *fileGroup) stop() {
	if g.client != nil {
		g.client.Close()
	}
	for _, r := range g.replicas {
		r.Kill()
	}
}

// connect enrols a client with all rights and mounts its export.
func (g *fileGroup) connect(ctx context.Context, adminKey string) error {
	admin, err := keys.ReadPrivate(adminKey)
	if err != nil {
		return err
	}
	key, err := keys.Generate()
	if err != nil {
		return err
	}
	administrator, err := g.open(ctx, admin)
	if err != nil {
		return err
	}
	defer administrator.Close()
	rights := nfsstate.Rights{Grants: []nfsstate.Grant{{Export: 1, AnonUID: nfsstate.Nobody, AnonGID: nfsstate.Nobody}}}
	if err := administrator.Enrol(ctx, keys.Of(key), rights.Append(nil)); err != nil {
		return err
	}
	if g.client, err = g.open(ctx, key); err != nil {
		return err
	}
	g.files, err = bfs.Mount(ctx, g.client, "/export", nfs3.Credentials{})
	return err
}

func (g *fileGroup) open(ctx context.Context, key ed25519.PrivateKey) (*pbft.Client, error) {
	c, err := pbft.NewClient(pbft.ClientConfig{Group: g.group.Group, Key: key, Transport: pbft.TransportPlain})
	if err != nil {
		return nil, err
	}
	if err := c.Ready(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
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
