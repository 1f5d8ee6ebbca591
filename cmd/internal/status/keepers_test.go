// SPDX-License-Identifier: Apache-2.0

package status

import (
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/admin"
	"bfs/pkg/pbft"
)

// Operators are alerted of a keeper that is silent, of a program that it refuses, of a
// window past its bound; and, whatever a replica tells of its keeper, when f+1 others
// have seen no recovery of it.
func TestAlerts(t *testing.T) {
	seconds := func(d time.Duration) pbft.Seconds { return pbft.Seconds(d) }
	for _, c := range []struct {
		name   string
		change func(of []*pbft.PeerStatus, k *pbft.SeenKeeper)
		want   string // "": nothing
	}{
		{"all is well", func(_ []*pbft.PeerStatus, _ *pbft.SeenKeeper) {}, ""},
		{"silent", func(_ []*pbft.PeerStatus, k *pbft.SeenKeeper) { k.Answered, k.Silent = seconds(time.Hour), "no socket" }, "not answered for 1h0m0s: no socket"},
		{"another program", func(_ []*pbft.PeerStatus, k *pbft.SeenKeeper) { k.Problem = "digest" }, "refuses the program: digest"},
		{"given up", func(_ []*pbft.PeerStatus, k *pbft.SeenKeeper) { k.Window, k.GivenUp = seconds(time.Hour), 3 }, "3 turns in a row"},
		{"it lies, and two others say so", func(of []*pbft.PeerStatus, _ *pbft.SeenKeeper) {
			of[0].Recovered, of[1].Recovered = seconds(time.Hour), seconds(2*time.Hour)
		}, "others have seen no recovery of it for 1h0m0s"},
		{"never since two others started", func(of []*pbft.PeerStatus, _ *pbft.SeenKeeper) {
			of[0].Recovered, of[1].Recovered = 0, 0
		}, "others have seen no recovery of it for 24h0m0s"},
		{"one other says so", func(of []*pbft.PeerStatus, _ *pbft.SeenKeeper) { of[0].Recovered = seconds(time.Hour) }, ""},
	} {
		const of = 2
		r := &Report{Members: 4, Quorum: 3}
		for i := range 4 {
			s := &admin.ReplicaStatus{Status: pbft.Status{Replica: pbft.ReplicaID(i), Uptime: seconds(24 * time.Hour),
				Keeper: &pbft.SeenKeeper{Window: seconds(time.Minute), Bound: seconds(13 * time.Minute)}}}
			for j := range 4 {
				if i != j {
					s.Peers = append(s.Peers,
						pbft.PeerStatus{Replica: pbft.ReplicaID(j), Recovered: seconds(time.Minute)})
				}
			}
			r.Replicas = append(r.Replicas, Replica{Number: i, Status: s})
		}
		var about []*pbft.PeerStatus
		for i := range 4 {
			if p := r.about(i, of); p != nil {
				about = append(about, p)
			}
		}
		c.change(about, r.Replicas[of].Status.Keeper)
		r.alert()
		for i, row := range r.Replicas {
			got := strings.Join(row.Alerts, "; ")
			if i != of && got != "" || i == of && (c.want == "" && got != "" || !strings.Contains(got, c.want)) {
				t.Errorf("%s: replica %d: got %q, want %q", c.name, i, got, c.want)
			}
		}
	}
}
