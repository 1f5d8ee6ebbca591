// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// A pageServer answers FETCHes from the checkpoints that the state holds. It is under the
// replica's lock.
type pageServer struct {
	core  *core.Core
	state State
	out   *outgoing
	log   *slog.Logger
	size  SeqNum      // of the message log
	kept  []keptFetch // in order: at most keptFetches of each replica
	loan  loan
}

// A keptFetch is a FETCH of a checkpoint that is being digested.
type keptFetch struct {
	from  ReplicaID
	fetch message.Fetch
}

// keptFetches bounds the FETCHes that are kept of one replica. A correct replica has no
// more of them under way; a further one is answered with Gone.
const keptFetches = 8

// A loan keeps a stable checkpoint in the state while a backup reads it by FETCH, as a replica
// would that fetches the state. There is one loan at a time. As long as it lasts the state keeps
// the later checkpoints too, so the loan ends when the reader is silent for loanIdle, and when
// the pages that only checkpoints hold come to more than loanPages. The backup then begins again.
type loan struct {
	seq  SeqNum    // 0: there is none
	read time.Time // last
}

// loanIdle is how long a loan lasts without being used.
const loanIdle = 10 * time.Second

// loanPages bounds the pages that checkpoints hold beside the live ones during a loan: an
// eighth of these, or 64 MiB if that is more. (A variable for tests.)
var loanPages = func(live int) int { return max(live/8, 64<<20/PageSize) }

// A Recorded State knows how many pages it keeps for checkpoints alone. Without that a
// loan ends when the window has moved once.
type Recorded interface{ Recorded() int }

// mayRead reports whether a client may read the whole state: the administrator, who can
// have anybody enrolled for it, and each member, which holds it. A member runs bfsd
// backup under its own key.
func (g *Group) mayRead(s *auth.Session) bool {
	if s.Owner(g.Administrator) {
		return true
	}
	for _, m := range g.Members {
		if s.Owner(m.Key) {
			return true
		}
	}
	return false
}

// serve answers a FETCH, or keeps it for when its checkpoint is digested.
func (x *pageServer) serve(to ReplicaID, m *message.Fetch) {
	if x.answer(to, m) {
		return
	}
	kept := 0
	for i := range x.kept {
		if x.kept[i].from == to {
			kept++
		}
	}
	if kept >= keptFetches {
		x.out.data(x.out.peers[to], &message.Data{Seq: m.Seq, Tag: m.Tag, Gone: true})
		return
	}
	k := keptFetch{to, *m}
	k.fetch.Nodes = slices.Clone(m.Nodes) // they lie in a frame that is lent
	x.kept = append(x.kept, k)
}

// serveKept answers the first kept FETCH that can be answered now. It returns false if
// there is none.
func (x *pageServer) serveKept() bool {
	if len(x.kept) == 0 || !x.answer(x.kept[0].from, &x.kept[0].fetch) {
		return false
	}
	x.kept = slices.Delete(x.kept, 0, 1)
	return true
}

// answer answers a FETCH from a checkpoint we hold. It returns false if that is being digested.
func (x *pageServer) answer(to ReplicaID, m *message.Fetch) bool {
	answer := x.read(m)
	if answer == nil {
		return false
	}
	x.out.data(x.out.peers[to], answer)
	return true
}

// read makes the answer to a FETCH, without the items that we do not have: the replica
// that asked sees which are missing. It returns nil if the checkpoint is being digested.
func (x *pageServer) read(m *message.Fetch) *message.Data {
	answer := &message.Data{Seq: m.Seq, Tag: m.Tag, Items: make([]message.Item, 0, len(m.Nodes))}
	for _, id := range m.Nodes {
		var item message.Item
		var err error
		if id.Level == 0 {
			item.Bytes, err = x.state.PageAt(m.Seq, PageNum(id.Index))
		} else {
			var children []Digest
			children, err = x.state.Children(m.Seq, id)
			for _, d := range children {
				item.Bytes = append(item.Bytes, d[:]...)
			}
		}
		switch {
		case errors.Is(err, ErrNotYet):
			return nil
		case err != nil:
			continue
		}
		item.Node = id
		answer.Items = append(answer.Items, item)
	}
	answer.Gone = len(answer.Items) == 0 && len(m.Nodes) > 0
	return answer
}

// lend answers a FETCH of a client that may read the state. A FETCH without pages has an
// idle group take a checkpoint of all batches so far and up to Seq, and is told the last
// batch so far. While the state is being fetched it is not read.
func (x *pageServer) lend(c *transport.Conn, s *auth.Session, m *message.Fetch, fetching bool) {
	answer := &message.Data{Seq: m.Seq, Tag: m.Tag, Gone: true}
	c.Trust() // a member is not an enrolled client: otherwise its connection would end in ten seconds
	switch {
	case x.core == nil || !c.Fits(message.MaxData):
		return
	case len(m.Nodes) == 0:
		answer.Seq, answer.Gone = x.core.Await(m.Seq), false
	default:
		if x.borrow(m.Seq); !fetching {
			answer = x.read(m)
		}
	}
	if answer == nil { // a later checkpoint is being digested
		answer = &message.Data{Seq: m.Seq, Tag: m.Tag}
	}
	x.out.dataTo(c, s, answer)
}

// borrow notes that a checkpoint is read. The stable one is lent if there is no other loan.
func (x *pageServer) borrow(n SeqNum) {
	l := &x.loan
	if l.seq != n && (n != x.core.Stable().Seq || l.seq > 0 && time.Since(l.read) < loanIdle) {
		return
	}
	*l = loan{n, time.Now()}
}

// lent is the lowest checkpoint that the state must keep: n, or a lower one that is lent.
// It ends a loan that has lasted too long.
func (x *pageServer) lent(n SeqNum) SeqNum {
	l := &x.loan
	if l.seq == 0 || l.seq >= n {
		return n
	}
	if time.Since(l.read) < loanIdle && x.affords(n) {
		return l.seq
	}
	x.log.Info("a checkpoint is not kept for a backup any longer", "checkpoint", l.seq, "stable", n)
	*l = loan{}
	return n
}

func (x *pageServer) affords(stable SeqNum) bool {
	recorded, ok := x.state.(Recorded)
	if !ok {
		return stable <= x.loan.seq+x.size
	}
	live := 0
	if s, ok := x.state.(Sized); ok {
		live = s.Pages()
	}
	return recorded.Recorded() <= loanPages(live)
}

// A transfer replaces our state by the group's. Its session is under the replica's lock.
// Readers of connections ask without it whether one is under way.
type transfer struct {
	state   State
	session Install // nil: none is under way
	busy    atomic.Bool
}

// begin opens the session that fetches the state of a checkpoint.
func (x *transfer) begin(n SeqNum, root Digest) (Install, error) {
	session, err := x.state.Install(n, root)
	if err != nil {
		return nil, err
	}
	x.session = session
	x.busy.Store(true)
	return session, nil
}

// end ends the session when the fetched state is ours.
func (x *transfer) end() {
	x.session = nil
	x.busy.Store(false)
}

// digest computes the digests of fetched pages, on the goroutine that read them and not
// under the lock.
func (x *transfer) digest(m *message.Data) {
	d, ok := x.state.(Digester)
	if !ok || !x.busy.Load() {
		return
	}
	for i := range m.Items {
		if p := &m.Items[i]; p.Node.Level == 0 && len(p.Bytes) == PageSize {
			p.Digest = d.Digest(PageNum(p.Node.Index), p.Bytes)
		}
	}
}
