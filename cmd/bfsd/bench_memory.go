// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bench"
	"bfs/pkg/pbft"
)

func benchMemoryCommand() *cobra.Command {
	var (
		m      bench.Memory
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "memory",
		Short: "measure a replica's resident memory against the bytes it stores",
		Long: `Memory starts one replica process by itself (a group of one, with checkpoints and message log as in
any group), fills it over the wire, waits for a stable checkpoint and reads the process's resident
set from the kernel: once with empty files, once with large ones.`,
		Example: `  bfsd bench memory                                   # 1,000,000 empty files, then 4 GiB
  bfsd bench memory --files 0 --bytes 1073741824 --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if m.Program, err = os.Executable(); err != nil {
				return err
			}
			all, err := m.Run(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(all)
			}
			return bench.WriteWeights(c.OutOrStdout(), all)
		},
	}
	f := c.Flags()
	f.IntVar(&m.Files, "files", 1_000_000, "empty files to make; 0: leave that out")
	f.Int64Var(&m.Bytes, "bytes", 4<<30, "bytes of file data to write; 0: leave that out")
	f.StringVar((*string)(&m.Durability), "durability", string(pbft.DurabilityDisk), "disk or replicated")
	f.BoolVar(&asJSON, "json", false, "print one JSON array")
	return c
}
