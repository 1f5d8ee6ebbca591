// SPDX-License-Identifier: Apache-2.0

package message

// A NodeID names a node of the digest tree: pages are level 0, where Index is the page number.
type NodeID struct {
	Level uint8
	Index uint64
}

// MaxFetch is how many nodes and pages one FETCH asks for at most.
const MaxFetch = 64

// maxNodeBytes bounds the bytes of one node: a page, or the digests of an interior node's children.
const maxNodeBytes = 256 * DigestSize

// MaxData is the length of the longest DATA, about.
const MaxData = MaxFetch*(1+8+2+maxNodeBytes) + 64

// A Fetch asks for nodes and pages of a checkpoint [TOCS §6.2.2]. The sender knows the
// digests of all that it asks for, beginning with the root's, so that the answering
// replica need not be trusted.
type Fetch struct {
	Seq   SeqNum
	Tag   uint32 // comes back in the answer
	Nodes []NodeID
	From  ReplicaID
}

// A Data answers a FETCH: the paper's META-DATA and DATA in one frame. Its MAC covers the
// header alone, because the rest is believed for its digests only.
type Data struct {
	Seq   SeqNum
	Tag   uint32
	Gone  bool // the sender does not hold the checkpoint any more, or not yet
	Items []Item
	From  ReplicaID
}

// An Item is a page, or an interior node as the digests of its children one after another.
type Item struct {
	Node   NodeID
	Bytes  []byte
	Digest Digest // of a page, if whoever received it has computed that already; it is not sent
}

// Type implements Message.
func (*Fetch) Type() Type { return TypeFetch }

// AppendBody implements Message.
func (m *Fetch) AppendBody(b []byte) []byte {
	b = appendU64(b, uint64(m.Seq))
	b = appendU32(b, m.Tag)
	b = append(b, byte(len(m.Nodes)))
	for _, id := range m.Nodes {
		b = appendNode(b, id)
	}
	return b
}

// AppendCovered implements Message.
func (m *Fetch) AppendCovered(b []byte) []byte { return m.AppendBody(append(b, byte(TypeFetch))) }

func (m *Fetch) decode(r *reader, _ *Limits) {
	m.Seq, m.Tag = r.seqNum(), r.u32()
	n := r.count(int(r.u8()), MaxFetch)
	m.Nodes = make([]NodeID, 0, n)
	for range n {
		m.Nodes = append(m.Nodes, r.node())
	}
}

func appendNode(b []byte, id NodeID) []byte {
	return appendU64(append(b, id.Level), id.Index)
}

func (r *reader) node() NodeID { return NodeID{r.u8(), r.u64()} }

// Type implements Message.
func (*Data) Type() Type { return TypeData }

func (m *Data) appendHeader(b []byte) []byte {
	b = appendU64(b, uint64(m.Seq))
	b = appendU32(b, m.Tag)
	return appendBool(b, m.Gone)
}

// AppendBody implements Message.
func (m *Data) AppendBody(b []byte) []byte {
	b = append(m.appendHeader(b), byte(len(m.Items)))
	for _, x := range m.Items {
		b = appendNode(b, x.Node)
		b = appendU16(b, uint16(len(x.Bytes)))
		b = append(b, x.Bytes...)
	}
	return b
}

// itemHead is the length of the header before an item's bytes.
const itemHead = 1 + 8 + 2

// Pieces is a DATA as it is sent, type and all, in pieces of which the items' bytes are
// lent and the others lie in b: a page is copied once less.
func (m *Data) Pieces(b []byte) (pieces [][]byte, _ []byte) {
	b = append(m.appendHeader(append(b[:0], byte(TypeData))), byte(len(m.Items)))
	at := len(b)
	for _, x := range m.Items {
		b = appendU16(appendNode(b, x.Node), uint16(len(x.Bytes)))
	}
	pieces = append(make([][]byte, 0, 2*len(m.Items)+2), b[:at])
	for i, x := range m.Items {
		head := at + i*itemHead
		pieces = append(pieces, b[head:head+itemHead], x.Bytes)
	}
	return pieces, b
}

// AppendCovered implements Message.
func (m *Data) AppendCovered(b []byte) []byte { return m.appendHeader(append(b, byte(TypeData))) }

func (m *Data) decode(r *reader, _ *Limits) {
	m.Seq, m.Tag, m.Gone = r.seqNum(), r.u32(), r.bool()
	n := r.count(int(r.u8()), MaxFetch)
	m.Items = make([]Item, 0, n)
	for range n {
		id := r.node()
		m.Items = append(m.Items, Item{Node: id, Bytes: r.bytes(r.count(int(r.u16()), maxNodeBytes))})
	}
}
