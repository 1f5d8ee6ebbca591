// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/VictoriaMetrics/metrics"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
	"bfs/pkg/relay"
)

// metricsHelp explains the families of writeMetrics.
var metricsHelp = map[string]string{
	"bfs_relay_ready":             "1 if the group knows this relay and answers its calls.",
	"bfs_relay_replica_connected": "1 if the relay has a connection to the replica.",
	"bfs_relay_wrong_replies_total": "Results of the replica that were not what a quorum said on the " +
		"same ground: it lies, or its state is false.",
	"bfs_relay_view":                     "The view that the relay believes the group to be in.",
	"bfs_relay_calls_outstanding":        "Requests at the group that have no answer yet.",
	"bfs_relay_calls_queued":             "Requests that wait for a slot.",
	"bfs_relay_connections":              "Connections of kernels and other NFS clients.",
	"bfs_relay_calls_in_flight":          "Calls of kernels that have no answer yet.",
	"bfs_relay_oldest_call_seconds":      "Age of the oldest call that has no answer yet.",
	"bfs_relay_unsent_bytes":             "Replies that kernels have not taken yet.",
	"bfs_relay_retries_total":            "Requests sent again because no answer came.",
	"bfs_relay_fallbacks_total":          "Reads that had to be ordered.",
	"bfs_relay_accepted_total":           "Connections accepted.",
	"bfs_relay_connections_closed_total": "Connections refused or closed by the relay, by reason.",
	"bfs_relay_joined_total":             "Retransmissions of calls that had no answer yet.",
	"bfs_relay_replayed_total":           "Retransmissions of calls that were answered again.",
	"bfs_relay_resumed_total":            "Calls of the relay's earlier life that were sent again.",
	"bfs_relay_busy_total":               "Times a call had to wait because too many were outstanding.",
	"bfs_relay_received_bytes_total":     "Bytes of calls received.",
	"bfs_relay_sent_bytes_total":         "Bytes of replies sent.",
	"bfs_relay_calls_total":              "Calls by program, procedure and outcome: failed ones got an I/O error.",
	"bfs_relay_call_seconds":             "Time from a call's arrival to its answer.",
}

// writeMetrics writes the counts of the relay and of its client.
func writeMetrics(w io.Writer, ready bool, s relay.Stats, c pbft.ClientStatus) {
	metrics.WriteGaugeUint64(w, "bfs_relay_ready", number(ready))
	for i, connected := range c.Connected {
		metrics.WriteGaugeUint64(w, fmt.Sprintf(`bfs_relay_replica_connected{replica="%d"}`, i), number(connected))
	}
	for i, wrong := range c.WrongReplies {
		metrics.WriteCounterUint64(w, fmt.Sprintf(`bfs_relay_wrong_replies_total{replica="%d"}`, i), wrong)
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
	metrics.WriteGaugeFloat64(w, "bfs_relay_oldest_call_seconds", s.Oldest.Seconds())
	for _, p := range s.Procedures {
		for _, o := range []struct {
			name  string
			count uint64
		}{{"ok", p.OK}, {"refused", p.Refused}, {"failed", p.Failed}, {"unanswered", p.Unanswered}} {
			metrics.WriteCounterUint64(w, fmt.Sprintf("bfs_relay_calls_total{program=%q,procedure=%q,outcome=%q}",
				programName(p.Program), p.Name, o.name), o.count)
		}
	}
	writeLatency(w, s)
}

// programName names one of the two programs that a relay serves: both have a procedure NULL.
func programName(program uint32) string {
	if program == nfs3.ProgramMount {
		return "mount"
	}
	return "nfs"
}

func number(b bool) uint64 {
	if b {
		return 1
	}
	return 0
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
