// SPDX-License-Identifier: Apache-2.0

// Command recoveries recovers the replicas of a running group again and again, while
// clients write and read, and an intruder changes the memory or the disk of the replica
// that recovers next.
//
//	go run ./test/recoveries -rounds 1000
//
// Four bfsd processes serve some files. Workers write files of their own, and read these
// and the old files, which were written before the first round. In each round a replica
// is stopped, by SIGTERM or SIGKILL, and started with --recover. In two rounds of three
// an intruder has changed something before (intruder.go). The soak fails unless
//
//   - Every read gives what was last acknowledged, at any time, and no call fails.
//   - The recovery ends, and its replica then names the root that others name for the
//     same checkpoint.
//   - After an intrusion the healed replica is needed: another one stands still, and all files are read.
//   - When the image had bytes changed that a checkpoint needs, status says that
//     something corrupt was found.
//
// The intruder does not change the counter of signatures, because a keeper holds it out
// of an intruder's reach. If the fence is lost or cut, bfsd refuses to start, and the
// soak runs the command that bfsd then names, bfsd replica replace.
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

	"bfs/test/cluster"
)

func main() {
	var x soak
	limit := flag.Duration("limit", 0, "begin no round after this time; 0: no limit")
	flag.IntVar(&x.rounds, "rounds", 1000, "recoveries")
	flag.Uint64Var(&x.seed, "seed", 0, "of replicas, intrusions and calls; 0: a fresh one")
	flag.IntVar(&x.base, "state", 16, "MiB of files before the first round")
	flag.StringVar(&x.only, "only", "", "the one intrusion of all rounds: "+strings.Join(kinds, ", "))
	flag.StringVar(&x.dir, "dir", "", "directory of the group and its logs; empty: a "+
		"temporary one, kept after a failure")
	flag.Parse()
	if x.only != "" && !slices.Contains(kinds, x.only) {
		fmt.Fprintf(os.Stderr, "recoveries: -only: got %q, want one of %s\n", x.only, strings.Join(kinds, ", "))
		os.Exit(2)
	}
	if x.seed == 0 {
		x.seed = rand.Uint64()
	}
	if *limit > 0 {
		x.until = time.Now().Add(*limit)
	}
	x.say = func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := x.inDirectory(ctx)
	stop()
	cluster.RemoveBinaries()
	if err != nil {
		fmt.Fprintf(os.Stderr, "recoveries: %v\nagain: go run ./test/recoveries -rounds %d -seed %d -state %d\n",
			err, x.rounds, x.seed, x.base)
		os.Exit(1)
	}
}

// inDirectory runs the soak, and removes its directory if nothing failed.
func (s *soak) inDirectory(ctx context.Context) (err error) {
	own := s.dir == ""
	if own {
		if s.dir, err = os.MkdirTemp("", "bfs-recoveries-"); err != nil {
			return err
		}
	}
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("%w\n(the group's files and logs are in %s)", err, s.dir)
	}
	if own {
		return os.RemoveAll(s.dir)
	}
	return nil
}
