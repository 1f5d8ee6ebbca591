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
	"bfs/pkg/pbft"
)

var rewrite = flag.Bool("rewrite", false, "write the tables as they are now to testdata")

// well is a replica that agrees with the others.
func well(i int) *pbft.Status {
	s := &pbft.Status{
		Replica: pbft.ReplicaID(i), View: 4, Primary: 0, Active: true, LastExecuted: 300, Stable: 256,
		Root: strings.Repeat("ab", 32), KeyAge: 90 * time.Second,
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
		{"one boasts", 4, func(rows []Replica) { rows[0].Status.LastExecuted = 1 << 62 }},
		{"two pairs of roots", 0, func(rows []Replica) { // nobody can say who is right
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
		if r.Agreeing != c.agreeing || r.Healthy != (c.agreeing >= 3) {
			t.Errorf("%s: got %d agreeing, healthy %v, want %d", c.what, r.Agreeing, r.Healthy, c.agreeing)
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

// Ask over real sockets: one replica answers, one says it is another, one is closed, one is silent until time is up.
func TestAsk(t *testing.T) {
	serve := func(s *pbft.Status) string {
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
		Durability: config.DurabilityReplicated, Window: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	g, err := config.LoadGroup(filepath.Join(dir, bundle.GroupFile))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	r := Ask(ctx, g)
	for i, want := range []string{"", "says it is replica 3", "refused", "no answer in time"} {
		if got := r.Replicas[i].Problem; !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("replica %d: got problem %q, want %q", i, got, want)
		}
	}
	if r.Healthy || r.Agreeing != 1 {
		t.Errorf("got %d agreeing, healthy %v, want 1 and not", r.Agreeing, r.Healthy)
	}
	var text strings.Builder
	if err := r.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal([]byte(text.String()), &back); err != nil || back.Members != 4 || back.Replicas[0].Status.View != 4 {
		t.Errorf("JSON: got %+v, %v", back, err)
	}
}
