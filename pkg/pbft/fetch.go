// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// fetch opens a session that replaces our state by that of a checkpoint. Queries are refused meanwhile, and
// batches are logged but not executed.
func (r *Replica) fetch(n SeqNum, root Digest) {
	session, err := r.cfg.Service.State().Install(n, root)
	if err != nil {
		r.fail(fmt.Errorf("cannot fetch checkpoint %d: %w", n, err))
		return
	}
	r.log.Info("behind the group: fetching its state", "checkpoint", n, "executed", r.core.LastExecuted())
	if r.keeper != nil {
		r.keeper.store.Feed(session)
	}
	r.session = session
	r.fetching.Store(true)
	r.measured.fetching = time.Now()
	r.core.Fetching(session)
}

// A keptFetch is a FETCH of a checkpoint that is being digested.
type keptFetch struct {
	from  ReplicaID
	fetch message.Fetch
}

// keptFetches is how many are kept of one replica, which asks for no more at a time. What is above is gone.
const keptFetches = 8

// serve answers a FETCH, or keeps it for when its checkpoint is digested.
func (r *Replica) serve(to ReplicaID, m *message.Fetch) {
	if r.answerFetch(to, m) {
		return
	}
	kept := 0
	for i := range r.kept {
		if r.kept[i].from == to {
			kept++
		}
	}
	if kept >= keptFetches {
		r.sendData(r.peers[to], &message.Data{Seq: m.Seq, Tag: m.Tag, Gone: true})
		return
	}
	k := keptFetch{to, *m}
	k.fetch.Nodes = slices.Clone(m.Nodes) // they lie in a frame that is lent
	r.kept = append(r.kept, k)
}

// serveKept answers the FETCHes that were kept and need not be any more. Others have their turn between two of them.
func (r *Replica) serveKept() {
	for more := true; more; {
		r.enter()
		if more = len(r.kept) > 0 && !r.stopping && r.answerFetch(r.kept[0].from, &r.kept[0].fetch); more {
			r.kept = slices.Delete(r.kept, 0, 1)
		}
		r.leave()
	}
}

// answerFetch answers a FETCH from a checkpoint we hold. False: not yet.
func (r *Replica) answerFetch(to ReplicaID, m *message.Fetch) bool {
	answer := r.readCheckpoint(m)
	if answer == nil {
		return false
	}
	r.sendData(r.peers[to], answer)
	return true
}

// readCheckpoint makes the answer to a FETCH. What we do not have is left out; who asked sees that. Nil: not yet.
func (r *Replica) readCheckpoint(m *message.Fetch) *message.Data {
	state := r.cfg.Service.State()
	answer := &message.Data{Seq: m.Seq, Tag: m.Tag, Items: make([]message.Item, 0, len(m.Nodes))}
	for _, id := range m.Nodes {
		var item message.Item
		var err error
		if id.Level == 0 {
			item.Bytes, err = state.PageAt(m.Seq, PageNum(id.Index))
		} else {
			var children []Digest
			children, err = state.Children(m.Seq, id)
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

// sendData sends a DATA whose pages are copied from where they lie into the queue, and nowhere else.
func (r *Replica) sendData(p *peerEnd, m *message.Data) {
	var pieces [][]byte
	pieces, r.buffer = m.Pieces(r.buffer)
	if r.trailer = r.ring.SealBody(p.session, &r.scratch, r.trailer[:0], m, pieces[0]); r.trailer != nil {
		r.queueFor(p, false, nil, append(pieces, r.trailer)...)
	}
}

// digest computes the digests of pages that came, on the goroutine of the connection they came on and not
// under the lock.
func (r *Replica) digest(m *message.Data) {
	d, ok := r.cfg.Service.State().(Digester)
	if !ok || !r.fetching.Load() {
		return
	}
	for i := range m.Items {
		if x := &m.Items[i]; x.Node.Level == 0 && len(x.Bytes) == PageSize {
			x.Digest = d.Digest(PageNum(x.Node.Index), x.Bytes)
		}
	}
}

// install makes the fetched state ours.
func (r *Replica) install(n SeqNum, root Digest) {
	if err := r.session.Commit(); err != nil {
		r.fail(fmt.Errorf("install the fetched state: %w", err))
		return
	}
	r.exec.Replaced(n)
	if r.keeper == nil {
		r.installed(n)
		return
	}
	r.keeper.installing = true
	r.keeper.take(&imageJob{message.CheckpointID{Seq: n, Digest: root}, func() { r.installed(n) }})
}

// installed goes on from the fetched state, which is on disk now in disk mode.
func (r *Replica) installed(n SeqNum) {
	if r.session = nil; r.keeper != nil {
		r.keeper.installing = false
	}
	r.fetching.Store(false)
	r.core.Forget(r.exec.Executed)
	r.forgetRevoked()
	r.core.Installed(n)
	r.tellRecoveries()
	r.measured.installed()
	r.log.Info("state fetched", "checkpoint", n, "took", r.measured.fetched.Took.Duration().Round(time.Millisecond), "bytes", r.measured.fetched.Bytes)
}
