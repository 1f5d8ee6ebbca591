// SPDX-License-Identifier: Apache-2.0

package test

import (
	"go/build"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// arrows says which rooms of this house a room may look into, tests aside. A room that is
// not named here fails the test: give it a place first. Prefixes end in /.
var arrows = map[string][]string{
	"pkg/fsmerkle":               {"pkg/internal/blockhash"},
	"pkg/internal/blockhash":     {},
	"pkg/internal/disk":          {},
	"pkg/internal/durable":       {},
	"pkg/internal/rawio":         {},
	"pkg/pbft":                   {"pkg/pbft/internal/", "pkg/internal/disk", "pkg/internal/durable"},
	"pkg/pbft/pbfttest":          {"pkg/pbft", "pkg/internal/blockhash", "pkg/pbft/internal/lies"},
	"pkg/pbft/internal/lies":     {"pkg/pbft/internal/message"},
	"pkg/pbft/internal/message":  {"pkg/internal/blockhash"},
	"pkg/pbft/internal/core":     {"pkg/pbft/internal/message"},
	"pkg/pbft/internal/client":   {"pkg/pbft/internal/message"},
	"pkg/pbft/internal/executor": {"pkg/pbft/internal/message", "pkg/pbft/internal/ledger"},
	"pkg/pbft/internal/fence":    {"pkg/internal/durable", "pkg/pbft/internal/message", "pkg/pbft/internal/store"},
	"pkg/pbft/internal/journal":  {"pkg/internal/disk", "pkg/pbft/internal/message"},
	"pkg/pbft/internal/image":    {"pkg/pbft/internal/message", "pkg/internal/disk"},
	"pkg/pbft/internal/archive":  {"pkg/pbft/internal/message", "pkg/pbft/internal/image"},
	"pkg/pbft/internal/ledger":   {"pkg/pbft/internal/message"},
	"pkg/pbft/internal/auth":     {"pkg/pbft/internal/message", "pkg/internal/durable"},
	"pkg/pbft/internal/signing": {"pkg/pbft/internal/auth", "pkg/pbft/internal/message", "pkg/pbft/internal/transport",
		"pkg/internal/disk", "pkg/internal/durable"},
	"pkg/pbft/internal/sparing": {"pkg/pbft/internal/core", "pkg/pbft/internal/message"},
	"pkg/pbft/internal/store": {"pkg/internal/disk", "pkg/pbft/internal/image", "pkg/pbft/internal/journal",
		"pkg/pbft/internal/message"},
	"pkg/pbft/internal/transport": {"pkg/internal/rawio"},
	"pkg/pbft/internal/wire": {"pkg/pbft/internal/auth", "pkg/pbft/internal/client", "pkg/pbft/internal/ledger",
		"pkg/pbft/internal/message", "pkg/pbft/internal/signing", "pkg/pbft/internal/transport"},
	"pkg/pbft/internal/sim": {"pkg/pbft", "pkg/pbft/internal/", "pkg/pbft/pbfttest", "pkg/internal/blockhash",
		"pkg/internal/disk"},
	"pkg/pbft/internal/sim/signed": {"pkg/pbft/internal/message"},
	"pkg/nfsstate":                 {"pkg/nfs3", "pkg/fsmerkle", "pkg/pbft"},
	"pkg/nfs3":                     {},
	"pkg/nfsstate/internal/model":  {"pkg/nfs3"},
	"pkg/relay":                    {"pkg/pbft", "pkg/nfs3", "pkg/internal/rawio", "pkg/internal/durable"},
	"pkg/bfs":                      {"pkg/pbft", "pkg/nfs3"},
	"pkg/bfs/gonfs":                {"pkg/bfs"},
	"cmd/bfsd":                     {"pkg/", "cmd/internal/"},
	"cmd/bfs-relay":                {"pkg/", "cmd/internal/"},
	"cmd/internal/":                {"pkg/", "cmd/internal/"},
	"test/":                        {"pkg/", "cmd/internal/", "test/"},
	"test":                         {"test/"},
}

// guests are the libraries that a package may use besides the standard library. Packages that are
// not named may use none.
var guests = map[string][]string{
	"pkg/fsmerkle":                {"golang.org/x/sys/unix"},
	"pkg/internal/disk":           {"golang.org/x/sys/unix"},
	"pkg/internal/rawio":          {"golang.org/x/sys/unix"},
	"pkg/pbft/internal/transport": {"golang.org/x/sys/unix"},
	"pkg/relay":                   {"golang.org/x/sys/unix"},
	"pkg/bfs":                     {"github.com/go-git/go-billy/v5", "golang.org/x/sys/unix"},
	"pkg/bfs/gonfs":               {"github.com/go-git/go-billy/v5", "github.com/willscott/go-nfs"},
	"cmd/":                        {""},
	"test/":                       {""},
}

// impure packages may not be imported by the core: it has no clock, socket, disk,
// goroutine or chance.
var impure = []string{"time", "os", "net", "sync", "math/rand", "math/rand/v2", "crypto/rand", "log",
	"log/slog", "io", "context"}

// The arrows between rooms point down.
func TestArrows(t *testing.T) {
	for _, room := range rooms(t) {
		p, err := build.ImportDir(filepath.Join("..", room), 0)
		if _, none := err.(*build.NoGoError); none {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		may, known := lookUp(arrows, room)
		if !known {
			t.Errorf("%s: a room without a place in the house: name it in arrows", room)
		}
		library, _ := lookUp(guests, room)
		for _, imported := range p.Imports {
			local, ours := strings.CutPrefix(imported, "bfs/")
			switch {
			case ours && !matches(may, local):
				t.Errorf("%s imports %s: no arrow points there", room, local)
			case !ours && strings.Contains(strings.Split(imported, "/")[0], ".") && !matches(library, imported):
				t.Errorf("%s imports %s: it is not among its guests", room, imported)
			case room == "pkg/pbft/internal/core" && slices.Contains(impure, imported):
				t.Errorf("%s imports %s: the core is arithmetic", room, imported)
			case room == "pkg/pbft/internal/client" && imported != "time" && slices.Contains(impure, imported):
				// The client's rule counts in time.Duration.
				t.Errorf("%s imports %s: the client's rule is arithmetic", room, imported)
			}
		}
	}
}

// A replica lies in the demonstration only: nothing but the hidden commands of that can
// have it lie.
func TestOnlyTheDemoLies(t *testing.T) {
	for _, room := range rooms(t) {
		if !strings.HasPrefix(room, "cmd") && !strings.HasPrefix(room, "pkg") || room == "pkg/pbft/pbfttest" {
			continue
		}
		files, err := filepath.Glob(filepath.Join("..", room, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tells := strings.Contains(string(text), "pbfttest.Lie(") || strings.Contains(string(text), "lies.Install(")
			if tells && !strings.HasSuffix(file, "_test.go") && filepath.Base(file) != "demo_liar.go" {
				t.Errorf("%s has replicas lie", file)
			}
		}
	}
}

// A file that is renamed without being on disk may be empty after a crash, under its new name. So
// only these rename: one for small files that are replaced, one for what init makes, which it
// syncs, and the files of journal and image, whose tests crash the disk.
var renamers = []string{"pkg/internal/durable", "cmd/internal/bundle", "pkg/internal/disk"}

func TestRenamesAreDurable(t *testing.T) {
	for _, room := range rooms(t) {
		if strings.HasPrefix(room, "test") || slices.Contains(renamers, room) {
			continue
		}
		files, err := filepath.Glob(filepath.Join("..", room, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(file, "_test.go") && strings.Contains(string(text), "os.Rename(") {
				t.Errorf("%s renames: durable.WriteFile also syncs", file)
			}
		}
	}
}

// license is the first line of every Go file: tools that collect licences read it.
const license = "// SPDX-License-Identifier: Apache-2.0\n"

func TestFilesNameTheirLicense(t *testing.T) {
	for _, room := range rooms(t) {
		files, err := filepath.Glob(filepath.Join("..", room, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if text, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), license) {
				t.Errorf("%s does not begin with %q (%v)", file, license, err)
			}
		}
	}
}

func rooms(t *testing.T) (all []string) {
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		base := path.Base(name)
		if base != ".." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "build" || base == "bin") {
			return fs.SkipDir
		}
		files, err := os.ReadDir(name)
		for _, f := range files {
			if strings.HasSuffix(f.Name(), ".go") {
				room, _ := filepath.Rel("..", name)
				all = append(all, filepath.ToSlash(room))
				break
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// lookUp finds a room by its name, else by the longest prefix that ends in /.
func lookUp(m map[string][]string, room string) (v []string, ok bool) {
	if v, ok = m[room]; ok {
		return v, true
	}
	best := ""
	for k := range m {
		if strings.HasSuffix(k, "/") && strings.HasPrefix(room, k) && len(k) > len(best) {
			best = k
		}
	}
	v, ok = m[best]
	return v, ok
}

func matches(may []string, imported string) bool {
	for _, m := range may {
		if m == imported || m == "" || strings.HasSuffix(m, "/") && strings.HasPrefix(imported, m) ||
			strings.HasPrefix(imported, m+"/") && strings.Contains(m, ".") {
			return true
		}
	}
	return false
}
