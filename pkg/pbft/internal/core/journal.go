// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// journal is what this replica records beside its own votes, and how all records are
// begun anew. Without a journal, which is disk mode's, nothing is recorded.
type journal struct {
	*base
	log    *messageLog
	change *viewChange
}

// decided records a committed batch. Our messages that rest on it wait for the record if our
// journal does not say that the batch has prepared here, for others told us that it has committed:
// after a restart we would not know that we have answered from it. They bring it if we do not have
// it.
func (j *journal) decided(s *slot) {
	if !j.cfg.Durable {
		return
	}
	said := &message.Decided{Seq: s.seq, Digest: s.decision, From: j.cfg.Self}
	switch ours := s.proposal != nil && s.proposal.Digest == s.decision && s.prepares.has(j.cfg.Self); {
	case ours && s.isPrepared:
		j.note(said)
		return
	case ours:
		j.persist(said)
		return
	}
	j.persist(&message.BatchBody{PrePrepare: message.PrePrepare{Digest: s.decision, Batch: *s.batch}}, said)
}

// newView records a NEW-VIEW and what it was made of: after our restart others may need the
// NEW-VIEW from us, or our acks.
func (j *journal) newView(set []*message.ViewChange, m *message.NewView) {
	if !j.cfg.Durable {
		return
	}
	var record []message.Message
	for _, vc := range set {
		if vc.From != j.cfg.Self {
			record = append(record, vc)
		}
	}
	j.persist(append(record, m)...)
}

// renew replaces the journal's records by what we remember: an intruder may have put records
// there for numbers that are yet to come, and a later restart would believe them. Old records of
// batches up to the stable checkpoint stay, because a restart may need them to make the state. If
// that state is then not the checkpoint's, it is fetched.
func (j *journal) renew() {
	if !j.cfg.Durable {
		return
	}
	mark := func(which message.View) []message.Message {
		return []message.Message{&message.Recovered{View: which, Seq: j.log.low,
			Timestamp: message.Timestamp(j.cfg.Recovery), From: j.cfg.Self}}
	}
	j.do(Effect{Verb: Renew, Records: mark(renewBegins)})
	stable := j.stable
	j.note(&stable)
	x := j.change
	if x.own != nil {
		j.note(x.own)
	}
	if m := x.newView; m != nil {
		var set []*message.ViewChange
		for _, v := range m.V {
			if vc := x.usable(v.From, v.Digest); vc != nil {
				set = append(set, vc)
			}
		}
		j.newView(set, m)
	}
	j.note(&message.Status{View: j.view, Active: true, From: j.cfg.Self}) // a recovery ends in a view that has begun
	for n := j.log.low + 1; n <= j.log.high; n++ {
		j.slot(j.log.slot(n))
	}
	j.do(Effect{Verb: Renewed, Seq: j.log.low, Records: mark(renewEnds)})
}

// The views that the marks of a renewed journal name. Their number is the stable checkpoint.
const (
	renewBegins = iota
	renewEnds
)

// slot records our statements about a number, and its decided batch.
func (j *journal) slot(s *slot) {
	if s.proposal != nil && s.prepares.has(j.cfg.Self) {
		j.note(s.proposal)
	}
	if s.isPrepared && s.commits.has(j.cfg.Self) {
		vote := s.ownCommit
		j.note(&vote)
	}
	if s.isCommitted {
		j.decided(s)
	}
}

// memory is the outcome of a journal's records.
type memory struct {
	bodies   map[message.Digest]*message.Batch
	decided  map[message.SeqNum]message.Digest
	accepted []*message.PrePrepare // the proposals that we voted for, in whatever view
	prepared []message.Commit      // what prepared
	stable   message.Checkpoint
	own      *message.ViewChange
	others   []*message.ViewChange // of newView
	newView  *message.NewView
	reached  message.View // the view in which a silence began
	renewed  *memory      // records since a recovery began to write the journal anew; nil: none did
	active   message.View // the last view that was active; 0 also if none was
}

func newMemory() *memory {
	return &memory{bodies: map[message.Digest]*message.Batch{message.NullDigest: {}},
		decided: map[message.SeqNum]message.Digest{}}
}

// read takes in a record. A recovery's records replace all earlier ones once they are complete.
func (m *memory) read(r message.Message, self message.ReplicaID) {
	if mark, ok := r.(*message.Recovered); ok {
		switch {
		case mark.View == renewBegins:
			m.renewed = newMemory()
		case m.renewed != nil:
			m.replace(mark.Seq)
		}
		return
	}
	if m.renewed != nil {
		m.renewed.read(r, self)
	}
	switch r := r.(type) {
	case *message.PrePrepare:
		if !r.Batch.Complete() {
			return // an intruder's: a replica votes for what it can execute
		}
		m.bodies[r.Digest] = &r.Batch
		m.accepted = append(m.accepted, r)
	case *message.Commit:
		m.prepared = append(m.prepared, *r)
	case *message.BatchBody:
		if r.Batch.Complete() {
			m.bodies[r.Digest] = &r.Batch
		}
	case *message.Decided:
		m.decided[r.Seq] = r.Digest
	case *message.Checkpoint:
		if r.Seq > m.stable.Seq {
			m.stable = *r
		}
	case *message.ViewChange:
		m.readViewChange(r, self)
	case *message.NewView:
		if m.newView == nil || r.View > m.newView.View {
			m.newView = r
		}
	case *message.Status:
		if m.reached = max(m.reached, r.View); r.Active {
			m.active = max(m.active, r.View)
		}
	}
}

// replace lets the records that a recovery wrote stand for all earlier ones, except for the batches
// decided up to the checkpoint that was stable then.
func (m *memory) replace(stable message.SeqNum) {
	old := *m
	*m = *old.renewed
	for n, d := range old.decided {
		if _, known := m.decided[n]; known || n > stable {
			continue
		}
		m.decided[n] = d
		if b := old.bodies[d]; b != nil {
			m.bodies[d] = b
		}
	}
}

// readViewChange takes in our VIEW-CHANGE, or one that a NEW-VIEW was made of.
func (m *memory) readViewChange(r *message.ViewChange, self message.ReplicaID) {
	switch {
	case r.From != self:
		m.others = append(m.others, r)
	case m.own == nil || r.View > m.own.View:
		m.own = r
	}
}

// view is the last view that we reached, and whether it was active.
func (m *memory) view() (v message.View, active bool) {
	v = m.reached
	if m.own != nil {
		v = max(v, m.own.View)
	}
	if m.newView != nil {
		v = max(v, m.newView.View)
	}
	return v, v == m.active
}
