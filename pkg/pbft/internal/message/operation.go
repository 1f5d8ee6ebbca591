// SPDX-License-Identifier: Apache-2.0

package message

import (
	"crypto/sha256"

	"bfs/pkg/internal/blockhash"
)

// ShortOperation is the length up to which MACs and digests cover an operation itself, and not its
// digest: hashing it would cost more.
const ShortOperation = 256

// OperationDigest is the digest that replaces a long operation in its request; zero for a short
// one.
func OperationDigest(op []byte) (d Digest) {
	if len(op) > ShortOperation {
		d = digestOperation(op, nil)
	}
	return d
}

const operationTag = "bfs operation v2"

// digestOperation is the digest of a long operation. It is cut from its end into blocks of
// blockhash.Size bytes, so that the pages with which an operation ends are digested as pages of the
// state are, however long the header in front is. The head has fewer bytes than a block:
//
//	SHA-256(operationTag, head, each block's digest in order, length of the operation as u32)
//
// The length says how long the head is and how many digests follow, so that two operations hashed
// alike have one length, one head and the same digests of blocks: they are one operation, or two
// blocks collide. Nothing else that is hashed with SHA-256 begins with the tag, but for half a
// block, in which a client may write it: that ends with another tag, which would be a length of
// more than a gigabyte. The digests of blocks, at least one for each in keep if that is not nil,
// are left there.
func digestOperation(op []byte, keep []Digest) (d Digest) {
	h := sha256.New()
	h.Write([]byte(operationTag))
	head := len(op) % blockhash.Size
	h.Write(op[:head])
	for i := range len(op) / blockhash.Size {
		block := Digest(blockhash.Sum(op[head+i*blockhash.Size:][:blockhash.Size]))
		h.Write(block[:])
		if keep != nil {
			keep[i] = block
		}
	}
	var length [4]byte
	h.Write(appendU32(length[:0], uint32(len(op))))
	h.Sum(d[:0])
	return d
}

// hashOperation hashes a received long operation once: its digest, and those of its blocks, which
// the service may use.
func (m *Request) hashOperation() {
	if n := len(m.Op) / blockhash.Size; n > 0 {
		m.blocks = make([]Digest, n)
	}
	m.hash = digestOperation(m.Op, m.blocks)
}

// Blocks are the digests of the blocks with which a long operation ends, in order, as
// blockhash.Sum has them. No message told them: they were computed here from the operation's
// bytes. There are none if the operation is short, was not decoded, or is not here at all.
func (m *Request) Blocks() []Digest { return m.blocks }
