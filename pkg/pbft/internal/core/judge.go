// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// judge says whether a vote may be counted: it asks what may be said now, in this view,
// about this number. Whether the operations of a proposal are here and authentic is
// another question: see voting.fit.
type judge struct {
	*base
	log     *messageLog
	change  *viewChange
	reports *reports
}

// vote checks what all votes must satisfy: the present view, a number within the marks.
func (j *judge) vote(v message.View, n message.SeqNum) Refusal {
	switch {
	case v < j.view:
		return EarlierView
	case v > j.view:
		j.reports.noticeLag()
		return LaterView
	case n <= j.change.bottom():
		return BelowWindow
	case n > j.log.high:
		j.reports.noticeLag()
		return AboveWindow
	}
	return accepted
}

func (j *judge) prePrepare(p *message.PrePrepare) Refusal {
	if p.From != p.View.Primary(j.cfg.Replicas) {
		return NotFromPrimary
	}
	if why := j.vote(p.View, p.Seq); why != accepted {
		return why
	}
	s := j.log.slot(p.Seq)
	switch {
	case !j.active:
		return ViewNotActive
	case !s.chosen.IsZero() && s.chosen != p.Digest, s.proposal != nil, s.held != nil && s.held.Digest != p.Digest:
		return SecondProposal
	case j.log.bytes-s.size+p.Batch.Bytes() > j.cfg.LogBytes:
		return LogIsFull
	}
	return accepted
}
