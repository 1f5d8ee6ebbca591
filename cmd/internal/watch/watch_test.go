// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bfs/cmd/internal/admin"
	"bfs/cmd/internal/status"
	"bfs/pkg/pbft"
)

// Each replica has one slot in each period, no two at once, and a replica never follows
// the one below it: the successor of a primary that is recovered is not next.
func TestSchedule(t *testing.T) {
	const period = 10 * time.Minute
	for _, n := range []int{4, 5, 7, 31} {
		order := []int{}
		begin := time.Unix(0, 0).Add(12345 * period)
		for at := begin; at.Before(begin.Add(period)); at = at.Add(time.Second) {
			for i := range n {
				due, ok := (schedule{period, n, i}).next(at.Add(-time.Nanosecond))
				if ok && !due.Before(at) && due.Before(at.Add(time.Second)) {
					order = append(order, i)
				}
			}
		}
		if len(order) != n {
			t.Fatalf("n=%d: got turns %v, want one for each", n, order)
		}
		for i := range order {
			if next := order[(i+1)%n]; next == (order[i]+1)%n && n > 1 {
				t.Errorf("n=%d: replica %d follows %d, its predecessor as primary", n, next, order[i])
			}
		}
	}
	at, _ := schedule{period, 4, 2}.next(time.Now())
	if again, _ := (schedule{period, 4, 2}).next(at); again != at.Add(period) {
		t.Errorf("after the turn at %v: got %v", at, again)
	}
	for _, never := range []schedule{{0, 4, 1}, {period, 1, 0}} {
		if at, ok := never.next(time.Now()); ok {
			t.Errorf("%+v: got %v", never, at)
		}
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	last := time.Duration(0)
	for i := range 20 {
		p := b.after(time.Second)
		if p < last || p > mostPause || i == 0 && p != leastPause || i == 19 && p != mostPause {
			t.Fatalf("pause %d is %v after %v", i, p, last)
		}
		last = p
	}
	if p := b.after(steady); p != leastPause {
		t.Errorf("after a long run: got %v", p)
	}
}

// report is a group of four that is well, as replica 1's keeper sees it: the others'
// status can be asked.
func report() *status.Report {
	r := &status.Report{Members: 4, Quorum: 3}
	for i := range 4 {
		s := &admin.ReplicaStatus{Status: pbft.Status{Replica: pbft.ReplicaID(i), LastExecuted: 1000}}
		for j := range 4 {
			if i != j {
				s.Peers = append(s.Peers,
					pbft.PeerStatus{Replica: pbft.ReplicaID(j), Connected: true, Keys: true, LastExecuted: 990})
			}
		}
		r.Replicas = append(r.Replicas, status.Replica{Number: i, Status: s})
	}
	return r
}

func TestObjections(t *testing.T) {
	const self, other = 1, 3
	away := func(r *status.Report, i int) { r.Replicas[i].Status, r.Replicas[i].Problem = nil, "connection refused" }
	peer := func(r *status.Report) *pbft.PeerStatus { return &r.Replicas[self].Status.Peers[other-1] }
	for _, c := range []struct {
		name   string
		change func(*status.Report)
		want   string // "": it may be recovered
	}{
		{"all take part", func(*status.Report) {}, ""},
		{"this one is silent", func(r *status.Report) { r.Replicas[self].Problem = "silent" }, ""},
		{"this one is away", func(r *status.Report) { away(r, self) }, ""},
		{"another recovers", func(r *status.Report) { r.Replicas[other].Problem = "silent until checkpoint 640" }, "replica 3: silent"},
		{"another checks its state", func(r *status.Report) { r.Replicas[other].Status.Recovery.Phase = "checking" }, "replica 3 is recovering: checking"},
		{"nobody can be asked", func(r *status.Report) { away(r, 0); away(r, 2); away(r, other) }, ""},
		{"another is not there", func(r *status.Report) { away(r, other); peer(r).Connected = false }, "replica 3 is not connected"},
		{"another has no keys", func(r *status.Report) { away(r, other); peer(r).Keys = false }, "replica 3 is not connected"},
		{"another is behind", func(r *status.Report) { away(r, other); peer(r).LastExecuted = 800 }, "replica 3 is 200 batches behind"},
		{"another is unknown", func(r *status.Report) { away(r, other); r.Replicas[self].Status.Peers = nil }, "replica 3 is unknown"},
		{"nobody answers", func(r *status.Report) { away(r, self); away(r, other) }, "replica 3 does not answer"},
	} {
		r := report()
		c.change(r)
		got := strings.Join(objections(r, self, 128), "; ")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// A replica whose last recovery is not over is left in peace, but not for ever.
func TestUnfinished(t *testing.T) {
	const self = 1
	r := report()
	if got := unfinished(r, self, 0); got != nil {
		t.Errorf("it is over: got %q", got)
	}
	r.Replicas[self].Status.Recovery.Phase = "checking"
	if got := unfinished(r, self, patienceTurns-1); len(got) != 1 || !strings.Contains(got[0], "checking") {
		t.Errorf("it is not over: got %q", got)
	}
	if got := unfinished(r, self, patienceTurns); got != nil {
		t.Errorf("after too many turns: got %q", got)
	}
	r.Replicas[self].Status = nil
	if got := unfinished(r, self, 0); got != nil {
		t.Errorf("it does not answer: got %q", got)
	}
}

// No objection puts off a recovery for ever, unless the recovery could stop the group.
func TestDecide(t *testing.T) {
	why := []string{"replica 3 lies"}
	for _, c := range []struct {
		reasons []string
		skipped int
		d       pbft.Durability
		want    decision
	}{
		{nil, 0, pbft.DurabilityDisk, due},
		{nil, 9, pbft.DurabilityReplicated, due},
		{why, 0, pbft.DurabilityDisk, skip},
		{why, patienceTurns - 1, pbft.DurabilityDisk, skip},
		{why, patienceTurns, pbft.DurabilityDisk, force},
		{why, 99, pbft.DurabilityReplicated, skip},
	} {
		if got := decide(c.reasons, c.skipped, c.d); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}

// A replica that says it hangs is believed when it has said so several times in a row.
func TestLooks(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n := asked.Add(1); n != 2 { // in between it lives
			http.Error(w, "the loop has not turned", http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	err := looks(t.Context(), s.Listener.Addr().String(), time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("got %v", err)
	}
	if n := asked.Load(); n != 2+looksLost {
		t.Errorf("asked %d times, want %d", n, 2+looksLost)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := looks(done, s.Listener.Addr().String(), time.Millisecond); err != nil {
		t.Errorf("after the end: got %v", err)
	}
}

// Systemd gets the messages that it asked for, on its socket.
func TestNotify(t *testing.T) {
	path := t.TempDir() + "/notify"
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "60000000")
	notify("READY=1")
	b := make([]byte, 64)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	if p := watchdogPeriod(); p != 30*time.Second || tick(0) > p || tick(time.Hour) > p {
		t.Errorf("got a period of %v, and ticks of %v and %v", p, tick(0), tick(time.Hour))
	}
}
