// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
)

func mountCommand() *cobra.Command {
	var (
		file     string
		export   string
		more     []string
		onlyShow bool
	)
	c := &cobra.Command{
		Use:   "mount DIR",
		Short: "mount the running relay",
		Long: `Mount has this machine's kernel mount the running relay at DIR. It needs root, and mount.nfs, which
the Debian package nfs-common brings. With --print it shows the mount command instead, to be used in
another way. To unmount: umount DIR.

Locks are local to this machine (nolock): two machines that lock one file do not exclude each other. Where
several machines make files in one tree, mount with -o lookupcache=positive: otherwise a kernel that once found
no file of some name may not look again for a minute. The options and the line for /etc/fstab are explained in
OPERATING.md.`,
		Example: `  bfs-relay mount /mnt --config /etc/bfs/relay.toml
  bfs-relay mount /mnt/sub --export /export/sub       # a part of an export
  bfs-relay mount /mnt -o lookupcache=positive        # a tree that other machines write to, too
  bfs-relay mount /mnt --print`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("want one directory to mount at, such as /mnt")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			listen, configured, err := config.LoadRelayMount(file)
			if err != nil {
				return whichFile(file, err)
			}
			if export == "" {
				export = configured
			}
			command, err := cli.MountCommand(listen, export, args[0], more...)
			if err != nil {
				return err
			}
			if onlyShow {
				fmt.Fprintln(c.OutOrStdout(), strings.Join(command, " "))
				return nil
			}
			return mount(c, listen, command)
		},
	}
	c.Flags().StringVar(&file, "config", "relay.toml", "the relay's configuration file")
	c.Flags().StringVar(&export, "export", "",
		"the export to mount, or a directory in one (default: export in the file)")
	c.Flags().StringSliceVarP(&more, "options", "o", nil, "more options of mount, such as ro or lookupcache=positive")
	c.Flags().BoolVar(&onlyShow, "print", false, "print the mount command and do nothing")
	return c
}

// mount runs the command after it has checked that it can work, because mount's own error
// messages explain little.
func mount(c *cobra.Command, listen string, command []string) error {
	line := strings.Join(command, " ")
	dir := command[len(command)-1]
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("%w: make it first", err)
	} else if !info.IsDir() {
		return fmt.Errorf("%s: is no directory", dir)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("mounting needs root: run as root\n  %s", line)
	}
	if !cli.HaveMountNFS() {
		return errors.New("mount.nfs is missing: apt-get install nfs-common")
	}
	conn, err := net.DialTimeout("tcp", listen, 2*time.Second)
	if err != nil {
		return fmt.Errorf("no relay answers at %s: start it first (bfs-relay run), and wait for its line %q",
			listen, cli.Ready)
	}
	conn.Close()
	run := exec.CommandContext(c.Context(), command[0], command[1:]...)
	run.Stdout, run.Stderr = c.OutOrStdout(), c.ErrOrStderr()
	if err := run.Run(); err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return nil
}
