// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"bfs/cmd/internal/version"
	"bfs/pkg/pbft"
)

// ReplicaStatus is the contents of a replica's page /status.
type ReplicaStatus struct {
	pbft.Status
	Program version.Info `json:"program"`
	Memory  *Memory      `json:"memory,omitempty"` // nil: the system does not say
}

// Memory is how much memory a replica's process has and may need.
type Memory struct {
	Limit     uint64 `json:"limit_bytes"`      // of the machine, or of the control group if that is less
	Resident  uint64 `json:"resident_bytes"`   // of the process now
	Needed    uint64 `json:"needed_bytes"`     // when the state has grown to the size that the group file allows
	StateSize uint64 `json:"state_size_bytes"` // which is this; more is refused with NOSPC
}

// ReplicaHelp explains the families of ReplicaMetrics.
var ReplicaHelp = map[string]string{
	"bfs_ready": "1 if this replica votes and hears enough others to order operations.",
	"bfs_silent": "1 if this replica does not vote, because its restart lost the " +
		"memory of its earlier votes.",
	"bfs_silent_until_checkpoint": "The checkpoint that must be stable before a silent replica " +
		"votes; 0 if it is not silent.",
	"bfs_fetching": "1 while this replica fetches the state from the others.",
	"bfs_recovering": "1 while this replica recovers: it takes part, and what it " +
		"remembers is not confirmed yet.",
	"bfs_recovery_seconds": "How long the recovery that this process began with took, or has " +
		"taken so far; 0 without one.",
	"bfs_recovery_found_corruption": "1 if that recovery found a state that is not the group's.",
	"bfs_view":                      "The view that this replica is in.",
	"bfs_primary":                   "The replica that orders operations in this view.",
	"bfs_view_active":               "0 during a view change.",
	"bfs_view_changes_total":        "View changes gone through since start.",
	"bfs_slow_primaries_total":      "Views since start that ended because replicas found the primary slow.",
	"bfs_rollbacks_total":           "Batches executed before they had committed, and taken back, since start.",
	"bfs_last_executed":             "The last batch that this replica has executed.",
	"bfs_stable_checkpoint":         "The last stable checkpoint.",
	"bfs_clients_connected":         "Enrolled clients that are connected.",
	"bfs_floods":                    "Addresses from which connections come so often that most are dropped.",
	"bfs_message_log_bytes":         "Length of the operations in the message log.",
	"bfs_session_key_age_seconds":   "Time since the session keys were made.",
	"bfs_operations_total":          "Operations executed in order since start.",
	"bfs_queries_total":             "Operations answered on the read-only path since start.",
	"bfs_peer_connected":            "1 if the connections to and from the other replica are up.",
	"bfs_peer_keys":                 "1 if both session keys with the other replica are there.",
	"bfs_peer_recovering":           "1 while the other replica recovers: it is not past its recovery point.",
	"bfs_peer_last_executed":        "The last batch that the other replica says it has executed.",
	"bfs_peer_wrong_votes_total": "Votes of the other replica that were against what committed: " +
		"it lies, or the primary does.",
	"bfs_peer_wrong_roots_total": "Checkpoints of the other replica with a state that is not the " +
		"group's: it lies, or its state is false.",
	"bfs_peer_false": "1 if the last of its checkpoints was such.",
	"bfs_peer_recovered_age_seconds": "Time since a recovery request of the other replica was executed " +
		"here; 0: none was since start.",
	"bfs_uptime_seconds":                 "Time since this replica was started.",
	"bfs_keeper_up":                      "1 if this replica's keeper answered when it was asked last.",
	"bfs_keeper_answer_age_seconds":      "Time since the keeper answered.",
	"bfs_keeper_next_recovery_seconds":   "When the keeper will recover this replica, as Unix time; 0: never.",
	"bfs_keeper_turns_given_up":          "Turns in a row at which the keeper did not recover this replica.",
	"bfs_keeper_counter":                 "The keeper's counter of signatures.",
	"bfs_keeper_manifest_serial":         "Serial number of the newest manifest that the keeper has taken.",
	"bfs_keeper_manifest_seconds":        "When the manifest was written, as Unix time; 0: there is none.",
	"bfs_keeper_program_checked_seconds": "When the keeper last judged the program, as Unix time.",
	"bfs_keeper_program_refused":         "1 if the keeper refused the program when it judged it last.",
	"bfs_window_seconds": "The window of vulnerability now: two key periods, and the time " +
		"since the last recovery began.",
	"bfs_window_bound_seconds": "What that window may be; 0: nothing bounds it, " +
		"because no recoveries are scheduled.",
	"bfs_refusals_total": "Messages refused, by reason.",
	"bfs_client_over_share": "1 for each client that lately wanted more than its share while " +
		"others were served, at the primary.",

	"bfs_durability_disk": "1 if what a message promises is on the disk before it " +
		"leaves, 0 in replicated mode.",
	"bfs_state_bytes":           "Pages of the state in use at the last checkpoint.",
	"bfs_state_size_bytes":      "The size that the group file allows the state; more is refused with NOSPC.",
	"bfs_memory_limit_bytes":    "Memory of the machine, or of the control group if that is less.",
	"bfs_memory_resident_bytes": "Memory that the process has.",
	"bfs_memory_needed_bytes": "Memory that the process takes when the state has grown to the " +
		"size that the group file allows.",
	"bfs_disk_full":                    "1 while this replica stands aside, because its disk has too little room.",
	"bfs_disk_free_bytes":              "Free bytes of the file system that journal and image are in.",
	"bfs_disk_size_bytes":              "Bytes of that file system.",
	"bfs_disk_reserve_bytes":           "Bytes that journal and image keep for when it is full.",
	"bfs_journal_bytes":                "Length of the journal's files, the reserve included.",
	"bfs_journal_used_bytes":           "Length of the journal's files that a restart would read.",
	"bfs_journal_end":                  "Records that were ever appended to the journal.",
	"bfs_journal_durable":              "Records of the journal that are certainly on the disk.",
	"bfs_journal_held":                 "Messages and replies that wait for the journal.",
	"bfs_journal_last_sync_seconds":    "When the journal was last synced, as Unix time; 0: not since start.",
	"bfs_journal_sync_seconds":         "How long syncs of the journal took, with the writing before.",
	"bfs_image_checkpoint":             "The checkpoint that the image on disk is at.",
	"bfs_image_bytes":                  "Length of the image's files.",
	"bfs_image_updates_given_up_total": "Updates of the image given up for a later checkpoint, or for want of room.",
}

