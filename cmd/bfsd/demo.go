// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/cmd/internal/probe"
	"bfs/cmd/internal/procs"
	"bfs/cmd/internal/staged"
	"bfs/cmd/internal/status"
	"bfs/pkg/nfsstate"
	"bfs/pkg/pbft"
)

func demoCommand() *cobra.Command {
	d := demo{n: 4, size: 4 << 30}
	c := &cobra.Command{
		Use:   "demo",
		Short: "a group of replicas and a relay on this machine, to try it",
		Long: `Demo makes a group of four, or of as many as -n says, starts its replicas, each under its keeper,
and a relay as processes of their own on the loopback, enrols the relay, and shows how to mount it.
It needs no root (mounting does) and runs until ctrl-C, which stops everything.

Files live in the replicas' memory: they are gone when the demo ends. With --dir, and after a failure, the keys,
the configuration and the logs stay. --kill also shows that a group survives a failure: it writes a file, kills
the primary with SIGKILL, and reads the file back from the others. --intrude shows that a replica is healed: it
alters a file in the memory and on the disk of a running replica, reads the file as it was written, and has the
replica recovered. That needs the right to trace processes, which root has. --byzantine has one replica lie, in
every vote and result, until it is recovered: files stay right, and the others count who it is.`,
		Example: `  bfsd demo
  bfsd demo -n 6
  bfsd demo --kill --dir /tmp/bfs
  bfsd demo --intrude
  bfsd demo --byzantine`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if d.byzantine && (d.kill || d.intrude) {
				return errors.New("--byzantine excludes --kill and --intrude: with four " +
					"replicas one may be faulty at a time")
			}
			d.out = c.OutOrStdout()
			return d.run(c.Context())
		},
	}
	f := c.Flags()
	f.IntVarP(&d.n, "n", "n", 4, "replicas: 4 to 32")
	f.StringVar(&d.dir, "dir", "", "where keys, configuration and logs are kept (default: a temporary "+
		"directory, removed at the end if all went well)")
	f.IntVar(&d.basePort, "base-port", 0, "the first of 2n+2 ports on 127.0.0.1; 0 finds free ones")
	f.Var(&d.size, "size", "size of the whole state; each replica takes as much memory as is in use")
	f.BoolVar(&d.kill, "kill", false, "show that nothing is lost when a replica is killed")
	f.BoolVar(&d.byzantine, "byzantine", false, "show that a replica that lies does no harm, and is named")
	c.AddCommand(demoKeeperCommand(), demoLieCommand())
	f.BoolVar(&d.intrude, "intrude", false,
		"show that a replica whose memory and disk are altered does no harm, and is healed")
	return c
}

const (
	demoExport = config.DefaultExport

	// Bounds of the demo's waits. They are generous, because the machine may be busy.
	demoReadyWithin = time.Minute
	demoStopWithin  = 10 * time.Second
)

type demo struct {
	n        int // replicas
	dir      string
	basePort int
	size     config.Size
	kill     bool
	intrude  bool

	byzantine bool

	out      io.Writer
	bfsd     string // ourselves
	relayBin string
	children []*procs.Child // in the order they were started
	group    *config.Group
	relay    *config.Relay
}

func (d *demo) run(ctx context.Context) (err error) {
	if err := d.findPrograms(); err != nil {
		return err
	}
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "bfs-demo-"); err != nil {
			return err
		}
		defer func() { err = d.tidy(err) }()
	} else if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	defer func() { err = d.end(err) }()
	if err := d.show(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil // ctrl-C is the regular end of a demo at any time
}

// tidy removes the temporary directory, unless the demo failed: its logs say why.
func (d *demo) tidy(err error) error {
	if err != nil {
		return fmt.Errorf("%w\n(keys, configuration and logs are kept in %s)", err, d.dir)
	}
	return os.RemoveAll(d.dir)
}

func (d *demo) show(ctx context.Context) error {
	if err := d.start(ctx); err != nil {
		return err
	}
	if err := d.explain(ctx); err != nil {
		return err
	}
	if d.intrude {
		if err := d.intrudeAndRecover(ctx); err != nil {
			return err
		}
	}
	if d.kill {
		if err := d.killPrimary(ctx); err != nil {
			return err
		}
	}
	if d.byzantine {
		if err := d.lieAndRead(ctx); err != nil {
			return err
		}
		watching, watched := context.WithCancel(ctx)
		over := make(chan struct{})
		go func() {
			defer close(over)
			d.watchLiar(watching)
		}()
		defer func() { watched(); <-over }()
	}
	fmt.Fprintln(d.out, "\nrunning until ctrl-C")
	return d.wait(ctx)
}

func (d *demo) findPrograms() (err error) {
	if d.bfsd, err = os.Executable(); err != nil {
		return err
	}
	d.relayBin = filepath.Join(filepath.Dir(d.bfsd), "bfs-relay")
	if _, err := os.Stat(d.relayBin); err != nil {
		return fmt.Errorf("bfs-relay is not beside bfsd (%s): build both, with make build", d.relayBin)
	}
	return nil
}

