// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"bfs/pkg/internal/durable"
)

// MemorySigner signs with a key in this process's memory. Its counter begins anew in each life; it
// is for tests, and for clients, whose signatures need no order across restarts.
type MemorySigner struct {
	key  ed25519.PrivateKey
	mu   sync.Mutex
	last uint64
}

// NewMemorySigner returns a signer that counts from 1.
func NewMemorySigner(key ed25519.PrivateKey) *MemorySigner { return &MemorySigner{key: key} }

// PublicKey implements Signer.
func (s *MemorySigner) PublicKey() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Count implements Signer.
func (s *MemorySigner) Count() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return s.last, nil
}

// Sign implements Signer.
func (s *MemorySigner) Sign(covered []byte) ([]byte, error) {
	return ed25519.Sign(s.key, covered), nil
}

// HelloKey implements Signer.
func (s *MemorySigner) HelloKey(peer ed25519.PublicKey, life Life) (HelloKey, error) {
	return KeyOfHello(s.key, peer, life)
}

// HelloTag implements Signer.
func (s *MemorySigner) HelloTag(peer ed25519.PublicKey, challenge *[ChallengeSize]byte,
	head *HelloHead) (HelloTag, error) {
	return TagOfHello(s.key, peer, challenge, head)
}

// FileSigner is the signer of a replica without a keeper, which holds its key itself: the counter
// is in a file and is durable before a value is used. The file holds a bound, raised a block at a
// time, so that most values cost no disk write; a restart goes on above the bound.
type FileSigner struct {
	key  ed25519.PrivateKey
	path string
	mu   sync.Mutex
	next uint64 // the value Count returns next
	end  uint64 // first value not yet covered by the file
}

const counterBlock = 256

// NewFileSigner opens or creates the counter file at path.
func NewFileSigner(key ed25519.PrivateKey, path string) (*FileSigner, error) {
	s := &FileSigner{key: key, path: path, next: 1, end: 1}
	b, err := os.ReadFile(path)
	switch {
	case os.IsNotExist(err):
	case err != nil:
		return nil, fmt.Errorf("read signature counter: %w", err)
	case len(b) != 8:
		return nil, fmt.Errorf("signature counter %s: got %d bytes, want 8: restore the file, or "+
			"enrol this host with a new key", path, len(b))
	default:
		s.next = binary.LittleEndian.Uint64(b)
		s.end = s.next
	}
	return s, nil
}

// PublicKey implements Signer.
func (s *FileSigner) PublicKey() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Count implements Signer.
func (s *FileSigner) Count() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == s.end {
		if err := durable.WriteFile(s.path, binary.LittleEndian.AppendUint64(nil, s.end+counterBlock)); err != nil {
			return 0, fmt.Errorf("write signature counter: %w", err)
		}
		s.end += counterBlock
	}
	s.next++
	return s.next - 1, nil
}

// Sign implements Signer.
func (s *FileSigner) Sign(covered []byte) ([]byte, error) { return ed25519.Sign(s.key, covered), nil }

// HelloKey implements Signer.
func (s *FileSigner) HelloKey(peer ed25519.PublicKey, life Life) (HelloKey, error) {
	return KeyOfHello(s.key, peer, life)
}

// HelloTag implements Signer.
func (s *FileSigner) HelloTag(peer ed25519.PublicKey, challenge *[ChallengeSize]byte,
	head *HelloHead) (HelloTag, error) {
	return TagOfHello(s.key, peer, challenge, head)
}
