package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/status"
)

func statusCommand() *cobra.Command {
	var (
		file    string
		asJSON  bool
		timeout time.Duration
	)
	c := &cobra.Command{
		Use:   "status --group FILE",
		Short: "ask every replica how it is, and whether enough of them agree",
		Long: `Status asks the admin address of every replica in the group file and shows one row for each:

  VIEW, PRIMARY  the view it is in, and who orders operations in it
  EXECUTED       the last batch it has executed; LAG is how far f+1 others are ahead
  STABLE, ROOT   its last stable checkpoint and the digest of the whole state there
  KEY AGE        since its session keys were made
  RECOVERED      its last proactive recovery; "-" is never
  STATE          agrees, or what keeps it from agreeing with the others

The answers are hints for people: they come without authentication. The exit code is 0 if at least 2f+1 replicas
agree, and 1 otherwise.`,
		Example: `  bfsd status --group bundles/group.toml
  bfsd status --group bundles/group.toml --json | jq .agreeing`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			g, err := config.LoadGroup(file)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			report := status.Ask(ctx, g)
			write := report.WriteTable
			if asJSON {
				write = report.WriteJSON
			}
			if err := write(c.OutOrStdout()); err != nil {
				return err
			}
			if !report.Healthy {
				return cli.ErrSaid
			}
			return nil
		},
	}
	c.Flags().StringVar(&file, "group", bundle.GroupFile, "the group file")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().DurationVar(&timeout, "timeout", 3*time.Second, "how long to wait for answers")
	return c
}
