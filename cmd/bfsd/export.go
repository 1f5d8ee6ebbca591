// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/pkg/nfs3"
	"bfs/pkg/nfsstate"
)

func exportCommand() *cobra.Command {
	return cli.Group(&cobra.Command{
		Use:   "export",
		Short: "make, list, change and remove exports",
		Long: `An export is a file system of its own, with a root directory and a quota. Those that the group file
names are there from the beginning; these commands make others and change all of them. Which client
may mount which export is part of the client's rights: see bfsd client add.

These commands need the administrator's key. They work from any machine that reaches a quorum of the replicas.`,
		Example: `  bfsd export add /home --admin bundles/admin --quota 100GiB
  bfsd export set /home --admin bundles/admin --owner 0:100 --mode 0775
  bfsd export list --admin bundles/admin`,
	}, exportAddCommand(), exportListCommand(), exportSetCommand(), exportRemoveCommand())
}

// exportFlags hold the properties of an export.
type exportFlags struct {
	set    *pflag.FlagSet
	owner  owner
	mode   config.Mode
	quota  config.Size
	inodes uint64
}

func (x *exportFlags) flags(c *cobra.Command, when string) {
	x.set, x.mode = c.Flags(), config.DefaultMode
	x.set.Var(&x.owner, "owner", when+"owner and group of its root directory, as numbers")
	x.set.Var(&x.mode, "mode", when+"permission bits of its root directory, in octal")
	x.set.Var(&x.quota, "quota", when+"how much it may hold; 0B: as much as the state has room for")
	x.set.Uint64Var(&x.inodes, "inodes", 0,
		when+"how many files and directories it may hold; 0: as many as the state has room for")
}

var exportFlagNames = []string{"owner", "mode", "quota", "inodes"}

// given returns the first of these flags that the user gave, "" if there is none.
func (x *exportFlags) given() string {
	for _, name := range exportFlagNames {
		if x.set != nil && x.set.Changed(name) {
			return "--" + name
		}
	}
	return ""
}

// export is a new one.
func (x *exportFlags) export(path string) nfsstate.Export {
	return nfsstate.Export{
		Name: config.Export{Path: path}.Name(), Mode: uint32(x.mode), UID: x.owner.uid, GID: x.owner.gid,
		QuotaBytes: uint64(x.quota), QuotaInodes: x.inodes,
	}
}

// change returns the changes that the given flags ask for.
func (x *exportFlags) change() (c nfsstate.Change) {
	mode, quota := uint32(x.mode), uint64(x.quota)
	for name, set := range map[string]func(){
		"owner":  func() { c.UID, c.GID = &x.owner.uid, &x.owner.gid },
		"mode":   func() { c.Mode = &mode },
		"quota":  func() { c.QuotaBytes = &quota },
		"inodes": func() { c.QuotaInodes = &x.inodes },
	} {
		if x.set.Changed(name) {
			set()
		}
	}
	return c
}

// An owner is UID:GID as a flag.
type owner struct{ uid, gid uint32 }

// Set implements pflag.Value.
func (o *owner) Set(s string) error {
	uid, gid, ok := strings.Cut(s, ":")
	u, err1 := strconv.ParseUint(uid, 10, 32)
	g, err2 := strconv.ParseUint(gid, 10, 32)
	if !ok || err1 != nil || err2 != nil || u == math.MaxUint32 || g == math.MaxUint32 {
		return fmt.Errorf("got %q, want UID:GID, numbers below %d, such as 1000:1000", s, uint32(math.MaxUint32))
	}
	o.uid, o.gid = uint32(u), uint32(g)
	return nil
}

// Type implements pflag.Value.
func (o *owner) Type() string { return "uid:gid" }

// String implements pflag.Value.
func (o *owner) String() string { return fmt.Sprintf("%d:%d", o.uid, o.gid) }

func exportAddCommand() *cobra.Command {
	var (
		a administrator
		x exportFlags
	)
	c := &cobra.Command{
		Use:   "add PATH --admin DIR",
		Short: "make an export",
		Long: fmt.Sprintf(`Add makes an export, empty. Unless --owner and --mode say otherwise its root
directory is open to all users of its clients, as /tmp is (owner 0:0, mode 1777): no user can remove another's
files. Clients are given access with bfsd client add. A group makes at most %d exports in its life, those that
are removed included.`, nfsstate.MaxExports),
		Example: `  bfsd export add /home --admin bundles/admin
  bfsd export add /ledger --admin bundles/admin --owner 1000:1000 --mode 0750 --quota 10GiB`,
		Args: onePath,
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				e := x.export(args[0])
				reply, err := s.client.Invoke(ctx, nfsstate.ExportAddCall(&e), false)
				if err == nil {
					_, err = nfsstate.ParseExportAdd(reply)
				}
				switch {
				case errors.Is(err, nfs3.ErrExist):
					return fmt.Errorf("export %s is there already: change it with bfsd export set %s", args[0], args[0])
				case errors.Is(err, nfs3.ErrNoSpc):
					return fmt.Errorf("export %s: the state has no inode left, or the group has made its %d exports",
						args[0], nfsstate.MaxExports)
				case err != nil:
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "made %s, owner %v, mode %v\n", args[0], &x.owner, x.mode)
				return nil
			})
		},
	}
	a.flags(c)
	x.flags(c, "")
	return c
}

