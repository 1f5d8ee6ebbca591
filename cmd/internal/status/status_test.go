// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/admin"
	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/version"
	"bfs/pkg/pbft"
	"bfs/test/patience"
)

var rewrite = flag.Bool("rewrite", false, "write the tables as they are now to testdata")

// well is a replica that agrees with the others.
func well(i int) *admin.ReplicaStatus {
	s := &admin.ReplicaStatus{Program: version.Info{Version: "v1.2.3", Commit: "0123456789ab", Protocol: "3.0"}}
	s.Status = pbft.Status{
		Replica: pbft.ReplicaID(i), View: 4, Primary: 0, Active: true, LastExecuted: 300, Stable: 256,
		Root: strings.Repeat("ab", 32), KeyAge: pbft.Seconds(90 * time.Second),
	}
	for j := range 4 {
		if j != i {
			s.Peers = append(s.Peers, pbft.PeerStatus{Replica: pbft.ReplicaID(j), Connected: true, Keys: true})
		}
	}
	return s
}

// report judges four replicas after a change to them.
func report(change func(rows []Replica)) *Report {
	r := &Report{Group: "test", Members: 4, Quorum: 3}
	for i := range 4 {
		r.Replicas = append(r.Replicas, Replica{Number: i, Address: fmt.Sprintf("host%d:7451", i), Status: well(i)})
	}
	change(r.Replicas)
	r.judge(128)
	return r
}

func TestTables(t *testing.T) {
	var got strings.Builder
	for _, c := range []struct {
		what     string
		agreeing int
		change   func(rows []Replica)
	}{
		{"all well", 4, func([]Replica) {}},
		{"a few batches apart", 4, func(rows []Replica) { rows[2].Status.LastExecuted = 290 }},
		{"at different checkpoints", 4, func(rows []Replica) {
			rows[1].Status.Stable, rows[1].Status.Root = 128, strings.Repeat("cd", 32)
		}},
		{"one does not answer", 3, func(rows []Replica) {
			rows[3].Status, rows[3].Problem = nil, "connection refused"
		}},
		{"one has another root", 3, func(rows []Replica) { rows[0].Status.Root = strings.Repeat("ef", 32) }},
		{"one is far behind, one in a view change", 2, func(rows []Replica) {
			rows[1].Status.LastExecuted = 100
			rows[2].Status.Active = false
		}},
		{"one is in another view", 3, func(rows []Replica) { rows[2].Status.View = 5 }},
		{"one has no keys", 3, func(rows []Replica) {
			for i := range rows[2].Status.Peers {
				rows[2].Status.Peers[i].Keys = false
			}
		}},
		{"one was restarted", 3, func(rows []Replica) { rows[1].Status.SilentUntil = 640 }},
		{"two were restarted", 2, func(rows []Replica) {
			rows[1].Status.SilentUntil = 640
			rows[2].Status.SilentUntil, rows[2].Status.Fetching, rows[2].Status.LastExecuted = 512, true, 0
		}},
		{"one fetches the state", 3, func(rows []Replica) { rows[1].Status.Fetching = true }},
		{"one recovers", 3, func(rows []Replica) {
			rows[1].Status.Recovery = pbft.Recovery{Phase: "checking", Point: 384,
				Took: pbft.Seconds(1200 * time.Millisecond)}
			rows[2].Status.Recovery = pbft.Recovery{Ended: true, Took: pbft.Seconds(2 * time.Second),
				Ago: pbft.Seconds(time.Minute), Corrupt: true}
		}},
		{"one has a full disk", 3, func(rows []Replica) {
			for i := range rows {
				rows[i].Status.Durability, rows[i].Status.StateBytes = pbft.DurabilityDisk, 1500<<20
				rows[i].Status.Memory = &admin.Memory{Limit: 16 << 30, Resident: 1700 << 20,
					Needed: 9 << 30, StateSize: 8 << 30}
				rows[i].Status.Disk = &pbft.DiskStatus{JournalBytes: 144 << 20, End: 70_000, Durable: 69_998,
					Image: 256, ImageBytes: 1600 << 20, Synced: time.Date(2026, 11, 12, 13, 14, 15, 0, time.UTC),
					Free: 40 << 30, Size: 100 << 30,
					Syncs: pbft.Histogram{P50: pbft.Seconds(512 * time.Microsecond),
						P99: pbft.Seconds(16384 * time.Microsecond)}}
			}
			rows[1].Status.Disk.Full, rows[1].Status.Disk.Free = "no space left on device", 0
			rows[2].Status.Memory.Limit = 4 << 30
			rows[3].Status.Durability, rows[3].Status.Disk = pbft.DurabilityReplicated, nil
		}},
		{"one boasts", 4, func(rows []Replica) { rows[0].Status.LastExecuted = 1 << 62 }},
		{"two pairs of roots", 0, func(rows []Replica) { // there is no majority
			rows[0].Status.Root = strings.Repeat("ef", 32)
			rows[1].Status.Root = rows[0].Status.Root
		}},
	} {
		r := report(c.change)
		fmt.Fprintf(&got, "# %s\n", c.what)
		if err := r.WriteTable(&got); err != nil {
			t.Fatal(err)
		}
		got.WriteByte('\n')
		state := []State{Down, Down, Down, Reserve, Well}[c.agreeing]
		if r.Agreeing != c.agreeing || r.State != state {
			t.Errorf("%s: got %d agreeing, %s, want %d, %s", c.what, r.Agreeing, r.State, c.agreeing, state)
		}
	}
	const golden = "testdata/tables.txt"
	if *rewrite {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("tables differ from %s (refresh with -rewrite and read the diff); got:\n%s", golden, got.String())
	}
}

