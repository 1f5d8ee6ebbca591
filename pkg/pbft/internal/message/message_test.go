// SPDX-License-Identifier: Apache-2.0

package message

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/vectors.txt anew")

// A vector is an encoding and what a decoder says to it.
type vector struct {
	name, expect string
	bytes        []byte
}

// vectors are made here and kept in testdata, so that neither the encoding nor a refusal
// changes unseen.
func vectors() (all []vector) {
	add := func(name string, b []byte) {
		_, err := Decode(b, &limits)
		all = append(all, vector{name, fmt.Sprint(err), b})
	}
	for _, t := range types() {
		g := newGenerator(uint64(t))
		b := encode(g.message(t))
		for len(b) > 700 {
			b = encode(g.message(t))
		}
		add(fmt.Sprintf("%v as it should be", t), b)
	}
	g := newGenerator(99)
	change := func(t Type, f func(b []byte) []byte) []byte { return f(encode(g.message(t))) }
	put := func(at int, v uint64, size int) func([]byte) []byte {
		return func(b []byte) []byte {
			var x [8]byte
			binary.LittleEndian.PutUint64(x[:], v)
			copy(b[at:at+size], x[:])
			return b
		}
	}
	add("nothing", nil)
	add("a type that does not exist", []byte{0xee, 1, 2, 3})
	add("type zero", []byte{0})
	add("a PREPARE cut short", change(TypePrepare, func(b []byte) []byte { return b[:len(b)-1] }))
	add("a PREPARE with a byte too many", change(TypePrepare, func(b []byte) []byte { return append(b, 0) }))
	add("a COMMIT of a view that wraps when one is added", change(TypeCommit, put(1, 1<<64-1, 8)))
	add("a COMMIT of the first number refused", change(TypeCommit, put(9, maxNumber, 8)))
	add("a STATUS from the end of numbers", change(TypeStatus, put(18, 1<<64-1, 8)))
	add("a CHECKPOINT whose flag is 2", change(TypeCheckpoint, put(41, 2, 1)))
	status := &Status{Prepared: Bitmap{1, 0}}
	add("a STATUS whose bitmap ends in zeros", encode(status))
	status = &Status{Prepared: bytes.Repeat(Bitmap{1}, 33)}
	add("a STATUS about more than the window", encode(status))
	add("a FETCH of more nodes than allowed", change(TypeFetch, put(13, MaxFetch+1, 1)))
	item := &Data{Items: []Item{{Bytes: make([]byte, maxNodeBytes+1)}}}
	add("DATA of more than a node", encode(item)[:200])
	add("a REQUEST with unknown flags", change(TypeRequest, put(19, 0x80, 1)))
	add("a REQUEST for a replier who is not there", change(TypeRequest, put(20, 4, 1)))
	add("a REQUEST for a prover who is not there", change(TypeRequest, put(25, 1<<4, 4)))
	add("a REQUEST longer than allowed", change(TypeRequest, put(21, 1<<21, 4)))
	add("a REQUEST that says it is four gigabytes long", change(TypeRequest, put(21, 1<<32-1, 4)))
	signed := &Request{Client: 7, Replier: AnyReplier, Signature: make([]byte, SignatureSize)}
	add("a REQUEST that is signed, and not the administrator's", encode(signed))
	unsigned := &Request{Client: Administrator, Replier: AnyReplier}
	add("an administrator's REQUEST without signature", encode(unsigned))
	q := &Request{Client: 7, Replier: AnyReplier, Op: []byte("x")}
	batch := Batch{Requests: []*Request{q}}
	p := &PrePrepare{View: 1, Seq: 2, Batch: batch, Digest: batch.Digest()}
	p.Digest[0] ^= 1
	add("a PRE-PREPARE whose digest is another batch's", encode(p))
	p.Digest = Digest{}
	add("a PRE-PREPARE whose digest is left empty", encode(p))
	q.ReadOnly = true
	p.Digest = batch.Digest()
	add("a PRE-PREPARE of a read-only REQUEST", encode(p))
	long := &Request{Client: 7, Replier: AnyReplier, Op: make([]byte, ShortOperation+1)}
	add("a REQUEST without its operation, as it should be", encode(long.Stub()))
	read, admin := *long, *long
	read.ReadOnly, admin.Client, admin.Signature = true, Administrator, make([]byte, SignatureSize)
	add("a read without its operation", encode(read.Stub()))
	add("the administrator's REQUEST without its operation", encode(admin.Stub()))
	batch = Batch{Requests: []*Request{long.Stub()}}
	body := PrePrepare{Batch: batch, Digest: batch.Digest()}
	add("a BATCH without an operation", encode(&BatchBody{PrePrepare: body}))
	const lengthAt = 1 + 16 + DigestSize + 1 + 2 + 2 + requestHeader - 4
	const hashAt = lengthAt + 4 + proversSize
	add("a PRE-PREPARE without a short operation", put(lengthAt, ShortOperation, 2)(encode(&body)))
	add("a PRE-PREPARE without an operation, and without its digest",
		put(hashAt, 0, 8)(put(hashAt+8, 0, 8)(put(hashAt+16, 0, 8)(put(hashAt+24, 0, 8)(encode(&body))))))
	empty := &PrePrepare{Digest: NullDigest}
	add("a PRE-PREPARE that says it holds 65,535 requests", put(51, 1<<16-1, 2)(encode(empty)))
	add("a PRE-PREPARE that says it holds 512 requests, and none is there", put(51, 512, 2)(encode(empty)))
	big := &PrePrepare{Batch: Batch{Choice: make([]byte, 65)}}
	big.Digest = big.Batch.Digest()
	add("a PRE-PREPARE of too long a choice", encode(big))
	reply := &Reply{Answers: []Answer{{Length: 1}}}
	add("a REPLY without its short result", encode(reply))
	reply = &Reply{Answers: []Answer{{Full: true, Proved: true, Length: 300, Result: make([]byte, 300)}}}
	add("a REPLY whose long result ends too soon", encode(reply)[:1+replyHeader+answerHeader+8+MACSize+299])
	add("a REPLY with an answer behind a long result", put(1+8+8+1, 2, 2)(encode(reply)))
	reply.Answers[0].Full = false
	add("a REPLY with a result that it says it does not bring", append(encode(reply), 1))
	reply = &Reply{Answers: []Answer{{Full: true, Outcome: outcomes}}}
	add("a REPLY with a long result and no proof of it",
		encode(&Reply{Answers: []Answer{{Full: true, Length: 300, Result: make([]byte, 300)}}}))
	add("a REPLY that proves a short result",
		encode(&Reply{Answers: []Answer{{Full: true, Proved: true, Length: 1, Result: make([]byte, 1)}}}))
	add("a REPLY of an outcome that does not exist", encode(reply))
	add("a REPLY that says it holds 65,535 answers", put(1+8+8+1, 1<<16-1, 2)(encode(reply)))
	add("a REPLY that names no number and is tentative", encode(&Reply{Tentative: true}))
	key := &NewKey{Sealed: make([]byte, maxSealed+1)}
	add("a NEW-KEY of too long a sealed key", encode(key))
	add("a NEW-KEY of too long an address", encode(&NewKey{Rival: make([]byte, MaxRival+1)}))
	key = &NewKey{From: Principal{Replica: 2, Client: 7}}
	add("a NEW-KEY of a client who is also a replica", encode(key))
	add("a VIEW-CHANGE from nobody", encode(&ViewChange{From: 4}))
	k := CheckpointID{Seq: 4}
	add("a VIEW-CHANGE that names a checkpoint twice", encode(&ViewChange{Checkpoints: []CheckpointID{k, k}}))
	add("a VIEW-CHANGE that says its Q has a billion entries", put(23, 1<<30, 4)(encode(&ViewChange{})))
	add("a VIEW-CHANGE-ACK for nobody", encode(&ViewChangeAck{Of: 4}))
	add("a NEW-VIEW that names a replica twice", encode(&NewView{V: []Vouched{{From: 1}, {From: 1}}}))
	add("a NEW-VIEW that says it chose a billion digests", put(50, 1<<30, 4)(encode(&NewView{})))
	add("a FETCH-BATCH of too many digests", []byte{byte(TypeFetchBatch), MaxFetchBatch + 1})
	return all
}

