// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bfs/pkg/pbft"
)

// fullLimits make the image follow every few dozen operations.
func fullLimits() pbft.Limits {
	l := smallLimits()
	l.CheckpointPeriod, l.LogSize, l.LogBytes = 16, 32, 256<<10
	return l
}

func isFull(r *pbft.Replica) bool { return r.Status().Disk.Full != "" }

// A host whose disk fills says so and stands aside, a backup or the primary; the others
// go on. When there is room it comes back by itself, and is one that can be counted on.
func TestFullDiskOfOne(t *testing.T) {
	for _, who := range []int{0, 2} {
		pbft.ShortSegments(t)
		fill := pbft.FillDisks(t)
		c := newCluster(t, fullLimits(), pbft.TransportPlain)
		log := c.logged(who)
		for i := range c.replicas {
			if i != who {
				c.start(i)
			}
		}
		client := c.client(c.enrolled(c.client(c.admin), ""))
		c.imaged(client, who)
		fill(c.dirs[who], true)
		eventually(t, "it stands aside", func() bool {
			invoke(t, client, "p", false)
			return isFull(c.replicas[who])
		})
		wantLine(t, log, "disk is full", c.dirs[who])
		executed := c.replicas[who].Status().LastExecuted
		for range 100 {
			invoke(t, client, "p", false)
		}
		if s := c.replicas[who].Status(); s.LastExecuted != executed {
			t.Fatalf("it executes, and its disk is full: %d, was %d", s.LastExecuted, executed)
		}
		fill(c.dirs[who], false)
		wantLine(t, log, "room on this replica's disk again")
		c.agree(executed, func() { invoke(t, client, "p", false) })
		c.stop(who ^ 1)
		before := invoke(t, client, "i", false)
		if got := invoke(t, client, "i", false); got != before+1 {
			t.Fatalf("got %d, want %d", got, before+1)
		}
	}
}

// When all disks are full a call waits. No answered call is lost, also after a restart,
// and the group goes on when there is room.
func TestFullDisksOfAll(t *testing.T) {
	for _, restart := range []bool{false, true} {
		pbft.ShortSegments(t)
		fill := pbft.FillDisks(t)
		c := startCluster(t, fullLimits())
		client := c.client(c.enrolled(c.client(c.admin), ""))
		sum := invoke(t, client, "p", false)
		for i := range c.replicas {
			fill(c.dirs[i], true)
		}
		waits := make(chan uint64)
		go func() {
			defer close(waits)
			for {
				reply, err := client.Invoke(deadline(t), []byte("p"), false)
				if err != nil {
					return
				}
				waits <- uint64(reply[7]) | uint64(reply[6])<<8
			}
		}()
		eventually(t, "more than f stand aside", func() bool {
			select {
			case sum = <-waits:
			default:
			}
			aside := 0
			for _, r := range c.replicas {
				if isFull(r) {
					aside++
				}
			}
			return aside > 1
		})
		for i := range c.replicas {
			if restart {
				c.stop(i)
			}
			fill(c.dirs[i], false)
		}
		for i := range c.replicas {
			if restart {
				c.start(i)
			}
		}
		for range 10 {
			got := <-waits
			if got != sum+1 {
				t.Fatalf("the next sum is %d, want %d", got, sum+1)
			}
			sum = got
		}
		_ = client.Close()
		for range waits {
		}
		c.agree(0, func() { invoke(t, c.client(c.admin), "r", true) })
	}
}

// A replica that is to spend its reserve works on a full disk where another would stand aside.
func TestReserveIsSpent(t *testing.T) {
	pbft.ShortSegments(t)
	fill := pbft.FillDisks(t)
	c := startCluster(t, fullLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	for i := range c.replicas {
		c.imaged(client, i)
	}
	sum := invoke(t, client, "p", false)
	for i := range c.replicas {
		c.stop(i)
		fill(c.dirs[i], true)
		c.start(i, func(cfg *pbft.ReplicaConfig) { cfg.SpendReserve = true })
	}
	if got := invoke(t, client, "p", false); got != sum+1 {
		t.Fatalf("got %d, want %d", got, sum+1)
	}
}

// A start that fails leaves no file open, and the directory free for the next.
func TestFailedStartClosesItsFiles(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	c.start(0)
	c.stop(0)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, x := range []struct {
		what   string
		change func(*pbft.ReplicaConfig)
	}{
		{"its address is in use", func(cfg *pbft.ReplicaConfig) { cfg.Listen = busy.Addr().String() }},
		{"its service has no digests", func(cfg *pbft.ReplicaConfig) { cfg.Service = noTree{newTally(c.g)} }},
		{"its service takes no state", func(cfg *pbft.ReplicaConfig) { cfg.Service = newTally(c.g) }},
	} {
		cfg := pbft.ReplicaConfig{Group: c.g, Self: 0, Key: c.keys[0], Directory: c.dirs[0],
			Listen: c.g.Members[0].Address, Service: newTally(c.g), Transport: c.transport}
		if x.change(&cfg); x.what == "its service takes no state" {
			spoil(t, filepath.Join(c.dirs[0], "disk", "table"))
		}
		if r, err := pbft.StartReplica(cfg); err == nil {
			t.Fatalf("%s, and it starts: %v", x.what, r.Status())
		}
		if open := openBelow(t, c.dirs[0]); len(open) > 0 {
			t.Errorf("%s: it leaves open %v", x.what, open)
		}
	}
}

// noTree hides how the digests of a state are made.
type noTree struct{ tally }

func (s noTree) State() pbft.State { return struct{ pbft.State }{s.Memory} }

// spoil writes a table that is another group's, with a good checksum: the image cannot be
// opened, nor replaced.
func spoil(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(name, 0o700); err != nil { // it cannot be opened as a file
		t.Fatal(err)
	}
}

// openBelow lists the files below a directory that this process has open.
func openBelow(t *testing.T, directory string) (open []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("NOT RUN: needs /proc/self/fd to list open files")
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err == nil && strings.HasPrefix(to, directory+"/") {
			open = append(open, to)
		}
	}
	return open
}
