// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/nfsstate"
	"bfs/pkg/pbft"
)

func clientCommand() *cobra.Command {
	return cli.Group(&cobra.Command{
		Use:   "client",
		Short: "enrol, list and revoke clients",
		Long: `A client is a key pair that the administrator has enrolled, with its rights: on which exports,
reading only or not, as which users, and until when. The record is part of the replicated state and
is checked where operations are executed, so that a relay whose host was broken into gets what its
record grants and nothing else.

These commands need the administrator's key. They work from any machine that reaches a quorum of the replicas.`,
		Example: `  bfs-relay init --out /etc/bfs --group group.toml     # on the client machine: prints its public key
  bfsd client add --admin bundles/admin --key bfs-key:... --export /export
  bfsd client list --admin bundles/admin`,
	}, clientAddCommand(), clientListCommand(), clientRevokeCommand())
}

// administrator holds the flags that the commands of the administrator share: the group,
// the key, and how to reach the group.
type administrator struct {
	admin      string
	group      string
	passphrase string
	transport  string
	timeout    time.Duration
	command    *cobra.Command
}

func (a *administrator) flags(c *cobra.Command) {
	a.fileFlags(c)
	f := c.Flags()
	f.StringVar(&a.transport, "transport", string(pbft.TransportTLS), "tls or plain, as in the members' files")
	f.DurationVar(&a.timeout, "timeout", 30*time.Second, "how long to try")
}

// fileFlags are the flags of a command that does not speak to the group.
func (a *administrator) fileFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&a.admin, "admin", "admin", "the administrator's key, or the directory that holds "+bundle.AdminKeyFile)
	f.StringVar(&a.group, "group", "", "the group file (default: "+bundle.GroupFile+" beside the administrator's key)")
	f.StringVar(&a.passphrase, "passphrase-file", "",
		"opens a sealed key: the passphrase is on the first line of this file (mode 0600)")
	a.command = c
}

// keyFile is the file with the administrator's key.
func (a *administrator) keyFile() string {
	if info, err := os.Stat(a.admin); err == nil && info.IsDir() {
		return filepath.Join(a.admin, bundle.AdminKeyFile)
	}
	return a.admin
}

// with connects to the group and runs do.
func (a *administrator) with(ctx context.Context, do func(context.Context, *session) error) error {
	if err := a.checkTimeout(); err != nil {
		return err
	}
	g, key, _, err := a.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return withAdministrator(ctx, g, key, pbft.Transport(a.transport), do)
}

func (a *administrator) checkTimeout() error {
	if a.timeout <= 0 {
		return fmt.Errorf("--timeout: got %v, want more than 0, such as 30s", a.timeout)
	}
	return nil
}

// open reads the group file and the administrator's key, and the passphrase if there is one.
func (a *administrator) open() (g *config.Group, key ed25519.PrivateKey, passphrase []byte, err error) {
	keyFile := a.keyFile()
	groupFile := a.group
	if groupFile == "" {
		groupFile = filepath.Join(filepath.Dir(keyFile), bundle.GroupFile)
	}
	if g, err = config.LoadGroup(groupFile); err != nil {
		if a.group == "" {
			return nil, nil, nil, named(err, a.command, "admin")
		}
		return nil, nil, nil, named(err, a.command, "group")
	}
	if a.passphrase != "" {
		if passphrase, err = keys.ReadPassphrase(a.passphrase); err != nil {
			return nil, nil, nil, err
		}
	}
	if key, err = keys.ReadSealed(keyFile, passphrase); err != nil {
		return nil, nil, nil, named(err, a.command, "admin")
	}
	if !keys.Of(key).Equal(g.Administrator) {
		return nil, nil, nil, fmt.Errorf("%s: is not the key of the administrator in %s", keyFile, groupFile)
	}
	return g, key, passphrase, nil
}

// named adds, to the error of a file that is not there and that no flag named, the flag
// that names it.
func named(err error, c *cobra.Command, flag string) error {
	if !errors.Is(err, fs.ErrNotExist) || c.Flags().Changed(flag) {
		return err
	}
	return fmt.Errorf("%w: this is the default; name the file with --%s", err, flag)
}

// A session is the administrator, connected.
type session struct {
	group  *config.Group
	client *pbft.Client
}

func withAdministrator(ctx context.Context, g *config.Group, key ed25519.PrivateKey, t pbft.Transport,
	do func(context.Context, *session) error) error {
	client, err := pbft.NewClient(pbft.ClientConfig{Group: g.Group, Key: key, Transport: t,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Ready(ctx); err != nil {
		return explain(err, g)
	}
	return explain(do(ctx, &session{g, client}), g)
}

// explain says which answers are missing when the time has run out, and what to do when a
// command finds its key in use.
func explain(err error, g *config.Group) error {
	if errors.Is(err, pbft.ErrKeyInUse) {
		return fmt.Errorf("%w\nThis key serves one command at a time, and a bfsd backup may take long: wait "+
			"until it ends. A backup made with --config, on a host, uses that host's key and "+
			"leaves the administrator's free", err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer from %d of %d replicas in time: do they run, with this very group file "+
			"and transport? (bfsd status --group %s)", g.Quorum(), g.N(), g.File)
	}
	return err
}

// exports asks the group for its exports.
func (s *session) exports(ctx context.Context) ([]nfsstate.ExportInfo, error) {
	reply, err := s.client.Invoke(ctx, nfsstate.ExportListCall(), true)
	if err != nil {
		return nil, err
	}
	return nfsstate.ParseExportList(reply)
}

func clientListCommand() *cobra.Command {
	var (
		a      administrator
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "list --admin DIR",
		Short: "list the enrolled clients",
		Long:  `List shows every client that is or was enrolled, with its name, its key and its rights.`,
		Example: `  bfsd client list --admin bundles/admin
  bfsd client list --admin bundles/admin --json | jq '.clients[] | select(.state == "enrolled") | .name'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				clients, err := s.client.Enrolments(ctx)
				if err != nil {
					return err
				}
				exports, err := s.exports(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(c.OutOrStdout(), clientsJSON(clients, exports))
				}
				return writeClients(c.OutOrStdout(), clients, exports)
			})
		},
	}
	a.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func writeClients(w io.Writer, clients []pbft.Enrolment, exports []nfsstate.ExportInfo) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tCLIENT\tKEY\tSTATE\tRIGHTS")
	for _, e := range clients {
		fmt.Fprintf(t, "%s\t%016x\t%s\t%s\t%s\n",
			nameOf(&e), uint64(e.ID), keys.Public(e.Key), stateOf(&e), rightsText(e.Rights, exports))
	}
	return t.Flush()
}

// nameOf is a client's name; one that was enrolled without has that which it would be given today.
func nameOf(e *pbft.Enrolment) string {
	if r, err := nfsstate.ParseRights(e.Rights); err == nil && r.Name != "" {
		return r.Name
	}
	return defaultName(e.Key)
}

// defaultName is the name of a client whose administrator gives it none.
func defaultName(key ed25519.PublicKey) string {
	return fmt.Sprintf("client-%08x", uint64(pbft.ClientOf(key))>>32)
}

func stateOf(e *pbft.Enrolment) string {
	if e.Revoked {
		return "revoked"
	}
	return "enrolled"
}

// exportPath names an export by its path, or by its number if it is not there any more.
func exportPath(id uint32, exports []nfsstate.ExportInfo) string {
	if i := slices.IndexFunc(exports, func(e nfsstate.ExportInfo) bool { return e.ID == id }); i >= 0 {
		return "/" + exports[i].Name
	}
	return fmt.Sprintf("export %d", id)
}

// rightsText describes a client's rights in one line.
func rightsText(encoded []byte, exports []nfsstate.ExportInfo) string {
	r, err := nfsstate.ParseRights(encoded)
	if err != nil {
		return "unreadable: nothing is granted"
	}
	var parts []string
	for _, g := range r.Grants {
		mode := "rw"
		if g.ReadOnly {
			mode = "ro"
		}
		part := fmt.Sprintf("%s %s squash=%s", exportPath(g.Export, exports), mode, squashNames[g.Squash])
		if g.Squash != nfsstate.SquashNone && (g.AnonUID != nfsstate.Nobody || g.AnonGID != nfsstate.Nobody) {
			part += fmt.Sprintf(" anon=%d:%d", g.AnonUID, g.AnonGID)
		}
		parts = append(parts, part+mapText(" uid-map", g.UIDs)+mapText(" gid-map", g.GIDs))
	}
	if r.Expires != 0 {
		parts = append(parts, "until "+time.Unix(0, int64(r.Expires)).UTC().Format(time.RFC3339))
	}
	return strings.Join(parts, "; ")
}

func mapText(name string, ranges []nfsstate.IDRange) string {
	var parts []string
	for _, r := range ranges {
		parts = append(parts, fmt.Sprintf("%d:%d:%d", r.From, r.To, r.Count))
	}
	if parts == nil {
		return ""
	}
	return name + "=" + strings.Join(parts, ",")
}

func clientRevokeCommand() *cobra.Command {
	var (
		a    administrator
		k    keyFlags
		name string
	)
	c := &cobra.Command{
		Use:   "revoke --admin DIR (--key KEY | --name NAME)",
		Short: "end a client's rights",
		Long: `Revoke ends a client's rights, from the batch in which it is ordered: programs on that client get
I/O errors. The client's files stay. Its key can be enrolled again later.`,
		Example: `  bfsd client revoke --admin bundles/admin --name laptop
  bfsd client revoke --admin bundles/admin --key bfs-key:...`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var key ed25519.PublicKey
			if name == "" {
				var err error
				if key, err = k.read(); err != nil {
					return err
				}
			} else if k != (keyFlags{}) {
				return errors.New("--name and --key exclude each other")
			}
			return a.with(c.Context(), func(ctx context.Context, s *session) (err error) {
				if name != "" {
					if key, err = s.named(ctx, name); err != nil {
						return err
					}
				}
				if err := s.client.Revoke(ctx, key); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "revoked %s\n", keys.Public(key))
				return nil
			})
		},
	}
	a.flags(c)
	k.flags(c)
	c.Flags().StringVar(&name, "name", "", "instead of --key: the client's name, as bfsd client list shows it")
	return c
}

