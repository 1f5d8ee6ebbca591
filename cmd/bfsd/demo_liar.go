// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/staged"
	"bfs/pkg/pbft"
	"bfs/pkg/pbft/pbfttest"
)

// The replica that lies in bfsd demo --byzantine is two hidden commands and no option of
// another one: a keeper whose replica lies until it is recovered, and that replica. Both
// refuse to run outside a directory that a demo has made, and in a group that has a
// member on another machine; so they cannot take part in a group that keeps files.

func demoKeeperCommand() *cobra.Command {
	return hidden("keep-liar", "keep a replica that lies until it is recovered: only bfsd demo --byzantine runs this",
		func(ctx context.Context, file string) error {
			return keep(ctx, file, "demo", "lie")
		})
}

func demoLieCommand() *cobra.Command {
	return hidden("lie", "run a replica that lies: only bfsd demo --byzantine runs this",
		func(ctx context.Context, file string) error {
			told := pbfttest.Lie()
			go count(ctx, told)
			return serve(ctx, file, pbft.StartReplica, newFiles, false)
		})
}

func hidden(use, short string, run func(context.Context, string) error) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: use + " --config FILE", Short: short, Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := staged.Demo.Check(file); err != nil {
				return err
			}
			return run(c.Context(), file)
		},
	}
	c.Flags().StringVar(&file, "config", "", "the replica's configuration file, in a demo's directory")
	return c
}

// countEvery is how often the liar's log has the number of its lies.
const countEvery = 5 * time.Second

// count logs how many lies were told until ctx ends.
func count(ctx context.Context, told func() (votes, checkpoints, results uint64)) {
	log := cli.Logger(os.Stderr, config.Log{Level: slog.LevelInfo})
	log.Warn("this replica lies: it says something false in each vote, checkpoint and result")
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			votes, checkpoints, results := told()
			log.Info("lies told", "votes", votes, "checkpoints", checkpoints, "results", results)
		}
	}
}
