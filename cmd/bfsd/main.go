// SPDX-License-Identifier: Apache-2.0

// Bfsd is the server of BFS: it runs replicas, and makes, watches and measures groups of them.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/cli"
)

func main() { os.Exit(cli.Main(root())) }

func root() *cobra.Command {
	return cli.Group(&cobra.Command{
		Use:   "bfsd",
		Short: "a file server that stays right when a host is broken into",
		Long: `bfsd runs the replicas of BFS, a file server of 3f+1 hosts or more that gives right answers as
long as at most f of them fail, in whatever way: crash, lie, or be taken over.

A group is made once, with init. Each of its hosts gets a bundle and runs one replica of it. Then a client
machine is enrolled, which serves the file system to its own kernel with bfs-relay.`,
		Example: `  # Everything on this machine, to try it:
  bfsd demo

  # Four hosts:
  bfsd init --hosts a.example,b.example,c.example,d.example --out bundles
  scp -r bundles/host0 a.example:/etc/bfs       # and so on for b, c, d
  bfsd run --config /etc/bfs/replica.toml       # on each
  bfsd status --group bundles/group.toml`,
	}, initCommand(), runCommand(), keeperCommand(), recoverCommand(), manifestCommand(),
		replicaCommand(), norepCommand(),
		statusCommand(), clientCommand(), exportCommand(), backupCommand(), restoreCommand(),
		verifyCommand(), demoCommand(), benchCommand(), versionCommand())
}
