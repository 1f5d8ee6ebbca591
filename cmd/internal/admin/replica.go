package admin

import (
	"errors"
	"fmt"
	"io"

	"github.com/VictoriaMetrics/metrics"

	"bfs/pkg/pbft"
)

// ReplicaMetrics writes a replica's numbers.
func ReplicaMetrics(w io.Writer, s pbft.Status) {
	gauge := func(name string, v uint64) { metrics.WriteGaugeUint64(w, name, v) }
	counter := func(name string, v uint64) { metrics.WriteCounterUint64(w, name, v) }
	gauge("bfs_view", uint64(s.View))
	gauge("bfs_primary", uint64(s.Primary))
	gauge("bfs_view_active", number(s.Active))
	gauge("bfs_last_executed", uint64(s.LastExecuted))
	gauge("bfs_stable_checkpoint", uint64(s.Stable))
	gauge("bfs_clients_connected", uint64(s.Clients))
	gauge("bfs_message_log_bytes", uint64(s.LogBytes))
	metrics.WriteGaugeFloat64(w, "bfs_session_key_age_seconds", s.KeyAge.Seconds())
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

// ReplicaHealth says what keeps a replica of n from doing its work.
func ReplicaHealth(s pbft.Status, n int) error {
	if !s.Active {
		return errors.New("in a view change")
	}
	reached := 1 // itself
	for _, p := range s.Peers {
		if p.Replica != s.Replica && p.Connected && p.Keys {
			reached++
		}
	}
	if quorum := 2*((n-1)/3) + 1; reached < quorum {
		return fmt.Errorf("has keys with %d replicas, itself included, want %d", reached, quorum)
	}
	return nil
}
