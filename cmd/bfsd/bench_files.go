// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bench"
	"bfs/cmd/internal/config"
	"bfs/pkg/pbft"
)

// report prints a result, for people or for programs.
func report(w io.Writer, asJSON bool, r interface{ WriteTable(io.Writer) error }) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	return r.WriteTable(w)
}

func benchStreamCommand() *cobra.Command {
	var (
		s      bench.Stream
		size   string
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "stream --target DIR",
		Short: "measure one large file, written and read back",
		Long: `Stream writes one file from its beginning to its end, 1 MiB a call, with an fsync at the end, reads
it back and compares it. Without --drop the kernel's cache answers the reading; --drop empties the
cache before (as root).`,
		Example: `  bfsd bench stream --size 1GiB --target /mnt --drop --json`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := config.ParseSize(size)
			if err != nil {
				return fmt.Errorf("--size: %w", err)
			}
			s.Size = int64(n)
			r, err := s.Run(c.Context())
			if err != nil {
				return err
			}
			return report(c.OutOrStdout(), asJSON, r)
		},
	}
	f := c.Flags()
	f.StringVar(&s.Target, "target", "", "the directory to work in")
	f.StringVar(&size, "size", "1GiB", "bytes to write")
	f.BoolVar(&s.Drop, "drop", false, "empty the kernel's caches before reading; needs root")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func benchTreeCommand() *cobra.Command {
	var (
		t      bench.FileTree
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "tree",
		Short: "measure many small files: create, list, stat",
		Long: `Tree makes empty files in many directories, lists the directories, and reads every file's
attributes. It does so for several numbers of files in turn, each in a tree of its own beside the
earlier ones.

With --target it does so in a mounted file system, through this machine's kernel. With --n it starts a group of that
many replica processes and calls it directly, without a kernel in between.`,
		Example: `  bfsd bench tree --target /mnt --files 1000,100000 --threads 8 --drop
  bfsd bench tree --target /mnt --files 10000 --each 10000 --create-only     # one directory
  bfsd bench tree --n 4 --files 1000,10000,100000,1000000 --threads 128`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if t.Program, err = os.Executable(); err != nil {
				return err
			}
			r, err := t.Run(c.Context())
			if err != nil {
				return err
			}
			return report(c.OutOrStdout(), asJSON, r)
		},
	}
	f := c.Flags()
	f.StringVar(&t.Target, "target", "", "the directory to work in")
	f.IntVar(&t.N, "n", 0, "instead: replicas of a group to start and ask")
	f.IntSliceVar(&t.Files, "files", []int{1000, 100_000}, "how many files")
	f.IntVar(&t.Each, "each", 1000, "files a directory")
	f.IntVar(&t.Threads, "threads", 1, "how many things are done at a time")
	f.BoolVar(&t.Bare, "create-only", false, "do not list and do not look")
	f.BoolVar(&t.Drop, "drop", false, "empty the kernel's caches before listing and before looking; needs root")
	f.StringVar((*string)(&t.Durability), "durability", string(pbft.DurabilityDisk), "with --n: disk or replicated")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}
