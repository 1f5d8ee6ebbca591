// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bench"
	"bfs/pkg/pbft"
)

func benchAttackCommand() *cobra.Command {
	var (
		s         bench.Soak
		transport string
		asJSON    bool
	)
	c := &cobra.Command{
		Use:   "attack [NAME...]",
		Short: "measure the throughput of an honest client while somebody attacks the group",
		Long: `Attack starts n replica processes for each attack, an honest client with 8 WRITEs of 1 KiB
outstanding, and the offender in a process of its own, or one of the replicas is the offender. The
attack is off and on in turn. It prints the honest operations a second of both, their ratio, the
latency that one operation in a hundred exceeds, the longest time in which none ended, and how many
views the group left. What is done in the first --settle of an attack, or of a pause, does not count.
LEFT is the longest time from the beginning of an attack until the group left its view, CPUS the
processors that the offender's process uses, CONNECT the longest time in which another client
connects beside the attack.

A replica that offends is correct while the attack is off. When the group has left its view, the next
round has a new group, in which the offender has its part again.

Names joined by + are attacks that are on at the same time, each by an offender of its own: at most
one by the primary, and at most f of the n replicas offend.

With --soak the attacks by clients and strangers meet one group, one for each phase, again and again
until the time is over. Beside each of them one replica has a fault for half the phase: it is killed,
is stopped with SIGTERM, recovers, stands still (the primary), or offends. Nothing else happens until
it takes part again. The honest client reads what it wrote. A row has the honest operations a second
and the longest time in which none ended, and the most memory (MiB), open files and goroutines of a
replica. In the end it prints the median of these rates in the first half and in the last: a group
that serves ever less shows there. A soak fails if

  the honest client gets an error or a wrong answer, or is served nothing for --stall
  a replica ends by itself, or does not take part again
  a replica has more memory than a state of its size may need (bfs_memory_needed_bytes)
  memory, files or goroutines grow in a replica that is never restarted, in half an hour or more: over
    the last half of the rounds by more than they ever fell in the first half, and by more than a
    sixteenth
` + offenders(),
		Example: `  bfsd bench attack
  bfsd bench attack ordered-reads reads --rounds 5 --json
  bfsd bench attack primary-slow-100 --settle 2s    # when the group should have left its view
  bfsd bench attack --n 7 common+replica-fetches
  bfsd bench attack --soak 1h --durability replicated`,
		RunE: func(c *cobra.Command, args []string) (err error) {
			a := &s.Attack
			if a.Program, err = os.Executable(); err != nil {
				return err
			}
			a.Names, a.Transport = args, pbft.Transport(transport)
			if c.Flags().Changed("soak") {
				return soak(c, s, asJSON)
			}
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
	a := &s.Attack
	f.IntVar(&a.N, "n", 4, fmt.Sprintf("replicas: 4 to 32; with --soak %d unless given", soakN))
	f.IntVar(&a.Rounds, "rounds", 3, "times that the attack is off and on")
	f.DurationVar(&a.Phase, "phase", 2*time.Second, "how long each time")
	f.DurationVar(&a.Settle, "settle", 0, "wait so long before a phase is counted (default an eighth of it)")
	f.StringVar(&transport, "transport", string(pbft.TransportTLS), "tls or plain")
	f.StringVar((*string)(&a.Durability), "durability", string(pbft.DurabilityDisk), "disk or replicated")
	f.DurationVar(&s.For, "soak", 0, "attack one group for so long, with faults beside the attacks")
	f.DurationVar(&s.Stall, "stall", 10*time.Second, "how long a soak lets the honest client wait")
	f.BoolVar(&a.All, "all", false, "strangers attack all replicas")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	c.MarkFlagsMutuallyExclusive("soak", "rounds")
	return c
}

// offenders lists the attacks by who attacks.
func offenders() string {
	var b strings.Builder
	for _, g := range []struct {
		by    bench.By
		title string
	}{
		{bench.ByClient, "By an enrolled client:"},
		{bench.ByReplica, "By a replica that is not the primary:"},
		{bench.ByPrimary, "By the primary:"},
		{bench.ByStranger, "By a stranger, on the primary or, with --all, on all replicas:"},
		{bench.ByNobody, "By nobody, for comparison:"},
	} {
		b.WriteString("\n" + g.title + "\n\n")
		for _, o := range bench.Offenders() {
			if o.By == g.by {
				fmt.Fprintf(&b, "  %-23s %s\n", o.Name, o.About)
			}
		}
	}
	return b.String()
}
