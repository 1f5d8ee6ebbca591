// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"errors"
	"path/filepath"
	"testing"

	"bfs/pkg/pbft"
)

func recovering(cfg *pbft.ReplicaConfig) { cfg.Recover = true }

// recovered waits until the recovery of replica i is over.
func (c *cluster) recovered(i int) pbft.Recovery {
	c.t.Helper()
	var s pbft.Recovery
	eventually(c.t, "the recovery ends", func() bool {
		s = c.replicas[i].Status().Recovery
		return s.Ended
	})
	eventually(c.t, "the others see that it has ended", func() bool {
		for j, r := range c.replicas {
			if j == i || r == nil {
				continue
			}
			for _, p := range r.Status().Peers {
				if int(p.Replica) == i && p.Recovering {
					return false
				}
			}
		}
		return true
	})
	if p := s.Parts; s.Point == 0 || s.Phase != "" || p.Load <= 0 || p.Estimate <= 0 || p.Request <= 0 || p.Check < 0 {
		c.t.Fatalf("the recovery has ended, and is %+v", s)
	}
	return s
}

// All four recover one after the other, again and again. The group is idle but for what
// the recoveries bring.
func TestRecoveries(t *testing.T) {
	for _, durability := range []pbft.Durability{pbft.DurabilityDisk, pbft.DurabilityReplicated} {
		t.Run(string(durability), func(t *testing.T) {
			c := startCluster(t, smallLimits(), durability)
			client := c.client(c.enrolled(c.client(c.admin), ""))
			sum := invoke(t, client, "i", false)
			for range 2 {
				for i := 3; i >= 0; i-- {
					c.stop(i)
					c.start(i, recovering)
					if s := c.recovered(i); s.Corrupt {
						t.Fatalf("replica %d is said to have been corrupt: %+v", i, s)
					}
					sum++
					if got := invoke(t, client, "i", false); got != sum {
						t.Fatalf("after replica %d recovered the counter is %d, want %d", i, got, sum)
					}
				}
			}
			c.agree(0, func() { invoke(t, client, "p", false) })
			if durability == pbft.DurabilityDisk {
				c.allRestart(client)
			}
		})
	}
}

// allRestart stops all replicas and starts them again: what they wrote anew when they had
// recovered is all that they need.
func (c *cluster) allRestart(client *pbft.Client) {
	c.t.Helper()
	want := invoke(c.t, client, "i", false)
	stable := make([]pbft.SeqNum, len(c.replicas))
	for i, r := range c.replicas {
		stable[i] = r.Status().Stable
		c.stop(i)
	}
	for i := range c.replicas {
		if s := c.start(i).Status(); s.LastExecuted < stable[i] || s.SilentUntil > 0 {
			c.t.Fatalf("replica %d has not the state of checkpoint %d on its disk: %+v", i, stable[i], s)
		}
	}
	if got := invoke(c.t, client, "r", true); got != want {
		c.t.Fatalf("after all restarted the counter is %d, want %d", got, want)
	}
}

// While one replica recovers another may be dead: a correct one takes part as it recovers (R-PR-3).
func TestRecoveryIsNoFault(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	for i := range c.replicas {
		before := invoke(t, client, "i", false)
		c.stop(i)
		c.start(i, recovering)
		other := (i + 1) % 4
		c.stop(other)
		if got := invoke(t, client, "i", false); got != before+1 {
			t.Fatalf("got %d, want %d", got, before+1)
		}
		c.recovered(i)
		c.start(other)
		c.agree(0, func() { invoke(t, client, "p", false) })
	}
}

// A recovery finds what an intruder changed while the replica was down, and the group's
// state takes its place.
func TestRecoveryFromAnIntruder(t *testing.T) {
	pbft.ShortSegments(t)
	for _, x := range []struct {
		what     string
		found    bool // and status says so
		intrudes func(t *testing.T, c *cluster, dir string)
	}{
		{"the whole disk is that of another group's replica", true, func(t *testing.T, c *cluster, dir string) {
			remove(t, filepath.Join(dir, "disk"), "")
		}},
		{"pages are overwritten", true, func(t *testing.T, c *cluster, dir string) {
			overwrite(t, filepath.Join(dir, "disk", "pages"), 0, 1<<20)
		}},
		{"the fence says that nothing was ever promised", false, func(t *testing.T, c *cluster, dir string) {
			pbft.WriteFence(t, filepath.Join(dir, "fence"), c.g, 0, 0, false)
		}},
		{"the fence is as high as can be", false, func(t *testing.T, c *cluster, dir string) {
			pbft.WriteFence(t, filepath.Join(dir, "fence"), c.g, 1<<40, 1<<40, false)
			remove(t, filepath.Join(dir, "disk"), "")
		}},
		{"the image is as far ahead as can be", true, func(t *testing.T, c *cluster, dir string) {
			pbft.ForgeImage(t, filepath.Join(dir, "disk"), c.g, c.service(2).State().(pbft.Tree), 1<<40)
		}},
		{"the fence is lost", true, func(t *testing.T, c *cluster, dir string) {
			pbft.LoseFence(t, filepath.Join(dir, "fence"), c.g)
		}},
		{"everything is lost", true, func(t *testing.T, c *cluster, dir string) {
			pbft.LoseFence(t, filepath.Join(dir, "fence"), c.g)
			remove(t, filepath.Join(dir, "disk"), "")
		}},
	} {
		t.Run(x.what, func(t *testing.T) {
			limits := smallLimits()
			limits.CheckpointPeriod, limits.LogSize, limits.LogBytes = 16, 32, 256<<10
			c := startCluster(t, limits)
			client := c.client(c.enrolled(c.client(c.admin), ""))
			c.imaged(client, 2)
			c.stop(2)
			x.intrudes(t, c, c.dirs[2])
			before := invoke(t, client, "i", false)
			c.startUntilItStays(2)
			if s := c.recovered(2); x.found && !s.Corrupt {
				t.Errorf("the recovery says that it found nothing: %+v", s)
			}
			c.stop(0)
			if got := invoke(t, client, "i", false); got != before+1 {
				t.Fatalf("got %d, want %d", got, before+1)
			}
		})
	}
}

