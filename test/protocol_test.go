package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// families are the rules of the specification that this project was built from: the last number of each, from 1 on,
// and those that have another name.
var (
	families = map[string]int{
		"R-MOD": 12, "R-CRY": 8, "R-MSG": 4, "R-REQ": 7, "R-NRM": 10, "R-CLI": 8, "R-OPT-TE": 6, "R-OPT-RO": 6, "R-OPT-BA": 1,
		"R-OPT-BR": 4, "R-OPT-ND": 4, "R-OPT-IX": 9, "R-GC": 7, "R-RTX": 7, "R-VC": 37, "R-VT": 10, "R-PK": 4, "R-CK": 14,
		"R-ST": 17, "R-SC": 6, "R-API": 6, "R-OUR": 22, "R-HD": 44, "R-BFS": 17, "R-PR": 29,
	}
	otherRules = []string{"R-NRM-0", "R-NRM-0a", "R-OPT-DR", "R-OPT-PC", "R-VC-24a", "R-VC-24b"}
)

var (
	ruleRange = regexp.MustCompile(`(R-[A-Z]+(?:-[A-Z]+)*)-(\d+)([a-z]?)(?:\.\.(\d+))?`)
	ruleName  = regexp.MustCompile(`R-OPT-(?:DR|PC)`)
	quoted    = regexp.MustCompile("`([^`]+)`")
	goName    = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$`)
)

func protocolPage(t *testing.T) string {
	b, err := os.ReadFile("../docs/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// rulesIn is every rule that a text names, by itself or within a range.
func rulesIn(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range ruleRange.FindAllStringSubmatch(text, -1) {
		first, _ := strconv.Atoi(m[2])
		last, err := strconv.Atoi(m[4])
		if err != nil {
			last = first
		}
		for n := first; n <= last; n++ {
			all[m[1]+"-"+strconv.Itoa(n)+m[3]] = true
		}
	}
	for _, m := range ruleName.FindAllString(text, -1) {
		all[m] = true
	}
	return all
}

// Every rule has its place in docs/PROTOCOL.md, whether it is followed or not, and comments speak of no other.
func TestEveryRuleHasItsPlace(t *testing.T) {
	listed := rulesIn(protocolPage(t))
	known := map[string]bool{}
	for _, rule := range otherRules {
		known[rule] = true
	}
	for family, last := range families {
		for n := 1; n <= last; n++ {
			known[family+"-"+strconv.Itoa(n)] = true
		}
	}
	for rule := range known {
		if !listed[rule] {
			t.Errorf("docs/PROTOCOL.md does not say where %s is", rule)
		}
	}
	for rule := range listed {
		if !known[rule] {
			t.Errorf("docs/PROTOCOL.md speaks of %s, which no specification has", rule)
		}
	}
	for _, room := range rooms(t) {
		for name, source := range sources(t, filepath.Join("..", room)) {
			for rule := range rulesIn(source) {
				if !known[rule] && room != "test" {
					t.Errorf("%s speaks of %s, which docs/PROTOCOL.md does not have", name, rule)
				}
			}
		}
	}
}

// sources are the Go files of a directory.
func sources(t *testing.T, directory string) map[string]string {
	all := map[string]string{}
	files, err := filepath.Glob(filepath.Join(directory, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(b)
	}
	return all
}

// homes are where the names in docs/PROTOCOL.md are looked for.
var homes = []string{"..", "../pkg", "../pkg/pbft", "../pkg/pbft/internal"}

// What docs/PROTOCOL.md names is there: files, and in a package functions, types, fields and constants. A name that does not
// begin with a package is one of pkg/pbft, or of the core.
func TestProtocolNamesWhatThereIs(t *testing.T) {
	declared := map[string]map[string]bool{}
	for _, m := range quoted.FindAllStringSubmatch(protocolPage(t), -1) {
		name := m[1]
		switch {
		case strings.Contains(name, "/") || strings.HasSuffix(name, ".go"):
			if !exists(name) {
				t.Errorf("docs/PROTOCOL.md names the file %s, which is not there", name)
			}
		case goName.MatchString(name):
			parts := strings.Split(name, ".")
			rooms := []string{"pbft", "core"}
			if exists(parts[0]) {
				rooms, parts = parts[:1], parts[1:]
			}
			found := false
			for _, room := range rooms {
				if declared[room] == nil {
					declared[room] = declarations(t, room)
				}
				all := true
				for _, part := range parts {
					all = all && declared[room][part]
				}
				found = found || all
			}
			if !found {
				t.Errorf("docs/PROTOCOL.md names %s, which is not there", name)
			}
		}
	}
}

func exists(name string) bool {
	for _, home := range homes {
		if _, err := os.Stat(filepath.Join(home, name)); err == nil {
			return true
		}
	}
	return false
}

// declarations are the names that a package gives to anything.
func declarations(t *testing.T, room string) map[string]bool {
	all := map[string]bool{}
	for _, home := range homes {
		for name, source := range sources(t, filepath.Join(home, room)) {
			file, err := parser.ParseFile(token.NewFileSet(), name, source, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					all[n.Name.Name] = true
				case *ast.TypeSpec:
					all[n.Name.Name] = true
				case *ast.ValueSpec:
					for _, x := range n.Names {
						all[x.Name] = true
					}
				case *ast.Field:
					for _, x := range n.Names {
						all[x.Name] = true
					}
				}
				return true
			})
		}
	}
	if len(all) == 0 {
		t.Errorf("docs/PROTOCOL.md names a package %s, which is not there", room)
	}
	return all
}
