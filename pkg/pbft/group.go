// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/ledger"
	"bfs/pkg/pbft/internal/message"
)

// A Member is one replica as the group file names it.
type Member struct {
	Address string            // host:port where it listens
	Key     ed25519.PublicKey // its long-term key
}

// Limits are the numbers that all members must share, because they decide results or bound what an
// honest peer may send. DefaultLimits has the values and the group file's comments the reasons.
type Limits struct {
	CheckpointPeriod SeqNum // the paper's K: a checkpoint every so many batches [TOCS §4.4]
	CheckpointBytes  int    // and one sooner, when the operations since the last have so many bytes; 0: never
	LogSize          SeqNum // the paper's L, a small multiple of K: numbers between the water marks
	Clients          int    // clients that can be enrolled at once
	Slots            int    // requests a client may have outstanding
	Operation        int    // bytes of one operation
	Reply            int    // bytes of one result
	KeptReply        int    // bytes of a result that is kept for retransmission
	Rights           int    // bytes of a client's rights
	BatchBytes       int    // bytes of the operations of one batch, unless it holds one operation only
	BatchCount       int    // operations of one batch
	BatchCost        int    // cost of the operations of one batch, see Service.Cost, unless it holds one only
	LogBytes         int    // bytes of the operations in the whole message log
}

// DefaultLimits returns the limits of a group of file servers.
func DefaultLimits() Limits {
	return Limits{
		CheckpointPeriod: 128,
		CheckpointBytes:  32 << 20,
		LogSize:          256,
		Clients:          256,
		Slots:            256,
		Operation:        1<<20 + 2048,
		Reply:            1<<20 + 2048,
		KeptReply:        ledger.KeptReply,
		Rights:           ledger.MaxRights,
		BatchBytes:       1 << 20,
		BatchCount:       512,
		BatchCost:        8 << 20,
		LogBytes:         256 << 20,
	}
}

// A Durability says when a replica may speak of what it has done: see docs/STATE.md.
type Durability string

// The modes. All replicas of a group have the same, for a vote means more in one than in the other.
const (
	// DurabilityDisk: what a message promises is on its sender's disk before it leaves. A
	// restart is not a fault.
	DurabilityDisk Durability = "disk"
	// DurabilityReplicated: it is in memory, as in the paper. A restarted replica counts
	// among the f until a checkpoint after its votes is stable, and a power cut of more
	// than f hosts at once loses everything.
	DurabilityReplicated Durability = "replicated"
)

// A Group names the replicas that order operations together, and the limits under which they do.
// CheckGroup makes a Group from parts; a *Group that it returned is right and does not change.
type Group struct {
	Name          string
	Epoch         uint64 // raised by the administrator alone, to restart a group that lost its state (R-OUR-6)
	Members       []Member
	Administrator ed25519.PublicKey
	Limits        Limits
	Durability    Durability // "" is DurabilityReplicated
	Service       Digest     // of what the service's results depend on, such as the size of its state
	Origin        Origin     // what this epoch begins with; zero: with the service's empty state

	digest Digest
}

// A Certified is a stable checkpoint: f+1 replicas have said that this is the state's
// root after batch Seq, and that a quorum agrees.
type Certified struct {
	Seq  SeqNum
	Root Digest
}

// An Origin is the checkpoint that an epoch begins with, as its state is in this epoch.
type Origin struct {
	Certified
	First Digest // of the group file of the first epoch
}

