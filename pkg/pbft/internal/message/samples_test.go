// SPDX-License-Identifier: Apache-2.0

package message

import (
	"math/rand/v2"
)

// limits of the tests: a group of four with the default limits.
var limits = Limits{
	Replicas: 4, Operation: 1<<20 + 2048, BatchBytes: 1 << 20, BatchCount: 512, Choice: 64,
	Reply: 1<<20 + 2048, WindowLength: 256,
}

func encode(m Message) []byte { return m.AppendBody([]byte{byte(m.Type())}) }

// A generator makes messages that a decoder accepts.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 7))} }

func (g generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

func (g generator) digest() (d Digest) {
	copy(d[:], g.bytes(DigestSize))
	return d
}

func (g generator) number() uint64     { return g.Uint64N(maxNumber) }
func (g generator) replica() ReplicaID { return ReplicaID(g.IntN(limits.Replicas)) }
func (g generator) bool() bool         { return g.IntN(2) == 0 }

func (g generator) bitmap() (m Bitmap) {
	for range g.IntN(5) {
		m = m.Set(g.IntN(limits.WindowLength))
	}
	return m
}

func (g generator) request() *Request {
	q := &Request{
		Client: ClientID(g.Uint64() | 2), Slot: Slot(g.Uint32()), Timestamp: Timestamp(g.Uint64()),
		Replier: g.replica(), Op: g.bytes(g.IntN(700)),
	}
	if g.bool() {
		q.Replier = AnyReplier
	}
	q.Provers = g.Uint32N(1 << limits.Replicas)
	q.Keep, q.Apart = g.IntN(4) == 0, g.IntN(4) == 0
	if g.IntN(4) == 0 {
		q.Client, q.Signature = Administrator, g.bytes(SignatureSize)
	} else {
		q.Auth = Authenticator{g.Uint64(), g.bytes(g.IntN(limits.Replicas+1) * MACSize)}
	}
	return q
}

func (g generator) prePrepare() PrePrepare {
	p := PrePrepare{View: View(g.number()), Seq: SeqNum(g.number()), Commits: g.commits(),
		Batch: Batch{Choice: g.bytes(g.IntN(limits.Choice + 1))}}
	for range g.IntN(5) {
		p.Batch.Requests = append(p.Batch.Requests, g.request())
	}
	p.Digest = p.Batch.Digest()
	return p
}

func (g generator) commits() (all []SeqNum) {
	for range g.IntN(3) * g.IntN(MaxCommits/2+1) {
		all = append(all, SeqNum(g.number()))
	}
	return all
}

func (g generator) tuples() (all []Prepared) {
	for range g.IntN(5) {
		all = append(all, Prepared{SeqNum(g.number()), g.digest(), View(g.number())})
	}
	return all
}

func (g generator) viewChange() *ViewChange {
	m := &ViewChange{View: View(g.number()), Low: SeqNum(g.Uint64N(1 << 40)), P: g.tuples(),
		Q: g.tuples(), From: g.replica()}
	for i := range g.IntN(4) {
		m.Checkpoints = append(m.Checkpoints, CheckpointID{m.Low + SeqNum(i), g.digest()})
	}
	return m
}

func (g generator) newView() *NewView {
	m := &NewView{View: View(g.number()), Checkpoint: CheckpointID{SeqNum(g.number()), g.digest()}}
	for i := range limits.Replicas {
		if g.bool() {
			m.V = append(m.V, Vouched{ReplicaID(i), g.digest()})
		}
	}
	for range g.IntN(6) {
		m.Chosen = append(m.Chosen, g.digest())
	}
	return m
}

func (g generator) data() *Data {
	m := &Data{Seq: SeqNum(g.number()), Tag: g.Uint32(), Gone: g.bool()}
	for range g.IntN(4) {
		m.Items = append(m.Items, Item{Node: NodeID{uint8(g.Uint32()), g.Uint64()}, Bytes: g.bytes(g.IntN(300))})
	}
	return m
}

func (g generator) reply() *Reply {
	m := &Reply{View: View(g.number()), Seq: SeqNum(g.number()), Tentative: g.bool()}
	if g.bool() {
		m.Seq, m.Tentative = 0, false
	}
	for range 1 + g.IntN(4) {
		m.Answers = append(m.Answers, g.answer())
		if a := &m.Answers[len(m.Answers)-1]; a.Long() && a.Full {
			break
		}
	}
	return m
}

func (g generator) answer() Answer {
	a := Answer{Timestamp: Timestamp(g.Uint64()), Slot: Slot(g.Uint32()), Outcome: Outcome(g.IntN(int(outcomes))),
		ReadOnly: g.bool(), Full: true}
	a.Result = g.bytes(g.IntN(700))
	a.Length = len(a.Result)
	if a.Long() && g.IntN(3) == 0 {
		a.Full, a.Result = false, nil
	} else if a.Long() {
		a.Proved = true
		a.Proof.Nonce = g.Uint64()
		copy(a.Proof.Tag[:], g.bytes(MACSize))
		if g.bool() {
			a.Full, a.Result = false, nil
		}
	}
	return a
}

func (g generator) newKey() *NewKey {
	m := &NewKey{Major: uint16(g.Uint32()), Minor: uint16(g.Uint32()), Group: g.digest(),
		From: Principal{Replica: g.replica()}, To: Principal{Client: ClientID(g.Uint64() | 1)}, SenderKey: g.digest(),
		Channel: g.digest(), Counter: g.Uint64(), SealTo: g.digest(),
		TransportKey: g.digest(), Recipient: g.digest(), Sealed: g.bytes(g.IntN(maxSealed + 1)),
		Rival: g.bytes(g.IntN(MaxRival + 1))}
	copy(m.Signature[:], g.bytes(SignatureSize))
	return m
}

// message makes one of type t.
func (g generator) message(t Type) Message {
	view, seq := View(g.number()), SeqNum(g.number())
	switch t {
	case TypeNewKey:
		return g.newKey()
	case TypeRequest:
		q := g.request()
		q.ReadOnly = g.bool()
		return q
	case TypeReply:
		return g.reply()
	case TypePrePrepare:
		p := g.prePrepare()
		for i, q := range p.Batch.Requests {
			if g.bool() {
				p.Batch.Requests[i] = q.Stub()
			}
		}
		return &p
	case TypePrepare:
		return &Prepare{View: view, Seq: seq, Digest: g.digest(), Commits: g.commits()}
	case TypeCommit:
		return &Commit{View: view, Seq: seq}
	case TypeCheckpoint:
		return &Checkpoint{Seq: seq, Digest: g.digest(), Stable: g.bool()}
	case TypeStatus:
		return &Status{View: view, Active: g.bool(), Low: seq, LastExecuted: SeqNum(g.number()), Prepared: g.bitmap(),
			Committed: g.bitmap(), ViewChanges: g.Uint32(), HasNewView: g.bool(), SilentUntil: SeqNum(g.number())}
	case TypeFetch:
		m := &Fetch{Seq: seq, Tag: g.Uint32()}
		for range g.IntN(MaxFetch + 1) {
			m.Nodes = append(m.Nodes, NodeID{uint8(g.Uint32()), g.Uint64()})
		}
		return m
	case TypeData:
		return g.data()
	case TypeViewChange:
		return g.viewChange()
	case TypeViewChangeAck:
		return &ViewChangeAck{View: view, Of: g.replica(), Digest: g.digest()}
	case TypeNewView:
		return g.newView()
	case TypeForward:
		return &Forward{Client: ClientID(g.Uint64()), Slot: Slot(g.Uint32()),
			Timestamp: Timestamp(g.Uint64()), Digest: g.digest()}
	case TypeFetchBatch:
		m := &FetchBatch{}
		for range g.IntN(MaxFetchBatch + 1) {
			m.Digests = append(m.Digests, g.digest())
		}
		return m
	case TypeBatchBody:
		return &BatchBody{PrePrepare: g.prePrepare()}
	case TypeDecided:
		return &Decided{Seq: seq, Digest: g.digest()}
	case TypeQueryStable:
		return &QueryStable{Nonce: g.Uint64()}
	case TypeReplyStable:
		return &ReplyStable{Nonce: g.Uint64(), Seq: seq, Digest: g.digest(), View: view, Latest: Timestamp(g.Uint64()),
			Taken: SeqNum(g.number()), Prepared: SeqNum(g.number())}
	case TypeRecovered:
		return &Recovered{View: view, Seq: seq, Timestamp: Timestamp(g.Uint64())}
	}
	return nil
}

// types are all there are.
func types() (all []Type) {
	for t := TypeNewKey; newGenerator(0).message(t) != nil; t++ {
		all = append(all, t)
	}
	return all
}
