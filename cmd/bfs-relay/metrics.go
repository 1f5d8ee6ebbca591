package main

import (
	"fmt"
	"io"

	"github.com/VictoriaMetrics/metrics"

	"bfs/pkg/pbft"
	"bfs/pkg/relay"
)

// writeMetrics writes what the relay and its client count.
func writeMetrics(w io.Writer, s relay.Stats, c pbft.ClientStatus) {
	for i, connected := range c.Connected {
		up := uint64(0)
		if connected {
			up = 1
		}
		metrics.WriteGaugeUint64(w, fmt.Sprintf(`bfs_relay_replica_connected{replica="%d"}`, i), up)
	}
	for _, g := range []struct {
		name  string
		value int
	}{
		{"bfs_relay_view", int(c.View)},
		{"bfs_relay_calls_outstanding", c.Outstanding},
		{"bfs_relay_calls_queued", c.Queued},
		{"bfs_relay_connections", s.Connections},
		{"bfs_relay_calls_in_flight", s.InFlight},
		{"bfs_relay_unsent_bytes", s.Unsent},
	} {
		metrics.WriteGaugeUint64(w, g.name, uint64(g.value))
	}
	for _, n := range []struct {
		name  string
		value uint64
	}{
		{"bfs_relay_retries_total", c.Retries},
		{"bfs_relay_fallbacks_total", c.Fallbacks},
		{"bfs_relay_accepted_total", s.Accepted},
		{`bfs_relay_connections_closed_total{why="port"}`, s.RefusedPort},
		{`bfs_relay_connections_closed_total{why="full"}`, s.RefusedFull},
		{`bfs_relay_connections_closed_total{why="idle"}`, s.Evicted},
		{`bfs_relay_connections_closed_total{why="slow"}`, s.Slow},
		{`bfs_relay_connections_closed_total{why="broken"}`, s.Broken},
		{"bfs_relay_joined_total", s.Joined},
		{"bfs_relay_replayed_total", s.Replayed},
		{"bfs_relay_resumed_total", s.Resumed},
		{"bfs_relay_busy_total", s.Busy},
		{"bfs_relay_received_bytes_total", s.BytesIn},
		{"bfs_relay_sent_bytes_total", s.BytesOut},
	} {
		metrics.WriteCounterUint64(w, n.name, n.value)
	}
	for _, p := range s.Procedures {
		for _, o := range []struct {
			name  string
			count uint64
		}{{"ok", p.OK}, {"refused", p.Refused}, {"failed", p.Failed}, {"unanswered", p.Unanswered}} {
			metrics.WriteCounterUint64(w, fmt.Sprintf("bfs_relay_calls_total{procedure=%q,outcome=%q}", p.Name, o.name), o.count)
		}
	}
	writeLatency(w, s)
}

// writeLatency writes the histogram in Prometheus's way: each bucket counts all below its bound.
func writeLatency(w io.Writer, s relay.Stats) {
	total := uint64(0)
	for i, n := range s.Latency {
		total += n
		bound := "+Inf"
		if i < len(s.Latency)-1 {
			bound = fmt.Sprint(relay.LatencyBound(i).Seconds())
		}
		metrics.WriteCounterUint64(w, fmt.Sprintf("bfs_relay_call_seconds_bucket{le=%q}", bound), total)
	}
	metrics.WriteCounterFloat64(w, "bfs_relay_call_seconds_sum", s.LatencySum.Seconds())
	metrics.WriteCounterUint64(w, "bfs_relay_call_seconds_count", total)
}
