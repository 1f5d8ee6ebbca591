package hosts

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const deploy = "../../deploy"

// systemd finds nothing wrong with the units, apart from programs that are not installed here.
func TestUnitsAreWellFormed(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("NOT RUN: no systemd-analyze (Debian package systemd)")
	}
	dir := t.TempDir()
	for _, name := range []string{"bfsd@.service", "bfs-relay.service"} {
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
		if out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// unitCommand is the command line of a unit, on a machine whose /usr/local/bin is bin and whose /etc/bfs is etc.
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
