// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/pbft"
)

func initCommand() *cobra.Command {
	var (
		o        = initOptions{size: config.DefaultStateSize}
		transfer = string(pbft.TransportTLS)
	)
	c := &cobra.Command{
		Use:   "init --hosts A,B,C,D --out DIR",
		Short: "make a group: its file, its keys, one bundle per host",
		Long: `Init makes the files of a new group in a new directory:

  DIR/group.toml   shared by members and clients; nothing secret in it
  DIR/hostN/       group.toml, replica.toml and identity.key, to be carried to host N
  DIR/admin/       group.toml and admin.key, which enrols clients: keep it away from all hosts

3f+1 hosts survive f faulty ones: 4 survive one, 7 survive two. 6 also survive one, while another is away for
maintenance; 9 do the same for two. 5 and 8 survive no more than 4 and 7. One host makes a group of one, for bfsd norep,
which survives none and serves for comparison.

Each host is a name or an address, with a port if it is not ` + strconv.Itoa(config.DefaultPort) + `; the admin
address (status, metrics) is at the next port. It has no authentication, so it listens on the host's loopback only,
unless --admin-on-network says otherwise; without that, bfsd status asks it from the host itself or through a
tunnel. Keys have mode 0600 and are refused otherwise. Nothing is ever overwritten.`,
		Example: `  bfsd init --hosts 10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4 --out bundles
  bfsd init --hosts a,b,c,d --out bundles --export /home --export /etc --size 64GiB --passphrase-file p
  bfsd init --loopback 4 --base-port 7450 --out /tmp/group      # four replicas on this machine
  bfsd init --hosts a --out norep                               # for bfsd norep`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.transport = pbft.Transport(transfer)
			if err := o.run(); err != nil {
				return err
			}
			o.explain(c)
			return nil
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.hosts, "hosts", nil, "the hosts, separated by commas: name, address, or either with :port")
	f.IntVar(&o.loopback, "loopback", 0, "instead of --hosts: this many members on 127.0.0.1")
	f.IntVar(&o.basePort, "base-port", config.DefaultPort, "with --loopback: the first port; each member takes two")
	f.BoolVar(&o.network, "admin-on-network", false,
		"with --hosts: admin addresses listen where members do, for bfsd status from elsewhere")
	f.StringVar(&o.out, "out", "", "the directory to make")
	f.StringVar(&o.name, "name", "bfs", "the group's name")
	f.StringArrayVar(&o.exports, "export", []string{config.DefaultExport},
		"a file system to serve; may be given more than once")
	f.Var(&o.size, "size", "size of the whole state; must fit in each host's memory when it fills up")
	f.StringVar(&transfer, "transport", transfer, "tls, or plain for benchmarks and private wires")
	f.StringVar(&o.durability, "durability", string(pbft.DurabilityDisk),
		"when a write is safe: disk, or replicated (in the memory of several hosts)")
	f.BoolVar(&o.keeper, "keeper", false,
		"each replica's key is held by a process of its own, which also recovers the replica: see bfsd keeper --help")
	f.StringVar(&o.passphrase, "passphrase-file", "",
		"seal the administrator's key with the passphrase on the first line of this file (mode 0600)")
	return c
}

type initOptions struct {
	hosts      []string
	loopback   int
	basePort   int
	network    bool
	out        string
	name       string
	exports    []string
	size       config.Size
	transport  pbft.Transport
	durability string
	passphrase string
	keeper     bool
}

func (o *initOptions) run() error {
	if o.out == "" {
		return errors.New("--out is missing: name the directory to make")
	}
	hosts, err := o.members()
	if err != nil {
		return err
	}
	if err := config.CheckDurability(pbft.Durability(o.durability)); err != nil {
		return fmt.Errorf("--durability: %w", err)
	}
	if o.keeper && len(hosts) == 1 {
		return errors.New("--keeper: a group of one knows nobody to whom it signs: leave it out")
	}
	var passphrase []byte
	if o.passphrase != "" {
		if passphrase, err = keys.ReadPassphrase(o.passphrase); err != nil {
			return err
		}
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	return bundle.Write(o.out, bundle.Plan{
		Name:       o.name,
		Hosts:      hosts,
		Exports:    o.exports,
		Size:       o.size,
		Limits:     pbft.DefaultLimits(),
		Transport:  o.transport,
		Durability: pbft.Durability(o.durability),
		Window:     pbft.DefaultWindow,
		Passphrase: passphrase,
		Keeper:     o.keeper,
		Program:    program,
	})
}

func (o *initOptions) members() ([]bundle.Host, error) {
	switch {
	case len(o.hosts) > 0 && o.loopback != 0:
		return nil, errors.New("--hosts and --loopback exclude each other")
	case len(o.hosts) > 0:
		hosts, err := bundle.Hosts(o.hosts)
		for i := range hosts {
			if o.network {
				hosts[i].AdminListen = hosts[i].Admin
			}
		}
		return hosts, err
	case o.loopback > 0 && o.basePort > 0 && o.basePort+2*o.loopback < 1<<16:
		return bundle.Loopback(o.loopback, o.basePort), nil
	case o.loopback != 0:
		return nil, fmt.Errorf("--loopback %d --base-port %d: want some members, and two ports below 65536 for each",
			o.loopback, o.basePort)
	}
	return nil, errors.New("--hosts is missing: want 4 names or more, such as --hosts a,b,c,d, or --loopback 4")
}

// verb is the command that runs a replica.
func (o *initOptions) verb() string {
	if o.keeper {
		return "keeper"
	}
	return "run"
}

func (o *initOptions) explain(c *cobra.Command) {
	n := max(len(o.hosts), o.loopback)
	out := c.OutOrStdout()
	fmt.Fprintf(out, "made a group of %d in %s\n", n, o.out)
	if note := sizeNote(pbft.GroupSize(n)); note != "" {
		fmt.Fprintf(out, "  note:   %s\n", note)
	}
	if n == 1 {
		fmt.Fprintf(out, "  run:    bfsd norep --config %s\n",
			filepath.Join(bundle.HostDir(o.out, 0), bundle.ReplicaFile))
	} else {
		fmt.Fprintf(out, "  carry:  %s0 to the first host, and so on; then there: bfsd %s --config replica.toml\n",
			filepath.Join(o.out, "host"), o.verb())
	}
	fmt.Fprintf(out, "  keep:   %s, away from all hosts; it enrols clients\n",
		filepath.Join(o.out, bundle.AdminDir, bundle.AdminKeyFile))
	fmt.Fprintf(out, "  watch:  bfsd status --group %s\n", filepath.Join(o.out, bundle.GroupFile))
	if len(o.hosts) > 0 && !o.network && n > 1 {
		fmt.Fprintln(out, "          admin addresses listen on each host's loopback (admin_listen in "+
			"replica.toml): ask from there, or through a tunnel")
	}
}

// sizeNote says what a group gains or fails to gain by having more than 3f+1 hosts, "" if
// it has not.
func sizeNote(n pbft.GroupSize) string {
	least := 3*n.Faulty() + 1
	switch {
	case n.Away() > 0:
		return fmt.Sprintf("%d hosts survive %d faulty, as %d do, also while %d more is away for maintenance",
			n, n.Faulty(), least, n.Away())
	case int(n) > least:
		return fmt.Sprintf("%d hosts survive %d faulty, as %d do; %d would let one more be away for maintenance",
			n, n.Faulty(), least, n+1)
	}
	return ""
}
