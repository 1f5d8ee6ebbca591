package pbft

import (
	"fmt"

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
	r.session = session
	r.core.Fetching(session)
}

// serve answers a FETCH from a checkpoint we hold. What we do not have is left out; who asked sees that.
func (r *Replica) serve(to ReplicaID, m *message.Fetch) {
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
		if err != nil {
			continue
		}
		item.Node = id
		answer.Items = append(answer.Items, item)
	}
	answer.Gone = len(answer.Items) == 0 && len(m.Nodes) > 0
	r.sendTo(to, answer)
}

// install makes the fetched state ours.
func (r *Replica) install(n SeqNum) {
	if err := r.session.Commit(); err != nil {
		r.fail(fmt.Errorf("install the fetched state: %w", err))
		return
	}
	r.session = nil
	r.exec.ledger.Reload()
	r.core.Installed(n)
	r.log.Info("state fetched", "checkpoint", r.core.Stable().Seq)
}
