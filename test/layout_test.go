// SPDX-License-Identifier: Apache-2.0

package test

import (
	"go/build"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// arrows lists the packages that each package may import, tests aside. A package that is
// not listed fails the test: add it here first. Prefixes end in /.
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
	"pkg/pbft/internal/fence": {"pkg/internal/disk", "pkg/internal/durable", "pkg/pbft/internal/message",
		"pkg/pbft/internal/store"},
	"pkg/pbft/internal/journal": {"pkg/internal/disk", "pkg/pbft/internal/message"},
	"pkg/pbft/internal/image":   {"pkg/pbft/internal/message", "pkg/internal/disk"},
	"pkg/pbft/internal/archive": {"pkg/pbft/internal/message", "pkg/pbft/internal/image"},
	"pkg/pbft/internal/ledger":  {"pkg/pbft/internal/message"},
	"pkg/pbft/internal/auth":    {"pkg/pbft/internal/message", "pkg/internal/durable"},
	"pkg/pbft/internal/signing": {"pkg/pbft/internal/auth", "pkg/pbft/internal/message", "pkg/pbft/internal/transport",
		"pkg/internal/disk", "pkg/internal/durable"},
	"pkg/pbft/internal/sparing": {"pkg/pbft/internal/core", "pkg/pbft/internal/message"},
	"pkg/pbft/internal/store": {"pkg/internal/disk", "pkg/pbft/internal/image", "pkg/pbft/internal/journal",
		"pkg/pbft/internal/message"},
	"pkg/pbft/internal/trace":     {"pkg/pbft/internal/message"},
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

// libraries are the modules that a package may use besides the standard library. Packages
// that are not listed may use none.
var libraries = map[string][]string{
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

// impure lists the packages of the standard library that the core and the client's rule may not
// import: they have no socket, disk, goroutine or randomness. Both count in time.Duration, and are
// told the time.
var impure = []string{"os", "net", "sync", "math/rand", "math/rand/v2", "crypto/rand", "log",
	"log/slog", "io", "context"}

// Packages import only the packages below them.
func TestArrows(t *testing.T) {
	for _, pkg := range packages(t) {
		p, err := build.ImportDir(filepath.Join("..", pkg), 0)
		if _, none := err.(*build.NoGoError); none {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		may, known := lookUp(arrows, pkg)
		if !known {
			t.Errorf("%s: not in arrows: add it there, with the packages that it may import", pkg)
		}
		library, _ := lookUp(libraries, pkg)
		for _, imported := range p.Imports {
			local, ours := strings.CutPrefix(imported, "bfs/")
			switch {
			case ours && !matches(may, local):
				t.Errorf("%s imports %s: arrows does not allow that; turn the import round, or change arrows if "+
					"the design changes", pkg, local)
			case !ours && strings.Contains(strings.Split(imported, "/")[0], ".") && !matches(library, imported):
				t.Errorf("%s imports %s: not in libraries; do without the module, or add it there", pkg, imported)
			case pkg == "pkg/pbft/internal/core" && slices.Contains(impure, imported):
				t.Errorf("%s imports %s: the core may only compute; pass the value to it, or return an effect",
					pkg, imported)
			case pkg == "pkg/pbft/internal/client" && slices.Contains(impure, imported):
				t.Errorf("%s imports %s: the client's rule may only compute; pass the value to it",
					pkg, imported)
			}
		}
	}
}

// The core and the client's rule read no clock and wait for none.
func TestComputeWithoutClock(t *testing.T) {
	clock := regexp.MustCompile(`\btime\.(Now|Since|Until|After|AfterFunc|Sleep|Tick|NewTimer|NewTicker)\(`)
	for _, pkg := range []string{"core", "client"} {
		files, err := filepath.Glob(filepath.Join("../pkg/pbft/internal", pkg, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s has %d files, error %v", pkg, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if call := clock.Find(text); call != nil && !strings.HasSuffix(file, "_test.go") {
				t.Errorf("%s calls %s: pass the time to it", file, call)
			}
		}
	}
}

// liars are the files whose hidden commands have replicas and clients misbehave.
var liars = []string{"../cmd/bfsd/demo_liar.go", "../cmd/bfsd/bench_offend.go", "../cmd/internal/bench/attacks.go"}

// A replica or client misbehaves in demonstrations and measurements only: no other commands than
// their hidden ones can make it.
func TestOnlyHiddenCommandsLie(t *testing.T) {
	tells := regexp.MustCompile(`pbfttest\.(Lie|Offend)\(|lies\.Install\(`)
	for _, pkg := range packages(t) {
		if !strings.HasPrefix(pkg, "cmd") && !strings.HasPrefix(pkg, "pkg") || pkg == "pkg/pbft/pbfttest" {
			continue
		}
		files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			may := strings.HasSuffix(file, "_test.go") || slices.Contains(liars, filepath.ToSlash(file))
			if tells.Match(text) && !may {
				t.Errorf("%s has replicas or clients misbehave", file)
			}
		}
	}
}

// A file that is renamed before it is on disk may be empty after a crash, under its new
// name. So only these packages rename: one that replaces small files, one for the files that
// init makes and syncs, and the one for journal and image, whose tests crash the disk.
var renamers = []string{"pkg/internal/durable", "cmd/internal/bundle", "pkg/internal/disk"}

func TestRenamesAreDurable(t *testing.T) {
	for _, pkg := range packages(t) {
		if strings.HasPrefix(pkg, "test") || slices.Contains(renamers, pkg) {
			continue
		}
		files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
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
	for _, pkg := range packages(t) {
		files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
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

func packages(t *testing.T) (all []string) {
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
				pkg, _ := filepath.Rel("..", name)
				all = append(all, filepath.ToSlash(pkg))
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

// lookUp finds a package by its name, or else by the longest prefix that ends in /.
func lookUp(m map[string][]string, pkg string) (v []string, ok bool) {
	if v, ok = m[pkg]; ok {
		return v, true
	}
	best := ""
	for k := range m {
		if strings.HasSuffix(k, "/") && strings.HasPrefix(pkg, k) && len(k) > len(best) {
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