// CheckGroup returns g if a group can run by it, and otherwise an error that says what is
// wrong with it.
func CheckGroup(g Group) (*Group, error) {
	n := len(g.Members)
	switch {
	case g.Name == "" || len(g.Name) > 255:
		return nil, errors.New("name: want 1 to 255 bytes")
	case n < 4 && n != 1 || n > message.MaxReplicas:
		return nil, fmt.Errorf("replicas: got %d, want 4 to %d (4 survive one faulty replica, 7 "+
			"two), or 1, which survives none", n, message.MaxReplicas)
	case len(g.Administrator) != ed25519.PublicKeySize:
		return nil, fmt.Errorf("administrator: got a key of %d bytes, want %d",
			len(g.Administrator), ed25519.PublicKeySize)
	}
	for i, m := range g.Members {
		if len(m.Key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("replica %d: got a key of %d bytes, want %d", i, len(m.Key), ed25519.PublicKeySize)
		}
		if _, _, err := net.SplitHostPort(m.Address); err != nil {
			return nil, fmt.Errorf("replica %d: address %q: want host:port", i, m.Address)
		}
		for j := range i {
			if m.Key.Equal(g.Members[j].Key) || m.Address == g.Members[j].Address {
				return nil, fmt.Errorf("replica %d: has the key or address of replica %d", i, j)
			}
		}
	}
	switch g.Durability {
	case "":
		g.Durability = DurabilityReplicated
	case DurabilityDisk, DurabilityReplicated:
	default:
		return nil, fmt.Errorf("durability: got %q, want %q or %q", g.Durability, DurabilityDisk, DurabilityReplicated)
	}
	if g.Origin != (Origin{}) && (g.Durability != DurabilityDisk || g.Origin.Seq == 0) {
		return nil, fmt.Errorf("origin: checkpoint %d of a group with durability %q: an epoch that begins "+
			"with a backup has a checkpoint above 0, and durability %q", g.Origin.Seq, g.Durability, DurabilityDisk)
	}
	if err := g.Limits.check(); err != nil {
		return nil, err
	}
	g.digest = g.computeDigest()
	return &g, nil
}

func (l Limits) check() error {
	const huge = 1 << 30
	for _, c := range []struct {
		name      string
		got       int64
		low, high int64
	}{
		{"checkpoint_period", int64(l.CheckpointPeriod), 1, 1 << 16},
		{"checkpoint_bytes", int64(l.CheckpointBytes), 0, 1 << 40},
		{"log_size", int64(l.LogSize), int64(l.CheckpointPeriod) + 1, 1 << 18},
		{"clients", int64(l.Clients), 1, 1<<16 - 1},
		{"slots", int64(l.Slots), 1, 1 << 12},
		{"operation", int64(l.Operation), 64, huge / 16},
		{"rights", int64(l.Rights), 0, ledger.MaxRights},
		{"reply", int64(l.Reply), int64(max(executor.ListHead+l.Rights, ledger.KeptReply)), huge / 16},
		{"kept_reply", int64(l.KeptReply), ledger.KeptReply, ledger.KeptReply},
		{"batch_bytes", int64(l.BatchBytes), 64, huge / 16},
		{"batch_count", int64(l.BatchCount), 1, 1 << 14},
		{"batch_cost", int64(l.BatchCost), int64(max(l.BatchBytes, l.Operation)), huge},
		{"log_bytes", int64(l.LogBytes), int64(l.CheckpointPeriod) * int64(max(l.BatchBytes, l.Operation)), 1 << 40},
	} {
		if got := int64(c.got); got < c.low || got > c.high {
			return fmt.Errorf("%s: got %d, want %d to %d", c.name, c.got, c.low, c.high)
		}
	}
	if l.Slots%ledger.SlotsPerPage != 0 {
		return fmt.Errorf("slots: got %d, want a multiple of %d", l.Slots, ledger.SlotsPerPage)
	}
	return nil
}

// hosts are the members' addresses, as far as the group file has them as numbers.
func (g *Group) hosts() (all []netip.Addr) {
	for _, m := range g.Members {
		if a, err := netip.ParseAddrPort(m.Address); err == nil {
			all = append(all, a.Addr())
		}
	}
	return all
}

// N is the number of replicas.
func (g *Group) N() int { return len(g.Members) }

// Size is N as a GroupSize, from which f, a quorum and all other counts follow.
func (g *Group) Size() GroupSize { return GroupSize(g.N()) }

