// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io"
)

// A Turn is one attack of a soak with the fault beside it.
type Turn struct {
	Round   int     `json:"round"`
	Name    string  `json:"attack"`
	By      By      `json:"by"`
	Fault   string  `json:"fault"`
	Replica int     `json:"replica"` // that has the fault
	Seconds float64 `json:"seconds"` // until that replica took part again, and at least a phase
	Rate    float64 `json:"ops_per_s"`
	Stall   float64 `json:"longest_stall_ms"` // of the honest client
	usage           // the most of any replica
}

const turnRow = "%5v %-22s %-10s %4v %9v %9v %6v %5v %10v\n"

// WriteTurnHead, WriteTurn and WriteSoaked print a table: a row as soon as there is one, and below
// them whether the honest client was served less in the end, and what grew in the replicas that
// were never restarted.
func WriteTurnHead(w io.Writer) error {
	_, err := fmt.Fprintf(w, turnRow, "ROUND", "ATTACK", "FAULT", "REPL", "ops/s", "STALL ms", "MiB", "FILES",
		"GOROUTINES")
	return err
}

// WriteTurn prints a row.
func WriteTurn(w io.Writer, t Turn) error {
	n := func(v float64) string { return fmt.Sprintf("%.0f", v) }
	_, err := fmt.Fprintf(w, turnRow, t.Round, t.Name, t.Fault, t.Replica, n(t.Rate), n(t.Stall), n(t.Resident),
		n(t.Descriptors), n(t.Goroutines))
	return err
}

// WriteSoaked prints the summary.
func WriteSoaked(w io.Writer, r Soaked) error {
	_, err := fmt.Fprintf(w, "the median turn had %.0f honest operations a second in the first half, "+
		"%.0f in the last\n", r.First, r.Last)
	if err != nil {
		return err
	}
	if len(r.Growths) == 0 {
		_, err := fmt.Fprintf(w, "%d whole rounds: growth is judged from %d on that took %v\n", r.Rounds, growRounds,
			growWithin)
		return err
	}
	_, err = fmt.Fprintf(w, "%d whole rounds; growth over the last half, and noise of the first:\n", r.Rounds)
	for _, g := range r.Growths {
		if err == nil {
			_, err = fmt.Fprintf(w, "replica %-3d %-20s %8.1f %8.1f\n", g.Replica, g.Of, g.By, g.Noise)
		}
	}
	return err
}
