// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"testing"

	"github.com/anishathalye/porcupine"

	"bfs/pkg/nfs3"
)

// The judge refuses histories that no correct group gives, and accepts histories that one may give:
// a judge that accepts everything proves nothing.
func TestJudge(t *testing.T) {
	op := func(call, end int64, in question, out answer) porcupine.Operation {
		return porcupine.Operation{Input: in, Output: out, Call: call, Return: end}
	}
	born := op(1, 2, question{verb: create, mode: nfs3.Exclusive}, answer{file: "f", links: 1})
	wrote := func(call, end int64, data string, before int) porcupine.Operation {
		return op(call, end, question{verb: write, file: "f", data: data},
			answer{size: len(data), links: 1, before: before})
	}
	sees := func(call, end int64, data string) porcupine.Operation {
		return op(call, end, question{verb: read, file: "f"}, answer{data: data, size: len(data), links: 1})
	}
	removes := func(call, end int64, s nfs3.Status) porcupine.Operation {
		return op(call, end, question{verb: remove}, answer{status: s})
	}
	lost := op(3, int64(forever), question{serial: 7, verb: write, file: "f", data: "ab"}, answer{unknown: true})
	for name, c := range map[string]struct {
		right   bool
		history []porcupine.Operation
	}{
		"a read after a write":             {true, []porcupine.Operation{born, wrote(3, 4, "ab", 0), sees(5, 6, "ab")}},
		"a read that is stale":             {false, []porcupine.Operation{born, wrote(3, 4, "ab", 0), wrote(5, 6, "cd", 2), sees(7, 8, "ab")}},
		"a read beside a write, old":       {true, []porcupine.Operation{born, wrote(3, 6, "ab", 0), sees(4, 5, "")}},
		"new and then old":                 {false, []porcupine.Operation{born, wrote(3, 9, "ab", 0), sees(4, 5, "ab"), sees(6, 7, "")}},
		"a write that is lost":             {false, []porcupine.Operation{born, wrote(3, 4, "ab", 0), sees(5, 6, "")}},
		"a write done twice":               {false, []porcupine.Operation{born, wrote(3, 4, "ab", 0), wrote(5, 6, "cd", 2), sees(7, 8, "cd"), sees(9, 10, "ab")}},
		"a remove done twice":              {false, []porcupine.Operation{born, removes(3, 4, nfs3.ErrNoEnt)}},
		"two removes of one file":          {false, []porcupine.Operation{born, removes(3, 6, nfs3.OK), removes(4, 5, nfs3.OK)}},
		"one of two removes":               {true, []porcupine.Operation{born, removes(3, 6, nfs3.OK), removes(4, 5, nfs3.ErrNoEnt)}},
		"two exclusive creators":           {false, []porcupine.Operation{born, op(1, 3, question{serial: 2, verb: create, mode: nfs3.Exclusive}, answer{file: "g", links: 1})}},
		"a size before that nobody left":   {false, []porcupine.Operation{born, wrote(3, 4, "ab", 5)}},
		"given up, and seen later":         {true, []porcupine.Operation{born, lost, sees(10, 11, ""), sees(12, 13, "ab")}},
		"given up, and never seen":         {true, []porcupine.Operation{born, lost, sees(10, 11, "")}},
		"given up, and undone":             {false, []porcupine.Operation{born, lost, sees(10, 11, "ab"), sees(12, 13, "")}},
		"made by one who gave up":          {true, []porcupine.Operation{op(1, int64(forever), question{serial: 9, verb: create}, answer{unknown: true}), found("f")}},
		"made by nobody":                   {false, []porcupine.Operation{found("f")}},
		"a name and its link, of one size": {false, []porcupine.Operation{born, op(3, 4, question{verb: link, file: "f", to: 1}, answer{links: 2}), sees(5, 6, "")}},
	} {
		if got := porcupine.CheckOperations(model, c.history); got != c.right {
			t.Errorf("%s: got %t, want %t", name, got, c.right)
		}
	}
}

// found looks up a file that another call made.
func found(f identity) porcupine.Operation {
	return porcupine.Operation{Input: question{verb: lookup}, Output: answer{file: f, links: 1}, Call: 5, Return: 6}
}