// F is the number of faulty replicas the group survives [TOCS §2].
func (g *Group) F() int { return g.Size().Faulty() }

// Quorum is ⌈(n+f+1)/2⌉, the paper's 2f+1 if n is 3f+1: any two quorums share a correct
// replica [TOCS §4.1].
func (g *Group) Quorum() int { return g.Size().Quorum() }

// Weak is f+1: one of so many replicas is correct [TOCS §4.1].
func (g *Group) Weak() int { return g.Size().Weak() }

// Digest stands for all that members and clients must agree on. Addresses are not in it: a host may
// move.
func (g *Group) Digest() Digest { return g.digest }

// Lineage is the same in all epochs of a group: the digest of the first one's group file.
// It names what goes on from epoch to epoch, such as the timestamps of a client's slots.
func (g *Group) Lineage() Digest {
	if g.Origin != (Origin{}) {
		return g.Origin.First
	}
	return g.digest
}

func (g *Group) computeDigest() (d Digest) {
	h := sha256.New()
	u := func(v uint64) { h.Write(binary.LittleEndian.AppendUint64(nil, v)) }
	s := func(b []byte) { u(uint64(len(b))); h.Write(b) }
	s([]byte("bfs group v1"))
	s([]byte(g.Name))
	u(g.Epoch)
	u(uint64(g.N()))
	for _, m := range g.Members {
		s(m.Key)
	}
	s(g.Administrator)
	l := g.Limits
	for _, v := range []int{int(l.CheckpointPeriod), l.CheckpointBytes, int(l.LogSize), l.Clients,
		l.Slots, l.Operation, l.Reply,
		l.KeptReply, l.Rights, l.BatchBytes, l.BatchCount, l.BatchCost, l.LogBytes} {
		u(uint64(v))
	}
	s([]byte(g.Durability))
	h.Write(g.Service[:])
	if g.Origin != (Origin{}) {
		s([]byte("origin"))
		u(uint64(g.Origin.Seq))
		h.Write(g.Origin.Root[:])
		h.Write(g.Origin.First[:])
	}
	h.Sum(d[:0])
	return d
}

// ReservedPages is how many of the state's first pages the library keeps for itself.
func (g *Group) ReservedPages() PageNum { return ReservedPages(g.Limits) }

// ReservedPages is the same of a group that is yet to be made.
func ReservedPages(l Limits) PageNum { return ledger.Pages(l.Clients, l.Slots) }

// wire returns the limits that decoders need.
func (g *Group) wire() message.Limits {
	return message.Limits{
		Replicas:     g.N(),
		Operation:    g.Limits.Operation,
		BatchBytes:   g.Limits.BatchBytes,
		BatchCount:   g.Limits.BatchCount,
		Choice:       MaxChoice,
		Reply:        g.Limits.Reply,
		WindowLength: int(g.Limits.LogSize),
	}
}

// maxFrame bounds a frame between principals: the largest is a PRE-PREPARE, or where the
// group's limits are small a DATA or a VIEW-CHANGE.
func (g *Group) maxFrame() int {
	perRequest := 128 + g.N()*message.MACSize
	batch := max(g.Limits.BatchBytes, g.Limits.Operation, g.Limits.Reply) + g.Limits.BatchCount*perRequest
	return max(batch, message.MaxData, message.MaxViewChange(int(g.Limits.LogSize))) + 1024
}

// maxConns bounds the connections to one principal: one for each other, and places for strangers.
func (g *Group) maxConns() int { return max(1024, 2*(g.Limits.Clients+g.N())) }

// newExecutor makes the executor of a service under the limits of a group.
func newExecutor(g *Group, s Service) (*executor.Executor, error) {
	l := g.Limits
	return executor.New(s, s.State(), l.Clients, l.Slots, executor.Limits{Reply: l.Reply, Rights: l.Rights})
}
