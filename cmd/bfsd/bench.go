// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bench"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/pkg/pbft"
)

func benchCommand() *cobra.Command {
	return cli.Group(&cobra.Command{
		Use:   "bench",
		Short: "measure the protocol, or a mounted file system",
		Long: `micro measures what agreement costs: operations that do nothing, on replicas that are processes of
their own. andrew measures a mounted file system, ours or any other, with a programmer's everyday
commands.

Names, flags and JSON fields stay as they are, so that figures can be compared over time.`,
		Example: `  bfsd bench micro --op 0/0 --path rw --clients 1 --outstanding 1
  bfsd bench andrew --scale 20 --target /mnt`,
	}, benchMicroCommand(), benchAndrewCommand(), benchStreamCommand(), benchTreeCommand(),
		benchMemoryCommand(), benchAttackCommand(), benchRecoveryCommand(),
		benchOffendCommand(), benchOffendReplicaCommand(), benchAlterCommand(), benchReplicaCommand())
}

func benchMicroCommand() *cobra.Command {
	var (
		m         bench.Micro
		op        string
		transport string
		asJSON    bool
	)
	c := &cobra.Command{
		Use:   "micro",
		Short: "measure operations that do nothing",
		Long: `Micro starts n replica processes of a service that does nothing, with real sockets, authentication
and the given transport, and clients that keep a number of operations outstanding. It measures after
a warm-up and prints one line or, with --json, one object:

  ops_per_s        operations completed per second
  p50_us, p99_us   their latency as a client sees it; max_us the longest
  cpu_us_per_op    user and system time of all processes, clients too, over the operations
  retries_per_op   requests sent again, over the operations: 0 as long as nothing is lost
  n, op, path, clients, outstanding, durability, transport   as asked for

--op 4/0 is an argument of 4 KB and no result. --path rw orders each operation, ro asks all replicas at once without
ordering, norep is one process of the same service and wire without replication (n is 1 then).

--trace-slow has the replicas note when each batch passed each step of the protocol, follows the slowest hundredth of
the operations through these notes, and prints a histogram, and a table of the steps that made them slow.`,
		Example: `  bfsd bench micro                                               # one client, one operation at a time
  bfsd bench micro --op 4/0 --clients 16 --outstanding 64 --json
  bfsd bench micro --path norep --transport plain --duration 5s`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if m.Op, err = bench.ParseOp(op); err != nil {
				return fmt.Errorf("--op: %w", err)
			}
			m.Transport = pbft.Transport(transport)
			if m.Program, err = os.Executable(); err != nil {
				return err
			}
			r, err := m.Run(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(r)
			}
			return r.WriteTable(c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.IntVar(&m.N, "n", 4, "replicas: 4 to 32")
	f.StringVar(&op, "op", "0/0", "argument/result in KB")
	f.StringVar(&m.Path, "path", bench.PathReadWrite, "rw, ro or norep")
	f.IntVar(&m.Clients, "clients", 1, "clients, each with a key and connections of its own")
	f.IntVar(&m.Outstanding, "outstanding", 1, "operations each client keeps outstanding")
	f.DurationVar(&m.Duration, "duration", 10*time.Second, "how long to measure")
	f.DurationVar(&m.Warmup, "warmup", time.Second, "how long to run before")
	f.StringVar(&transport, "transport", string(pbft.TransportTLS), "tls or plain")
	f.StringVar((*string)(&m.Durability), "durability", string(pbft.DurabilityDisk), "disk or replicated")
	f.IntVar(&m.Window, "window", pbft.DefaultWindow, "batches the primary has under way")
	f.DurationVar(&m.Delay, "delay", 0, "delay every message by this: half a round trip of a longer wire")
	f.DurationVar(&m.KeyPeriod, "key-period", pbft.DefaultKeyPeriod,
		"how often replicas and clients refresh their session keys: 1s to 1h")
	f.StringSliceVar(&m.Without, "without", nil,
		"optimisations to do without: tentative, piggyback, digest-replies, batching, sparing, separate")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	f.BoolVar(&m.TraceSlow, "trace-slow", false, "say where the slowest hundredth of the operations spent its time")
	c.MarkFlagsMutuallyExclusive("json", "trace-slow")
	return c
}

func benchAndrewCommand() *cobra.Command {
	var (
		a         bench.Andrew
		noCompile bool
		asJSON    bool
	)
	c := &cobra.Command{
		Use:   "andrew --target DIR",
		Short: "measure a mounted file system with a programmer's everyday commands",
		Long: `Andrew works in five phases on copies of a source tree that it makes itself, the same everywhere:
20 directories and 70 files of C.

  mkdir     makes the directories
  copy      writes the files
  stat      reads every file's attributes
  read      reads every file, and compares it with the bytes written
  compile   compiles every C file and links one program in each copy, and runs it

It works in a new directory under --target, which it removes at the end, and prints the seconds each phase took. The
reading is partly answered from this kernel's cache; --drop empties that before each phase (as root).`,
		Example: `  bfsd bench andrew --scale 20 --target /mnt
  bfsd bench andrew --scale 20 --target /mnt --drop --json
  bfsd bench andrew --target /tmp --no-compile`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if noCompile {
				a.Compiler = ""
			}
			r, err := a.Run(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(r)
			}
			return r.WriteTable(c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.IntVar(&a.Scale, "scale", 1, "copies of the source tree")
	f.StringVar(&a.Target, "target", "", "the directory to work in")
	f.StringVar(&a.Compiler, "cc", "tcc", "the compiler: called with -c -o FILE.o FILE.c, and with -o PROGRAM FILES.o")
	f.BoolVar(&noCompile, "no-compile", false, "leave out the compile phase")
	f.BoolVar(&a.Drop, "drop", false, "empty the kernel's caches before each phase; needs root")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// benchReplicaCommand is the command that micro runs for each replica.
func benchReplicaCommand() *cobra.Command {
	var (
		file         string
		unreplicated bool
		delay        time.Duration
		trace        string
	)
	c := &cobra.Command{
		Use:    "replica --config FILE",
		Short:  "run one replica of a service that does nothing",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error {
			start := pbft.StartReplica
			if unreplicated {
				start = pbft.StartUnreplicated
			}
			var noted *pbft.Trace
			late := func(c pbft.ReplicaConfig) (*pbft.Replica, error) {
				if c.Delay = delay; trace != "" {
					noted = pbft.NewTrace(c.Group, c.Self)
					c.Trace = noted
				}
				return start(c)
			}
			err := serve(c.Context(), file, late, func(g *config.Group) (pbft.Service, func() error, error) {
				files, free, err := newFiles(g)
				return bench.Null(files), free, err
			}, false)
			if err != nil || noted == nil {
				return err
			}
			return writeTrace(noted, trace)
		},
	}
	c.Flags().StringVar(&file, "config", "replica.toml", "the replica's configuration file")
	c.Flags().DurationVar(&delay, "delay", 0, "as micro's")
	c.Flags().StringVar(&trace, "trace", "", "a file for what is noted of each batch, for micro's --trace-slow")
	c.Flags().BoolVar(&unreplicated, "unreplicated", false, "without ordering")
	return c
}

// writeTrace writes what a replica that has ended noted.
func writeTrace(t *pbft.Trace, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	return errors.Join(t.Write(w), w.Flush(), f.Close())
}
