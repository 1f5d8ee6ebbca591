// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"bfs/cmd/internal/admin"
	"bfs/pkg/pbft"
)

// silentLong is how long a keeper may answer nothing before that is an alert.
const silentLong = 30 * time.Second

// alert fills in the alerts for operators.
func (r *Report) alert() {
	for i := range r.Replicas {
		row := &r.Replicas[i]
		say := func(format string, args ...any) { row.Alerts = append(row.Alerts, fmt.Sprintf(format, args...)) }
		if row.Status != nil && row.Status.Keeper != nil {
			alertOf(row.Status.Keeper, say)
		}
		if age, bound := r.unrecovered(i), r.bound(); bound > 0 && age > bound {
			say("others have seen no recovery of it for %v, and the window should be at most %v",
				age.Round(time.Second), bound.Round(time.Second))
		}
	}
}

// alertOf says the alerts that follow from a replica's own report of its keeper.
func alertOf(k *pbft.SeenKeeper, say func(string, ...any)) {
	if quiet := k.Answered.Duration(); quiet > silentLong {
		say("its keeper has not answered for %v: %s", quiet.Round(time.Second), k.Silent)
	}
	if k.Problem != "" {
		say("its keeper refuses the program: %s", k.Problem)
	}
	if k.Bound > 0 && k.Window > k.Bound {
		say("its window of vulnerability is %v, and should be at most %v: %d turns in a row were given up",
			k.Window.Duration().Round(time.Second), k.Bound.Duration().Round(time.Second), k.GivenUp)
	}
}

// unrecovered is a time for which f+1 of the others have seen no recovery of replica i, so
// that one that is correct says so. It does not depend on what replica i says of itself.
func (r *Report) unrecovered(i int) time.Duration {
	var ages []time.Duration
	for j := range r.Replicas {
		if p := r.about(j, i); p != nil {
			age := p.Recovered.Duration()
			if age == 0 {
				age = r.Replicas[j].Status.Uptime.Duration()
			}
			ages = append(ages, age)
		}
	}
	f := pbft.GroupSize(r.Members).Faulty()
	if len(ages) <= f {
		return 0
	}
	slices.Sort(ages)
	return ages[len(ages)-1-f]
}

// bound returns the window's bound as most keepers have it: the median of their replicas'
// reports.
func (r *Report) bound() time.Duration {
	var all []time.Duration
	for _, row := range r.Replicas {
		if row.Status != nil && row.Status.Keeper != nil {
			all = append(all, row.Status.Keeper.Bound.Duration())
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// writeKeepers shows the keepers, as their replicas tell, and the alerts.
func (r *Report) writeKeepers(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REPLICA\tKEEPER\tNEXT RECOVERY\tCOUNTER\tMANIFEST\tPROGRAM CHECKED\tWINDOW NOW/BOUND")
	rows := 0
	for _, row := range r.Replicas {
		if s := row.Status; s != nil && s.Keeper != nil {
			fmt.Fprintf(t, "%d\t%s\n", row.Number, keeperCells(s))
			rows++
		}
	}
	if rows > 0 {
		fmt.Fprintln(w)
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, row := range r.Replicas {
		for _, a := range row.Alerts {
			fmt.Fprintf(w, "ALERT replica %d: %s\n", row.Number, a)
		}
	}
	return nil
}

func keeperCells(s *admin.ReplicaStatus) string {
	k := s.Keeper
	answers := "answers"
	if k.Silent != "" {
		answers = fmt.Sprintf("silent for %v", k.Answered.Duration().Round(time.Second))
	}
	next, manifest, window, checked := "never", "none", k.Window.Duration().Round(time.Second).String(), "-"
	if !k.Next.IsZero() {
		next = "in " + time.Until(k.Next).Round(time.Second).String()
	}
	if !k.Manifest.IsZero() {
		manifest = fmt.Sprintf("%d, %v old", k.Serial, time.Since(k.Manifest).Round(time.Minute))
	}
	if k.Bound > 0 {
		window += "/" + k.Bound.Duration().Round(time.Second).String()
	}
	if !k.Checked.IsZero() {
		checked = time.Since(k.Checked).Round(time.Second).String() + " ago"
	}
	return fmt.Sprintf("%s\t%s\t%d\t%s\t%s\t%s", answers, next, k.Counter, manifest, checked, window)
}