// start brings everything up, in the order in which the parts need each other.
func (d *demo) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoReadyWithin)
	defer cancel()
	if err := d.makeGroup(); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "starting %d replicas of group %s (logs in %s)\n", d.n, d.group.Name, d.path("log"))
	for i := range d.n {
		file := filepath.Join(bundle.HostDir(d.path("group"), i), bundle.ReplicaFile)
		verb, err := d.verb(i, file)
		if err != nil {
			return err
		}
		if err := d.launch(fmt.Sprintf("replica%d", i), d.bfsd, append(verb, "--config", file)...); err != nil {
			return err
		}
	}
	for _, c := range d.children {
		if err := c.Ready(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintln(d.out, "enrolling the relay for", demoExport)
	if err := d.enrol(ctx); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "starting the relay at", d.relay.Listen)
	if err := d.launch("relay", d.relayBin, "run", "--config", d.relay.File); err != nil {
		return err
	}
	return d.children[len(d.children)-1].Ready(ctx)
}

// verb is the command that runs replica i.
func (d *demo) verb(i int, file string) ([]string, error) {
	own := replicaVerb(file)
	switch {
	case !d.byzantine || i != d.liar():
		return []string{own}, nil
	case own != "keeper":
		return nil, fmt.Errorf("%s has no keepers, and --byzantine needs them: name another --dir", d.dir)
	}
	return []string{"demo", "keep-liar"}, nil
}

// replicaVerb returns the command that runs the replica of a configuration file: keeper, or run if
// the file comes from an earlier demo without keepers.
func replicaVerb(file string) string {
	if _, err := config.LoadKeeper(file); err != nil {
		return "run" // which finds what else is wrong
	}
	return "keeper"
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) launch(name, program string, args ...string) error {
	c, err := procs.Start(name, filepath.Join(d.path("log"), name+".log"), program, args...)
	if err == nil {
		d.children = append(d.children, c)
	}
	return err
}

// makeGroup writes the files of the group and the relay, or finds those of an earlier demo.
func (d *demo) makeGroup() error {
	if err := os.MkdirAll(d.path("log"), 0o755); err != nil {
		return err
	}
	groupFile := filepath.Join(d.path("group"), bundle.GroupFile)
	relayFile := filepath.Join(d.path("relay"), bundle.RelayFile)
	if _, err := os.Stat(relayFile); errors.Is(err, os.ErrNotExist) {
		if err := d.writeFiles(groupFile); err != nil {
			return err
		}
	} else if d.basePort != 0 {
		return fmt.Errorf("--base-port: %s has its ports already; remove it or name another --dir", d.dir)
	}
	var err error
	if d.group, err = config.LoadGroup(groupFile); err != nil {
		return err
	}
	if d.group.N() != d.n {
		return fmt.Errorf("-n %d: %s has a group of %d already; remove it or name another --dir",
			d.n, d.dir, d.group.N())
	}
	if d.relay, err = config.LoadRelay(relayFile); err != nil {
		return err
	}
	if err := staged.Demo.Mark(d.dir, d.group); err != nil {
		return err
	}
	return d.forget()
}

// forget drops the memory of replicas and relay of an earlier demo. Its files were in the
// replicas' memory only, so no vote is left to stand by and no call to finish.
func (d *demo) forget() error {
	_, err := os.Stat(filepath.Join(d.path("log"), "relay.log"))
	if err == nil {
		fmt.Fprintf(d.out, "keys and configuration are those of the last demo in %s; its files "+
			"were in memory and are gone\n", d.dir)
	}
	for i := range d.n {
		state := filepath.Join(bundle.HostDir(d.path("group"), i), bundle.StateDir)
		if err := os.RemoveAll(state); err != nil {
			return err
		}
		if err := pbft.MarkFresh(state); err != nil {
			return err
		}
	}
	return os.RemoveAll(d.relay.Journal)
}

func (d *demo) writeFiles(groupFile string) error {
	base, ports := d.basePort, 2*d.n+2
	if base == 0 {
		var err error
		if base, err = procs.FreePorts(ports); err != nil {
			return err
		}
	}
	if base < 1 || base+ports > 1<<16 {
		return fmt.Errorf("--base-port: got %d, want 1 to %d", base, 1<<16-ports)
	}
	err := bundle.Write(d.path("group"), bundle.Plan{
		Name: "demo", Hosts: bundle.Loopback(d.n, base), Exports: []string{demoExport}, Size: d.size,
		Limits: pbft.DefaultLimits(), Transport: pbft.TransportTLS, Durability: pbft.DurabilityDisk,
		Window: pbft.DefaultWindow, Keeper: true,
	})
	if err != nil {
		return err
	}
	local := func(offset int) string { return fmt.Sprintf("127.0.0.1:%d", base+2*d.n+offset) }
	_, err = bundle.WriteRelay(d.path("relay"), bundle.RelayPlan{
		Listen: local(0), AdminListen: local(1), Export: demoExport, InsecurePorts: true,
		Transport: pbft.TransportTLS, Group: groupFile,
	})
	return err
}

