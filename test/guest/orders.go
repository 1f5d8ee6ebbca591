// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"bfs/test/patience"
)

// writeOrders writes the files that init.sh reads into the io directory: conf, modules,
// mounts, job.
func (g *Guest) writeOrders() error {
	if err := os.Mkdir(g.io(), 0o755); err != nil {
		return err
	}
	if err := g.prepareOut(); err != nil {
		return err
	}
	if len(g.opts.Bare) > 0 {
		return g.writeBareOrders()
	}
	modules, err := moduleFiles(g.modules())
	if err != nil {
		return err
	}
	job, err := g.job()
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"init.sh": string(initScript),
		"lib.sh":  string(libScript),
		"conf":    g.conf(),
		"modules": modules,
		"mounts":  g.mountTable(),
		"job":     job,
		"output":  "",
	} {
		if err := os.WriteFile(filepath.Join(g.io(), name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (g *Guest) modules() []string {
	if g.opts.NoNFS {
		return append([]string{"overlay"}, g.opts.Modules...)
	}
	return append([]string{"overlay", "nfsv3"}, g.opts.Modules...)
}

func (g *Guest) prepareOut() error {
	if g.opts.Out == "" {
		g.opts.Out = filepath.Join(g.dir, "out")
	}
	if err := os.MkdirAll(g.opts.Out, 0o755); err != nil {
		return err
	}
	var err error
	g.opts.Out, err = filepath.Abs(g.opts.Out)
	return err
}

func (g *Guest) conf() string {
	own := 0
	if g.opts.OwnLoopback {
		own = 1
	}
	return fmt.Sprintf("export GUEST_HOST=%s GUEST_ASK=%d GUEST_ADDR=%s GUEST_PATIENCE=%d\nMTU=%d "+
		"OWN_LOOPBACK=%d WORKDIR=%s\n", g.link.hostAddr, g.asks.port(), g.link.guestAddr,
		int(math.Ceil(patience.Factor())), g.opts.MTU, own, quote(g.opts.Dir))
}

func (g *Guest) mountPoint(i int) string {
	if i == 0 {
		return "/mnt/nfs"
	}
	return fmt.Sprintf("/mnt/nfs%d", i)
}

func (g *Guest) mountTable() string {
	var b strings.Builder
	for i, m := range g.opts.Mounts {
		host := m.Host
		if host == "" {
			host = "127.0.0.1"
		}
		if m.MountPort == 0 {
			m.MountPort = m.Port
		}
		options := fmt.Sprintf("vers=3,proto=tcp,mountproto=tcp,nolock,addr=%s,mountaddr=%s,port=%d,mountport=%d",
			host, host, m.Port, m.MountPort)
		if m.Options != "" {
			options += "," + m.Options
		}
		fmt.Fprintf(&b, "%s %s:%s %s\n", g.mountPoint(i), host, m.Export, options)
	}
	return b.String()
}

// hidden lists the directories of this machine that a guest does not see, because it has its own.
var hidden = []string{"/mnt/", "/run/", "/dev/", "/var/tmp/", "/proc/", "/sys/"}

func (g *Guest) job() (string, error) {
	var b strings.Builder
	for _, kv := range g.opts.Env {
		k, v, _ := strings.Cut(kv, "=")
		fmt.Fprintf(&b, "export %s=%s\n", k, quote(v))
	}
	for i := range g.opts.Mounts {
		if i == 0 {
			fmt.Fprintf(&b, "export NFS=%s\n", g.mountPoint(i))
		} else {
			fmt.Fprintf(&b, "export NFS%d=%s\n", i, g.mountPoint(i))
		}
	}
	if g.opts.Script == "" {
		return b.String() + g.opts.Command + "\n", nil
	}
	script, err := filepath.Abs(g.opts.Script)
	if err != nil {
		return "", err
	}
	for _, dir := range hidden {
		if strings.HasPrefix(script, dir) {
			return "", fmt.Errorf("script %s: the guest has a %s of its own", script, dir)
		}
	}
	b.WriteString("exec bash " + quote(script))
	for _, a := range g.opts.Args {
		b.WriteString(" " + quote(a))
	}
	return b.String() + "\n", nil
}

// quote returns s as one word of the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// moduleFiles lists the files of kernel modules and of all they depend on, dependencies
// first, one a line. Debian's package has no modules.dep. A module without a file is
// built in, or missing: then mounting fails.
func moduleFiles(names []string) (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/uml/modules/*")
	if len(dirs) == 0 {
		return "", fmt.Errorf("no kernel modules in /usr/lib/uml/modules (Debian package user-mode-linux)")
	}
	files := map[string]string{}
	err := filepath.WalkDir(dirs[len(dirs)-1], func(path string, d os.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok {
			files[moduleName(name)] = path
		}
		return err
	})
	if err != nil {
		return "", err
	}
	var order []string
	seen := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		name = moduleName(name)
		if seen[name] || files[name] == "" {
			return nil
		}
		seen[name] = true
		depends, err := exec.Command("modinfo", "-F", "depends", files[name]).Output()
		if err != nil {
			return fmt.Errorf("modinfo %s: %w", files[name], err)
		}
		for _, d := range strings.FieldsFunc(string(depends), func(r rune) bool { return r == ',' || r == '\n' }) {
			if err := add(d); err != nil {
				return err
			}
		}
		order = append(order, files[name])
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return "", err
		}
	}
	return strings.Join(order, "\n") + "\n", nil
}

func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }
