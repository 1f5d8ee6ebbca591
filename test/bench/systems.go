// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"bfs/test/bench/refserver"
	"bfs/test/cluster"
	"bfs/test/guest"
)

// A system is a file server under measurement, started afresh for every run.
type system struct {
	name  string
	about string
	start func(ctx context.Context, dir string, p placement) (*running, error)
	asked bool // only measured if asked for by name
}

// A running system has the way by which a guest reaches it, and the processes whose
// processor time counts as the system's.
type running struct {
	mount func(o *guest.Options, command string)
	pids  func() []int
	stop  func()
	disks bool // what its processes write to disks is of interest
	share int  // how many of its processes share this machine's disk equally
}

// systems in the order of the tables.
var systems = []system{
	{name: "bfs", about: "four replicas and a relay", start: bfs(4, "replicated")},
	{name: "bfs-disk", about: "the same, and what is answered is on the replicas' disks",
		start: bfs(4, "disk"), asked: true},
	{name: "bfs-recovering", about: "bfs-disk with a recovery always under way", start: recovering(0), asked: true},
	{name: "bfs-window", about: "bfs-disk, each replica recovered once in 4 minutes",
		start: recovering(4 * time.Minute), asked: true},
	{name: "bfs-7", about: "seven replicas and a relay", start: bfs(7, "replicated"), asked: true},
	{name: "norep", about: "the same service and relay, one process, nothing ordered", start: bfs(1, "replicated")},
	{name: "ganesha-vfs", about: "NFS-Ganesha, a directory passed through", start: reference("ganesha-vfs")},
	{name: "ganesha-mem", about: "NFS-Ganesha, everything in memory", start: reference("ganesha-mem")},
	{name: "nfsd", about: "the guest kernel's own server, a tmpfs exported async (NFS-std)", start: nfsd(false)},
	{name: "nfsd-sync", about: "the same server, an ext4 file system on a disk exported sync",
		start: nfsdSync, asked: true},
	{name: "go-nfs", about: "unmodified go-nfs, a directory passed through", start: reference("go-nfs")},
	{name: "local", about: "no file server: the guest's tmpfs", start: nfsd(true)},
}

func findSystems(names string) ([]system, error) {
	var found []system
	for _, name := range strings.Split(names, ",") {
		s := find(systems, func(s system) bool { return s.name == name })
		if s == nil {
			return nil, fmt.Errorf("no system %q; there are %s", name, strings.Join(systemNames(true), ","))
		}
		found = append(found, *s)
	}
	return found, nil
}

// systemNames returns the names of all systems, or of those that are measured by default.
func systemNames(all bool) []string {
	var names []string
	for _, s := range systems {
		if all || !s.asked {
			names = append(names, s.name)
		}
	}
	return names
}

func find[T any](all []T, is func(T) bool) *T {
	for i := range all {
		if is(all[i]) {
			return &all[i]
		}
	}
	return nil
}

func bfs(replicas int, durability string) func(context.Context, string, placement) (*running, error) {
	return func(ctx context.Context, dir string, p placement) (*running, error) {
		config := cluster.Config{Replicas: replicas, Wrap: p.wrap(), Transport: p.transport, Durability: durability}
		_, server, err := startBFS(ctx, dir, config)
		return server, err
	}
}

// startBFS starts a group and a relay.
func startBFS(ctx context.Context, dir string, c cluster.Config) (*cluster.Group, *running, error) {
	g, err := cluster.Start(ctx, dir, c)
	if err != nil {
		if g != nil {
			g.Stop()
		}
		return nil, nil, err
	}
	r, err := g.AddRelay(ctx, cluster.Client{})
	if err != nil {
		logs := g.Logs(10)
		g.Stop()
		return nil, nil, fmt.Errorf("%w\n%s", err, logs)
	}
	server := &running{
		mount: mountOf(r.Port, r.Port, r.Export), pids: g.PIDs, stop: g.Stop,
		disks: c.Durability == "disk", share: c.Replicas,
	}
	return g, server, nil
}

func reference(kind string) func(context.Context, string, placement) (*running, error) {
	return func(ctx context.Context, dir string, p placement) (*running, error) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		s, err := refserver.Start(ctx, kind, dir, p.wrap()...)
		if err != nil {
			return nil, err
		}
		return &running{mount: mountOf(s.Port, s.MountPort, s.Export), pids: s.PIDs, stop: s.Stop}, nil
	}
}

func mountOf(port, mountPort int, export string) func(*guest.Options, string) {
	return func(o *guest.Options, command string) {
		o.Mounts = []guest.Mount{{Port: port, MountPort: mountPort, Export: export, Options: "noacl"}}
		o.Command = command
	}
}

// nfsd runs inside the guest, so it costs no processor time outside and no network.
func nfsd(local bool) func(context.Context, string, placement) (*running, error) {
	return func(context.Context, string, placement) (*running, error) {
		mount := func(o *guest.Options, command string) {
			o.OwnLoopback = true
			o.Modules = []string{"nfsd"}
			if local {
				o.Env = append(o.Env, "NFSD_LOCAL=1")
			}
			o.Env = append(o.Env, "JOB="+command)
			o.Command = `bash "$BENCH/nfsd.sh" bash -c "$JOB"`
		}
		return &running{mount: mount, pids: func() []int { return nil }, stop: func() {}}, nil
	}
}

// nfsdDisk is the size of the file that is the disk of nfsd-sync.
const nfsdDisk = "4G"

// nfsdSync is nfsd on a disk of its own: a file of this machine, as the replicas' disks
// are. A flush of the disk in the guest is an fsync of the file.
func nfsdSync(ctx context.Context, dir string, p placement) (*running, error) {
	server, err := nfsd(false)(ctx, dir, p)
	if err != nil {
		return nil, err
	}
	disk := dir + ".disk"
	if out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", disk,
		nfsdDisk).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mkfs.ext4 (Debian package e2fsprogs): %w: %s", err, out)
	}
	mount := server.mount
	server.mount = func(o *guest.Options, command string) {
		mount(o, command)
		o.Disks = []string{disk}
		o.Env = append(o.Env, "NFSD_DISK=/dev/ubda",
			"NFSD_EXPORT_OPTIONS=rw,sync,no_root_squash,insecure,fsid=1,no_subtree_check")
	}
	return server, nil
}
