// SPDX-License-Identifier: Apache-2.0

// Package archive keeps one checkpoint of a group's state in a file that can be checked
// without the group.
//
// # File
//
// All numbers are big endian. The first block, of 4096 bytes, is the certificate:
//
//	0    checksum   4   CRC-32C of the rest of the block
//	4    magic      8   "bfsarch" 1
//	12   level      1   of the root of the digest tree
//	13   signer     1   whose signature is there: 0 nobody's, 1 the administrator's, 2+i that of replica i
//	14   fan-out    2   of the digest tree
//	16   epoch      8   of the group
//	24   seq        8   number of the checkpoint
//	32   pages      8   in this file
//	40   group     32   digest of the group file
//	72   root      32   of the checkpoint
//	104  signature 64   see Certificate.Covered; zeros if not signed
//	168  name           length (1), the group's name, and zeros to the end of the block
//
// It is written last, so a file that was not completed begins with zeros and is no
// archive. Blocks of pages follow. A page of zeros is not there, the others rise, and all
// blocks but the last have 64 pages:
//
//	0    checksum   4   CRC-32C of the rest of the block
//	4    count      4   1 to 64
//	8    numbers    8   for each page
//	..   pages   4096   for each page
//
// The file ends with 16 bytes: "bfsarend", 4 zeros, and the CRC-32C of the checksums of
// all blocks, the certificate's among them.
//
// # What is believed
//
// The checksums tell where a file is damaged. They keep out no liar: the pages must have
// the certificate's root in the digest tree, and the root is believed for the
// administrator's signature, for those of f+1 replicas in as many archives, or because
// the caller knows it. MACs of CHECKPOINTs convince only their receivers, so the
// administrator signs what f+1 replicas said.
package archive

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"bfs/pkg/pbft/internal/message"
)

// Short names for the nouns of the protocol.
type (
	SeqNum  = message.SeqNum
	PageNum = message.PageNum
	Digest  = message.Digest
	NodeID  = message.NodeID
)

const (
	pageSize  = 4096
	headBytes = 4096
	perBlock  = 64
	blockHead = 8
	perPage   = 8 + pageSize
	endBytes  = 16
	nameAt    = 168
	format    = 1

	magic    = "bfsarch\x01"
	endMagic = "bfsarend"
)

// maxPages bounds the pages of a state, as package image does.
const maxPages = 1 << 30

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Why a file is refused.
var (
	// ErrNone: the file is no archive, or one that was not completed.
	ErrNone = errors.New("this is no archive, or its backup was not completed")
	// ErrDamaged: the file is not as it was written. The text says where.
	ErrDamaged = errors.New("the archive is damaged")
	// ErrFalse: the file is undamaged, but its contents do not match what it claims. The text says
	// where.
	ErrFalse = errors.New("the archive is not genuine")
)

// A Certificate says which checkpoint of which group an archive holds.
type Certificate struct {
	Name      string // of the group
	Epoch     uint64
	Group     Digest // of the group file
	Seq       SeqNum
	Root      Digest
	Pages     uint64 // that are not zeros
	Level     uint8  // of the root of the tree
	Fanout    uint16
	Signer    Signer
	Signature []byte // nil: nobody's
}

// A Signer says whose signature is in an archive.
type Signer uint8

// The signers. FirstReplica+i is replica i.
const (
	Nobody Signer = iota
	Administrator
	FirstReplica
)

// Covered returns the signed bytes. Their beginning differs from that of everything else that is
// signed under the same key.
func (c *Certificate) Covered() []byte {
	b := []byte("bfs archive v1\x00")
	b = append(append(b, byte(len(c.Name))), c.Name...)
	b = append(b, c.Group[:]...)
	b = binary.BigEndian.AppendUint64(b, c.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Seq))
	b = append(b, c.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, c.Pages)
	return append(b, c.Level, byte(c.Fanout>>8), byte(c.Fanout))
}

// SignedBy reports whether the owner of this key has signed the certificate.
func (c *Certificate) SignedBy(key ed25519.PublicKey) bool {
	return len(key) == ed25519.PublicKeySize && len(c.Signature) == ed25519.SignatureSize &&
		ed25519.Verify(key, c.Covered(), c.Signature)
}

// size is the length of the archive's file.
func (c *Certificate) size() int64 {
	blocks := (c.Pages + perBlock - 1) / perBlock
	return int64(headBytes + blocks*blockHead + c.Pages*perPage + endBytes)
}

// encode writes the first block.
func (c *Certificate) encode() []byte {
	b := make([]byte, headBytes)
	copy(b[4:], magic)
	b[12] = c.Level
	b[13] = byte(c.Signer)
	binary.BigEndian.PutUint16(b[14:], c.Fanout)
	binary.BigEndian.PutUint64(b[16:], c.Epoch)
	binary.BigEndian.PutUint64(b[24:], uint64(c.Seq))
	binary.BigEndian.PutUint64(b[32:], c.Pages)
	copy(b[40:], c.Group[:])
	copy(b[72:], c.Root[:])
	copy(b[104:nameAt], c.Signature)
	b[nameAt] = byte(len(c.Name))
	copy(b[nameAt+1:], c.Name)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

// decode reads the first block.
func decode(b []byte) (c Certificate, err error) {
	switch {
	case string(b[4:11]) != magic[:7]:
		return c, ErrNone
	case binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli):
		return c, fmt.Errorf("%w: the certificate in its first 4096 bytes does not have its checksum", ErrDamaged)
	case b[11] != format:
		return c, fmt.Errorf("the archive has format %d, and this program reads format %d: "+
			"use the version that wrote it", b[11], format)
	}
	c = Certificate{
		Level: b[12], Fanout: binary.BigEndian.Uint16(b[14:]), Epoch: binary.BigEndian.Uint64(b[16:]),
		Seq: SeqNum(binary.BigEndian.Uint64(b[24:])), Pages: binary.BigEndian.Uint64(b[32:]),
		Group: Digest(b[40:72]), Root: Digest(b[72:104]),
	}
	name := int(b[nameAt])
	if c.Signer = Signer(b[13]); c.Signer != Nobody {
		c.Signature = append([]byte(nil), b[104:nameAt]...)
	}
	c.Name = string(b[nameAt+1 : nameAt+1+name])
	control := func(r rune) bool { return r < ' ' }
	if c.Pages > maxPages || c.Seq > 1<<62 || string(c.encode()) != string(b) || strings.ContainsFunc(c.Name, control) {
		return c, fmt.Errorf("%w: the certificate in its first 4096 bytes is not one that this program writes",
			ErrFalse)
	}
	return c, nil
}
