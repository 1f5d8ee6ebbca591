// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"

	"bfs/cmd/internal/config"
	"bfs/pkg/bfs"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
	"bfs/pkg/pbft/pbfttest"
)

// An Offender is one way to hinder a group that is cheap for the attacker. A client or stranger
// is a process of its own, with the key of an enrolled client that may only read, unless it
// says otherwise; a stranger does not use the key. A replica is one of the group's own.
type Offender struct {
	Name, About string
	By          By
	writes      bool                                          // its client may write
	starves     bool                                          // it hinders the client of the lower number only
	prepare     func(ctx context.Context, g *fileGroup) error // makes the files that it needs
	run         func(ctx context.Context, o *offence) error   // nil: it is a replica
}

// By says who attacks.
type By string

// The attackers.
const (
	ByClient   = By(pbfttest.ByClient)
	ByReplica  = By(pbfttest.ByBackup)
	ByPrimary  = By(pbfttest.ByPrimary)
	ByStranger = By("stranger")
	ByNobody   = By("nobody") // for comparison
)

// The signals that turn an offending replica on and off.
const (
	SignalOn  = syscall.SIGUSR1
	SignalOff = syscall.SIGUSR2
)

// Offenders lists them.
func Offenders() []Offender {
	all := []Offender{
		client("ordered-reads", "ordered READs of 1 MiB on all slots", nil, each(false, read(1<<20))),
		client("ordered-reads-unread", "the same, and no answer is taken", nil, deaf(each(false, read(1<<20)))),
		client("ordered-reads-64k", "ordered READs of 64 KiB", nil, each(false, read(64<<10))),
		client("ordered-reads-4k", "ordered READs of 4 KiB", nil, each(false, read(4<<10))),
		client("ordered-lists", "ordered READDIRPLUS of 1 MiB, of a wide directory", makeWide, each(false, list)),
		client("ordered-mounts", "ordered MNTs of paths of 1 KiB", makeDeep, each(false, mountDeep)),
		writer("ordered-renames", "RENAMEs of a directory to far below the root", makeDeep, each(false, renameDeep)),
		writer("huge-writes", "WRITEs of 1 MiB on all slots", nil, each(false, write(1<<20))),
		client("reads", "READs of 1 MiB that are not ordered", nil, each(true, read(1<<20))),
		client("reads-unread", "the same, and no answer is taken", nil, deaf(each(true, read(1<<20)))),
		client("lists", "READDIRPLUS of 1 MiB that are not ordered", makeWide, each(true, list)),
		client("common", "ordered GETATTRs on all slots, as any busy client sends them", nil, each(false, getattr)),
	}
	for _, o := range pbfttest.Offences() {
		x := Offender{Name: o.Name, About: o.About, By: By(o.By), starves: o.Starves}
		if o.By == pbfttest.ByClient {
			x.run = offends(o.Name, each(false, getattr))
		}
		all = append(all, x)
	}
	return append(all, strangers()...)
}

type attack = func(ctx context.Context, o *offence) error

func client(name, about string, prepare func(context.Context, *fileGroup) error, run attack) Offender {
	return Offender{Name: name, About: about, By: ByClient, prepare: prepare, run: run}
}

func writer(name, about string, prepare func(context.Context, *fileGroup) error, run attack) Offender {
	o := client(name, about, prepare, run)
	o.writes = true
	return o
}

func findOffender(name string) (Offender, error) {
	var names []string
	for _, o := range Offenders() {
		if o.Name == name {
			return o, nil
		}
		names = append(names, o.Name)
	}
	return Offender{}, fmt.Errorf("attack: got %q, want one of %s", name, strings.Join(names, ", "))
}

// An offence holds the means of a running offender.
type offence struct {
	group   *config.Group
	config  pbft.ClientConfig
	client  *pbft.Client
	targets []string // addresses that a stranger attacks
	ready   func()   // called when the preparations end and the attack begins
}

// An Offending is the order to attack.
type Offending struct {
	Name, Group, Key string // of the offender; files
	Transport        pbft.Transport
	All              bool // a stranger attacks all replicas
	Ready            func()
}

// Run attacks in this process until ctx ends.
func (x Offending) Run(ctx context.Context) error {
	o, err := findOffender(x.Name)
	if err != nil {
		return err
	}
	if o.run == nil {
		return fmt.Errorf("attack %q: it takes a replica", x.Name)
	}
	g, err := config.LoadGroup(x.Group)
	if err != nil {
		return err
	}
	means := &offence{group: g, ready: x.Ready}
	if means.config, err = clientConfig(g, x.Key, x.Transport); err != nil {
		return err
	}
	for i, m := range g.Members {
		if i == 0 || x.All {
			means.targets = append(means.targets, m.Address)
		}
	}
	return o.run(ctx, means)
}

// offends is an attack by a client that misbehaves once it is ready.
func offends(name string, run attack) attack {
	return func(ctx context.Context, o *offence) error {
		turn, err := pbfttest.Offend(name)
		if err != nil {
			return err
		}
		ready := o.ready
		o.ready = func() { turn(true); ready() }
		return run(ctx, o)
	}
}

// operation makes the bytes of one operation of an attack.
type operation func(ctx context.Context, c *pbft.Client) ([]byte, error)

// each keeps one such operation outstanding on each slot.
func each(readOnly bool, op operation) attack {
	return func(ctx context.Context, o *offence) (err error) {
		if o.client, err = pbft.NewClient(o.config); err != nil {
			return err
		}
		defer o.client.Close()
		if err := o.client.Ready(ctx); err != nil {
			return err
		}
		body, err := op(ctx, o.client)
		if err != nil {
			return err
		}
		o.ready()
		again := pbft.Call{Body: body, ReadOnly: readOnly}
		again.Done = func([]byte, error) {
			if ctx.Err() == nil {
				_ = o.client.Start(again)
			}
		}
		for range o.group.Limits.Slots {
			if err := o.client.Start(again); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	}
}

// deaf is an attack over wires that bring the replicas' answers no more, once it is ready.
func deaf(run attack) attack {
	return func(ctx context.Context, o *offence) error {
		var silent atomic.Bool
		parts := *o.group.Group
		parts.Members = append([]pbft.Member(nil), parts.Members...)
		for i := range parts.Members {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer l.Close()
			go deafWire(l, parts.Members[i].Address, &silent)
			parts.Members[i].Address = l.Addr().String()
		}
		g, err := pbft.CheckGroup(parts)
		if err != nil {
			return err
		}
		ready := o.ready
		o.config.Group, o.ready = g, func() { silent.Store(true); ready() }
		return run(ctx, o)
	}
}

func deafWire(l net.Listener, to string, silent *atomic.Bool) {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		conn, err := net.Dial("tcp", to)
		if err != nil {
			from.Close()
			continue
		}
		go func() {
			_, _ = io.Copy(conn, from)
			conn.Close()
		}()
		go func() {
			b := make([]byte, 64<<10)
			for !silent.Load() {
				n, err := conn.Read(b)
				if _, failed := from.Write(b[:n]); err != nil || failed != nil {
					from.Close()
					return
				}
			}
		}()
	}
}

// The names that attacks are about.
const (
	attackedFile = "attacked"
	wideDir      = "wide"
	deepDir      = "d"
	asideDir     = "aside"
	wideEntries  = 10000
	lanes        = 32 // that make them
	deepLevels   = 3000
)

// makeWide makes a directory of many files, unless the last one is there.
func makeWide(_ context.Context, g *fileGroup) error {
	f := g.files
	if _, err := f.Stat(wideName(wideEntries - 1)); err == nil {
		return nil
	}
	if err := f.MkdirAll(wideDir, 0o755); err != nil {
		return err
	}
	return parallel(lanes, wideEntries, func(i int) error { return touch(f, wideName(i)) })
}

func wideName(i int) string { return fmt.Sprintf("%s/%06d", wideDir, i) }

func touch(f *bfs.FS, name string) error {
	file, err := f.Create(name)
	if err != nil {
		return err
	}
	return file.Close()
}

// makeDeep makes a chain of directories, of which the first have names that a long path can hold.
func makeDeep(ctx context.Context, g *fileGroup) error {
	if err := g.files.MkdirAll(asideDir+"/a", 0o755); err != nil {
		return err
	}
	c := caller{g.client}
	root, err := c.mount(ctx, exportPath)
	if err != nil {
		return err
	}
	if _, err := c.lookup(ctx, root, deepDir); err == nil {
		return nil
	}
	for range deepLevels {
		if root, err = c.mkdir(ctx, root, deepDir); err != nil {
			return err
		}
	}
	return nil
}

func read(count uint32) operation {
	return func(ctx context.Context, c *pbft.Client) ([]byte, error) {
		file, err := caller{c}.find(ctx, attackedFile)
		a := nfs3.ReadArgs{File: file, Count: count}
		return body(nfs3.ProgramNFS, nfs3.ProcRead, a.Append(nil)), err
	}
}

func write(count int) operation {
	return func(ctx context.Context, c *pbft.Client) ([]byte, error) {
		file, err := caller{c}.find(ctx, attackedFile)
		a := nfs3.WriteArgs{File: file, Stable: nfs3.FileSync, Data: make([]byte, count)}
		return body(nfs3.ProgramNFS, nfs3.ProcWrite, a.Append(nil)), err
	}
}

func getattr(ctx context.Context, c *pbft.Client) ([]byte, error) {
	file, err := caller{c}.find(ctx, attackedFile)
	a := nfs3.GetattrArgs{Object: file}
	return body(nfs3.ProgramNFS, nfs3.ProcGetattr, a.Append(nil)), err
}

func list(ctx context.Context, c *pbft.Client) ([]byte, error) {
	dir, err := caller{c}.find(ctx, wideDir)
	a := nfs3.ReaddirplusArgs{Dir: dir, DirCount: 1 << 20, MaxCount: 1 << 20}
	return body(nfs3.ProgramNFS, nfs3.ProcReaddirplus, a.Append(nil)), err
}

func deepPath() string {
	return exportPath + strings.Repeat("/"+deepDir, (nfs3.MaxMountPath-len(exportPath))/2)
}

func mountDeep(context.Context, *pbft.Client) ([]byte, error) {
	a := nfs3.MountArgs{Path: []byte(deepPath())}
	return body(nfs3.ProgramMount, nfs3.MountProcMnt, a.Append(nil)), nil
}

// renameDeep moves a directory to a name that is taken, so that the move is refused and
// the next does the same again.
func renameDeep(ctx context.Context, c *pbft.Client) ([]byte, error) {
	x := caller{c}
	aside, err := x.find(ctx, asideDir)
	if err != nil {
		return nil, err
	}
	at, err := x.mount(ctx, deepPath())
	for level := strings.Count(deepPath(), "/") - 1; err == nil && level < deepLevels-2; level++ {
		at, err = x.lookup(ctx, at, deepDir)
	}
	from, to := nfs3.DirOp{Dir: aside, Name: []byte("a")}, nfs3.DirOp{Dir: at, Name: []byte(deepDir)}
	a := nfs3.RenameArgs{From: from, To: to}
	return body(nfs3.ProgramNFS, nfs3.ProcRename, a.Append(nil)), err
}
