// SPDX-License-Identifier: Apache-2.0

// Command power ends all replicas of a group in one instant, again and again, while
// clients work, and judges the state that is left.
//
//	go run ./test/power -rounds 200                  cut the power of four guest kernels; needs root
//	go run ./test/power -rounds 200 -processes       kill four processes of this machine
//	go run ./test/power -rounds 50 -disks            break the disk of one guest kernel; needs root
//	go run ./test/power -rounds 10 -replay           look at one disk as it was after each flush; needs root
//
// A process that is killed leaves the kernel's page cache behind, and so loses nothing
// that it wrote. Hence each replica runs under a kernel of its own (package guest), with
// its state directory on an ext4 file system on a disk of its own. Killing the kernel
// loses all data that was not synced. With -processes the kernel lives on: a round takes
// a second, and shows only the losses that are the program's.
//
// The clients are workers that use the Go client, and workers on a mount, under the NFS client of
// one more guest kernel, which keeps its power at all cuts. Each worker logs every acknowledged
// operation. After each cut every directory must be as its worker's log says (worker.go). The
// soak counts acknowledged operations that are lost, operations that were done twice, contents
// that no worker wrote, and stale handles; any of these ends it, and so does a call that fails.
//
// With -disks one disk in each round refuses writes, loses them, cannot be read or fills
// (disks.go). The others serve, and the host comes back.
//
// With -replay the writes and flushes of one disk are recorded. Then the disk is looked at as
// it was at each moment at which its power could have been cut (replay.go).
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"bfs/test/apart"
	"bfs/test/cluster"
	"bfs/test/guest"
)

func main() {
	if guest.Inside() {
		guest.SwitchOff(inside())
	}
	if len(os.Args) > 1 && os.Args[1] == workVerb {
		os.Exit(workCommand(os.Args[2:]))
	}
	var x soak
	limit := flag.Duration("limit", 0, "begin no round after this time; 0: no limit")
	processes := flag.Bool("processes", false, "kill processes of this machine, not guest kernels")
	flag.IntVar(&x.rounds, "rounds", 200, "how often all replicas are ended")
	flag.Uint64Var(&x.seed, "seed", 0, "of the operations and of the moments; 0: a fresh one")
	flag.BoolVar(&x.mounted, "mount", true, "have workers on a mount of one more guest kernel, too; needs root")
	flag.BoolVar(&x.disks, "disks", false,
		"break one disk below its file system in each round, instead of cutting the power; needs dmsetup")
	flag.StringVar(&x.only, "only", "", "the one way in which disks break: "+strings.Join(diskKinds, ", "))
	flag.BoolVar(&x.replays, "replay", false,
		"record the writes of one disk, and look at it as it was after each flush; needs dmsetup")
	flag.IntVar(&x.points, "points", 200, "with -replay: look after as many flushes in each round; 0: after all")
	flag.StringVar(&x.dir, "dir", "", "a new directory for disks and logs, which stay there; empty: one "+
		"under build, kept after a failure")
	flag.Parse()
	x.guests, x.life = !*processes, lifeAtMost
	if x.replays && (*processes || x.disks) {
		fmt.Fprintln(os.Stderr, "power: -replay needs guest kernels, and disks that do not break")
		os.Exit(2)
	}
	if x.disks && *processes || x.only != "" && (!x.disks || !slices.Contains(diskKinds, x.only)) {
		fmt.Fprintf(os.Stderr, "power: -disks needs guest kernels, and -only needs -disks and one of %s\n",
			strings.Join(diskKinds, ", "))
		os.Exit(2)
	}
	if x.seed == 0 {
		x.seed = rand.Uint64()
	}
	if *limit > 0 {
		x.until = time.Now().Add(*limit)
	}
	x.say = func(format string, args ...any) {
		fmt.Printf("%s "+format+"\n", append([]any{time.Now().UTC().Format(time.TimeOnly)}, args...)...)
	}
	apart.Exit(func() int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := x.inDirectory(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "power: %v\nagain: go run ./test/power -rounds %d -processes=%t -disks=%t "+
				"-only=%s -replay=%t -points %d -mount=%t -seed %d\n", err, x.rounds, *processes, x.disks, x.only,
				x.replays, x.points, x.mounted, x.seed)
			return 1
		}
		return 0
	}, cluster.RemoveBinaries)
}

// inDirectory runs the soak, and removes its directory if nothing failed.
func (s *soak) inDirectory(ctx context.Context) (err error) {
	own := s.dir == ""
	if own {
		if err := os.MkdirAll("build", 0o755); err != nil {
			return err
		}
		if s.dir, err = os.MkdirTemp("build", "power-"); err != nil {
			return err
		}
	} else if err := os.Mkdir(s.dir, 0o755); err != nil {
		return err
	}
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("%w\n(disks and logs are in %s)", err, s.dir)
	}
	if own {
		return os.RemoveAll(s.dir)
	}
	return nil
}