// ReplicaMetrics writes a replica's numbers. It is one of n.
func ReplicaMetrics(w io.Writer, s pbft.Status, n int) {
	gauge := func(name string, v uint64) { metrics.WriteGaugeUint64(w, name, v) }
	counter := func(name string, v uint64) { metrics.WriteCounterUint64(w, name, v) }
	gauge("bfs_ready", number(ReplicaReady(s, n) == nil))
	gauge("bfs_silent", number(s.SilentUntil > 0))
	gauge("bfs_silent_until_checkpoint", uint64(s.SilentUntil))
	gauge("bfs_fetching", number(s.Fetching))
	gauge("bfs_recovering", number(s.Recovery.Phase != ""))
	gauge("bfs_recovery_found_corruption", number(s.Recovery.Corrupt))
	metrics.WriteGaugeFloat64(w, "bfs_recovery_seconds", s.Recovery.Took.Duration().Seconds())
	gauge("bfs_view", uint64(s.View))
	gauge("bfs_primary", uint64(s.Primary))
	gauge("bfs_view_active", number(s.Active))
	counter("bfs_view_changes_total", uint64(s.ViewChanges))
	counter("bfs_slow_primaries_total", s.SlowPrimary)
	counter("bfs_rollbacks_total", uint64(s.Rollbacks))
	gauge("bfs_last_executed", uint64(s.LastExecuted))
	gauge("bfs_stable_checkpoint", uint64(s.Stable))
	gauge("bfs_clients_connected", uint64(s.Clients))
	for _, c := range s.OverShare {
		gauge(fmt.Sprintf(`bfs_client_over_share{client="%v"}`, c), 1)
	}
	gauge("bfs_floods", uint64(s.Floods))
	gauge("bfs_message_log_bytes", uint64(s.LogBytes))
	metrics.WriteGaugeFloat64(w, "bfs_session_key_age_seconds", s.KeyAge.Duration().Seconds())
	counter("bfs_operations_total", s.Executed)
	counter("bfs_queries_total", s.Queries)
	gauge("bfs_durability_disk", number(s.Durability == pbft.DurabilityDisk))
	gauge("bfs_state_bytes", uint64(s.StateBytes))
	metrics.WriteGaugeFloat64(w, "bfs_uptime_seconds", s.Uptime.Duration().Seconds())
	if s.Keeper != nil {
		keeperMetrics(w, s.Keeper)
	}
	if s.Disk != nil {
		diskMetrics(w, s.Disk)
	}
	for _, p := range s.Peers {
		label := fmt.Sprintf(`{replica="%d"}`, p.Replica)
		gauge("bfs_peer_connected"+label, number(p.Connected))
		gauge("bfs_peer_keys"+label, number(p.Keys))
		gauge("bfs_peer_last_executed"+label, uint64(p.LastExecuted))
		gauge("bfs_peer_recovering"+label, number(p.Recovering))
		counter("bfs_peer_wrong_votes_total"+label, p.WrongVotes)
		counter("bfs_peer_wrong_roots_total"+label, p.WrongRoots)
		gauge("bfs_peer_false"+label, number(p.False))
		metrics.WriteGaugeFloat64(w, "bfs_peer_recovered_age_seconds"+label, p.Recovered.Duration().Seconds())
	}
	for _, r := range s.Refusals {
		counter(fmt.Sprintf("bfs_refusals_total{reason=%q}", r.Reason), r.Count)
	}
}