// A replica whose fence is lost is silent until its recovery is over, also if it is
// started again in the middle, and in either durability. Nobody else starts it.
func TestRecoveryWithoutFence(t *testing.T) {
	for _, durability := range []pbft.Durability{pbft.DurabilityDisk, pbft.DurabilityReplicated} {
		t.Run(string(durability), func(t *testing.T) {
			c := startCluster(t, smallLimits(), durability)
			client := c.client(c.enrolled(c.client(c.admin), ""))
			count(t, client, 3*int(c.g.Limits.CheckpointPeriod))
			disk := durability == pbft.DurabilityDisk
			for i := range c.replicas {
				if disk || i == 3 { // else the group would lose its state
					c.stop(i)
				}
			}
			pbft.LoseFence(t, filepath.Join(c.dirs[3], "fence"), c.g)
			if _, err := pbft.StartReplica(c.config(3)); !errors.Is(err, pbft.ErrForgotten) {
				t.Fatalf("without a fence, and not as a recovery, it starts: %v", err)
			}
			c.start(3, recovering)
			if disk { // and it hears from nobody
				c.stop(3)
				if s := c.start(3).Status(); s.SilentUntil == 0 || s.Recovery.Phase != "estimating" {
					t.Fatalf("started again in the middle, and is %+v, silent until %d", s.Recovery, s.SilentUntil)
				}
				for i := range 3 {
					c.start(i)
				}
			}
			if s := c.recovered(3); !s.Corrupt || c.replicas[3].Status().SilentUntil > 0 {
				t.Fatalf("recovered, and is %+v, silent until %d", s, c.replicas[3].Status().SilentUntil)
			}
			if !disk {
				return
			}
			c.stop(0)
			before := invoke(t, client, "i", false)
			if got := invoke(t, client, "i", false); got != before+1 {
				t.Fatalf("got %d, want %d", got, before+1)
			}
			c.stop(3)
			if s := c.start(3).Status(); s.Recovery.Phase != "" || s.SilentUntil > 0 {
				t.Errorf("after its recovery it starts as %+v, silent until %d", s.Recovery, s.SilentUntil)
			}
		})
	}
}

// A replica whose journal did not count, and that an intruder kept from being silent, has a journal
// that counts when it has recovered: the next start remembers.
func TestRecoveredJournalCounts(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	count(t, client, 3*int(c.g.Limits.CheckpointPeriod))
	c.stop(3)
	pbft.WriteFence(t, filepath.Join(c.dirs[3], "fence"), c.g, 0, 0, true)
	c.start(3, recovering)
	c.recovered(3)
	invoke(t, client, "i", false)
	c.stop(3)
	if s := c.start(3).Status(); s.SilentUntil > 0 || s.Recovery.Phase != "" || s.LastExecuted == 0 {
		t.Errorf("after its recovery it starts at batch %d as %+v, silent until %d", s.LastExecuted, s.Recovery,
			s.SilentUntil)
	}
}

// startUntilItStays does what a keeper does: a replica that stops because its memory is
// false is started again.
func (c *cluster) startUntilItStays(i int) {
	c.t.Helper()
	for range 3 {
		r := c.start(i, recovering)
		stays := false
		eventually(c.t, "it recovers or stops", func() bool {
			select {
			case <-r.Done():
				return true
			default:
				stays = r.Status().Recovery.Ended
				return stays
			}
		})
		if stays {
			return
		}
		c.t.Logf("replica %d has stopped: %v", i, r.Err())
	}
	c.t.Fatalf("replica %d does not stay", i)
}

// A start in the middle of a recovery is one, too, and after some that did not come to
// their end one believes nothing.
func TestRecoveryAfterUnfinishedOnes(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	count(t, client, 3*int(c.g.Limits.CheckpointPeriod))
	for i := range c.replicas {
		c.stop(i)
	}
	c.start(3, recovering) // and hears from no other replica
	c.stop(3)
	if s := c.start(3).Status(); s.Recovery.Phase != "estimating" || s.SilentUntil > 0 {
		t.Fatalf("started in the middle of a recovery, and is %+v, silent until %d", s.Recovery, s.SilentUntil)
	}
	c.stop(3)
	log := c.logged(3)
	wantLine(t, log, "the last recoveries did not come to their end")
	for i := range 3 {
		c.start(i)
	}
	c.recovered(3)
	c.stop(0)
	before := invoke(t, client, "i", false)
	if got := invoke(t, client, "i", false); got != before+1 {
		t.Fatalf("got %d, want %d", got, before+1)
	}
	c.stop(3)
	if c.start(3).Status().Recovery.Phase != "" {
		t.Error("a recovery that was over is begun again")
	}
}
