// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/pbft"
)

func initCommand() *cobra.Command {
	var (
		out       string
		transport string
		p         bundle.RelayPlan
	)
	c := &cobra.Command{
		Use:   "init --out DIR",
		Short: "make this client machine's key and configuration",
		Long: `Init makes relay.key and relay.toml in DIR, and copies the group file there. It prints the public
half of the key on standard output, alone, and on standard error the command with which the
administrator enrols it. Nothing is ever overwritten.`,
		Example: `  bfs-relay init --out /etc/bfs --group group.toml
  bfs-relay init --out /etc/bfs --group group.toml --export /home --listen 127.0.0.1:2049`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if out == "" {
				return errors.New("--out is missing: name the directory to make")
			}
			p.Transport = pbft.Transport(transport)
			public, err := bundle.WriteRelay(out, p)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), keys.Public(public))
			hint := c.ErrOrStderr()
			if p.Group == "" {
				fmt.Fprintf(hint, "put the group's %s into %s, and have the administrator run\n", bundle.GroupFile, out)
			} else {
				fmt.Fprintln(hint, "have the administrator run")
			}
			fmt.Fprintf(hint, "  bfsd client add --admin admin --key %s --export %s\n", keys.Public(public), p.Export)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&out, "out", "", "the directory to make")
	f.StringVar(&p.Group, "group", "", "the group file to copy")
	f.StringVar(&p.Export, "export", config.DefaultExport, "the export that bfs-relay mount mounts")
	f.StringVar(&p.Listen, "listen", config.DefaultRelayListen, "where the kernel finds the relay; a loopback address")
	f.StringVar(&p.AdminListen, "admin-listen", config.DefaultRelayAdminListen,
		"where status, health and metrics are served")
	f.BoolVar(&p.InsecurePorts, "insecure-ports", false,
		"take calls from source ports >= 1024 too: any local process may then claim to be any user")
	f.StringVar(&transport, "transport", string(pbft.TransportTLS), "tls or plain, as in the members' files")
	return c
}
