package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// A workload runs in the guest, and its last line is a JSON object with seconds in it.
type workload struct {
	name    string
	phases  []string // what to read of the object, beside total; in the order of the tables
	command string
}

const allWorkloads = "andrew,andrew-drop,andrew-files,postmark"

func findWorkloads(names string, scale int) ([]workload, error) {
	phases := []string{"mkdir", "copy", "stat", "read", "compile"}
	andrew := fmt.Sprintf(`"$BFSD" bench andrew --scale %d --target $NFS --json`, scale)
	all := []workload{
		{"andrew", phases, andrew},
		{"andrew-drop", phases, andrew + " --drop"},                   // the kernel's cache answers nothing
		{"andrew-files", phases[:4], andrew + " --drop --no-compile"}, // and the guest's own work is left out
		{"postmark", nil, `bash "$BENCH/../postmark/run"`},
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

// parse finds the seconds in the last line that is a JSON object. Phases may stand in it or in an object "seconds" in it; a
// missing total is their sum.
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
