// SPDX-License-Identifier: Apache-2.0

// Package admintest checks the pages that processes show on their admin addresses.
package admintest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A family is one metric of a page, with its lines.
type family struct {
	name, help, kind string
	samples          map[string]float64 // by name and labels
	order            []string
}

var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})? (\S+)$`)
	labelPair  = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)`)
)

// A page is being read.
type page struct {
	families map[string]*family
	current  *family
	problems []string
}

// Lint reads a page of metrics in Prometheus's text format and returns a list of its
// faults: lines that the format forbids, and those that Prometheus's own checks complain
// of. Each family needs a HELP and a TYPE before its samples, which stand together. No
// sample comes twice. A counter's name ends in _total and no other's does. A histogram's
// buckets rise and end at +Inf, whose value is the count.
func Lint(text string) []string {
	p := &page{families: map[string]*family{}}
	if text != "" && !strings.HasSuffix(text, "\n") {
		p.complain("the last line does not end")
	}
	for line := range strings.Lines(text) {
		p.line(strings.TrimSuffix(line, "\n"))
	}
	for _, name := range slices.Sorted(maps.Keys(p.families)) {
		p.check(p.families[name])
	}
	return p.problems
}

func (p *page) complain(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

func (p *page) line(line string) {
	switch {
	case strings.HasPrefix(line, "# HELP "):
		name, help, _ := strings.Cut(line[len("# HELP "):], " ")
		p.begin(name)
		if p.current.help != "" {
			p.complain("%s: a second HELP", name)
		}
		p.current.help = help
	case strings.HasPrefix(line, "# TYPE "):
		name, kind, _ := strings.Cut(line[len("# TYPE "):], " ")
		p.begin(name)
		if p.current.kind != "" {
			p.complain("%s: a second TYPE", name)
		}
		p.current.kind = kind
	case line == "" || line[0] == '#':
	default:
		p.sample(line)
	}
}

// begin makes name the family that lines are of. A family's lines stand together.
func (p *page) begin(name string) {
	if p.current != nil && p.current.name == name {
		if len(p.current.samples) > 0 {
			p.complain("%s: HELP or TYPE behind samples", name)
		}
		return
	}
	if p.families[name] != nil {
		p.complain("%s: its lines do not stand together", name)
	} else {
		p.families[name] = &family{name: name, samples: map[string]float64{}}
	}
	p.current = p.families[name]
}

func (p *page) sample(line string) {
	m := sampleLine.FindStringSubmatch(line)
	if m == nil {
		p.complain("no sample: %q", line)
		return
	}
	name, labels := m[1], m[2]
	if p.current == nil || !p.current.owns(name) {
		p.begin(name)
	}
	value, err := strconv.ParseFloat(m[3], 64)
	if err != nil {
		p.complain("%s%s: value %q", name, labels, m[3])
	}
	p.labels(name, labels)
	f := p.current
	if _, twice := f.samples[name+labels]; twice {
		p.complain("%s%s: twice", name, labels)
	}
	f.samples[name+labels] = value
	f.order = append(f.order, name+labels)
}

// owns reports whether a sample of that name is the family's.
func (f *family) owns(name string) bool {
	rest, ok := strings.CutPrefix(name, f.name)
	return ok && (rest == "" || f.kind == "histogram" && (rest == "_bucket" || rest == "_sum" || rest == "_count"))
}

func (p *page) labels(name, labels string) {
	rest := strings.TrimSuffix(strings.TrimPrefix(labels, "{"), "}")
	seen := map[string]bool{}
	for rest != "" {
		m := labelPair.FindStringSubmatch(rest)
		if m == nil {
			p.complain("%s: labels %s", name, labels)
			return
		}
		if seen[m[1]] {
			p.complain("%s: label %s twice in %s", name, m[1], labels)
		}
		seen[m[1]] = true
		rest = rest[len(m[0]):]
	}
}

func (p *page) check(f *family) {
	if f.help == "" {
		p.complain("%s: no HELP", f.name)
	}
	switch f.kind {
	case "counter", "gauge":
		if (f.kind == "counter") != strings.HasSuffix(f.name, "_total") {
			p.complain("%s: a %s", f.name, f.kind)
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if strings.HasSuffix(f.name, suffix) {
				p.complain("%s: named as part of a histogram, and a %s", f.name, f.kind)
			}
		}
	case "histogram":
		p.checkHistogram(f)
	case "":
		p.complain("%s: no TYPE", f.name)
	default:
		p.complain("%s: type %q", f.name, f.kind)
	}
	if len(f.samples) == 0 {
		p.complain("%s: no samples", f.name)
	}
}

// checkHistogram wants one histogram without labels of its own.
func (p *page) checkHistogram(f *family) {
	last := 0.0
	for _, s := range f.order {
		if !strings.HasPrefix(s, f.name+"_bucket{") {
			continue
		}
		if f.samples[s] < last {
			p.complain("%s: less than the bucket before", s)
		}
		last = f.samples[s]
	}
	all, ok := f.samples[f.name+`_bucket{le="+Inf"}`]
	if count, has := f.samples[f.name+"_count"]; !ok || !has || all != count {
		p.complain("%s: the bucket of +Inf and the count are not the same", f.name)
	}
	if _, ok := f.samples[f.name+"_sum"]; !ok {
		p.complain("%s: no sum", f.name)
	}
}
