// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"bfs/cmd/internal/admin"
	"bfs/pkg/pbft"
)

// writeRoom shows what replicas have in memory and on disk, and how much room there is for it.
func (r *Report) writeRoom(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REPLICA\tDURABILITY\tSTATE\tMEMORY\tJOURNAL\tEND\tSYNCED\tSYNC "+
		"p50/p99\tIMAGE AT\tIMAGE\tDISK FREE")
	rows := 0
	for _, row := range r.Replicas {
		if s := row.Status; s != nil && s.Durability != "" {
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\n", row.Number, s.Durability, memoryCells(s), diskCells(s.Disk))
			rows++
		}
	}
	if rows == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return t.Flush()
}

// memoryCells are the columns STATE and MEMORY.
func memoryCells(s *admin.ReplicaStatus) string {
	if s.Memory == nil {
		return bytes(uint64(s.StateBytes)) + "\t-"
	}
	m := s.Memory
	cells := fmt.Sprintf("%s of %s\t%s of %s", bytes(uint64(s.StateBytes)), bytes(m.StateSize),
		bytes(m.Resident), bytes(m.Limit))
	if m.Needed > m.Limit {
		cells += ", may need " + bytes(m.Needed)
	}
	return cells
}

// diskCells are the columns from JOURNAL on.
func diskCells(d *pbft.DiskStatus) string {
	if d == nil {
		return "-\t-\t-\t-\t-\t-\t-"
	}
	synced, free := "-", "-"
	if !d.Synced.IsZero() {
		synced = d.Synced.UTC().Format(time.TimeOnly)
	}
	if d.Size > 0 {
		free = fmt.Sprintf("%s of %s", bytes(d.Free), bytes(d.Size))
	}
	return fmt.Sprintf("%s\t%d\t%s\t%v/%v\t%d\t%s\t%s", bytes(uint64(d.JournalBytes)), d.Durable, synced,
		rounded(d.Syncs.P50), rounded(d.Syncs.P99), d.Image, bytes(uint64(d.ImageBytes)), free)
}

func rounded(s pbft.Seconds) time.Duration {
	if d := s.Duration(); d < time.Millisecond {
		return d.Round(time.Microsecond)
	}
	return s.Duration().Round(time.Millisecond)
}

// bytes writes a number of bytes with at most one digit behind the point.
func bytes(n uint64) string {
	for _, u := range []struct {
		name  string
		bytes uint64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		switch v := float64(n) / float64(u.bytes); {
		case v >= 10:
			return fmt.Sprintf("%.0f%s", v, u.name)
		case v >= 1:
			return fmt.Sprintf("%.1f%s", v, u.name)
		}
	}
	return fmt.Sprintf("%dB", n)
}
