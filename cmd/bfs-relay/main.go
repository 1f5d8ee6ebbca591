// SPDX-License-Identifier: Apache-2.0

// Bfs-relay serves a BFS group's file system to the kernel of the machine it runs on.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/cli"
)

func main() { os.Exit(cli.Main(root())) }

func root() *cobra.Command {
	return cli.Group(&cobra.Command{
		Use:   "bfs-relay",
		Short: "lets a kernel mount a file system that a BFS group agrees on",
		Long: `bfs-relay runs on a client machine. It serves NFSv3 on the loopback, where the kernel mounts it like
any NFS server; each NFS call becomes one operation of the group, and a reply reaches the kernel
only when enough replicas gave the same bytes.`,
		Example: `  bfs-relay init --out /etc/bfs --group group.toml    # prints the key to enrol
  bfsd client add --admin admin --key ...             # on the administrator's machine
  bfs-relay run --config /etc/bfs/relay.toml
  bfs-relay mount /mnt --config /etc/bfs/relay.toml   # as root`,
	}, initCommand(), runCommand(), mountCommand(), gonfsCommand())
}
