// SPDX-License-Identifier: Apache-2.0

package core

import (
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// A restart runs batches again up to the stable checkpoint, from records that may be an
// intruder's. Long operations among them have a checkpoint taken before that number, so
// that none is due there. The root is computed there all the same, and if it is another,
// the state is fetched.
func TestRestoredStateIsChecked(t *testing.T) {
	const stable = 4
	cfg := newAttacked(1, 0).cfg
	cfg.Durable, cfg.CheckpointPeriod, cfg.CheckpointBytes = true, stable, 8
	root := message.Digest{1}
	for name, x := range map[string]struct {
		ops     []string
		ours    message.Digest
		fetches bool
	}{
		"the group's batches":    {[]string{"a", "b", "c", "d"}, root, false},
		"others, the same state": {[]string{"a", "b", "an operation of more than 8 bytes", "d"}, root, false},
		"others, another state":  {[]string{"a", "b", "an operation of more than 8 bytes", "d"}, message.Digest{2}, true},
	} {
		var records []message.Message
		for i, op := range x.ops {
			p := proposal(message.SeqNum(i+1), op)
			records = append(records, p, &message.Decided{Seq: p.Seq, Digest: p.Digest})
		}
		records = append(records, &message.Checkpoint{Seq: stable, Digest: root, Stable: true})
		c := Restore(cfg, message.CheckpointID{}, records)
		fetches, last := false, message.SeqNum(0)
		for effects := c.Effects(); len(effects) > 0; effects = c.Effects() {
			for _, e := range effects {
				switch e.Verb {
				case Freeze:
					last = e.Seq
					c.Frozen(e.Seq, x.ours)
				case Fetch:
					fetches = fetches || e.Seq == stable && e.Digest == root
				}
			}
		}
		if last != stable || fetches != x.fetches {
			t.Errorf("%s: the last root is that of batch %d, want %d; it fetches the state: %v, want %v",
				name, last, stable, fetches, x.fetches)
		}
	}
}

// A restart runs no batch more than 2L above what is stable, and takes no checkpoint below that,
// whatever window or stable checkpoint an intruder names: the state keeps a checkpoint for each K.
func TestRestoredStateIsBounded(t *testing.T) {
	cfg := newAttacked(1, 0).cfg
	cfg.Durable = true
	most := 2 * cfg.LogSize
	for _, x := range []struct {
		what   message.Message
		stable message.SeqNum
	}{
		{&message.ViewChange{View: 1, Low: 2 * most, From: cfg.Self}, 0},
		{&message.Checkpoint{Seq: 2 * most, Digest: message.Digest{1}, Stable: true, From: cfg.Self}, 2 * most},
	} {
		records := []message.Message{x.what}
		for n := message.SeqNum(1); n <= 4*most; n++ {
			p := proposal(n, "a")
			records = append(records, p, &message.Decided{Seq: n, Digest: p.Digest})
		}
		last := message.SeqNum(0)
		for _, e := range Restore(cfg, message.CheckpointID{}, records).Effects() {
			switch e.Verb {
			case Execute:
				last = e.Seq
			case Freeze:
				if e.Seq < x.stable {
					t.Errorf("%v: a checkpoint is taken at %d, below the stable one", x.what.Type(), e.Seq)
				}
			}
		}
		if last == 0 || last > x.stable+most {
			t.Errorf("%v: the last batch that runs again is %d, want %d at most", x.what.Type(), last, x.stable+most)
		}
	}
}

// A replica whose state came to a checkpoint by an intruder's batches, and was fetched, holds the
// fetched root. Otherwise it fetched the same state again and again.
func TestFetchedRootReplacesOwn(t *testing.T) {
	c := newAttacked(1, 0)
	n, theirs := c.cfg.CheckpointPeriod, message.Digest{1}
	k := c.checkpoints.at(n)
	k.votes.add(c.cfg.Self, message.Digest{2})
	for _, i := range []message.ReplicaID{0, 2, 3} {
		k.votes.add(i, theirs)
	}
	c.log.lastExec = n
	c.checkpoints.installed(message.CheckpointID{Seq: n, Digest: theirs})
	c.stability.claimFetched()
	for _, e := range c.Effects() {
		if e.Verb == Fetch || e.Verb == Stop {
			t.Errorf("it fetches the state again, or stops: %s", e.Reason)
		}
	}
	if k := c.stable; k.Seq != n || k.Digest != theirs {
		t.Errorf("stable is %d with root %v, want %d with the fetched one, %v", k.Seq, k.Digest, n, theirs)
	}
}
