// SPDX-License-Identifier: Apache-2.0

package message

import "crypto/sha256"

// A Batch is what gets a sequence number: requests in the order of their execution and what the
// primary chose for them [TOCS §6.1, §7.2]. The null request is the empty batch (R-MSG-3).
type Batch struct {
	Requests []*Request
	Choice   []byte
}

// NullDigest is D(null), the digest of the empty batch.
var NullDigest = (&Batch{}).Digest()

const batchTag = "bfs batch v1\x00"

// Digest names the batch in PREPAREs, P, Q and X. It depends on neither view nor number. It is over
// the requests' essences, and counts and lengths are in it (R-MSG-1, R-MSG-2, R-CRY-7).
func (b *Batch) Digest() (d Digest) {
	const chunk, essence = 4 << 10, requestHeader + ShortOperation
	buf := make([]byte, 0, chunk+essence)
	buf = append(buf, batchTag...)
	buf = appendU32(buf, uint32(len(b.Requests)))
	buf = appendU16(buf, uint16(len(b.Choice)))
	buf = append(buf, b.Choice...)
	h := sha256.New()
	for _, r := range b.Requests {
		if buf = r.appendEssence(buf); len(buf) >= chunk {
			h.Write(buf)
			buf = buf[:0]
		}
	}
	h.Write(buf)
	h.Sum(d[:0])
	return d
}

// Bytes is the sum of the operations' lengths, whether they are here or not. Batches and
// logs are bounded by it.
func (b *Batch) Bytes() (n int) {
	for _, r := range b.Requests {
		n += r.Length()
	}
	return n
}

// Complete reports whether all operations are here.
func (b *Batch) Complete() bool {
	for _, r := range b.Requests {
		if r.IsStub() {
			return false
		}
	}
	return true
}

// Fill gives the stubs of a batch the operations of another copy of it.
func (b *Batch) Fill(from *Batch) {
	for i, r := range b.Requests {
		if r.IsStub() && i < len(from.Requests) {
			r.Fill(from.Requests[i])
		}
	}
}

// A PrePrepare is the primary's proposal of a batch for a sequence number [TOCS §4.3].
type PrePrepare struct {
	View    View
	Seq     SeqNum
	Digest  Digest // of the batch; the decoder has recomputed it
	Batch   Batch
	Commits []SeqNum // as in Prepare
	From    ReplicaID
}

// Type implements Message.
func (*PrePrepare) Type() Type { return TypePrePrepare }

// AppendBody implements Message.
func (m *PrePrepare) AppendBody(b []byte) []byte {
	b = appendU64(b, uint64(m.View))
	b = appendU64(b, uint64(m.Seq))
	b = append(b, m.Digest[:]...)
	b = appendCommits(b, m.Commits)
	b = appendU16(b, uint16(len(m.Batch.Choice)))
	b = append(b, m.Batch.Choice...)
	b = appendU16(b, uint16(len(m.Batch.Requests)))
	for _, r := range m.Batch.Requests {
		b = r.AppendBody(b)
	}
	return b
}

// AppendCovered implements Message.
func (m *PrePrepare) AppendCovered(b []byte) []byte {
	b = append(b, byte(TypePrePrepare))
	b = appendU64(b, uint64(m.View))
	b = appendU64(b, uint64(m.Seq))
	b = append(b, m.Digest[:]...)
	return appendCommits(b, m.Commits)
}

func (m *PrePrepare) decode(r *reader, lim *Limits) {
	m.View, m.Seq, m.Digest, m.Commits = r.view(), r.seqNum(), r.digest(), r.commits(nil)
	m.Batch.Choice = r.bytes(r.count(int(r.u16()), lim.Choice))
	n := r.count(int(r.u16()), lim.BatchCount)
	if r.why != "" || n*requestHeader > len(r.b) {
		r.fail("it ends too soon")
		return
	}
	requests := make([]Request, n)
	m.Batch.Requests = make([]*Request, n)
	total := 0
	for i := range requests {
		m.Batch.Requests[i] = &requests[i]
		requests[i].read(r, lim)
		if requests[i].ReadOnly {
			// If the request must be ordered, its client sends it again under a new
			// timestamp: ordered here too, it would run twice.
			r.fail("a read-only request in a batch")
		}
		total += requests[i].Length()
	}
	if n > 1 && total > lim.BatchBytes {
		r.fail("the batch is above its bound")
	}
	if r.why == "" && m.Batch.Digest() != m.Digest {
		r.fail("its digest is not its batch's")
	}
}
