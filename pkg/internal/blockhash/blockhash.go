// SPDX-License-Identifier: Apache-2.0

// Package blockhash digests blocks of 4 KiB: pages of the state, and the blocks that long
// operations are cut into. Both are digested alike, so that a replica that has digested
// an operation need not digest the pages that it fills.
//
// A block's digest is the root of a tree of two leaves, and not its SHA-256, because
// hashing two messages at once takes little longer than one where the processor has
// instructions for SHA-256 (sum_amd64.go).
package blockhash

import "crypto/sha256"

const (
	// Size is the length of a block in bytes.
	Size = 4096
	half = Size / 2
)

// The tags distinguish a half, a block and every other input of SHA-256: no other input
// that has one of them at its place here has the same length.
const (
	halfTag  = "bfs half"
	blockTag = "bfs block"
)

// A Digest is a SHA-256 digest.
type Digest = [sha256.Size]byte

// Sum returns the digest of a block, which must have Size bytes:
//
//	half:   SHA-256(its 2048 bytes, halfTag)
//	block:  SHA-256(blockTag, first half's, second half's)
func Sum(block []byte) Digest { return sum((*[Size]byte)(block)) }

// plain is the definition of Sum as a program.
func plain(block *[Size]byte) Digest {
	var buf [half + len(halfTag)]byte
	var node [len(blockTag) + 2*sha256.Size]byte
	copy(node[:], blockTag)
	copy(buf[half:], halfTag)
	for i := range 2 {
		copy(buf[:], block[i*half:][:half])
		d := sha256.Sum256(buf[:])
		copy(node[len(blockTag)+i*sha256.Size:], d[:])
	}
	return sha256.Sum256(node[:])
}
