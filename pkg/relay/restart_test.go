// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
	"bfs/test/patience"
)

// replicas is the state of a group that outlives relays: the last operation and reply of
// each slot, and how often each operation was executed.
type replicas struct {
	last map[pbft.Slot]slotState
	ran  map[string]int
}

type slotState struct {
	t     pbft.Timestamp
	reply []byte
}

// execute is the paper's rule for a client's timestamps: a new one runs, the last is answered again
// [TOCS §4.2].
func (r *replicas) execute(t *testing.T, f *fakeCall) []byte {
	s := r.last[f.slot]
	switch {
	case f.t < s.t:
		t.Fatalf("slot %d: timestamp %d after %d", f.slot, f.t, s.t)
	case f.t > s.t:
		r.ran[string(f.Body)]++
		reply, err := echo(f)
		if err != nil {
			t.Fatal(err)
		}
		r.last[f.slot] = slotState{f.t, reply}
	}
	return r.last[f.slot].reply
}

// A patientKernel asks until it is answered, over as many connections as it takes.
type patientKernel struct {
	mu       sync.Mutex
	waiting  map[uint32][]byte
	answered chan struct{} // something was
	readers  sync.WaitGroup
	last     *kernel // its connection; the next one has the same port or another
}

// resend asks on a new connection for everything that has no answer.
func (p *patientKernel) resend(t *testing.T, r *rig, chance *rand.Rand) {
	k := r.comeBack(t, p.last, chance.IntN(2) == 0)
	p.last = k
	p.mu.Lock()
	var order []uint32
	for xid := range p.waiting {
		order = append(order, xid)
	}
	p.mu.Unlock()
	chance.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	p.readers.Go(func() {
		for {
			b, err := k.receive()
			if err != nil {
				return
			}
			p.mu.Lock()
			delete(p.waiting, binary.BigEndian.Uint32(b))
			p.mu.Unlock()
			select {
			case p.answered <- struct{}{}:
			default:
			}
		}
	})
	for _, xid := range order {
		p.mu.Lock()
		m := p.waiting[xid]
		p.mu.Unlock()
		if m != nil {
			k.Write(m) // fails if the relay dies meanwhile
		}
	}
}

func (p *patientKernel) left() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}

// TestExactlyOnceThroughRestarts kills relays at random points of calls that change
// something: before the group heard of them, after it executed them, after the relay
// knows, after it replied. The kernel asks again each time. In the end each call is
// answered, and was executed once.
func TestExactlyOnceThroughRestarts(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { liveAndDie(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func liveAndDie(t *testing.T, chance *rand.Rand) {
	const calls, lives = 40, 6
	path := journalPath(t)
	state := &replicas{last: map[pbft.Slot]slotState{}, ran: map[string]int{}}
	kernel := &patientKernel{waiting: map[uint32][]byte{}, answered: make(chan struct{}, 1)}
	for xid := range uint32(calls) {
		kernel.waiting[xid] = rpc(xid, nfs3.ProgramNFS, procRemove, fmt.Sprintf("n%03d", xid))
	}
	for life := 0; kernel.left() > 0; life++ {
		j := openJournal(t, path)
		g := newFakeGroup(owner.Slots)
		for _, s := range state.last { // a client asks the replicas for its last timestamps
			g.clock = max(g.clock, s.t)
		}
		for i, at := range j.occupied {
			g.clock = max(g.clock, at)
			g.inUse[i] = at != 0
		}
		r := newRig(t, g, withJournal(j))
		kernel.resend(t, r, chance)
		steps := chance.IntN(40)
		if life >= lives {
			steps = 1 << 30
		}
		run(t, g, state, kernel, chance, steps)
		die(r, j)
	}
	kernel.readers.Wait()
	if len(state.ran) != calls {
		t.Fatalf("%d operations were executed, want %d", len(state.ran), calls)
	}
	for body, n := range state.ran {
		if n != 1 {
			t.Errorf("executed %d times: %x", n, body)
		}
	}
}

// run drives calls forward, one random step at a time, until the kernel is content or
// steps are over.
func run(t *testing.T, g *fakeGroup, state *replicas, kernel *patientKernel, chance *rand.Rand, steps int) {
	var sent, executed []*fakeCall
	for steps > 0 && kernel.left() > 0 {
		steps--
		if len(sent) == 0 && len(executed) == 0 {
			select {
			case f := <-g.started:
				sent = append(sent, f)
			case <-kernel.answered:
			case <-patience.After(patience.Usual):
				t.Fatalf("nothing happens; %d calls wait", kernel.left())
			}
			continue
		}
		select {
		case f := <-g.started:
			sent = append(sent, f)
		default:
		}
		if n := len(sent); n > 0 && chance.IntN(2) == 0 {
			i := chance.IntN(n)
			state.execute(t, sent[i])
			executed = append(executed, sent[i])
			sent = append(sent[:i], sent[i+1:]...)
		} else if n := len(executed); n > 0 {
			i := chance.IntN(n)
			g.end(executed[i], state.execute(t, executed[i]), nil)
			executed = append(executed[:i], executed[i+1:]...)
		}
	}
}
