// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"bfs/pkg/pbft"
)

// Replicas and clients refresh their keys many times while many operations are under way,
// and each is executed once and has its result.
func TestKeysAreRefreshedUnderLoad(t *testing.T) {
	for _, transport := range []pbft.Transport{pbft.TransportPlain, pbft.TransportTLS} {
		for _, mode := range []pbft.Durability{pbft.DurabilityReplicated, pbft.DurabilityDisk} {
			t.Run(string(transport)+" "+string(mode), func(t *testing.T) {
				c := newCluster(t, smallLimits(), transport, mode)
				for i := range c.replicas {
					c.start(i, func(cfg *pbft.ReplicaConfig) { cfg.KeyPeriod = 600 * time.Millisecond })
				}
				admin := c.client(c.admin)
				client := c.client(c.enrolled(admin, ""), func(cfg *pbft.ClientConfig) {
					cfg.KeyPeriod = 400 * time.Millisecond
				})
				refreshes := func() (n uint64) {
					n = c.replicas[0].Status().Refreshes
					for _, r := range c.replicas {
						n = min(n, r.Status().Refreshes)
					}
					return n
				}
				done := uint64(0)
				for refreshes() < 4 {
					done += pipelined(t, client, 40)
				}
				if sum := invoke(t, client, "r", true); sum != done {
					t.Errorf("%d operations were executed, %d asked for", sum, done)
				}
				for _, r := range c.replicas {
					s := r.Status()
					if age := s.KeyAge.Duration(); age > time.Minute || s.Refreshes < 4 {
						t.Errorf("replica %d: keys of %v, refreshed %d times", s.Replica, age, s.Refreshes)
					}
				}
			})
		}
	}
}

// pipelined has n operations be under way at once, and returns n when all have an answer.
func pipelined(t *testing.T, client *pbft.Client, n uint64) uint64 {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Add(1)
		err := client.Start(pbft.Call{Body: []byte("i"), Done: func(reply []byte, err error) {
			defer all.Done()
			if err != nil || binary.BigEndian.Uint64(reply) == 0 {
				t.Errorf("i: %v %v", reply, err)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
	return n
}

// All replicas refresh their keys at one moment, while operations are under way: none of
// them finds the MACs of what the primary has queued good any more, and the client sends
// all of it again.
func TestAllRefreshAtOnce(t *testing.T) {
	c := startCluster(t, smallLimits())
	admin := c.client(c.admin)
	client := c.client(c.enrolled(admin, ""))
	done := uint64(0)
	for range 10 {
		var all sync.WaitGroup
		for _, r := range c.replicas {
			all.Go(r.RefreshKeys)
		}
		done += pipelined(t, client, 40)
		all.Wait()
	}
	if sum := invoke(t, client, "r", true); sum != done {
		t.Errorf("%d operations were executed, %d asked for", sum, done)
	}
}

// A replica that was cut off while it and the others refreshed their keys is one of them
// again when the wires are joined.
func TestRefreshWhileCutOff(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain).withWires()
	for i := range c.replicas {
		c.start(i)
	}
	client := c.client(c.enrolled(c.client(c.admin), ""))
	invoke(t, client, "i", false)
	c.isolate(3, true)
	for _, r := range c.replicas {
		r.RefreshKeys()
	}
	invoke(t, client, "i", false)
	c.isolate(3, false)
	c.agree(c.replicas[3].Status().Stable, func() { invoke(t, client, "i", false) })
}

// Frames are opened without the replica's lock. A message that was opened before a
// refresh of the keys, and is counted after it, does not count.
func TestOpenedBeforeARefresh(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	r := c.start(0) // the others do not run
	for i, refresh := range []func(){r.RefreshKeys, func() { r.RefreshKeyOf(1) }} {
		n, epoch := pbft.SeqNum(10*i), r.KeyEpoch(1)
		if r.Opened(1, n+1, epoch) != n+1 {
			t.Fatal("what was opened in this epoch does not count")
		}
		refresh()
		if r.Opened(1, n+2, epoch) != n+1 {
			t.Error("what was opened in the last epoch counts")
		}
		if r.Opened(1, n+3, r.KeyEpoch(1)) != n+3 {
			t.Error("what was opened after the refresh does not count")
		}
	}
	epoch := r.KeyEpoch(2)
	if r.RefreshKeyOf(1); r.Opened(2, 5, epoch) != 5 {
		t.Error("what replica 2 said does not count, because the key of replica 1 was refreshed")
	}
}
