// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bench"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/staged"
	"bfs/pkg/pbft"
	"bfs/pkg/pbft/pbfttest"
)

// The offenders of bfsd bench attack are hidden commands and no option of another one. The one that
// is a replica refuses to run outside a directory that the benchmark has made, and in a group that
// has a member on another machine.

// benchOffendCommand is an offender that is a client or a stranger.
func benchOffendCommand() *cobra.Command {
	var x bench.Offending
	c := &cobra.Command{
		Use:    "offend NAME",
		Short:  "run one attack of bfsd bench attack until interrupted",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			x.Name, x.Ready = args[0], cli.SayReady
			return x.Run(c.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&x.Group, "group", "", "the group file")
	f.StringVar(&x.Key, "key", "", "the offender's private key")
	f.StringVar((*string)(&x.Transport), "transport", string(pbft.TransportTLS), "tls or plain")
	f.BoolVar(&x.All, "all", false, "attack all replicas, as a stranger")
	return c
}

// benchOffendReplicaCommand is an offender that is a replica. It is correct until a signal turns
// the attack on.
func benchOffendReplicaCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:    "offend-replica NAME --config FILE",
		Short:  "run a replica that attacks when told: only bfsd bench attack runs this",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := staged.Attack.Check(file); err != nil {
				return err
			}
			turn, err := pbfttest.Offend(args[0])
			if err != nil {
				return err
			}
			obey(c.Context(), turn)
			return serve(c.Context(), file, pbft.StartReplica, newFiles, false)
		},
	}
	c.Flags().StringVar(&file, "config", "", "the replica's configuration file, in a benchmark's directory")
	return c
}

// obey turns an attack on and off at signals, until ctx ends.
func obey(ctx context.Context, turn func(on bool)) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, bench.SignalOn, bench.SignalOff)
	go func() {
		defer signal.Stop(signals)
		for {
			select {
			case s := <-signals:
				turn(s == bench.SignalOn)
			case <-ctx.Done():
				return
			}
		}
	}()
}
