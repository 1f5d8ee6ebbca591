// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"bfs/pkg/pbft"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

func TestPages(t *testing.T) {
	status := pbft.Status{
		Replica: 1, View: 7, LastExecuted: 42, KeyAge: pbft.Seconds(1500 * time.Millisecond), Executed: 1000,
		Peers:    []pbft.PeerStatus{{Replica: 0, Connected: true, Keys: true}, {Replica: 2, Connected: true}},
		Refusals: []pbft.Refusals{{Reason: "bad MAC", Count: 3}},
	}
	health, live := errors.New("in a view change"), error(nil)
	a, err := Serve("127.0.0.1:0", Sources{
		Status:  func() any { return status },
		Health:  func() error { return health },
		Live:    func() error { return live },
		Metrics: func(w io.Writer) { ReplicaMetrics(w, status, 4) },
		Help:    ReplicaHelp,
	})
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + a.Address()

	var back pbft.Status
	code, text := get(t, base+"/status")
	err = json.Unmarshal([]byte(text), &back)
	if code != 200 || err != nil || back.View != 7 || back.LastExecuted != 42 {
		t.Errorf("status: got %d %s, %v", code, text, err)
	}
	for _, page := range []string{"/healthz", "/readyz"} {
		if code, text := get(t, base+page); code != 503 || text != "in a view change\n" {
			t.Errorf("%s: got %d %q", page, code, text)
		}
	}
	if code, text := get(t, base+"/livez"); code != 200 || text != "ok\n" {
		t.Errorf("/livez in a view change: got %d %q: no supervisor may restart a replica for that", code, text)
	}
	health, live = nil, errors.New("the loop has not turned for 40s")
	if code, text := get(t, base+"/readyz"); code != 200 || text != "ok\n" {
		t.Errorf("/readyz: got %d %q", code, text)
	}
	if code, text := get(t, base+"/livez"); code != 503 || !strings.Contains(text, "has not turned") {
		t.Errorf("/livez: got %d %q", code, text)
	}
	_, text = get(t, base+"/metrics")
	for _, line := range []string{
		"bfs_view 7\n", "bfs_last_executed 42\n", "bfs_operations_total 1000\n", "bfs_session_key_age_seconds 1.5\n",
		"bfs_peer_keys{replica=\"0\"} 1\n", "bfs_peer_keys{replica=\"2\"} 0\n",
		"bfs_refusals_total{reason=\"bad MAC\"} 3\n", "process_resident_memory_bytes ", "process_open_fds ",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("metrics: %q is missing", line)
		}
	}
	if code, _ := get(t, base+"/nothing"); code != 404 {
		t.Errorf("unknown page: got %d", code)
	}
	r, err := http.Post(base+"/status", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d, want a refusal: nothing can be changed here", r.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
	if err := a.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestServeNowhere(t *testing.T) {
	a, err := Serve("", Sources{})
	if a != nil || err != nil || a.Address() != "" || a.Close(context.Background()) != nil {
		t.Errorf("got %v, %v", a, err)
	}
}

func TestReplicaReady(t *testing.T) {
	s := pbft.Status{Replica: 0, Active: true}
	for i := range pbft.ReplicaID(3) {
		s.Peers = append(s.Peers, pbft.PeerStatus{Replica: i + 1, Connected: true, Keys: true})
	}
	if err := ReplicaReady(s, 4); err != nil {
		t.Errorf("all well: got %v", err)
	}
	s.Peers[0].Connected = false
	if err := ReplicaReady(s, 4); err != nil {
		t.Errorf("one peer away: got %v", err)
	}
	s.Peers[1].Keys = false
	if err := ReplicaReady(s, 4); err == nil {
		t.Error("two peers away: ready")
	}
	if err := ReplicaReady(pbft.Status{Active: true}, 1); err != nil {
		t.Errorf("a group of one: got %v", err)
	}
	if err := ReplicaReady(pbft.Status{}, 1); err == nil {
		t.Error("in a view change: ready")
	}
	s.Peers[1].Keys, s.SilentUntil, s.LastExecuted = true, 640, 300
	err := ReplicaReady(s, 4)
	if err == nil || err.Error() != "silent until checkpoint 640 is stable; has executed 300" {
		t.Errorf("silent: got %v", err)
	}
	s.SilentUntil, s.Fetching = 0, true
	if err := ReplicaReady(s, 4); err == nil || err.Error() != "fetching the state; has executed 300" {
		t.Errorf("fetching: got %v", err)
	}
}

// /metrics passes Prometheus's own check: each family once, with help and type before its
// samples, in names that say what is counted.
func TestMetricsAreWellFormed(t *testing.T) {
	status := pbft.Status{
		Peers:     []pbft.PeerStatus{{Replica: 0}, {Replica: 2}},
		Refusals:  []pbft.Refusals{{Reason: "bad MAC", Count: 3}, {Reason: "malformed"}},
		Disk:      &pbft.DiskStatus{Syncs: pbft.Histogram{Count: 3, Classes: []uint64{1, 0, 2}}},
		Keeper:    &pbft.SeenKeeper{},
		OverShare: []pbft.ClientID{5},
	}
	a, err := Serve("127.0.0.1:0", Sources{Metrics: func(w io.Writer) {
		ReplicaMetrics(w, status, 4)
		MemoryMetrics(w, &Memory{Limit: 1 << 30})
	}, Help: ReplicaHelp})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close(context.Background()) }()
	_, text := get(t, "http://"+a.Address()+"/metrics")
	lint(t, text)
	for family := range ReplicaHelp {
		if !strings.Contains(text, "\n"+family) && !strings.HasPrefix(text, family) {
			t.Errorf("%s has help and is not there", family)
		}
	}
	var out strings.Builder
	writeFamilies(&out, []byte("x_seconds_bucket{le=\"1\"} 1\ny_total 2\nx_seconds_bucket{le=\"+Inf\"} "+
		"1\nx_seconds_sum 1\nx_seconds_count 1\n"), nil)
	if lint(t, out.String()); !strings.Contains(out.String(), "# TYPE x_seconds histogram\n") {
		t.Errorf("a histogram: got\n%s", out.String())
	}
}

// lint checks Prometheus's text format.
func lint(t *testing.T, text string) {
	t.Helper()
	family, kind, samples := "", "", map[string]bool{}
	families := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch fields := strings.Fields(line); {
		case strings.HasPrefix(line, "# HELP "):
			family, kind = fields[2], ""
			if families[family] || len(fields) < 4 {
				t.Errorf("%s: a second time, or without help", family)
			}
			families[family] = true
		case strings.HasPrefix(line, "# TYPE "):
			if kind = fields[3]; fields[2] != family {
				t.Errorf("type of %s below help of %s", fields[2], family)
			}
			if strings.HasSuffix(family, "_total") != (kind == "counter") {
				t.Errorf("%s is a %s", family, kind)
			}
		default:
			key := line[:strings.LastIndex(line, " ")]
			name, _, _ := strings.Cut(key, "{")
			if kind == "" || name != family && !(kind == "histogram" && strings.HasPrefix(name, family+"_")) {
				t.Errorf("%q in family %q of type %q", line, family, kind)
			}
			if samples[key] {
				t.Errorf("%s: twice", key)
			}
			samples[key] = true
		}
	}
}
