// SPDX-License-Identifier: Apache-2.0

// Command arrows counts the arrows among the files of a package. An arrow goes from file
// A to file B when A uses a name that B declares: a function, type, variable, constant,
// method or field. Files that reach one another form a circle.
//
//	go run ./test/arrows ./pkg/pbft ./pkg/pbft/internal/core       one line for each package
//	go run ./test/arrows -v ./pkg/pbft/internal/core               the circles, the large types and every arrow too
//
// Test files are not counted. Run it from the top of the repository, so that imports are found.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// The bounds above which a type is reported.
const (
	maxFields  = 24
	maxMethods = 40
)

var verbose = flag.Bool("v", false, "print the circles, the large types and the arrows of each package")

func main() {
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "arrows: name at least one package directory, for example ./pkg/pbft/internal/core")
		os.Exit(2)
	}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "source", nil)
	out := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(out, "package\tfiles\tarrows\tcircles\tfiles in circles\tstructs over %d "+
		"fields\ttypes over %d methods\n", maxFields, maxMethods)
	var details strings.Builder
	for _, directory := range flag.Args() {
		r, err := read(fset, imports, directory)
		if err != nil {
			fmt.Fprintf(os.Stderr, "arrows: %s: %v\n", directory, err)
			os.Exit(1)
		}
		r.row(out)
		r.detail(&details)
	}
	out.Flush()
	if *verbose {
		fmt.Print(details.String())
	}
}

// A report holds the figures of one package.
type report struct {
	directory string
	uses      map[string]map[string]bool // file → the other files whose identifiers it uses
	circles   [][]string
	structs   []large // with more than maxFields fields
	methods   []large // with more than maxMethods methods
}

// A large type has more fields or methods than it should.
type large struct {
	name  string
	count int
}

func (l large) String() string { return fmt.Sprintf("%s %d", l.name, l.count) }

func read(fset *token.FileSet, imports types.Importer, directory string) (*report, error) {
	files, err := parse(fset, directory)
	if err != nil {
		return nil, err
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: imports}
	p, err := config.Check(directory, fset, files, info)
	if err != nil {
		return nil, err
	}
	r := &report{directory: directory, uses: map[string]map[string]bool{}}
	for _, f := range files {
		r.uses[fileOf(fset, f.Pos())] = map[string]bool{}
	}
	for id, object := range info.Uses {
		r.use(fset, p, id, object)
	}
	r.circles = circles(r.uses)
	r.measure(p)
	return r, nil
}

// parse reads the files of a package that are built on this system, without its tests.
func parse(fset *token.FileSet, directory string) (files []*ast.File, err error) {
	p, err := build.ImportDir(directory, 0)
	if err != nil {
		return nil, err
	}
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(directory, name), nil, 0)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func fileOf(fset *token.FileSet, at token.Pos) string {
	return filepath.Base(fset.Position(at).Filename)
}

// use records one identifier if another file of the package declares it. Local variables and
// parameters never count.
func (r *report) use(fset *token.FileSet, p *types.Package, id *ast.Ident, object types.Object) {
	if object.Pkg() != p {
		return
	}
	from, to := fileOf(fset, id.Pos()), fileOf(fset, object.Pos())
	if from != to {
		r.uses[from][to] = true
	}
}

// measure finds the types that are too large.
func (r *report) measure(p *types.Package) {
	for _, name := range p.Scope().Names() {
		named, ok := p.Scope().Lookup(name).Type().(*types.Named)
		if _, isType := p.Scope().Lookup(name).(*types.TypeName); !ok || !isType {
			continue
		}
		if s, ok := named.Underlying().(*types.Struct); ok && s.NumFields() > maxFields {
			r.structs = append(r.structs, large{name, s.NumFields()})
		}
		if named.NumMethods() > maxMethods {
			r.methods = append(r.methods, large{name, named.NumMethods()})
		}
	}
}

// circles are the sets of files that reach one another, the largest first.
func circles(uses map[string]map[string]bool) (all [][]string) {
	reach := map[string]map[string]bool{}
	for from := range uses {
		reach[from] = map[string]bool{}
		next := []string{from}
		for len(next) > 0 {
			at := next[0]
			next = next[1:]
			for to := range uses[at] {
				if !reach[from][to] {
					reach[from][to] = true
					next = append(next, to)
				}
			}
		}
	}
	seen := map[string]bool{}
	for _, a := range slices.Sorted(maps.Keys(uses)) {
		if seen[a] || !reach[a][a] {
			continue
		}
		var circle []string
		for _, b := range slices.Sorted(maps.Keys(uses)) {
			if reach[a][b] && reach[b][a] {
				circle = append(circle, b)
				seen[b] = true
			}
		}
		all = append(all, circle)
	}
	slices.SortStableFunc(all, func(a, b []string) int { return cmp.Compare(len(b), len(a)) })
	return all
}

func (r *report) row(out *tabwriter.Writer) {
	arrows, inCircles := 0, 0
	for _, to := range r.uses {
		arrows += len(to)
	}
	for _, c := range r.circles {
		inCircles += len(c)
	}
	fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\t%s\t%s\n",
		r.directory, len(r.uses), arrows, len(r.circles), inCircles, list(r.structs), list(r.methods))
}

func list(all []large) string {
	if len(all) == 0 {
		return "none"
	}
	words := make([]string, len(all))
	for i, l := range all {
		words[i] = l.String()
	}
	return strings.Join(words, ", ")
}

func (r *report) detail(out *strings.Builder) {
	fmt.Fprintf(out, "\n%s\n", r.directory)
	for _, c := range r.circles {
		fmt.Fprintf(out, "  circle: %s\n", strings.Join(c, " "))
	}
	for _, from := range slices.Sorted(maps.Keys(r.uses)) {
		fmt.Fprintf(out, "  %s → %s\n", from, strings.Join(slices.Sorted(maps.Keys(r.uses[from])), " "))
	}
}
