// SPDX-License-Identifier: Apache-2.0

package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	ruleRange = regexp.MustCompile(`(R-[A-Z]+(?:-[A-Z]+)*)-(\d+)([a-z]?)(?:\.\.(\d+))?`)
	ruleName  = regexp.MustCompile(`R-OPT-(?:DR|PC)`)
	sentence  = regexp.MustCompile(`(?m)^- \*\*(R-[A-Z]+(?:-[A-Z]+)*(?:-\d+[a-z]?)?)\*\* (\S.*)$`)
	quoted    = regexp.MustCompile("`([^`]+)`")
	fileName  = regexp.MustCompile(`^[\w.-]+(/[\w.*-]+)+$|^[\w-]+\.go$`)
	goName    = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$`)
)

func page(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tableRows returns the rows of all tables of a page, or of those below one heading.
func tableRows(page, heading string) (rows []string) {
	inside := heading == ""
	for _, line := range strings.Split(page, "\n") {
		if strings.HasPrefix(line, "#") && heading != "" {
			inside = line == heading
		}
		if inside && strings.HasPrefix(line, "|") {
			rows = append(rows, line)
		}
	}
	return rows
}

// rulesIn returns every rule that a text names, by itself or within a range.
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

// rulesExplained returns the rules that have a sentence in docs/RULES.md. A rule has one.
func rulesExplained(t *testing.T) map[string]bool {
	all := map[string]bool{}
	for _, m := range sentence.FindAllStringSubmatch(page(t, "docs/RULES.md"), -1) {
		if all[m[1]] {
			t.Errorf("docs/RULES.md explains %s twice", m[1])
		}
		all[m[1]] = true
	}
	if len(all) == 0 {
		t.Fatal("docs/RULES.md explains no rule")
	}
	return all
}

// citations returns the rules that the tree's Go files and pages name, each with one file
// that names it. It leaves out docs/RULES.md, which explains the rules.
func citations(t *testing.T) map[string]string {
	all := map[string]string{}
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if base != ".." && (strings.HasPrefix(base, ".") || base == "build" || base == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if base == "RULES.md" || !strings.HasSuffix(base, ".go") && !strings.HasSuffix(base, ".md") {
			return nil
		}
		text, err := os.ReadFile(name)
		for rule := range rulesIn(string(text)) {
			all[rule] = name
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// docs/RULES.md explains each rule that code or docs cite, and no other.
func TestEveryCitedRuleIsExplained(t *testing.T) {
	explained, cited := rulesExplained(t), citations(t)
	for rule, name := range cited {
		if !explained[rule] {
			t.Errorf("%s cites %s, which docs/RULES.md does not explain: add a sentence", name, rule)
		}
	}
	for rule := range explained {
		if cited[rule] == "" {
			t.Errorf("docs/RULES.md explains %s, which neither code nor docs cite", rule)
		}
	}
}

// Every rule has a place in the tables of docs/PROTOCOL.md, whether it is followed or not.
func TestEveryRuleHasItsPlace(t *testing.T) {
	placed := rulesIn(strings.Join(tableRows(page(t, "docs/PROTOCOL.md"), ""), "\n"))
	for rule := range rulesExplained(t) {
		if !placed[rule] {
			t.Errorf("no table of docs/PROTOCOL.md says where %s is", rule)
		}
	}
}

// Every message type is in the message table of docs/PROTOCOL.md under its name on paper, and every
// name in capitals there is a message type.
func TestEveryMessageIsInTheTable(t *testing.T) {
	types := messageNames(t)
	var listed []string
	for _, row := range tableRows(page(t, "docs/PROTOCOL.md"), "## Messages") {
		for _, name := range strings.Split(strings.Split(row, "|")[1], ",") {
			listed = append(listed, strings.TrimSpace(name))
		}
	}
	for _, name := range types {
		if !slices.Contains(listed, name) {
			t.Errorf("the message table of docs/PROTOCOL.md lacks %s", name)
		}
	}
	for _, name := range listed {
		isCapital := name != "" && name == strings.ToUpper(name) && !strings.Contains(name, "---")
		if isCapital && !slices.Contains(types, name) {
			t.Errorf("the message table of docs/PROTOCOL.md has %s, which is no message", name)
		}
	}
}

// messageNames returns what message.Type.String calls each type. It holds the strings of that
// method against the constants, so that a type without a name is noticed.
func messageNames(t *testing.T) (names []string) {
	const name = "../pkg/pbft/internal/message/message.go"
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := 0
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			if of, ok := n.Type.(*ast.Ident); ok && of.Name == "Type" {
				constants += len(n.Names)
			}
		case *ast.FuncDecl:
			if receiver(n) != "Type" || n.Name.Name != "String" {
				return false
			}
		case *ast.CompositeLit:
			for _, e := range n.Elts {
				if s, err := strconv.Unquote(e.(*ast.BasicLit).Value); err == nil && s != "" {
					names = append(names, s)
				}
			}
		}
		return true
	})
	if constants == 0 || len(names) != constants {
		t.Fatalf("%s: got %d names of %d message types", name, len(names), constants)
	}
	return names
}

// homes are where the names in docs/PROTOCOL.md are looked for.
var homes = []string{"..", "../pkg", "../pkg/pbft", "../pkg/pbft/internal"}

// Every file, package, function, method, type, field and constant that docs/PROTOCOL.md names is
// there. In a table every backquoted word is such a name; elsewhere only words that look like a
// file or have a dot.
func TestProtocolNamesWhatThereIs(t *testing.T) {
	text := page(t, "docs/PROTOCOL.md")
	inTables := strings.Join(tableRows(text, ""), "\n")
	packages := map[string]*declared{}
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		name := m[1]
		inTable := strings.Contains(inTables, m[0])
		switch {
		case fileName.MatchString(name):
			if !exists(name) {
				t.Errorf("docs/PROTOCOL.md names the file %s, which is not there", name)
			}
		case goName.MatchString(name) && (inTable || strings.Contains(name, ".")):
			if !isDeclared(t, packages, name) {
				t.Errorf("docs/PROTOCOL.md names %s, which is not there", name)
			}
		case inTable:
			t.Errorf("a table of docs/PROTOCOL.md has `%s`, which is no name", name)
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

// isDeclared looks a name up: package, package.Name, package.Type.Name or Type.Name.
// Type.Name is a type of pkg/pbft or of the core. package.name may also be a method or a
// field of any type of the package, as in core.onPrepare.
func isDeclared(t *testing.T, packages map[string]*declared, name string) bool {
	parts := strings.Split(name, ".")
	candidates := []string{"pbft", "core"}
	if exists(parts[0]) {
		candidates, parts = parts[:1], parts[1:]
	} else if len(parts) != 2 {
		return false
	}
	for _, pkg := range candidates {
		if packages[pkg] == nil {
			packages[pkg] = declarations(t, pkg)
		}
		if packages[pkg].has(parts) {
			return true
		}
	}
	return false
}

// declared returns the names that a package declares, tests aside.
type declared struct {
	top     map[string]bool            // functions, types, variables and constants of the package
	members map[string]map[string]bool // by type: its methods and fields
}

func (d *declared) has(parts []string) bool {
	switch len(parts) {
	case 0:
		return true
	case 1:
		for _, members := range d.members {
			if members[parts[0]] {
				return true
			}
		}
		return d.top[parts[0]]
	case 2:
		return d.top[parts[0]] && d.members[parts[0]][parts[1]]
	}
	return false
}

func (d *declared) addMember(of, name string) {
	if d.members[of] == nil {
		d.members[of] = map[string]bool{}
	}
	d.members[of][name] = true
}

func declarations(t *testing.T, pkg string) *declared {
	all := &declared{top: map[string]bool{}, members: map[string]map[string]bool{}}
	for _, home := range homes {
		files, err := filepath.Glob(filepath.Join(home, pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				all.add(d)
			}
		}
	}
	if len(all.top) == 0 {
		t.Errorf("docs/PROTOCOL.md names a package %s, which is not there", pkg)
	}
	return all
}

func (d *declared) add(of ast.Decl) {
	switch of := of.(type) {
	case *ast.FuncDecl:
		if of.Recv != nil {
			d.addMember(receiver(of), of.Name.Name)
		} else {
			d.top[of.Name.Name] = true
		}
	case *ast.GenDecl:
		for _, spec := range of.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				d.addType(spec)
			case *ast.ValueSpec:
				for _, x := range spec.Names {
					d.top[x.Name] = true
				}
			}
		}
	}
}

func (d *declared) addType(spec *ast.TypeSpec) {
	d.top[spec.Name.Name] = true
	var fields *ast.FieldList
	switch of := spec.Type.(type) {
	case *ast.StructType:
		fields = of.Fields
	case *ast.InterfaceType:
		fields = of.Methods
	default:
		return
	}
	for _, f := range fields.List {
		for _, x := range f.Names {
			d.addMember(spec.Name.Name, x.Name)
		}
	}
}

// receiver returns the name of the type that a method is of, or nothing for a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	of := f.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	if generic, ok := of.(*ast.IndexExpr); ok {
		of = generic.X
	}
	if name, ok := of.(*ast.Ident); ok {
		return name.Name
	}
	return ""
}
