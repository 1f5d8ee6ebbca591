// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/version"
)

func versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "say which bfsd this is",
		Long: `Version prints the version of the module, the commit it was built from, and the version of the wire
protocol: programs with the same major version of the protocol speak to each other. bfsd status
shows the version of each replica.`,
		Example: `  bfsd version
  bfsd version --json | jq -r .commit`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v := version.Of()
			if asJSON {
				return writeJSON(c.OutOrStdout(), v)
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "bfsd %s, commit %s, protocol %s, %s\n",
				v.Version, v.Commit, v.Protocol, v.Go)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
