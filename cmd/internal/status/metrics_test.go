// SPDX-License-Identifier: Apache-2.0

package status

import (
	"maps"
	"strings"
	"testing"
)

func TestParseMetrics(t *testing.T) {
	page := "# HELP bfs_ready 1 if ready.\n# TYPE bfs_ready gauge\nbfs_ready 1\n\n" +
		"bfs_peer_keys{replica=\"0\"} 1\nprocess_open_fds 41\ngo_memstats_heap_inuse_bytes 1.5e+06\n"
	got, err := parseMetrics(strings.NewReader(page))
	want := map[string]float64{"bfs_ready": 1, "process_open_fds": 41, "go_memstats_heap_inuse_bytes": 1.5e6}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := parseMetrics(strings.NewReader("bfs_ready yes\n")); err == nil {
		t.Error("took a value that is no number")
	}
}
