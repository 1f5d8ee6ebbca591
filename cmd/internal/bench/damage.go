// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io"
)

// A Damage is the result of one attack.
type Damage struct {
	Name    string  `json:"attack"`
	By      By      `json:"by"` // of a combination: those of the parts, joined by +
	Before  float64 `json:"ops_per_s_off"`
	During  float64 `json:"ops_per_s_on"`
	Share   float64 `json:"percent"` // During of Before
	P99     float64 `json:"p99_ms"`  // of the honest client's calls, while the attack is on
	CalmP99 float64 `json:"calm_p99_ms"`
	Stall   float64 `json:"longest_stall_ms"` // of the honest client, while the attack is on
	CalmGap float64 `json:"calm_stall_ms"`    // the same, while it is off
	Views   uint64  `json:"views"`            // left while the attack is on
	CalmV   uint64  `json:"calm_views"`       // left while it is off
	Left    float64 `json:"left_after_s"`     // the longest time from on until the first view was left; 0: never
	CPU     float64 `json:"offender_cpus"`    // that the offenders' processes use while the attack is on
	Connect float64 `json:"longest_connect_ms"`
}

func (m *suffering) damage() Damage {
	d := Damage{Name: m.combination.name, By: m.combination.by(), Before: m.calm.rate(), During: m.under.rate(),
		P99: m.under.p99(), CalmP99: m.calm.p99(), Stall: milliseconds(m.under.stall),
		CalmGap: milliseconds(m.calm.stall), Views: m.under.views, CalmV: m.calm.views, Left: m.left.Seconds(),
		CPU: m.cpu.Seconds() / (m.under.took + m.under.took/8).Seconds(), Connect: milliseconds(m.connect)}
	d.Share = 100 * d.During / d.Before
	return d
}

// WriteDamageHead and WriteDamage print a table, a row as soon as there is one.
func WriteDamageHead(w io.Writer) error {
	_, err := fmt.Fprintf(w, damageRow, "ATTACK", "OFF ops/s", "ON ops/s", "%", "P99 ms", "(OFF)", "STALL ms", "(OFF)",
		"VIEWS", "(OFF)", "LEFT s", "CPUS", "CONNECT ms")
	return err
}

const damageRow = "%-22s %9v %9v %5v %8v %7v %9v %7v %6v %6v %7v %5v %10v\n"

// WriteDamage prints a row.
func WriteDamage(w io.Writer, d Damage) error {
	n := func(v float64) string { return fmt.Sprintf("%.0f", v) }
	left := "-"
	if d.Left > 0 {
		left = fmt.Sprintf("%.1f", d.Left)
	}
	_, err := fmt.Fprintf(w, damageRow, d.Name, n(d.Before), n(d.During), n(d.Share), fmt.Sprintf("%.1f", d.P99),
		fmt.Sprintf("%.1f", d.CalmP99), n(d.Stall), n(d.CalmGap), d.Views, d.CalmV, left, fmt.Sprintf("%.2f", d.CPU),
		n(d.Connect))
	return err
}