// keeperMetrics writes what is known of a replica's keeper.
func keeperMetrics(w io.Writer, k *pbft.SeenKeeper) {
	gauge := func(name string, v uint64) { metrics.WriteGaugeUint64(w, name, v) }
	seconds := func(name string, s pbft.Seconds) { metrics.WriteGaugeFloat64(w, name, s.Duration().Seconds()) }
	at := func(name string, t time.Time) {
		if t.IsZero() {
			t = time.Unix(0, 0)
		}
		gauge(name, uint64(t.Unix()))
	}
	gauge("bfs_keeper_up", number(k.Silent == ""))
	seconds("bfs_keeper_answer_age_seconds", k.Answered)
	at("bfs_keeper_next_recovery_seconds", k.Next)
	gauge("bfs_keeper_turns_given_up", uint64(k.GivenUp))
	gauge("bfs_keeper_counter", k.Counter)
	gauge("bfs_keeper_manifest_serial", k.Serial)
	at("bfs_keeper_manifest_seconds", k.Manifest)
	at("bfs_keeper_program_checked_seconds", k.Checked)
	gauge("bfs_keeper_program_refused", number(k.Problem != ""))
	seconds("bfs_window_seconds", k.Window)
	seconds("bfs_window_bound_seconds", k.Bound)
}

// MemoryMetrics writes how much memory there is and may be needed, nothing where that is not known.
func MemoryMetrics(w io.Writer, m *Memory) {
	if m == nil {
		return
	}
	metrics.WriteGaugeUint64(w, "bfs_state_size_bytes", m.StateSize)
	metrics.WriteGaugeUint64(w, "bfs_memory_limit_bytes", m.Limit)
	metrics.WriteGaugeUint64(w, "bfs_memory_resident_bytes", m.Resident)
	metrics.WriteGaugeUint64(w, "bfs_memory_needed_bytes", m.Needed)
}

// diskMetrics writes the numbers of a replica in disk mode.
func diskMetrics(w io.Writer, d *pbft.DiskStatus) {
	gauge := func(name string, v uint64) { metrics.WriteGaugeUint64(w, name, v) }
	gauge("bfs_disk_full", number(d.Full != ""))
	gauge("bfs_disk_free_bytes", d.Free)
	gauge("bfs_disk_size_bytes", d.Size)
	gauge("bfs_disk_reserve_bytes", uint64(d.Reserve))
	gauge("bfs_journal_bytes", uint64(d.JournalBytes))
	gauge("bfs_journal_used_bytes", uint64(d.JournalUsed))
	gauge("bfs_journal_end", d.End)
	gauge("bfs_journal_durable", d.Durable)
	gauge("bfs_journal_held", uint64(d.Held))
	synced := uint64(0)
	if !d.Synced.IsZero() {
		synced = uint64(d.Synced.Unix())
	}
	gauge("bfs_journal_last_sync_seconds", synced)
	histogram(w, "bfs_journal_sync_seconds", &d.Syncs)
	gauge("bfs_image_checkpoint", uint64(d.Image))
	gauge("bfs_image_bytes", uint64(d.ImageBytes))
	metrics.WriteCounterUint64(w, "bfs_image_updates_given_up_total", uint64(d.GivenUp))
}

// histogram writes the samples of one, as Prometheus wants them: each class with those below it.
func histogram(w io.Writer, name string, h *pbft.Histogram) {
	var below uint64
	for i, n := range h.Classes {
		below += n
		end := "+Inf"
		if d, ok := pbft.SyncClass(i); ok {
			end = strconv.FormatFloat(d.Seconds(), 'g', -1, 64)
		}
		fmt.Fprintf(w, "%s_bucket{le=%q} %d\n", name, end, below)
	}
	fmt.Fprintf(w, "%s_sum %g\n%s_count %d\n", name, h.Sum.Duration().Seconds(), name, h.Count)
}

func number(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// ReplicaReady returns the reason why a replica of a group of n does not vote for new
// operations, nil if it does.
func ReplicaReady(s pbft.Status, n int) error {
	switch {
	case s.Disk != nil && s.Disk.Full != "":
		return fmt.Errorf("disk full: %s", s.Disk.Full)
	case s.SilentUntil > 0:
		return fmt.Errorf("silent until checkpoint %d is stable; has executed %d", s.SilentUntil, s.LastExecuted)
	case s.Recovery.Phase != "":
		return fmt.Errorf("recovering (%s) until checkpoint %d is stable; has executed %d",
			s.Recovery.Phase, s.Recovery.Point, s.LastExecuted)
	case s.Fetching:
		return fmt.Errorf("fetching the state; has executed %d", s.LastExecuted)
	case !s.Active:
		return errors.New("in a view change")
	}
	heard := 1 // itself
	for _, p := range s.Peers {
		if p.Replica != s.Replica && p.Connected && p.Keys {
			heard++
		}
	}
	if quorum := pbft.GroupSize(n).Quorum(); heard < quorum {
		return fmt.Errorf("hears %d replicas, itself included, want %d", heard, quorum)
	}
	return nil
}
