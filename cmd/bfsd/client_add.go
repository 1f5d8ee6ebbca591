package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/nfsstate"
	"bfs/pkg/nfsstate/nfs3"
)

func clientAddCommand() *cobra.Command {
	var (
		a administrator
		k keyFlags
		o addOptions
	)
	c := &cobra.Command{
		Use:   "add --admin DIR --key KEY --export PATH",
		Short: "enrol a client",
		Long: `Add enrols a client's public key. Its rights are checked at the replicas, with every operation:

  --ro          writes, creations and the like fail with "read-only file system"
  --squash      root: user 0 becomes the anonymous user, so that root of the client machine is nobody special;
                all: everybody does; none: user 0 is root on the export too
  --uid-map     FROM:TO:COUNT[,...]: the client's users FROM, FROM+1, ... are the export's TO, TO+1, ..., and the
                other way round in what the client reads. A user in no range is anonymous; an owner that no range
                leads to is shown as 65534. Without it ids are taken as they are
  --expires     a date (2027-01-31), a time (2027-01-31T12:00:00Z) or a while from now (720h)

To change the rights of a client, revoke it and add it again: its mounts live on.`,
		Example: `  bfsd client add --admin bundles/admin --key bfs-key:... --export /export
  bfsd client add --admin bundles/admin --key bfs-key:... --export /etc --ro --expires 720h
  bfsd client add --admin bundles/admin --key bfs-key:... --export /home --squash none --uid-map 1000:1000:500
  bfsd client add --admin bundles/admin --key bfs-key:... --export /new --create-export --quota 10GiB`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			key, err := k.read()
			if err != nil {
				return err
			}
			grant, expires, err := o.check()
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				if err := o.add(ctx, s, key, grant, expires); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "enrolled %s for %s\n", keys.Public(key), strings.Join(o.exports, ", "))
				return nil
			})
		},
	}
	a.flags(c)
	k.flags(c)
	o.flags(c)
	return c
}

type addOptions struct {
	exports  []string
	readOnly bool
	squash   string
	anonUID  uint32
	anonGID  uint32
	uidMap   string
	gidMap   string
	expires  string
	create   bool
	quota    config.Size
}

func (o *addOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&o.exports, "export", []string{config.DefaultExport}, "what it may mount; may be given more than once")
	f.BoolVar(&o.readOnly, "ro", false, "reading only")
	f.StringVar(&o.squash, "squash", squashNames[nfsstate.SquashRoot], "who is made anonymous: none, root or all")
	f.Uint32Var(&o.anonUID, "anon-uid", nfsstate.Nobody, "the anonymous user")
	f.Uint32Var(&o.anonGID, "anon-gid", nfsstate.Nobody, "the anonymous group")
	f.StringVar(&o.uidMap, "uid-map", "", "FROM:TO:COUNT[,...] for users")
	f.StringVar(&o.gidMap, "gid-map", "", "FROM:TO:COUNT[,...] for groups")
	f.StringVar(&o.expires, "expires", "", "a date, a time or a while from now (default: never)")
	f.BoolVar(&o.create, "create-export", false, "create the exports that are not there")
	f.Var(&o.quota, "quota", "with --create-export: the new export's quota; 0B is what the state has room for")
}

var squashNames = map[nfsstate.Squash]string{
	nfsstate.SquashNone: "none",
	nfsstate.SquashRoot: "root",
	nfsstate.SquashAll:  "all",
}

// check turns flags into a grant, without its export.
func (o *addOptions) check() (g nfsstate.Grant, expires uint64, err error) {
	g = nfsstate.Grant{ReadOnly: o.readOnly, AnonUID: o.anonUID, AnonGID: o.anonGID}
	known := false
	for squash, name := range squashNames {
		if name == o.squash {
			g.Squash, known = squash, true
		}
	}
	if !known {
		return g, 0, fmt.Errorf("--squash: got %q, want none, root or all", o.squash)
	}
	if err = nfs3.CheckID(o.anonUID); err != nil {
		return g, 0, fmt.Errorf("--anon-uid: %w", err)
	}
	if err = nfs3.CheckID(o.anonGID); err != nil {
		return g, 0, fmt.Errorf("--anon-gid: %w", err)
	}
	if g.UIDs, err = parseMap(o.uidMap); err != nil {
		return g, 0, fmt.Errorf("--uid-map: %w", err)
	}
	if g.GIDs, err = parseMap(o.gidMap); err != nil {
		return g, 0, fmt.Errorf("--gid-map: %w", err)
	}
	if expires, err = parseExpiry(o.expires, time.Now()); err != nil {
		return g, 0, fmt.Errorf("--expires: %w", err)
	}
	for _, path := range o.exports {
		if err := config.CheckExportPath(path); err != nil {
			return g, 0, fmt.Errorf("--export: %w", err)
		}
	}
	if len(o.exports) == 0 || len(o.exports) > nfsstate.MaxGrants {
		return g, 0, fmt.Errorf("--export: got %d, want 1 to %d", len(o.exports), nfsstate.MaxGrants)
	}
	return g, expires, nil
}

func (o *addOptions) add(ctx context.Context, s *session, key ed25519.PublicKey, g nfsstate.Grant, expires uint64) error {
	rights := nfsstate.Rights{Expires: expires}
	for _, path := range o.exports {
		id, err := s.export(ctx, path, o.create, o.quota)
		if err != nil {
			return err
		}
		g.Export = id
		rights.Grants = append(rights.Grants, g)
	}
	slices.SortFunc(rights.Grants, func(a, b nfsstate.Grant) int { return int(a.Export) - int(b.Export) })
	return s.enrol(ctx, key, rights)
}

// parseMap reads FROM:TO:COUNT[,...].
func parseMap(s string) (ranges []nfsstate.IDRange, err error) {
	if s == "" {
		return nil, nil
	}
	for _, part := range strings.Split(s, ",") {
		fields := strings.Split(part, ":")
		if len(fields) != 3 {
			return nil, fmt.Errorf("got %q, want FROM:TO:COUNT", part)
		}
		var v [3]uint32
		for i, f := range fields {
			n, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("got %q in %q, want a number below 2^32", f, part)
			}
			v[i] = uint32(n)
		}
		ranges = append(ranges, nfsstate.IDRange{From: v[0], To: v[1], Count: v[2]})
	}
	slices.SortFunc(ranges, func(a, b nfsstate.IDRange) int { return int(int64(a.From) - int64(b.From)) })
	return ranges, nfsstate.CheckMap(ranges)
}

// parseExpiry reads a date, a time or a while from now, as Unix nanoseconds.
func parseExpiry(s string, now time.Time) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	at, err := time.Parse(time.DateOnly, s)
	if err != nil {
		at, err = time.Parse(time.RFC3339, s)
	}
	if err != nil {
		var d time.Duration
		d, err = time.ParseDuration(s)
		at = now.Add(d)
	}
	if err != nil {
		return 0, fmt.Errorf("got %q, want a date such as 2027-01-31, a time such as 2027-01-31T12:00:00Z or a while such as 720h", s)
	}
	if !at.After(now) {
		return 0, errors.New("is in the past")
	}
	return uint64(at.UnixNano()), nil
}