// named finds the enrolled client of a name.
func (s *session) named(ctx context.Context, name string) (key ed25519.PublicKey, err error) {
	clients, err := s.client.Enrolments(ctx)
	if err != nil {
		return nil, err
	}
	for i := range clients {
		if clients[i].Revoked || nameOf(&clients[i]) != name {
			continue
		}
		if key != nil {
			return nil, fmt.Errorf("--name: more than one client is called %s: say which with --key "+
				"(bfsd client list shows the keys)", name)
		}
		key = clients[i].Key
	}
	if key == nil {
		return nil, fmt.Errorf("--name: no enrolled client is called %s (bfsd client list shows all)", name)
	}
	return key, nil
}

// keyFlags name a client's public key, in one of two ways.
type keyFlags struct{ word, file string }

func (k *keyFlags) flags(c *cobra.Command) {
	c.Flags().StringVar(&k.word, "key", "", "the client's public key, as bfs-relay init prints it")
	c.Flags().StringVar(&k.file, "key-file", "", "instead of --key: a file that holds it, or the client's key file")
}

func (k *keyFlags) read() (ed25519.PublicKey, error) {
	switch {
	case k.word != "" && k.file != "":
		return nil, errors.New("--key and --key-file exclude each other")
	case k.file != "":
		return keys.ReadPublic(k.file)
	case k.word != "":
		key, err := keys.ParsePublic(k.word)
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		return key, nil
	}
	return nil, errors.New("--key is missing: want the public key that bfs-relay init printed")
}
