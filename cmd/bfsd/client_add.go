// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
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
	"bfs/pkg/nfs3"
	"bfs/pkg/nfsstate"
	"bfs/pkg/pbft"
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
  --squash      root: user 0 becomes the anonymous user, so that root of the client machine has no special rights;
                all: every user does; none: user 0 is root on the export too
  --uid-map     FROM:TO:COUNT[,...]: the client's users FROM, FROM+1, ... are the export's TO, TO+1, ..., and the
                other way round in attributes that the client reads. A user in no range is anonymous; an owner
                that no range leads to is shown as 65534. Without it ids are taken as they are
  --expires     a date (2027-01-31), a time (2027-01-31T12:00:00Z) or a while from now (720h)

--create-export makes the exports that are not there, together with the enrolment: both happen or neither does. Unless
--owner and --mode say otherwise, the root directory of a new export is open to all users of its clients, as /tmp is
(mode 1777): no user can remove another's files. To change an export, use bfsd export set.

To change the rights of a client, revoke it and add it again: its mounts live on.`,
		Example: `  bfsd client add --admin bundles/admin --key bfs-key:... --export /export --name laptop
  bfsd client add --admin bundles/admin --key bfs-key:... --export /etc --ro --expires 720h
  bfsd client add --admin bundles/admin --key bfs-key:... --export /home --squash none --uid-map 1000:1000:500
  bfsd client add --admin bundles/admin --key bfs-key:... --export /new \
    --create-export --owner 1000:1000 --mode 0750 --quota 10GiB`,
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
				done, err := o.add(ctx, s, key, grant, expires)
				if err != nil {
					return err
				}
				fmt.Fprintln(c.OutOrStdout(), done)
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
	name     string
	exports  []string
	readOnly bool
	squash   string
	anonUID  uint32
	anonGID  uint32
	uidMap   string
	gidMap   string
	expires  string
	create   bool
	made     exportFlags // the properties of a new export
}

func (o *addOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "its name in lists and logs (default: client- and the beginning of its number)")
	f.StringArrayVar(&o.exports, "export", []string{config.DefaultExport},
		"an export that it may mount; may be given more than once")
	f.BoolVar(&o.readOnly, "ro", false, "reading only")
	f.StringVar(&o.squash, "squash", squashNames[nfsstate.SquashRoot],
		"the users who are made anonymous: none, root or all")
	f.Uint32Var(&o.anonUID, "anon-uid", nfsstate.Nobody, "the anonymous user")
	f.Uint32Var(&o.anonGID, "anon-gid", nfsstate.Nobody, "the anonymous group")
	f.StringVar(&o.uidMap, "uid-map", "", "FROM:TO:COUNT[,...] for users")
	f.StringVar(&o.gidMap, "gid-map", "", "FROM:TO:COUNT[,...] for groups")
	f.StringVar(&o.expires, "expires", "", "a date, a time or a while from now (default: never)")
	f.BoolVar(&o.create, "create-export", false, "create the exports that are not there")
	o.made.flags(c, "with --create-export: ")
}

var squashNames = map[nfsstate.Squash]string{
	nfsstate.SquashNone: "none",
	nfsstate.SquashRoot: "root",
	nfsstate.SquashAll:  "all",
}

// check turns flags into a grant, without its export.
func (o *addOptions) check() (g nfsstate.Grant, expires uint64, err error) {
	g = nfsstate.Grant{ReadOnly: o.readOnly, AnonUID: o.anonUID, AnonGID: o.anonGID}
	if o.name != "" {
		if err := nfsstate.CheckClientName(o.name); err != nil {
			return g, 0, fmt.Errorf("--name: %w", err)
		}
	}
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

// add enrols a client, and makes its exports that do not exist yet, all in one operation
// or not at all. If the client has these rights already it does nothing, so that scripts
// may repeat it. It returns the message for the administrator.
func (o *addOptions) add(ctx context.Context, s *session, key ed25519.PublicKey, g nfsstate.Grant,
	expires uint64) (string, error) {
	exports, err := s.exports(ctx)
	if err != nil {
		return "", err
	}
	clients, err := s.client.Enrolments(ctx)
	if err != nil {
		return "", err
	}
	wanted, err := o.wanted(exports)
	if err != nil {
		return "", err
	}
	rights := nfsstate.Rights{Name: cmp.Or(o.name, defaultName(key)), Expires: expires}
	for i := range wanted {
		g.Export = uint32(i + 1)
		rights.Grants = append(rights.Grants, g)
	}
	if err := rights.Check(); err != nil {
		return "", err
	}
	paths := strings.Join(o.exports, ", ")
	switch same, err := o.enrolled(key, wanted, rights, clients, exports); {
	case err != nil:
		return "", err
	case same:
		return fmt.Sprintf("%s is enrolled for %s already", keys.Public(key), paths), nil
	}
	reply, err := s.client.Admit(ctx, key, nfsstate.AdmitCall(wanted, &rights))
	if err == nil {
		err = nfsstate.ParseAdmit(reply, wanted)
	}
	return fmt.Sprintf("enrolled %s as %s for %s", keys.Public(key), rights.Name, paths), err
}

// wanted returns the exports to grant, as far as they can be known before the operation.
func (o *addOptions) wanted(exports []nfsstate.ExportInfo) (all []nfsstate.Wanted, err error) {
	var names []string
	for _, e := range exports {
		names = append(names, "/"+e.Name)
	}
	for i, path := range o.exports {
		there := slices.Contains(names, path)
		switch {
		case slices.Contains(o.exports[:i], path):
			return nil, fmt.Errorf("--export %s: given twice", path)
		case !there && !o.create:
			return nil, fmt.Errorf("export %s: the group has %s; --create-export makes a new one",
				path, strings.Join(names, ", "))
		case there && o.made.given() != "":
			return nil, fmt.Errorf("export %s is there already, and %s is for a new one: "+
				"change it with bfsd export set %s", path, o.made.given(), path)
		}
		all = append(all, nfsstate.Wanted{Create: !there, Export: o.made.export(path)})
	}
	return all, nil
}

// enrolled reports whether the client has just these rights already. If the key or the
// name is enrolled otherwise it returns an error.
func (o *addOptions) enrolled(key ed25519.PublicKey, wanted []nfsstate.Wanted, r nfsstate.Rights,
	clients []pbft.Enrolment, exports []nfsstate.ExportInfo) (same bool, err error) {
	for i := range clients {
		c := &clients[i]
		switch {
		case c.Revoked:
		case !c.Key.Equal(key) && nameOf(c) == r.Name:
			return false, fmt.Errorf("a client called %s is enrolled already, with key "+
				"%s: give this one another --name", r.Name, keys.Public(c.Key))
		case c.Key.Equal(key) && o.sameRights(c, wanted, r, exports):
			return true, nil
		case c.Key.Equal(key):
			return false, fmt.Errorf("this key is enrolled with other rights (%s): revoke it first, "+
				"then add it; its mounts live on", rightsText(c.Rights, exports))
		}
	}
	return false, nil
}

// sameRights reports whether a client has exactly the rights wanted.
func (o *addOptions) sameRights(c *pbft.Enrolment, wanted []nfsstate.Wanted, r nfsstate.Rights,
	exports []nfsstate.ExportInfo) bool {
	if o.name == "" {
		r.Name = nameOf(c) // any name will do
	}
	r.Grants = slices.Clone(r.Grants)
	for i := range r.Grants {
		at := slices.IndexFunc(exports, func(e nfsstate.ExportInfo) bool { return e.Name == wanted[i].Name })
		if at < 0 {
			return false
		}
		r.Grants[i].Export = exports[at].ID
	}
	slices.SortFunc(r.Grants, func(a, b nfsstate.Grant) int { return cmp.Compare(a.Export, b.Export) })
	has, err := nfsstate.ParseRights(c.Rights)
	has.Name = nameOf(c)
	return err == nil && bytes.Equal(has.Append(nil), r.Append(nil))
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
		return 0, fmt.Errorf("got %q, want a date such as 2027-01-31, a time such as "+
			"2027-01-31T12:00:00Z or a while such as 720h", s)
	}
	if !at.After(now) {
		return 0, errors.New("is in the past")
	}
	return uint64(at.UnixNano()), nil
}