func TestVectors(t *testing.T) {
	const path = "testdata/vectors.txt"
	made := vectors()
	if *rewrite {
		var b strings.Builder
		b.WriteString("# Encodings and what a decoder says to them. go test -rewrite makes this file anew.\n")
		for _, v := range made {
			fmt.Fprintf(&b, "\nname: %s\nexpect: %s\nhex: %x\n", v.name, v.expect, v.bytes)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(strings.TrimSpace(string(file)), "\n\n")[1:]
	if len(blocks) != len(made) {
		t.Fatalf("%s has %d vectors, want %d", path, len(blocks), len(made))
	}
	for i, block := range blocks {
		v := parseVector(t, block)
		m, err := Decode(v.bytes, &limits)
		switch {
		case v.name != made[i].name:
			t.Errorf("vector %d is %q, want %q", i, v.name, made[i].name)
		case fmt.Sprint(err) != v.expect:
			t.Errorf("%s: got %v, want %s", v.name, err, v.expect)
		case !bytes.Equal(v.bytes, made[i].bytes):
			t.Errorf("%s: an encoder writes\n%x, the vector is\n%x", v.name, made[i].bytes, v.bytes)
		case err == nil && !bytes.Equal(encode(m), v.bytes):
			t.Errorf("%s: encoded again it is\n%x, was\n%x", v.name, encode(m), v.bytes)
		case err == nil != strings.HasSuffix(v.name, "as it should be"):
			t.Errorf("%s: the decoder says %v", v.name, err)
		}
	}
}

func parseVector(t *testing.T, block string) (v vector) {
	for line := range strings.SplitSeq(block, "\n") {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch key {
		case "name":
			v.name = value
		case "expect":
			v.expect = value
		case "hex":
			b, err := hex.DecodeString(value)
			if err != nil {
				t.Fatal(err)
			}
			v.bytes = b
		default:
			t.Fatalf("a line that is neither name, expect nor hex: %q", line)
		}
	}
	return v
}

func TestRandomMessagesComeBack(t *testing.T) {
	for seed := range uint64(200) {
		for _, kind := range types() {
			b := encode(newGenerator(seed).message(kind))
			m, err := Decode(b, &limits)
			if err != nil {
				t.Fatalf("seed %d: %v: %v", seed, kind, err)
			}
			if m.Type() != kind || !bytes.Equal(encode(m), b) {
				t.Fatalf("seed %d: %v does not come back", seed, kind)
			}
		}
	}
}

// Whatever byte of a message changes, either it is malformed or what its MAC covers changes:
// nothing travels unprotected. DATA alone is believed for the digests of its items.
func TestEveryByteIsCovered(t *testing.T) {
	for _, kind := range types() {
		if kind == TypeData {
			continue
		}
		b := encode(newGenerator(3).message(kind))
		m, err := Decode(b, &limits)
		if err != nil {
			t.Fatal(err)
		}
		covered := append([]byte(nil), m.AppendCovered(nil)...)
		for i := range b {
			changed := append([]byte(nil), b...)
			changed[i] ^= 1
			c, err := Decode(changed, &limits)
			if err != nil || isProof(m, b, i) {
				continue
			}
			if bytes.Equal(c.AppendCovered(nil), covered) {
				t.Errorf("%v: byte %d of %d can be changed and the MAC still fits", kind, i, len(b))
				break
			}
		}
	}
}

// isProof reports whether byte i of an encoding belongs to a proof of origin, which
// protects and is not protected. In a batch the requests' proofs, flags and repliers are
// not covered by the primary's MAC: each request's own covers them.
func isProof(m Message, b []byte, i int) bool {
	switch m := m.(type) {
	case *NewKey:
		return i >= len(b)-SignatureSize
	case *Request:
		return i >= 1+requestHeader+proversSize+len(m.Op)
	case *PrePrepare:
		return i >= 1+48
	case *Reply: // a long result has a proof of its own
		return i >= m.covered
	case *BatchBody: // view and number mean nothing
		return i < 1+16 || i >= 1+48
	}
	return false
}

// A frame makes us allocate in proportion to its own length, whatever it says its length is.
func TestDecodingAllocatesLittle(t *testing.T) {
	for _, v := range vectors() {
		checkAllocation(t, v.name, v.bytes)
	}
	for _, kind := range types() {
		b := encode(newGenerator(5).message(kind))
		for cut := range min(len(b), 200) {
			checkAllocation(t, fmt.Sprintf("%v cut to %d bytes", kind, cut), b[:cut])
		}
	}
}

// checkAllocation takes the least of three measurements: the runtime allocates too, when it likes.
func checkAllocation(t *testing.T, name string, b []byte) {
	t.Helper()
	bound, least := uint64(16*len(b)+8<<10), ^uint64(0)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = Decode(b, &limits)
		runtime.ReadMemStats(&after)
		if least = min(least, after.TotalAlloc-before.TotalAlloc); least <= bound {
			return
		}
	}
	t.Errorf("%s: %d bytes make us allocate %d, want <= %d", name, len(b), least, bound)
}

// A request whose operation was hashed before is the same request.
func TestSetOperation(t *testing.T) {
	for _, n := range []int{0, 1, ShortOperation, ShortOperation + 1, 1 << 16} {
		op := bytes.Repeat([]byte{7}, n)
		want := Request{Client: 1, Slot: 2, Timestamp: 3, Op: op}
		got := Request{Client: 1, Slot: 2, Timestamp: 3}
		got.SetOperation(op, OperationDigest(op))
		if !bytes.Equal(got.AppendCovered(nil), want.AppendCovered(nil)) ||
			!bytes.Equal(got.AppendBody(nil), want.AppendBody(nil)) {
			t.Errorf("%d bytes: hashed before it differs", n)
		}
		if got.Digest() != want.Digest() {
			t.Errorf("%d bytes: got digest %v, want %v", n, got.Digest(), want.Digest())
		}
	}
}

// A batch's digest binds counts, lengths, order and choice (R-CRY-7).
func TestBatchDigestBinds(t *testing.T) {
	r := func(op string) *Request { return &Request{Client: 7, Op: []byte(op)} }
	long := strings.Repeat("x", ShortOperation+1)
	hashed := OperationDigest([]byte(long))
	batches := map[string]Batch{
		"null":          {},
		"a":             {Requests: []*Request{r("a")}},
		"ab":            {Requests: []*Request{r("a"), r("b")}},
		"ba":            {Requests: []*Request{r("b"), r("a")}},
		"a'b":           {Requests: []*Request{r("ab")}},
		"aa":            {Requests: []*Request{r("a"), r("a")}},
		"a with choice": {Requests: []*Request{r("a")}, Choice: []byte{1}},
		"choice only":   {Choice: []byte{1}},
		"long":          {Requests: []*Request{r(long)}},
		"long, another": {Requests: []*Request{r(long[1:] + "y")}},
		"longer":        {Requests: []*Request{r(long + "x")}},
		"its digest":    {Requests: []*Request{r(string(hashed[:]))}},
		"short at most": {Requests: []*Request{r(long[1:])}},
	}
	q := &Request{Client: 7, Op: append(r("").appendEssence(nil), 'b')}
	batches["two in one"] = Batch{Requests: []*Request{q}}
	a := r("a").Digest()
	batches["a as a choice"] = Batch{Choice: a[:]}
	seen := map[Digest]string{}
	for name, b := range batches {
		d := b.Digest()
		if other, ok := seen[d]; ok {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[d] = name
	}
}

// The identity of a request does not depend on the way by which it came here, on the
// replica that shall answer, nor on whether it may try the short way.
func TestRequestDigest(t *testing.T) {
	for _, n := range []int{0, 1, ShortOperation, ShortOperation + 1, 5000} {
		made := &Request{Client: 7, Slot: 3, Timestamp: 9, Replier: 2, Op: bytes.Repeat([]byte{5}, n)}
		decoded, err := Decode(encode(made), &limits)
		if err != nil {
			t.Fatal(err)
		}
		other := decoded.(*Request)
		other.ReadOnly, other.Replier, other.Provers = true, AnyReplier, 3
		if made.Digest() != other.Digest() {
			t.Errorf("%d bytes: a request and its copy have two digests", n)
		}
		for i, change := range []func(q *Request){
			func(q *Request) { q.Client++ }, func(q *Request) { q.Slot++ }, func(q *Request) { q.Timestamp++ },
			func(q *Request) { q.Keep = true }, func(q *Request) { q.Op = append(bytes.Clone(q.Op), 0) },
			func(q *Request) { q.Op = append([]byte{1}, q.Op[min(1, n):]...) },
		} {
			x := *made
			change(&x)
			if x.Altered(); x.Digest() == made.Digest() {
				t.Errorf("%d bytes: change %d leaves the digest as it was", n, i)
			}
		}
	}
}

// A stub is the same request, and takes no other operation than its own.
func TestStub(t *testing.T) {
	long := &Request{Client: 7, Timestamp: 9, Op: bytes.Repeat([]byte{5}, 300)}
	stub := long.Stub()
	if !stub.IsStub() || long.IsStub() || stub.Length() != 300 || stub.Digest() != long.Digest() {
		t.Errorf("%+v is no stub of %+v", stub, long)
	}
	a, b := (&Batch{Requests: []*Request{stub}}), (&Batch{Requests: []*Request{long}})
	if a.Digest() != b.Digest() || a.Bytes() != b.Bytes() {
		t.Error("a batch with a stub has another digest or another length")
	}
	if short := (&Request{Op: make([]byte, ShortOperation)}); short.Stub() != short {
		t.Error("a short operation has a stub")
	}
	other := &Request{Client: 7, Timestamp: 9, Op: bytes.Repeat([]byte{6}, 300)}
	shorter := &Request{Client: 7, Timestamp: 9, Op: bytes.Repeat([]byte{5}, 299)}
	for _, x := range []*Request{other, shorter, other.Stub(), stub} {
		if stub.Fill(x) || !stub.IsStub() {
			t.Errorf("it takes %+v", x)
		}
	}
	if !stub.Fill(long) || stub.IsStub() || !bytes.Equal(stub.Op, long.Op) || stub.Digest() != long.Digest() {
		t.Errorf("filled, it is %+v", stub)
	}
	if stub.Fill(long) {
		t.Error("it is filled twice")
	}
}

func TestBitmap(t *testing.T) {
	var m Bitmap
	for _, k := range []int{0, 7, 8, 255} {
		m = m.Set(k)
	}
	for k := -1; k < 300; k++ {
		if want := k == 0 || k == 7 || k == 8 || k == 255; m.Get(k) != want {
			t.Errorf("position %d: got %v", k, !want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range vectors() {
		f.Add(v.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b, &limits)
		if err != nil {
			return
		}
		if !bytes.Equal(encode(m), b) {
			t.Fatalf("two encodings of one %v:\n%x\n%x", m.Type(), b, encode(m))
		}
		m.AppendCovered(nil)
	})
}

func BenchmarkDecodePrePrepare(b *testing.B) {
	g := newGenerator(1)
	p := &PrePrepare{View: 1, Seq: 2}
	for range 64 {
		p.Batch.Requests = append(p.Batch.Requests, g.request())
	}
	p.Digest = p.Batch.Digest()
	frame := encode(p)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(frame, &limits); err != nil {
			b.Fatal(err)
		}
	}
}

// A DATA in pieces is the same bytes.
func TestPieces(t *testing.T) {
	g := newGenerator(5)
	var buffer []byte
	for range 200 {
		m := g.data()
		var pieces [][]byte
		pieces, buffer = m.Pieces(buffer)
		got, want := bytes.Join(pieces, nil), m.AppendBody([]byte{byte(TypeData)})
		if !bytes.Equal(got, want) {
			t.Fatalf("got %x, want %x", got, want)
		}
	}
}

// A REPLY is late if no call waits for any of its answers. No other message is late.
func TestLateReply(t *testing.T) {
	g := newGenerator(5)
	for range 100 {
		m := g.reply()
		b := encode(m)
		if !LateReply(b, func(Slot, Timestamp) bool { return false }) {
			t.Fatalf("nobody waits for %+v", m)
		}
		for i := range m.Answers {
			a := &m.Answers[i]
			if LateReply(b, func(s Slot, at Timestamp) bool { return s == a.Slot && at == a.Timestamp }) {
				t.Fatalf("answer %d of %+v is waited for", i, m)
			}
		}
	}
	for _, b := range [][]byte{nil, {byte(TypeReply)}, encode(&Prepare{}), encode(&Reply{}), encode(g.reply())[:26]} {
		if LateReply(b, func(Slot, Timestamp) bool { return false }) {
			t.Errorf("%x is taken for a late reply", b)
		}
	}
}

// A Decoder that is used again and again makes of every message what a fresh one makes of it, also
// where the one before it was longer, and its votes and replies keep apart until Reset, its
// requests for ever.
func TestDecoderIsUsedAgain(t *testing.T) {
	g := newGenerator(9)
	var d Decoder
	var requests []Message
	var asked []string
	for range 20 {
		var all []Message
		var want []string
		for range 2 * slabSize {
			for _, kind := range []Type{TypePrepare, TypeCommit, TypeReply, TypePrePrepare, TypeRequest} {
				b := encode(g.message(kind))
				m, err := d.Decode(b, &limits)
				if err != nil {
					t.Fatal(err)
				}
				all, want = append(all, m), append(want, string(b))
				if kind == TypeRequest {
					requests, asked = append(requests, m), append(asked, string(b))
				}
			}
		}
		for i, m := range all {
			if string(encode(m)) != want[i] {
				t.Fatalf("message %d, a %v, is not what was decoded any more", i, m.Type())
			}
		}
		d.Reset()
	}
	for i, m := range requests {
		if string(encode(m)) != asked[i] {
			t.Fatalf("request %d is not what was decoded any more", i)
		}
	}
}
