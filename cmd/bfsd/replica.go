// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/pkg/pbft"
)

func replicaCommand() *cobra.Command {
	return cli.Group(&cobra.Command{
		Use:   "replica",
		Short: "replace a replica whose disk is lost",
		Long: `A replica's directory says what it has voted for: in its journal, or, when that is lost, by a small
file that bounds its votes. A replica whose directory is lost could contradict its earlier votes. It
must be given such a file before it starts.`,
		Example: `  bfsd replica replace --config /etc/bfs/replica.toml`,
	}, replicaReplaceCommand())
}

func replicaReplaceCommand() *cobra.Command {
	var (
		file    string
		timeout time.Duration
	)
	c := &cobra.Command{
		Use:   "replace --config FILE",
		Short: "ready an empty directory for a replica that ran before",
		Long: `Replace readies a new disk, or a new machine under the old address, for a replica that ran
before. Run it once, on that machine, before bfsd run:

  1. Stop the old replica, if anything is left of it, for good. Two replicas with one key are one that lies.
  2. Copy its bundle to the new machine: group.toml, replica.toml and identity.key, as bfsd init made them. Copy nothing
     of its state directory, and nothing from a backup of it.
  3. bfsd replica replace: asks the others how far the group is, and writes this to a file in the replica's
     directory. As many of the others must run as a quorum has: 3 in a group of 4, 4 of 6.
  4. bfsd run: it fetches the state from the others, under load as well, executes and answers. It votes again when the
     group has passed every batch for which it can have voted: bfsd status shows the checkpoint as silent_until. Until
     then it counts among the f that may fail.

If the private key may have been stolen, this is not enough: begin a new epoch, in which all hosts have new
keys (bfsd restore).`,
		Example: `  bfsd replica replace --config /etc/bfs/replica.toml
  bfsd run --config /etc/bfs/replica.toml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := config.LoadReplica(file)
			switch {
			case err != nil:
				return named(err, c, "config")
			case timeout <= 0:
				return fmt.Errorf("--timeout: got %v, want more than 0, such as 30s", timeout)
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			fence, err := pbft.Replace(ctx, pbft.ReplicaConfig{Group: r.Group.Group, Self: r.Self, Key: r.Key,
				Keeper: r.Keeper, Directory: r.Directory, Transport: r.Transport,
				Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				return explain(err, r.Group)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is ready for replica %d, which votes again "+
				"when checkpoint %d is stable\n", r.Directory, r.Self, fence)
			return nil
		},
	}
	c.Flags().StringVar(&file, "config", "replica.toml", "the replica's configuration file")
	c.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to try")
	return c
}
