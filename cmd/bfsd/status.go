// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/status"
)

func statusCommand() *cobra.Command {
	var o statusOptions
	c := &cobra.Command{
		Use:   "status --group FILE",
		Short: "ask every replica how it is, and whether enough of them agree",
		Long: `Status asks the admin address of every replica in the group file and shows one row for each:

  VIEW, PRIMARY  the view it is in, and the replica that orders operations in it
  EXECUTED       the last batch it has executed; LAG is how far f+1 others are ahead
  STABLE, ROOT   its last stable checkpoint and the digest of the whole state there
  KEY AGE        since its session keys were made
  RECOVERED      how long ago its last proactive recovery ended, and in what time; "corrupt" if its state
                 was not the group's; "-" if its process began with none
  VERSION        of its program
  STATE          agrees, or the reason why it does not agree with the others

and, in a second table, what it has in memory and on disk:

  STATE          bytes of the state, of those that the group file allows
  MEMORY         of the process, of the machine or its control group
  JOURNAL, END   bytes of the journal's files, and records that are certainly on the disk
  SYNCED         when the journal was synced last (UTC); SYNC is how long that takes
  IMAGE AT       the checkpoint that a restart begins from; IMAGE is the length of its files
  DISK FREE      of the file system that both are in

and, in a third table, the keepers, if there are any, as their replicas tell:

  NEXT RECOVERY  of the replica; COUNTER of the keeper's signatures; MANIFEST: its serial number and the age of its file
  PROGRAM        CHECKED: when the program was last compared with the manifest
  WINDOW         two key periods and the time since the last recovery began, and the bound that the schedule gives it

A line that begins with ALERT says that a keeper has been silent for long, refuses the program, or that a window
has grown past its bound. The others note each recovery request that they execute, which the keeper signs: a
replica cannot hide that it was not recovered. Further lines say which replica counts votes or checkpoints of
another that are not what the group decided.

A replica that has lost the memory of its votes is silent until the named checkpoint is stable: after a restart
with durability = "replicated", or when its journal is damaged. Until then it counts among the f that may fail.

The exit code is 0 if all replicas agree, or all but one in a group of 6 or 9, so that the group survives f
failures; 2 if fewer agree but still a quorum, so that it works on its reserve; and 1 if it is down. With
--can-stop N it is 0 if replica N may be stopped now, because a quorum of the others agree and are connected
with each other, and 1 if not; the reasons are printed. A quorum is 3 of 4, 4 of 6, 5 of 7.

The answers are hints for people: they come without authentication. A replica whose admin address is on its loopback,
where bfsd init puts it, is asked from its own host: give --group a group file whose admin addresses you can reach.`,
		Example: `  bfsd status --group bundles/group.toml
  bfsd status --group bundles/group.toml --watch
  bfsd status --group bundles/group.toml --can-stop 2 && ssh c.example systemctl restart bfsd@host2
  bfsd status --group bundles/group.toml --json | jq .agreeing`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.StringVar(&o.file, "group", bundle.GroupFile, "the group file")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	f.DurationVar(&o.timeout, "timeout", 3*time.Second, "how long to wait for answers")
	f.BoolVar(&o.watch, "watch", false, "show it again and again, until ctrl-C")
	f.DurationVar(&o.every, "interval", 2*time.Second, "with --watch: how long after each answer to ask again")
	f.IntVar(&o.canStop, "can-stop", -1, "instead: the number of a replica; may it be stopped now?")
	return c
}

type statusOptions struct {
	file    string
	asJSON  bool
	timeout time.Duration
	watch   bool
	every   time.Duration
	canStop int
}

func (o *statusOptions) run(c *cobra.Command) error {
	switch {
	case o.timeout <= 0:
		return fmt.Errorf("--timeout: got %v, want more than 0, such as 3s", o.timeout)
	case o.every <= 0:
		return fmt.Errorf("--interval: got %v, want more than 0, such as 2s", o.every)
	case o.watch && (o.asJSON || c.Flags().Changed("can-stop")):
		return errors.New("--watch is for people, and excludes --json and --can-stop")
	}
	g, err := config.LoadGroup(o.file)
	if err != nil {
		return named(err, c, "group")
	}
	if c.Flags().Changed("can-stop") {
		return o.mayStop(c, g)
	}
	if o.watch {
		return o.again(c, g)
	}
	return o.once(c, g)
}

func (o *statusOptions) ask(ctx context.Context, g *config.Group) *status.Report {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return status.Ask(ctx, g)
}

func (o *statusOptions) once(c *cobra.Command, g *config.Group) error {
	report := o.ask(c.Context(), g)
	write := report.WriteTable
	if o.asJSON {
		write = report.WriteJSON
	}
	return exit(write(c.OutOrStdout()), report.State.Code())
}

// exit is err, or an exit code other than 0.
func exit(err error, code int) error {
	if err == nil && code != 0 {
		return cli.Exit(code)
	}
	return err
}

// again shows the table until ctrl-C, on a terminal always in the same place. The exit
// code is that of the last table.
func (o *statusOptions) again(c *cobra.Command, g *config.Group) error {
	out := c.OutOrStdout()
	for {
		report := o.ask(c.Context(), g)
		if c.Context().Err() != nil {
			return nil
		}
		if isTerminal(out) {
			fmt.Fprint(out, "\x1b[H\x1b[2J")
		}
		fmt.Fprintln(out, time.Now().Format(time.DateTime))
		if err := report.WriteTable(out); err != nil {
			return err
		}
		select {
		case <-c.Context().Done():
			return exit(nil, report.State.Code())
		case <-time.After(o.every):
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// mayStop answers whether a replica may be stopped.
func (o *statusOptions) mayStop(c *cobra.Command, g *config.Group) error {
	if o.canStop < 0 || o.canStop >= g.N() {
		return fmt.Errorf("--can-stop: got %d, want the number of a replica, 0 to %d", o.canStop, g.N()-1)
	}
	report := o.ask(c.Context(), g)
	reasons := report.CanStop(o.canStop)
	if o.asJSON {
		answer := struct {
			Replica int      `json:"replica"`
			CanStop bool     `json:"can_stop"`
			Reasons []string `json:"reasons"`
		}{o.canStop, len(reasons) == 0, append([]string{}, reasons...)}
		return exit(writeJSON(c.OutOrStdout(), answer), min(len(reasons), 1))
	}
	if len(reasons) == 0 {
		fmt.Fprintf(c.OutOrStdout(), "yes: replica %d may be stopped; the others agree and are connected\n", o.canStop)
		return nil
	}
	fmt.Fprintf(c.OutOrStdout(), "no: replica %d must not be stopped now\n", o.canStop)
	for _, why := range reasons {
		fmt.Fprintf(c.OutOrStdout(), "  %s\n", why)
	}
	return cli.Exit(1)
}
