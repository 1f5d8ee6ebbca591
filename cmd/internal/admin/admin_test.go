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
		Replica: 1, View: 7, LastExecuted: 42, KeyAge: 1500 * time.Millisecond, Executed: 1000,
		Peers:    []pbft.PeerStatus{{Replica: 0, Connected: true, Keys: true}, {Replica: 2, Connected: true}},
		Refusals: []pbft.Refusals{{Reason: "bad MAC", Count: 3}},
	}
	health := errors.New("in a view change")
	a, err := Serve("127.0.0.1:0", Sources{
		Status:  func() any { return status },
		Health:  func() error { return health },
		Metrics: func(w io.Writer) { ReplicaMetrics(w, status) },
	})
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + a.Address()

	var back pbft.Status
	code, text := get(t, base+"/status")
	if err := json.Unmarshal([]byte(text), &back); code != 200 || err != nil || back.View != 7 || back.LastExecuted != 42 {
		t.Errorf("status: got %d %s, %v", code, text, err)
	}
	if code, text := get(t, base+"/healthz"); code != 503 || text != "in a view change\n" {
		t.Errorf("health: got %d %q", code, text)
	}
	health = nil
	if code, text := get(t, base+"/healthz"); code != 200 || text != "ok\n" {
		t.Errorf("health: got %d %q", code, text)
	}
	_, text = get(t, base+"/metrics")
	for _, line := range []string{
		"bfs_view 7\n", "bfs_last_executed 42\n", "bfs_operations_total 1000\n", "bfs_session_key_age_seconds 1.5\n",
		"bfs_peer_keys{replica=\"0\"} 1\n", "bfs_peer_keys{replica=\"2\"} 0\n", "bfs_refusals_total{reason=\"bad MAC\"} 3\n",
		"process_resident_memory_bytes ",
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

func TestReplicaHealth(t *testing.T) {
	s := pbft.Status{Replica: 0, Active: true}
	for i := range pbft.ReplicaID(3) {
		s.Peers = append(s.Peers, pbft.PeerStatus{Replica: i + 1, Connected: true, Keys: true})
	}
	if err := ReplicaHealth(s, 4); err != nil {
		t.Errorf("all well: got %v", err)
	}
	s.Peers[0].Connected = false
	if err := ReplicaHealth(s, 4); err != nil {
		t.Errorf("one peer away: got %v", err)
	}
	s.Peers[1].Keys = false
	if err := ReplicaHealth(s, 4); err == nil {
		t.Error("two peers away: in health")
	}
	if err := ReplicaHealth(pbft.Status{Active: true}, 1); err != nil {
		t.Errorf("a group of one: got %v", err)
	}
	if err := ReplicaHealth(pbft.Status{}, 1); err == nil {
		t.Error("in a view change: in health")
	}
}
