// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"bfs/cmd/internal/trust"
)

// maxFile bounds a configuration file: a group of 32 members takes about 8 KiB.
const maxFile = 1 << 20

// An Error says where a file is wrong and how.
type Error struct {
	File    string
	Line    int    // from 1; 1 also for a key that the file lacks
	Key     string // dotted, with indices from 0: "members[2].key"
	Problem string
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d", e.File, max(e.Line, 1))
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	return b.String() + ": " + e.Problem
}

// A source is a file that was decoded, and the line of each key in it.
type source struct {
	file  string
	lines map[string]int
}

// errorAt says that key is wrong.
func (s *source) errorAt(key, format string, args ...any) error {
	return &Error{File: s.file, Line: s.line(key), Key: key, Problem: fmt.Sprintf(format, args...)}
}

// line is where key stands, or the last table of that name, or the nearest table around it.
func (s *source) line(key string) int {
	if line, ok := s.lines[key]; ok {
		return line
	}
	last := 0
	for k, line := range s.lines {
		if strings.HasPrefix(k, key+"[") {
			last = max(last, line)
		}
	}
	for key = parentKey(key); last == 0 && key != ""; key = parentKey(key) {
		last = s.lines[key]
	}
	return max(last, 1)
}

func (s *source) has(key string) bool {
	_, ok := s.lines[key]
	return ok
}

func parentKey(k string) string { return k[:max(0, strings.LastIndexAny(k, ".["))] }

// load decodes file into into, which must be a pointer to a struct with toml tags.
func load(file string, into any) (*source, error) {
	text, err := readBounded(file)
	if err != nil {
		return nil, err
	}
	return decode(file, text, into)
}

// decode decodes the text of a file that errors are to name.
func decode(file string, text []byte, into any) (*source, error) {
	s := &source{file: file}
	var err error
	if s.lines, err = keyLines(text); err != nil {
		return nil, s.syntax(err, text)
	}
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return nil, s.syntax(err, text)
	}
	return s, nil
}

func readBounded(file string) ([]byte, error) {
	f, err := trust.OpenConfig(file)
	if err != nil {
		return nil, err // names the file already
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, &Error{File: file, Problem: fmt.Sprintf("longer than %d bytes: this is no configuration file",
			maxFile)}
	}
	return text, nil
}

// syntax turns an error of the TOML library into an Error.
func (s *source) syntax(err error, text []byte) error {
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) && len(missing.Errors) > 0 {
		first := &missing.Errors[0]
		line, _ := first.Position()
		return &Error{File: s.file, Line: line, Key: s.keyAt(line, first.Key()),
			Problem: "unknown key (see --help for the keys of this file)"}
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, _ := decode.Position()
		return &Error{File: s.file, Line: line, Key: s.keyAt(line, decode.Key()), Problem: cleanProblem(decode.Error())}
	}
	var parse *unstable.ParserError
	if errors.As(err, &parse) {
		return &Error{File: s.file, Line: lineOf(text, parse.Highlight), Problem: parse.Message}
	}
	return &Error{File: s.file, Problem: cleanProblem(err.Error())}
}

// keyAt returns the key that stands on the line, because the library does not always know
// the key and never its index.
func (s *source) keyAt(line int, key toml.Key) string {
	best := strings.Join(key, ".")
	for k, l := range s.lines {
		if l == line && !strings.HasSuffix(k, "]") && (best == "" || strings.HasSuffix(k, "."+key[len(key)-1])) {
			best = k
		}
	}
	return best
}

var (
	goWords = regexp.MustCompile(`^cannot decode TOML ([a-z ]+) into .* of type (\S+)$`)
	goTypes = strings.NewReplacer("uint64", "number", "uint32", "number", "int", "number", "bool", "true or false")
)

// cleanProblem says it in the file's words, not in Go's.
func cleanProblem(s string) string {
	s = strings.TrimPrefix(strings.ReplaceAll(s, "\n", " "), "toml: ")
	if m := goWords.FindStringSubmatch(s); m != nil {
		return "got a value of type " + m[1] + ", want " + goTypes.Replace(m[2])
	}
	return s
}

// lineOf finds the line of a part of text.
func lineOf(text, part []byte) int {
	if len(part) == 0 {
		return 1 + bytes.Count(text, []byte("\n"))
	}
	p := unstable.Parser{}
	p.Reset(text)
	return p.Shape(p.Range(part)).Start.Line
}

// keyLines walks the document and notes where each key stands.
func keyLines(text []byte) (map[string]int, error) {
	lines := make(map[string]int)
	tables := make(map[string]int) // how many [[name]] were seen
	table := ""
	p := unstable.Parser{}
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			name, line := dotted(&p, e.Key(), "")
			if e.Kind == unstable.ArrayTable {
				tables[name]++
				name += "[" + strconv.Itoa(tables[name]-1) + "]"
			}
			table = name
			lines[table] = line
		case unstable.KeyValue:
			name, line := dotted(&p, e.Key(), table)
			lines[name] = line
		}
	}
	return lines, p.Error()
}

// dotted joins a key's parts behind the table it stands in, and finds its line.
func dotted(p *unstable.Parser, key unstable.Iterator, table string) (name string, line int) {
	name = table
	for key.Next() {
		n := key.Node()
		if line == 0 {
			line = p.Shape(n.Raw).Start.Line
		}
		if name != "" {
			name += "."
		}
		name += string(n.Data)
	}
	return name, line
}
