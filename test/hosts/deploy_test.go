// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bfs/test/cluster"
)

const deploy = "../../deploy"

// systemd-analyze finds nothing wrong with the units, apart from programs that are not
// installed on this machine.
func TestUnitsAreWellFormed(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("NOT RUN: no systemd-analyze (Debian package systemd)")
	}
	dir := t.TempDir()
	for _, name := range []string{"bfsd@.service", "bfsd-keeper@.service", "bfs-relay.service"} {
		text, err := os.ReadFile(filepath.Join(deploy, name))
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("/usr/local/bin/bfsd "), []byte("/bin/true "))
		text = bytes.ReplaceAll(text, []byte("/usr/local/bin/bfs-relay "), []byte("/bin/true "))
		file := filepath.Join(dir, strings.Replace(name, "@", "@host0", 1))
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// unitCommand returns the command line of a unit, with bin for /usr/local/bin and etc for
// /etc/bfs.
func unitCommand(t *testing.T, unit, instance, bin, etc string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join(deploy, unit))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if line, ok := strings.CutPrefix(lines.Text(), "ExecStart="); ok {
			line = strings.NewReplacer("%i", instance, "/usr/local/bin", bin, "/etc/bfs", etc).Replace(line)
			return strings.Fields(line)
		}
	}
	t.Fatalf("%s has no ExecStart", unit)
	return nil
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A container is a service of compose.yaml.
type container struct{ command, bundle, address string }

func containers(text string) map[string]container {
	all := map[string]container{}
	first := func(text, pattern string) string {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(text); m != nil {
			return m[1]
		}
		return ""
	}
	common := first(text, `(?s)x-replica: &replica\n(.*?)\n\n`)
	_, services, _ := strings.Cut(text, "\nservices:\n")
	services, _, _ = strings.Cut(services, "\n\n")
	for _, m := range regexp.MustCompile(`(?m)^  (\w+):\n((?:    .*\n?)+)`).FindAllStringSubmatch(services, -1) {
		said := strings.Replace(m[2], "<<: *replica", common, 1)
		all[m[1]] = container{
			command: first(said, `command: \[(\w+), /bundle\]`),
			bundle:  first(said, `volumes: \["\./([^:]+):/bundle"\]`),
			address: first(said, `ipv4_address: ([\d.]+)`),
		}
	}
	return all
}

// The commands at the head of compose.yaml make the bundles of its containers, for the
// containers' addresses. The programs accept the command lines of the containers, and the
// kernel mounts the relay's export.
func TestCompose(t *testing.T) {
	bin, err := cluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(bin, filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "deploy"), 0o755); err != nil {
		t.Fatal(err)
	}
	head, file, _ := strings.Cut(read(t, deploy, "compose.yaml"), "\nname: bfs\n")
	image, services := read(t, deploy, "Dockerfile"), containers(file)
	started := map[string]bool{}
	mounted := ""
	for _, m := range regexp.MustCompile(`(?m)^#   (\S.*?)(?: +#.*)?$`).FindAllStringSubmatch(head, -1) {
		switch words := strings.Fields(m[1]); words[0] {
		case "make":
			if !strings.Contains(read(t, "../../Makefile"), "\n"+words[1]+":") {
				t.Errorf("%s: make has no such verb", m[1])
			}
		case "chown":
			if !strings.Contains(image, "--uid "+words[2]+" bfs\n") {
				t.Errorf("%s: the image's user is another", m[1])
			}
		case "docker":
			for _, s := range words[1:] {
				if _, ok := services[s]; ok {
					started[s] = true
				}
			}
		case "mount":
			mounted = m[1]
		default:
			c := exec.Command(filepath.Join(dir, words[0]), words[1:]...)
			c.Dir = dir
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", m[1], err, out)
			}
		}
	}
	if len(services) != 5 || len(started) != 5 {
		t.Errorf("of %v, the commands start %v; want four replicas and a relay", services, started)
	}
	for _, m := range regexp.MustCompile(`(?m)^COPY (.*) \S+$`).FindAllStringSubmatch(image, -1) {
		for _, source := range strings.Fields(m[1]) {
			root := dir
			if strings.HasPrefix(source, "deploy/") {
				root = "../.."
			}
			if _, err := os.Stat(filepath.Join(root, source)); err != nil {
				t.Errorf("the image is made of what is not there: %v", err)
			}
		}
	}
	for name, c := range services {
		bundle := filepath.Join(dir, "deploy", c.bundle)
		if c.command == "replica" {
			toml := read(t, bundle, "replica.toml")
			want := "replica = " + strings.TrimPrefix(name, "replica")
			if !strings.Contains(toml, want+"\n") || !strings.Contains(toml, " on "+c.address+":") {
				t.Errorf("%s has address %q and the bundle of another:\n%s", name, c.address, toml)
			}
		}
		// The programs that the script starts are replaced: they check the configuration
		// file and print their help.
		tell := t.TempDir()
		for _, program := range []string{"bfsd", "bfs-relay"} {
			script := "#!/bin/sh\n[ -r \"$3\" ] && exec " + filepath.Join(bin, program) + " \"$@\" --help\n"
			if err := os.WriteFile(filepath.Join(tell, program), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		start := exec.Command(filepath.Join(deploy, "start"), c.command, bundle)
		start.Env = append(os.Environ(), "BFS_BIN="+tell)
		if out, err := start.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %v\n%s", name, start.Args, err, out)
		}
	}
	port := regexp.MustCompile(`,port=(\d+),mountport=(\d+) `).FindStringSubmatch(mounted)
	if port == nil || port[1] != port[2] || !strings.Contains(read(t, dir, "deploy", services["relay"].bundle,
		"relay.toml"), "listen = \"127.0.0.1:"+port[1]+"\"\n") {
		t.Errorf("%s: the relay listens elsewhere", mounted)
	}
}
