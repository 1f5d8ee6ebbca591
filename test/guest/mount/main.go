// SPDX-License-Identifier: Apache-2.0

// Command mount boots a guest kernel, mounts NFSv3 servers of this machine in it, and runs
// a script there. Its output and exit code become ours; 125 means that there was no result.
//
//	go run ./test/guest/mount -s 20490:/export 'ls -la $NFS'
//	go run ./test/guest/mount -s 20490:/export -o noac -f test/kernel/names.sh
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"bfs/test/guest"
)

func main() {
	o, err := options(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		var exit int
		if exit, err = run(o); err == nil {
			os.Exit(exit)
		}
	}
	fmt.Fprintln(os.Stderr, "mount:", err)
	os.Exit(125)
}

func run(o guest.Options) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	g, err := guest.Start(ctx, o)
	if err != nil {
		return 0, err
	}
	r, err := g.Wait()
	return r.Exit, err
}

func options(args []string) (guest.Options, error) {
	o := guest.Options{Output: os.Stdout}
	var servers, env, modules list
	f := flag.NewFlagSet("mount", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "usage: mount [options] 'shell commands'    or    mount [options] -f SCRIPT [ARG...]")
		f.PrintDefaults()
	}
	f.Var(&servers, "s", "server to mount, as [HOST:]PORT[/MOUNTPORT]:/EXPORT; the first is "+
		"$NFS, then $NFS1, ... (repeatable)")
	mountOptions := f.String("o", "", "more mount options, for example noac or soft,timeo=100")
	file := f.Bool("f", false, "the argument is a script's path")
	f.Var(&env, "e", "K=V for the script's environment (repeatable)")
	f.Var(&modules, "kmod", "kernel module to load, for example nfsd (repeatable)")
	f.StringVar(&o.Out, "out", "", "directory the script sees as $GUEST_OUT")
	f.StringVar(&o.NetNS, "netns", "", "network namespace to wire the guest to")
	f.IntVar(&o.CPU, "cpu", 0, "CPU to stay on; -1: any")
	f.IntVar(&o.MemoryMB, "memory", 1024, "megabytes of memory")
	f.IntVar(&o.MTU, "mtu", 65000, "largest packet on the guest's link; 1500 looks like Ethernet")
	f.BoolVar(&o.OwnLoopback, "own-loopback", false, "give the guest a 127.0.0.1 of its own instead of this machine's")
	f.DurationVar(&o.Timeout, "timeout", 0, "kill the guest after this time, or longer on a busy machine (default 10m)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() == 0 {
		return o, errors.New("no script; see --help")
	}
	o.Env, o.Modules = env, modules
	if *file {
		o.Script, o.Args = f.Arg(0), f.Args()[1:]
	} else {
		o.Command = strings.Join(f.Args(), " ")
	}
	for _, s := range servers {
		m, err := parseServer(s)
		if err != nil {
			return o, err
		}
		m.Options = *mountOptions
		o.Mounts = append(o.Mounts, m)
	}
	return o, nil
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func parseServer(s string) (guest.Mount, error) {
	bad := fmt.Errorf("server %q: want [HOST:]PORT[/MOUNTPORT]:/EXPORT", s)
	where, export, ok := strings.Cut(s, ":/")
	if !ok {
		return guest.Mount{}, bad
	}
	m := guest.Mount{Export: "/" + export}
	if i := strings.LastIndex(where, ":"); i >= 0 {
		m.Host, where = where[:i], where[i+1:]
	}
	port, mountPort, two := strings.Cut(where, "/")
	var err error
	if m.Port, err = strconv.Atoi(port); err != nil {
		return m, bad
	}
	if two {
		if m.MountPort, err = strconv.Atoi(mountPort); err != nil {
			return m, bad
		}
	}
	return m, nil
}