// enrol gives the relay's users full rights under their own identities, root included,
// because the demo runs on the user's own machine.
func (d *demo) enrol(ctx context.Context) error {
	key, err := keys.ReadPrivate(filepath.Join(d.path("group"), bundle.AdminDir, bundle.AdminKeyFile))
	if err != nil {
		return err
	}
	return withAdministrator(ctx, d.group, key, pbft.TransportTLS, func(ctx context.Context, s *session) error {
		o := addOptions{name: "demo", exports: []string{demoExport}}
		_, err := o.add(ctx, s, keys.Of(d.relay.Key),
			nfsstate.Grant{AnonUID: nfsstate.Nobody, AnonGID: nfsstate.Nobody}, 0)
		return err
	})
}

// explain says how to use it.
func (d *demo) explain(ctx context.Context) error {
	command, err := cli.MountCommand(d.relay.Listen, demoExport, "DIR")
	if err != nil {
		return err
	}
	url, err := cli.ListURL(d.relay.Listen, demoExport)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\nready. As root, with a directory of yours for DIR:\n\n  %s\n\n", strings.Join(command, " "))
	if !cli.HaveMountNFS() {
		fmt.Fprint(d.out, "  (this machine lacks mount.nfs: apt-get install nfs-common)\n\n")
	}
	fmt.Fprintf(d.out, "Without root, with nfs-ls, nfs-cp and nfs-cat (Debian package "+
		"libnfs-utils):\n\n  nfs-ls '%s'\n\n", url)
	if err := d.status(ctx); err != nil || d.kill || d.intrude || d.byzantine {
		return err
	}
	_, err = fmt.Fprintf(d.out, "\n%s. To see it, kill the keeper of a backup, and the replica with it, and "+
		"go on using the files:\n\n  kill -9 %d\n\n(the keeper of replica 0, the primary, is process %d: "+
		"without it the others take a moment to agree on the next)\n",
		mayFail(d.group.F()), d.children[d.n-1].PID(), d.children[0].PID())
	return err
}

// mayFail says how many replicas may fail.
func mayFail(f int) string {
	if f == 1 {
		return "One replica may fail"
	}
	return fmt.Sprintf("%d replicas may fail", f)
}

func (d *demo) status(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return status.Ask(ctx, d.group).WriteTable(d.out)
}

// killPrimary kills the primary and shows that the files survive. The others agree on the
// next primary, and the calls under way wait for that.
func (d *demo) killPrimary(ctx context.Context) error {
	return d.mounted(ctx, d.killAndRead)
}

// mounted calls f with the export mounted through the relay.
func (d *demo) mounted(ctx context.Context, f func(context.Context, *probe.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, demoReadyWithin)
	defer cancel()
	c, err := probe.Mount(ctx, d.relay.Listen, demoExport)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, c)
}

func (d *demo) killAndRead(ctx context.Context, c *probe.Client) error {
	text := []byte("the whole group agreed on this line\n")
	fmt.Fprintf(d.out, "\nwriting %s/demo.txt through the relay\n", demoExport)
	file, err := c.Write(ctx, "demo.txt", text)
	if err != nil {
		return err
	}
	const victim = 0 // the primary of view 0, in which the group still is
	fmt.Fprintf(d.out, "killing replica %d, the primary, and its keeper (process %d) with SIGKILL\n",
		victim, d.children[victim].PID())
	d.children[victim].Kill()
	killed := time.Now()
	if _, err := c.Write(ctx, "after.txt", []byte("the others agreed on this line\n")); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "writing %s/after.txt: done after %v, with the next primary\n",
		demoExport, time.Since(killed).Round(time.Millisecond))
	got, err := c.Read(ctx, file)
	if err != nil {
		return err
	}
	if string(got) != string(text) {
		return fmt.Errorf("read back %q, want %q", got, text)
	}
	fmt.Fprintf(d.out, "reading %s/demo.txt back from the other %d: %s\n", demoExport, d.n-1, got)
	d.children = slices.Delete(d.children, victim, victim+1)
	return d.status(ctx)
}

// wait waits for ctrl-C. It reports a replica that ends and goes on, as the group does;
// when the relay ends the demo ends too.
func (d *demo) wait(ctx context.Context) error {
	ended := make(chan *procs.Child, len(d.children))
	for _, c := range d.children {
		go func() {
			<-c.Exited()
			ended <- c
		}()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-ended:
			if c == d.children[len(d.children)-1] {
				return c.Failure()
			}
			fmt.Fprintf(d.out, "%s has ended: %s\n", c.Name, c.HowEnded())
		}
	}
}

// end stops all children: the relay first, because it may still call the replicas.
func (d *demo) end(first error) error {
	if len(d.children) == 0 {
		return first
	}
	fmt.Fprintln(d.out, "stopping")
	last := len(d.children) - 1
	problems := procs.StopAll(d.children[last:], demoStopWithin)
	problems = append(problems, procs.StopAll(d.children[:last], demoStopWithin)...)
	if first != nil {
		return first
	}
	return errors.Join(problems...)
}