// onePath wants the path of an export as the only argument.
func onePath(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("got %d arguments, want the path of one export, such as /home", len(args))
	}
	return config.CheckExportPath(args[0])
}

func exportSetCommand() *cobra.Command {
	var (
		a administrator
		x exportFlags
	)
	c := &cobra.Command{
		Use:   "set PATH --admin DIR",
		Short: "change an export",
		Long: `Set changes the properties whose flags are given. Owner and mode are those of the root directory;
files in it keep their own. A quota below the space in use removes nothing, and lets nothing more be
written.`,
		Example: `  bfsd export set /home --admin bundles/admin --quota 200GiB
  bfsd export set /home --admin bundles/admin --owner 1000:1000 --mode 0750`,
		Args: onePath,
		RunE: func(c *cobra.Command, args []string) error {
			if x.given() == "" {
				return errors.New("nothing to change: give --owner, --mode, --quota or --inodes")
			}
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				change := x.change()
				if err := s.changeExport(ctx, args[0], func(id uint32) []byte {
					return nfsstate.ExportSetCall(id, &change)
				}); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "changed %s\n", args[0])
				return nil
			})
		},
	}
	a.flags(c)
	x.flags(c, "")
	return c
}

func exportRemoveCommand() *cobra.Command {
	var a administrator
	c := &cobra.Command{
		Use:   "remove PATH --admin DIR",
		Short: "remove an empty export",
		Long: `Remove removes an export whose root directory is empty, so that no file is lost. Clients that have
it mounted get "stale file handle". An export of the same name that is made later is another one, to
which no client has rights.`,
		Example: `  bfsd export remove /old --admin bundles/admin`,
		Args:    onePath,
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				err := s.changeExport(ctx, args[0], nfsstate.ExportRemoveCall)
				if errors.Is(err, nfs3.ErrNotEmpty) {
					return fmt.Errorf("export %s is not empty: mount it and remove its files first", args[0])
				}
				if err == nil {
					fmt.Fprintf(c.OutOrStdout(), "removed %s\n", args[0])
				}
				return err
			})
		},
	}
	a.flags(c)
	return c
}

// changeExport runs an operation on the export of a path.
func (s *session) changeExport(ctx context.Context, path string, operation func(id uint32) []byte) error {
	all, err := s.exports(ctx)
	if err != nil {
		return err
	}
	for _, e := range all {
		if "/"+e.Name != path {
			continue
		}
		reply, err := s.client.Invoke(ctx, operation(e.ID), false)
		if err != nil {
			return err
		}
		return nfsstate.ParseAdminStatus(reply)
	}
	return fmt.Errorf("there is no export %s (bfsd export list shows all)", path)
}

func exportListCommand() *cobra.Command {
	var (
		a      administrator
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "list --admin DIR",
		Short: "list the exports",
		Long: `List shows every export: owner and mode of its root directory, the space in use, and its quota
("-" is no limit).`,
		Example: `  bfsd export list --admin bundles/admin
  bfsd export list --admin bundles/admin --json | jq '.exports[] | {path, used_bytes}'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				exports, err := s.exports(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(c.OutOrStdout(), exportsJSON(exports))
				}
				return writeExports(c.OutOrStdout(), exports)
			})
		},
	}
	a.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func writeExports(w io.Writer, exports []nfsstate.ExportInfo) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "EXPORT\tOWNER\tMODE\tUSED\tQUOTA\tFILES\tMOST")
	for _, e := range exports {
		quota, most := "-", "-"
		if e.QuotaBytes > 0 {
			quota = config.Size(e.QuotaBytes).String()
		}
		if e.QuotaInodes > 0 {
			most = strconv.FormatUint(e.QuotaInodes, 10)
		}
		fmt.Fprintf(t, "/%s\t%d:%d\t%v\t%v\t%s\t%d\t%s\n",
			e.Name, e.UID, e.GID, config.Mode(e.Mode), config.Size(e.UsedBytes), quota, e.UsedInodes, most)
	}
	return t.Flush()
}
