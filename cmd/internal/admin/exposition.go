// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// writeFamilies writes metrics in Prometheus's text format: the samples of a family one after
// another, below its HELP and TYPE. Samples come as lines without either, in any order.
//
// The type follows from the name, as Prometheus asks names to be given: a counter ends in _total, a
// histogram's samples in _bucket, _sum and _count, and every other family is a gauge.
func writeFamilies(w io.Writer, samples []byte, help map[string]string) {
	names, lines := []string{}, map[string][]string{}
	for line := range strings.Lines(string(samples)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name := familyOf(line, samples)
		if foreign(name) {
			continue
		}
		if lines[name] == nil {
			names = append(names, name)
		}
		lines[name] = append(lines[name], line)
	}
	for _, name := range names {
		text, ok := help[name]
		if !ok {
			text = strings.ReplaceAll(name, "_", " ")
		}
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s\n",
			name, text, name, typeOf(name, lines[name]), strings.Join(lines[name], "\n"))
	}
}

// familyOf is the name of the family that a sample is of.
func familyOf(sample string, all []byte) string {
	name, _, _ := strings.Cut(sample, " ")
	name, _, _ = strings.Cut(name, "{")
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && bytes.Contains(all, []byte(base+"_bucket{")) {
			return base
		}
	}
	return name
}

func typeOf(name string, samples []string) string {
	switch {
	case strings.HasPrefix(samples[0], name+"_"):
		return "histogram"
	case strings.HasSuffix(name, "_total"):
		return "counter"
	}
	return "gauge"
}

// foreign reports whether a family of the Go runtime has a name that Prometheus's own
// checks refuse. Other families tell the same.
func foreign(name string) bool {
	return strings.HasPrefix(name, "go_") && name != "go_goroutines" && name != "go_threads" &&
		!strings.HasPrefix(name, "go_memstats_heap_")
}
