// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bench"
	"bfs/cmd/internal/cli"
	"bfs/pkg/pbft"
)

func benchAttackCommand() *cobra.Command {
	var (
		a         bench.Attack
		transport string
		asJSON    bool
	)
	c := &cobra.Command{
		Use:   "attack [NAME...]",
		Short: "measure the throughput of an honest client while another attacks the group",
		Long: `Attack starts four replica processes for each attack, an honest client with 8 WRITEs of 1 KiB
outstanding, and the offender in a process of its own. The attack is off and on in turn. It prints
the honest operations a second of both, their ratio, the longest time in which none ended, and how
many views the group left. The attacks:

` + offenders(),
		Example: `  bfsd bench attack
  bfsd bench attack ordered-reads reads --rounds 5 --json`,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if a.Program, err = os.Executable(); err != nil {
				return err
			}
			a.Names, a.Transport = args, pbft.Transport(transport)
			w := c.OutOrStdout()
			if asJSON {
				return a.Run(c.Context(), func(d bench.Damage) error { return json.NewEncoder(w).Encode(d) })
			}
			if err := bench.WriteDamageHead(w); err != nil {
				return err
			}
			return a.Run(c.Context(), func(d bench.Damage) error { return bench.WriteDamage(w, d) })
		},
	}
	f := c.Flags()
	f.IntVar(&a.Rounds, "rounds", 3, "times that the attack is off and on")
	f.DurationVar(&a.Phase, "phase", 2*time.Second, "how long each time")
	f.StringVar(&transport, "transport", string(pbft.TransportTLS), "tls or plain")
	f.StringVar((*string)(&a.Durability), "durability", string(pbft.DurabilityDisk), "disk or replicated")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return c
}

func offenders() string {
	var b strings.Builder
	for _, o := range bench.Offenders() {
		b.WriteString("  " + o.Name + strings.Repeat(" ", max(24-len(o.Name), 1)) + o.About + "\n")
	}
	return b.String()
}

// benchOffendCommand is the command that attack runs as the offender.
func benchOffendCommand() *cobra.Command {
	var group, key, transport string
	c := &cobra.Command{
		Use:    "offend NAME",
		Short:  "run one attack of bfsd bench attack until interrupted",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return bench.Offend(c.Context(), args[0], group, key, pbft.Transport(transport), cli.SayReady)
		},
	}
	f := c.Flags()
	f.StringVar(&group, "group", "", "the group file")
	f.StringVar(&key, "key", "", "the offender's private key")
	f.StringVar(&transport, "transport", string(pbft.TransportTLS), "tls or plain")
	return c
}
