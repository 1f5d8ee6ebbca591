// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/procs"
)

// benchAlterCommand does what an intruder does, for tests that have replicas recover from it.
func benchAlterCommand() *cobra.Command {
	var (
		pid      int
		dir      string
		old, new string
	)
	c := &cobra.Command{
		Use:    "alter",
		Short:  "overwrite bytes in the memory of a process, or in files, and print at how many places",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			var others []byte
			if c.Flags().Changed("new") {
				others = []byte(new)
			}
			places := 0
			if dir != "" {
				places, err = procs.AlterFiles(dir, []byte(old), others)
			} else {
				places, err = procs.AlterMemory(pid, []byte(old), others)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), places)
			return err
		},
	}
	f := c.Flags()
	f.IntVar(&pid, "pid", 0, "the process")
	f.StringVar(&dir, "dir", "", "the directory, in place of a process")
	f.StringVar(&old, "old", "", "the bytes to look for")
	f.StringVar(&new, "new", "", "as many others to put there; without them places are only counted")
	return c
}
