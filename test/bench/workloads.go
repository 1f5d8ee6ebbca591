// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A workload runs in the guest. The last line that it prints is a JSON object with seconds in it.
type workload struct {
	name    string
	phases  []string // what to read of the object, beside total; in the order of the tables
	command string
	rates   []rate // units done in a phase: tables show them by the second
	memory  int    // MiB of the guest's; 0: as usual
}

// A rate names a phase and the number of units that the phase does.
type rate struct {
	phase, unit string
	amount      float64
}

const allWorkloads = "andrew,andrew-drop,andrew-files,postmark,stream,creates,tree"

// sizes says how much work the workloads do.
type sizes struct {
	scale   int // copies of Andrew's tree
	stream  int // MiB
	creates int // files in one directory
	tree    []int
	threads int // of creates and tree
}

func findWorkloads(names string, z sizes) ([]workload, error) {
	phases := []string{"mkdir", "copy", "stat", "read", "compile"}
	andrew := fmt.Sprintf(`"$BFSD" bench andrew --scale %d --target $NFS --json`, z.scale)
	all := []workload{
		{name: "andrew", phases: phases, command: andrew},
		// In andrew-drop the kernel's cache answers nothing; andrew-files leaves out the
		// guest's own work too.
		{name: "andrew-drop", phases: phases, command: andrew + " --drop"},
		{name: "andrew-files", phases: phases[:4], command: andrew + " --drop --no-compile"},
		{name: "postmark", command: `bash "$BENCH/../postmark/run"`},
		z.streamed(), z.created(), z.treeWorkload(),
	}
	var found []workload
	for _, name := range strings.Split(names, ",") {
		w := find(all, func(w workload) bool { return w.name == name })
		if w == nil {
			return nil, fmt.Errorf("no workload %q; there are %s", name, allWorkloads)
		}
		found = append(found, *w)
	}
	return found, nil
}

// streamed returns a workload that writes one large file and reads it back.
func (z sizes) streamed() workload {
	mb := float64(z.stream) * (1 << 20) / 1e6
	return workload{
		name: "stream", phases: []string{"write", "read"}, memory: 1024 + z.stream,
		command: fmt.Sprintf(`"$BFSD" bench stream --size %dMiB --target $NFS --drop --json`, z.stream),
		rates:   []rate{{"write", "MB/s", mb}, {"read", "MB/s", mb}},
	}
}

// created returns a workload that makes files in one directory.
func (z sizes) created() workload {
	phase := fmt.Sprintf("create_%d", z.creates)
	return workload{
		name: "creates", phases: []string{phase},
		command: fmt.Sprintf(`"$BFSD" bench tree --files %d --each %d --threads %d --create-only --target $NFS --json`,
			z.creates, z.creates, z.threads),
		rates: []rate{{phase, "/s", float64(z.creates)}},
	}
}

// treeWorkload makes and lists files of many directories, and reads their attributes.
func (z sizes) treeWorkload() workload {
	w := workload{name: "tree", memory: 2048}
	var list []string
	for _, n := range z.tree {
		list = append(list, strconv.Itoa(n))
		for _, p := range []string{"create", "list", "stat"} {
			phase := fmt.Sprintf("%s_%d", p, n)
			w.phases = append(w.phases, phase)
			w.rates = append(w.rates, rate{phase, "/s", float64(n)})
		}
	}
	w.command = fmt.Sprintf(`"$BFSD" bench tree --files %s --each 1000 --threads %d --drop --target $NFS --json`,
		strings.Join(list, ","), z.threads)
	return w
}

// parse finds the seconds in the last line that is a JSON object. Phases are fields of
// this object or of its field "seconds". A missing total is the sum of the phases.
func (w workload) parse(output string) (map[string]float64, error) {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		var object map[string]any
		if json.Unmarshal([]byte(lines[i]), &object) != nil {
			continue
		}
		if inner, ok := object["seconds"].(map[string]any); ok {
			object = inner
		}
		return w.pick(object)
	}
	return nil, fmt.Errorf("no result in the output:\n%s", output)
}

func (w workload) pick(object map[string]any) (map[string]float64, error) {
	seconds := map[string]float64{}
	sum := 0.0
	for _, p := range w.phases {
		v, ok := object[p].(float64)
		if !ok {
			return nil, fmt.Errorf("no phase %s in %v", p, object)
		}
		seconds[p] = v
		sum += v
	}
	total, ok := object["total"].(float64)
	if !ok {
		total = sum
	}
	seconds["total"] = total
	return seconds, nil
}

// ratesOf returns the units done per second.
func (w workload) ratesOf(seconds map[string]float64) map[string]float64 {
	if len(w.rates) == 0 {
		return nil
	}
	rates := map[string]float64{}
	for _, r := range w.rates {
		rates[r.phase+" "+r.unit] = r.amount / seconds[r.phase]
	}
	return rates
}

// parseNumbers reads numbers above 0, separated by commas.
func parseNumbers(list string) (numbers []int, err error) {
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("got %q, want numbers separated by commas", list)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// phasesOf returns the phases of some results. Their run may have had other sizes, and so
// other phases, than this one.
func (w workload) phasesOf(results []result) []string {
	if len(results) > 0 && len(results[0].Phases) > 0 {
		return results[0].Phases
	}
	return w.phases
}

// counted returns a script that runs the command and prints how many calls the kernel
// made for it.
func (w workload) counted() string { return "(" + w.command + ") && cat /proc/self/mountstats" }

var callCount = regexp.MustCompile(`(?m)^\s+([A-Z]+): (\d+) \d+ \d+ \d+ `)

// calls reads the number of calls of each procedure.
func calls(output string) map[string]int {
	all := map[string]int{}
	for _, m := range callCount.FindAllStringSubmatch(output, -1) {
		if n, _ := strconv.Atoi(m[2]); n > 0 && m[1] != "NULL" {
			all[m[1]] += n
		}
	}
	return all
}
