// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"errors"
	"fmt"
	"io"

	"github.com/VictoriaMetrics/metrics"

	"bfs/cmd/internal/version"
	"bfs/pkg/pbft"
)

// ReplicaStatus is the contents of a replica's page /status.
type ReplicaStatus struct {
	pbft.Status
	Program version.Info `json:"program"`
}

// ReplicaHelp explains the families of ReplicaMetrics.
var ReplicaHelp = map[string]string{
	"bfs_ready":                     "1 if this replica votes and hears enough others to order operations.",
	"bfs_silent":                    "1 if this replica does not vote, because its restart lost the memory of its earlier votes.",
	"bfs_silent_until_checkpoint":   "The checkpoint that must be stable before a silent replica votes; 0 if it is not silent.",
	"bfs_fetching":                  "1 while this replica fetches the state from the others.",
	"bfs_recovering":                "1 while this replica recovers: it takes part, and what it remembers is not confirmed yet.",
	"bfs_recovery_seconds":          "How long the recovery that this process began with took, or has taken so far; 0 without one.",
	"bfs_recovery_found_corruption": "1 if that recovery found a state that is not the group's.",
	"bfs_view":                      "The view that this replica is in.",
	"bfs_primary":                   "The replica that orders operations in this view.",
	"bfs_view_active":               "0 during a view change.",
	"bfs_view_changes_total":        "View changes gone through since start.",
	"bfs_rollbacks_total":           "Batches executed before they had committed, and taken back, since start.",
	"bfs_last_executed":             "The last batch that this replica has executed.",
	"bfs_stable_checkpoint":         "The last stable checkpoint.",
	"bfs_clients_connected":         "Enrolled clients that are connected.",
	"bfs_message_log_bytes":         "Length of the operations in the message log.",
	"bfs_session_key_age_seconds":   "Time since the session keys were made.",
	"bfs_operations_total":          "Operations executed in order since start.",
	"bfs_queries_total":             "Operations answered on the read-only path since start.",
	"bfs_peer_connected":            "1 if the connections to and from the other replica are up.",
	"bfs_peer_keys":                 "1 if both session keys with the other replica are there.",
	"bfs_peer_last_executed":        "The last batch that the other replica says it has executed.",
	"bfs_refusals_total":            "Messages refused, by reason.",
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
	counter("bfs_rollbacks_total", uint64(s.Rollbacks))
	gauge("bfs_last_executed", uint64(s.LastExecuted))
	gauge("bfs_stable_checkpoint", uint64(s.Stable))
	gauge("bfs_clients_connected", uint64(s.Clients))
	gauge("bfs_message_log_bytes", uint64(s.LogBytes))
	metrics.WriteGaugeFloat64(w, "bfs_session_key_age_seconds", s.KeyAge.Duration().Seconds())
	counter("bfs_operations_total", s.Executed)
	counter("bfs_queries_total", s.Queries)
	for _, p := range s.Peers {
		label := fmt.Sprintf(`{replica="%d"}`, p.Replica)
		gauge("bfs_peer_connected"+label, number(p.Connected))
		gauge("bfs_peer_keys"+label, number(p.Keys))
		gauge("bfs_peer_last_executed"+label, uint64(p.LastExecuted))
	}
	for _, r := range s.Refusals {
		counter(fmt.Sprintf("bfs_refusals_total{reason=%q}", r.Reason), r.Count)
	}
}

func number(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// ReplicaReady returns the reason why a replica of a group of n does not vote for new operations, nil if it
// does.
func ReplicaReady(s pbft.Status, n int) error {
	switch {
	case s.SilentUntil > 0:
		return fmt.Errorf("silent until checkpoint %d is stable; has executed %d", s.SilentUntil, s.LastExecuted)
	case s.Recovery.Phase != "":
		return fmt.Errorf("recovering (%s) until checkpoint %d is stable; has executed %d", s.Recovery.Phase, s.Recovery.Point, s.LastExecuted)
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
