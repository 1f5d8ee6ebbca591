// Command bench measures BFS and other NFSv3 servers under one Linux kernel's NFS client, in turn.
//
//	go run ./test/bench serve KIND DIR     a reference server, until interrupted
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"bfs/test/bench/refserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: bench serve KIND DIR")
	}
	switch args[0] {
	case "serve":
		return serve(ctx, args[1:])
	}
	return fmt.Errorf("no command %q", args[0])
}

// serve runs a reference server in the foreground and says where it is, in the words `test/guest/mount -s` takes.
func serve(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: bench serve KIND DIR")
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
