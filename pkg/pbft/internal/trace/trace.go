// SPDX-License-Identifier: Apache-2.0

// Package trace notes when the batches of one replica passed the steps of the protocol. The
// traces of a group on one machine are read together: their times are of one clock. It is for
// measurements, see `bfsd bench micro --trace-slow`.
package trace

import (
	"encoding/gob"
	"io"
	"runtime/debug"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// A Stamp is a time of the machine's clock, in nanoseconds; 0: it has not come.
type Stamp int64

// A Batch is what one replica noted of one batch. A message counts as read when the goroutine
// that reads it has opened it, before that waits for the replica's lock. A message counts as
// left when it is queued on its connections, after the sync that it waits for.
type Batch struct {
	Seq      message.SeqNum
	Proposed Stamp   // the PRE-PREPARE was read; at the primary: it left
	Ready    Stamp   // our PREPARE could have left, but for the disk
	Votes    []Stamp // by replica: its PREPARE was read; our own: it left
	Executed Stamp   // first, tentatively or not
	Replied  Stamp   // the last of its replies left
}

// A Request is a client's request that came to this replica itself, and was executed.
type Request struct {
	Client    message.ClientID
	Slot      message.Slot
	Timestamp message.Timestamp
	Read      Stamp
	Seq       message.SeqNum
}

// A Report is what a trace holds at the end.
type Report struct {
	Self        message.ReplicaID
	Batches     []Batch
	Requests    []Request
	Collections []Stamp // when the last collections of garbage ended
}

// Bounds of a trace. Later batches and requests take the place of the oldest.
const (
	maxBatches  = 1 << 18
	maxRequests = 1 << 20
	maxOpen     = 1 << 16
)

// A Trace is one replica's. A nil Trace notes nothing. It is under the replica's lock.
type Trace struct {
	self     message.ReplicaID
	replicas int
	event    Stamp // when the messages of the present event were read
	batches  []Batch
	requests []Request
	taken    int                          // of requests, ever
	open     map[message.RequestKey]Stamp // requests that were read and not executed
}

// New returns an empty trace.
func New(self message.ReplicaID, replicas int) *Trace {
	return &Trace{self: self, replicas: replicas, batches: make([]Batch, maxBatches),
		open: make(map[message.RequestKey]Stamp)}
}

// Now is the time for Begin. It needs no lock.
func (t *Trace) Now() Stamp {
	if t == nil {
		return 0
	}
	return Stamp(time.Now().UnixNano())
}

// Begin notes that messages are taken in that were read at a time.
func (t *Trace) Begin(read Stamp) {
	if t != nil {
		t.event = read
	}
}

// Request notes that a client's request was read.
func (t *Trace) Request(q *message.Request) {
	if t != nil && !q.ReadOnly && len(t.open) < maxOpen {
		t.open[q.Key()] = t.event
	}
}

// Received notes that another replica's message was read.
func (t *Trace) Received(m message.Message) {
	if t == nil {
		return
	}
	switch m := m.(type) {
	case *message.PrePrepare:
		first(&t.at(m.Seq).Proposed, t.event)
	case *message.Prepare:
		t.vote(m.Seq, m.From, t.event)
	}
}

// Ready notes that the core wants something said.
func (t *Trace) Ready(m message.Message) {
	if p, ok := m.(*message.Prepare); ok && t != nil {
		first(&t.at(p.Seq).Ready, t.Now())
	}
}

// Left notes that a message of ours to all has left.
func (t *Trace) Left(m message.Message) {
	if t == nil {
		return
	}
	switch m := m.(type) {
	case *message.PrePrepare:
		first(&t.at(m.Seq).Proposed, t.Now())
	case *message.Prepare:
		t.vote(m.Seq, t.self, t.Now())
	}
}

// Executed notes that a batch was executed.
func (t *Trace) Executed(n message.SeqNum, b *message.Batch) {
	if t == nil {
		return
	}
	first(&t.at(n).Executed, t.Now())
	for _, q := range b.Requests {
		read, ok := t.open[q.Key()]
		if !ok {
			continue
		}
		delete(t.open, q.Key())
		r := Request{q.Client, q.Slot, q.Timestamp, read, n}
		if t.taken++; len(t.requests) < maxRequests {
			t.requests = append(t.requests, r)
		} else {
			t.requests[t.taken%maxRequests] = r
		}
	}
}

// Replied notes that a REPLY has left whose ground is batch n.
func (t *Trace) Replied(n message.SeqNum) {
	if t != nil && n > 0 {
		t.at(n).Replied = t.Now()
	}
}

// at is the record of a batch, in the place of an earlier one.
func (t *Trace) at(n message.SeqNum) *Batch {
	b := &t.batches[n%maxBatches]
	if b.Seq > n {
		return &Batch{Votes: make([]Stamp, t.replicas)} // too old to be noted
	}
	if b.Seq < n {
		*b = Batch{Seq: n, Votes: append(b.Votes[:0], make([]Stamp, t.replicas)...)}
	}
	return b
}

func (t *Trace) vote(n message.SeqNum, from message.ReplicaID, at Stamp) {
	if b := t.at(n); int(from) < len(b.Votes) {
		first(&b.Votes[from], at)
	}
}

func first(s *Stamp, at Stamp) {
	if *s == 0 {
		*s = at
	}
}

// Write writes the report. The replica has ended.
func (t *Trace) Write(w io.Writer) error {
	r := Report{Self: t.self, Requests: t.requests, Collections: Collections()}
	for _, b := range t.batches {
		if b.Seq > 0 {
			r.Batches = append(r.Batches, b)
		}
	}
	return gob.NewEncoder(w).Encode(&r)
}

// Read reads a report that was written.
func Read(from io.Reader) (*Report, error) {
	r := new(Report)
	return r, gob.NewDecoder(from).Decode(r)
}

// Collections are the times at which the last collections of garbage of this process ended.
func Collections() (ends []Stamp) {
	var s debug.GCStats
	debug.ReadGCStats(&s)
	for _, end := range s.PauseEnd {
		ends = append(ends, Stamp(end.UnixNano()))
	}
	return ends
}
