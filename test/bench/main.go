// SPDX-License-Identifier: Apache-2.0

// Command bench measures BFS and other NFSv3 servers under one Linux kernel's NFS client, in turn,
// with the same placement of processes on CPUs.
//
//	go run ./test/bench run [flags]        run workloads, add to build/bench.jsonl, print tables
//	go run ./test/bench table [RESULTS]    print tables of a results file
//	go run ./test/bench plot RESULTS DIR   draw them
//	go run ./test/bench window [DIR]       the window of vulnerability by recovery period and state,
//	                                       from measured recoveries: tables and a plot
//	go run ./test/bench growth [flags]     the cost of more replicas: bfsd bench micro for n = 4, 7, 10,
//	                                       a table and a plot
//	go run ./test/bench latency [flags]    an operation's time against its size: bfsd bench micro,
//	                                       ordered, read-only, NO-REP
//	go run ./test/bench clients [flags]    operations a second against the number of clients
//	go run ./test/bench delay [flags]      the cost of a longer wire
//	go run ./test/bench without [flags]    the gain of each optimisation
//	go run ./test/bench disks [flags]      the cost of disks: bfsd bench micro and recovery in both modes,
//	                                       and the disk's own time
//	go run ./test/bench attack [NAME...]   an honest client beside each attack: bfsd bench attack, a table
//	                                       and a plot
//	go run ./test/bench serve KIND DIR     one of the reference servers, until interrupted
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"bfs/test/bench/refserver"
	"bfs/test/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := dispatch(ctx, os.Args[1:])
	cluster.RemoveBinaries()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: bench run|table|plot|window|growth|latency|clients|delay|without|disks|attack|serve")
	}
	switch args[0] {
	case "run":
		return runCommand(ctx, args[1:])
	case "table":
		return tableCommand(args[1:])
	case "plot":
		return plotCommand(args[1:])
	case "window":
		return windowCommand(args[1:])
	case "growth":
		return growthCommand(ctx, args[1:])
	case "latency", "clients", "delay":
		return sweepCommand(ctx, args[0], args[1:])
	case "without":
		return withoutCommand(ctx, args[1:])
	case "disks":
		return disksCommand(ctx, args[1:])
	case "attack":
		return attackCommand(ctx, args[1:])
	case "serve":
		return serve(ctx, args[1:])
	}
	return fmt.Errorf("no command %q; there are run, table, plot, window, growth, latency, "+
		"clients, delay, without, disks, attack, serve", args[0])
}

// serve runs a reference server in the foreground and prints its address in the form that
// `test/guest/mount -s` takes.
func serve(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: bench serve KIND DIR")
	}
	s, err := refserver.Start(ctx, args[0], args[1])
	if err != nil {
		return err
	}
	defer s.Stop()
	fmt.Printf("ready %d/%d:%s\n", s.Port, s.MountPort, s.Export)
	<-ctx.Done()
	return nil
}
