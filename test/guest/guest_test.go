package guest

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestChecksAreFoundInOutput(t *testing.T) {
	got := Checks("noise\nbegin a\n  | x\nok a\nbegin b\nFAIL b: no: really\nbegin c\nok d\n")
	want := []Check{
		{Name: "a", OK: true, Output: "  | x\n"},
		{Name: "b", Why: "no: really"},
		{Name: "c", Why: "did not finish", Output: "ok d\n\n"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %d checks, want %d: %+v", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("check %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
}

// A guest boots, runs a script with this machine's programs, asks, answers, and its exit code comes back.
func TestGuestRunsAScript(t *testing.T) {
	if os.Getenv("BFS_KERNEL") == "" {
		t.Skip("NOT RUN: set BFS_KERNEL=1 (or `make kernel-test`) to boot guest kernels")
	}
	asked := ""
	r := Run(t, Options{
		Command: `. "$GUEST_LIB"
			check arithmetic want sum $((2 + 3)) 5
			check question want answer "$(ask what is it)" "a test"
			check refusal refused "not that" ask something else
			check user want uid "$(as 1000:100,7 id -G)" "100 7"
			uname -r
			exit 0`,
		Answer: func(q string) (string, error) {
			asked += q + "."
			if q != "what is it" {
				return "", errors.New("not that")
			}
			return "a test", nil
		},
	})
	if asked != "what is it.something else." {
		t.Errorf("asked %q", asked)
	}
	if !strings.Contains(r.Output, "6.") {
		t.Errorf("no kernel release in %q", r.Output)
	}
}
