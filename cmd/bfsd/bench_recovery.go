// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bench"
	"bfs/cmd/internal/config"
	"bfs/pkg/pbft"
)

func benchRecoveryCommand() *cobra.Command {
	var (
		m      bench.Recovery
		state  = config.Size(256 << 20)
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "recovery",
		Short: "measure how replicas recover while clients go on working",
		Long: `Recovery starts n replica processes, fills files with --state bytes, and has clients write and read:
each has 8 WRITEs and 4 READs of 1 KiB outstanding. In each round it recovers a backup and then the
primary, after a calm phase each: SIGTERM, wait, start with --recover. For each recovery it prints,
in seconds, the parts as the paper's Table II has them, and below them the paper's figures:

  stop       from SIGTERM to the end of the process: a primary hands over, the journal is synced ("save state")
  start      until the new process reads the disk ("reboot")
  load       reading journal and image, and checking each page ("restore state")
  estimate   asking the others how far they have come, with new keys
  request    until the recovery request is known to have been executed
  check      until a checkpoint at or above the recovery point is stable, fetching what was false ("fetch and check")
  total      from SIGTERM to recovered

and the operations a second of all clients and the longest time in which one of them got no answer, beside those
of the calm phase.`,
		Example: `  bfsd bench recovery
  bfsd bench recovery --state 1GiB --clients 4 --rounds 3 --durability replicated --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if m.Program, err = os.Executable(); err != nil {
				return err
			}
			m.State = int64(state)
			w := c.OutOrStdout()
			if asJSON {
				return m.Run(c.Context(), func(r bench.Recovered) error { return json.NewEncoder(w).Encode(r) })
			}
			if err := bench.WriteRecoveredHead(w); err != nil {
				return err
			}
			var all []bench.Recovered
			err = m.Run(c.Context(), func(r bench.Recovered) error {
				all = append(all, r)
				return bench.WriteRecovered(w, r)
			})
			if err != nil {
				return err
			}
			return bench.WriteRecoveredFoot(w, all)
		},
	}
	f := c.Flags()
	f.IntVar(&m.N, "n", 4, "replicas: 4 to 32")
	f.IntVar(&m.Dead, "dead", 0, "replicas that are killed before and stay away, if the others can do without them")
	f.Var(&state, "state", "bytes of file data before the first recovery")
	f.IntVar(&m.Clients, "clients", 2, "clients, each with a key and connections of its own")
	f.IntVar(&m.Rounds, "rounds", 3, "times that a backup and the primary recover")
	f.DurationVar(&m.Phase, "phase", 3*time.Second, "how long it is calm before each recovery")
	f.StringVar((*string)(&m.Durability), "durability", string(pbft.DurabilityDisk), "disk or replicated")
	f.StringVar((*string)(&m.Transport), "transport", string(pbft.TransportTLS), "tls or plain")
	f.BoolVar(&m.Restart, "restart", false,
		"start replicas without --recover: start is until the replica votes again, and there are no other parts")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line for each recovery")
	return c
}