// Ask over real sockets: one replica answers, one says it is another, one is closed, one
// is silent until time is up.
func TestAsk(t *testing.T) {
	serve := func(s *admin.ReplicaStatus) string {
		a, err := admin.Serve("127.0.0.1:0", admin.Sources{
			Status: func() any { return s }, Health: func() error { return nil }, Metrics: func(io.Writer) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close(context.Background()) })
		return a.Address()
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	hosts := bundle.Loopback(4, 7450)
	for i, address := range []string{serve(well(0)), serve(well(3)), closed.Addr().String(), silent.Addr().String()} {
		hosts[i].Admin = address
	}
	dir := filepath.Join(t.TempDir(), "g")
	err = bundle.Write(dir, bundle.Plan{
		Name: "test", Hosts: hosts, Size: 1 << 30, Limits: pbft.DefaultLimits(), Transport: pbft.TransportTLS,
		Durability: pbft.DurabilityReplicated, Window: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	g, err := config.LoadGroup(filepath.Join(dir, bundle.GroupFile))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := patience.Context(t.Context(), 300*time.Millisecond) // only the silent one takes so long
	defer cancel()
	r := Ask(ctx, g)
	for i, want := range []string{"", "says it is replica 3", "refused", "no answer in time"} {
		if got := r.Replicas[i].Problem; !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("replica %d: got problem %q, want %q", i, got, want)
		}
	}
	if r.State != Down || r.Agreeing != 1 {
		t.Errorf("got %d agreeing, %s, want 1 and down", r.Agreeing, r.State)
	}
	var text strings.Builder
	if err := r.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var back Report
	err = json.Unmarshal([]byte(text.String()), &back)
	if err != nil || back.Members != 4 || back.Replicas[0].Status.View != 4 {
		t.Errorf("JSON: got %+v, %v", back, err)
	}
	if !strings.Contains(text.String(), `"key_age_seconds": 90`) ||
		back.Replicas[0].Status.KeyAge.Duration() != 90*time.Second {
		t.Errorf("the age of keys is not in seconds:\n%s", text.String())
	}
}

// The states are the exit codes that supervisors know.
func TestCodes(t *testing.T) {
	for state, want := range map[State]int{Well: 0, Reserve: 2, Down: 1} {
		if got := state.Code(); got != want {
			t.Errorf("%s: got %d, want %d", state, got, want)
		}
	}
}

// A replica may be stopped if those that are left order operations and hold the state without it.
func TestCanStop(t *testing.T) {
	cut := func(rows []Replica, a, b int) {
		for _, p := range [][2]int{{a, b}, {b, a}} {
			for i := range rows[p[0]].Status.Peers {
				if q := &rows[p[0]].Status.Peers[i]; int(q.Replica) == p[1] {
					q.Connected = false
				}
			}
		}
	}
	for _, c := range []struct {
		what   string
		stop   int
		change func(rows []Replica)
		want   string // "": it may be stopped
	}{
		{"all well", 2, func([]Replica) {}, ""},
		{"it is down itself", 2, func(rows []Replica) { rows[2].Status, rows[2].Problem = nil, "refused" }, ""},
		{"it is silent itself", 2, func(rows []Replica) { rows[2].Status.SilentUntil = 640 }, ""},
		{"another is silent", 2, func(rows []Replica) { rows[1].Status.SilentUntil = 640 },
			"replica 1: silent until checkpoint 640 is stable; has executed 300|2 of the " +
				"others would be left, 3 are needed"},
		{"another recovers", 2, func(rows []Replica) { rows[1].Status.Recovery = pbft.Recovery{Phase: "checking", Point: 384} },
			"replica 1: recovering (checking) until checkpoint 384 is stable; has executed 300|2 of"},
		{"another fetches", 2, func(rows []Replica) { rows[1].Status.Fetching = true }, "replica 1: fetching the state; has executed 300|2 of"},
		{"another is down", 0, func(rows []Replica) { rows[3].Status, rows[3].Problem = nil, "refused" }, "replica 3 does not answer: refused|2 of"},
		{"another is behind", 0, func(rows []Replica) { rows[3].Status.LastExecuted = 10 }, "replica 3: 290 batches behind|2 of"},
		{"two others are cut", 0, func(rows []Replica) { cut(rows, 1, 2) }, "replicas 1 and 2 are not connected with each other|2 of"},
		{"it is cut from another", 0, func(rows []Replica) { cut(rows, 0, 2) }, ""},
	} {
		got := strings.Join(report(c.change).CanStop(c.stop), "|")
		if got != c.want && (c.want == "" || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// groupOf is a group of n that is well and has not been judged.
func groupOf(n int) *Report {
	r := &Report{Group: "test", Members: n, Quorum: pbft.GroupSize(n).Quorum()}
	for i := range n {
		s := well(i)
		s.Peers = nil
		for j := range n {
			s.Peers = append(s.Peers, pbft.PeerStatus{Replica: pbft.ReplicaID(j), Connected: true, Keys: true})
		}
		r.Replicas = append(r.Replicas, Replica{Number: i, Status: s})
	}
	return r
}

// A group of six is well while one is away, works on its reserve while two are, and stands still
// without three. Five are on their reserve without one, as four are.
func TestReserve(t *testing.T) {
	for _, c := range []struct {
		n, away int
		state   State
		may     bool // one more be stopped
	}{
		{4, 0, Well, true}, {4, 1, Reserve, false}, {4, 2, Down, false},
		{5, 0, Well, true}, {5, 1, Reserve, false}, {5, 2, Down, false},
		{6, 0, Well, true}, {6, 1, Well, true}, {6, 2, Reserve, false}, {6, 3, Down, false},
		{7, 1, Reserve, true}, {7, 2, Reserve, false}, {7, 3, Down, false},
	} {
		r := groupOf(c.n)
		for i := range c.away {
			r.Replicas[c.n-1-i].Status = nil
		}
		if r.judge(128); r.State != c.state || (len(r.CanStop(0)) == 0) != c.may {
			t.Errorf("%d of %d are away: got %s, and stopping one more is refused because of %q",
				c.away, c.n, r.State, r.CanStop(0))
		}
	}
	r := groupOf(6)
	r.Replicas[2].Status = nil
	r.judge(128)
	var table strings.Builder
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	const want = "group test is well without 1, and survives the failure of 1 more: 5 of 6 agree, 4 are needed"
	if !strings.Contains(table.String(), want) {
		t.Errorf("got %s\nwant %q", table.String(), want)
	}
}

// Seven replicas survive two faults: one may be stopped while another is away, and none
// while two are.
func TestCanStopOfSeven(t *testing.T) {
	r := groupOf(7)
	r.Replicas[6].Status.SilentUntil = 640
	if r.judge(128); len(r.CanStop(0)) != 0 {
		t.Errorf("one is silent: got %v", r.CanStop(0))
	}
	r.Replicas[5].Problem = "in a view change"
	if len(r.CanStop(0)) == 0 {
		t.Error("two are away, and a third may be stopped")
	}
}

// A replica does not agree when f+1 others say that its checkpoints are not the group's.
// f that say so may lie: their word does not count.
func TestAccused(t *testing.T) {
	for _, c := range []struct {
		n, accusers int
		agrees      bool
	}{{4, 1, true}, {4, 2, false}, {7, 2, true}, {7, 3, false}} {
		r := groupOf(c.n)
		for j := range c.accusers {
			p := r.about(j, c.n-1)
			p.False, p.WrongRoots = true, 1
		}
		r.judge(128)
		row := r.Replicas[c.n-1]
		if (row.Problem == "") != c.agrees || !c.agrees && !strings.Contains(row.Problem, "are not the group's") {
			t.Errorf("%d of %d accuse a replica: got %q", c.accusers, c.n, row.Problem)
		}
		var table strings.Builder
		if err := r.WriteTable(&table); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("replica 0 counts of replica %d: 0 votes against what committed, 1 checkpoints", c.n-1)
		if !strings.Contains(table.String(), want) {
			t.Errorf("got %s\nwant %q", table.String(), want)
		}
	}
}
