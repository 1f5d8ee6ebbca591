// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"bfs/cmd/internal/admin/admintest"
)

// A peer that holds twice the limit of connections, silent or in the middle of a request,
// keeps no other peer from an answer.
func TestHeldConnectionsKeepNobodyFromAnAnswer(t *testing.T) {
	a, err := Serve("127.0.0.1:0", Sources{
		Status: func() any { return 1 }, Health: func() error { return nil }, Metrics: func(io.Writer) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close(context.Background())
	for _, said := range []string{"", "GET /st", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"} {
		for range 2 * maxConnections {
			c, err := net.Dial("tcp", a.Address())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte(said)); err != nil {
				t.Fatal(err)
			}
		}
		for _, page := range []string{"/livez", "/readyz", "/healthz", "/status", "/metrics"} {
			fresh := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			r, err := fresh.Get("http://" + a.Address() + page)
			if err != nil {
				t.Fatalf("others have said %q: %v", said, err)
			}
			r.Body.Close()
			if r.StatusCode != http.StatusOK {
				t.Errorf("%s: got %d", page, r.StatusCode)
			}
		}
	}
}

// A member of a crowd that has been idle goes first, and a busy one only when all are.
func TestWhoLeavesACrowd(t *testing.T) {
	c := newCrowd(3)
	var gone []int
	conns := make([]net.Conn, 6)
	for i := range conns {
		conns[i] = &leaving{leave: func() { gone = append(gone, i) }}
	}
	for i := range 3 {
		c.changed(conns[i], http.StateNew)
	}
	c.changed(conns[0], http.StateActive)
	c.changed(conns[3], http.StateNew) // 1 has been silent for longest
	c.changed(conns[0], http.StateIdle)
	c.changed(conns[4], http.StateNew) // 2, for 0 has been idle for a moment only
	for _, i := range []int{0, 4, 3} {
		c.changed(conns[i], http.StateActive)
	}
	c.changed(conns[5], http.StateNew) // all are busy, 0 for longest
	if len(gone) != 3 || gone[0] != 1 || gone[1] != 2 || gone[2] != 0 {
		t.Errorf("%v left, want 1, 2, 0", gone)
	}
	for _, conn := range conns {
		c.changed(conn, http.StateClosed)
	}
	if len(c.members) != 0 {
		t.Errorf("%d members are left", len(c.members))
	}
}

type leaving struct {
	net.Conn
	leave func()
}

func (l *leaving) Close() error { l.leave(); return nil }

func TestMetricsPage(t *testing.T) {
	a, err := Serve("127.0.0.1:0", Sources{
		Metrics: func(w io.Writer) { io.WriteString(w, "x_total{a=\"1\"} 1\ny 2\nx_total{a=\"2\"} 1\n") },
		Help:    map[string]string{"x_total": "Xes.", "y": "Why."},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close(context.Background())
	_, text := get(t, "http://"+a.Address()+"/metrics")
	for _, problem := range admintest.Lint(text) {
		t.Error(problem)
	}
}
