// SPDX-License-Identifier: Apache-2.0

package signing

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// Refusals of a Key.
var (
	ErrForeign = errors.New("not of this replica, this key and this group")
	ErrCounter = errors.New("its counter was not given out, or has a signature already")
	ErrChannel = errors.New("a NEW-KEY that is bound to no connection")
	ErrOften   = errors.New("asked too often")

	ErrNoRecovery = errors.New("the watchdog has begun no recovery, or its requests are signed already")
)

// These bound what a replica's process may have its Key do. Even a thousand clients that
// connect at once need no more: a replica answers each caller's NEW-KEYs more slowly than this.
var (
	signRate  = transport.Rate{PerSecond: 512, Burst: 8192}
	helloRate = transport.Rate{PerSecond: 512, Burst: 8192}
)

// maxRecoveries is how many recovery requests are signed for one recovery, because they
// cost the whole group work [TOCS §5.2.3]. One is enough if its answer reaches the replica.
const maxRecoveries = 4

const (
	counterBlock = 256 // values for one write of the counter's files
	maxOpen      = 256 // values given out and not signed yet; the oldest lapses
)

// A Key is a replica's long-term key with the rules for its use. It is safe for use by
// many goroutines.
type Key struct {
	private ed25519.PrivateKey
	group   message.Digest
	replica message.Principal
	client  message.Principal // the same key's owner, when it asks the others how far they are

	mu      sync.Mutex
	counter *durable.Monotone // a bound that is above every value given out
	next    uint64
	open    []uint64 // given out and not signed, the oldest first
	signs   transport.Bucket
	hellos  transport.Bucket
	granted int // recovery requests that may be signed yet
}

// NewKey returns a replica's key. client is its owner's number as a client. The counter goes on
// above its present value.
func NewKey(
	private ed25519.PrivateKey, group message.Digest, self message.ReplicaID, client message.ClientID,
	counter *durable.Monotone,
) *Key {
	return &Key{
		private: private, group: group, counter: counter, next: counter.Value(),
		replica: message.Principal{Replica: self}, client: message.Principal{Client: client},
	}
}

// Public is the public half.
func (k *Key) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// Count gives out the counter's next value, which is good for one signature.
func (k *Key) Count() (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next >= k.counter.Value() {
		if err := k.counter.Raise(k.next + counterBlock); err != nil {
			return 0, fmt.Errorf("write the signature counter: %w", err)
		}
	}
	n := k.next
	k.next++
	if len(k.open) >= maxOpen {
		k.open = slices.Delete(k.open, 0, 1)
	}
	k.open = append(k.open, n)
	return n, nil
}

// Counter is the value that is given out next.
func (k *Key) Counter() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.next
}

// Grant lets a recovery that begins have its requests signed.
func (k *Key) Grant() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.granted = maxRecoveries
}

// Sign signs a NEW-KEY or a recovery request of this replica, and refuses everything else.
func (k *Key) Sign(covered []byte) ([]byte, error) {
	s, err := message.ParseSigned(covered)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.judge(s); err != nil {
		return nil, err
	}
	return ed25519.Sign(k.private, covered), nil
}

// judge takes a signature from the budget and the counter, or says why it is refused. The caller
// holds the lock.
func (k *Key) judge(s *message.Signed) error {
	at := slices.Index(k.open, s.Counter)
	switch {
	case s.Group != k.group:
		return ErrForeign
	case s.From != k.replica && (s.NewKey == nil || s.From != k.client):
		return ErrForeign
	case s.NewKey != nil && !k.Public().Equal(ed25519.PublicKey(s.NewKey.SenderKey[:])):
		return ErrForeign
	case s.NewKey != nil && s.NewKey.Channel == message.Digest{}:
		return ErrChannel
	case at < 0:
		return ErrCounter
	case !k.signs.Take(signRate, 1, time.Now()):
		return ErrOften
	case s.Recovery != nil && k.granted == 0:
		return ErrNoRecovery
	}
	if s.Recovery != nil {
		k.granted--
	}
	k.open = slices.Delete(k.open, at, at+1)
	return nil
}

// HelloKey is as auth.Signer says.
func (k *Key) HelloKey(peer ed25519.PublicKey, life auth.Life) (auth.HelloKey, error) {
	if err := k.greet(); err != nil {
		return auth.HelloKey{}, err
	}
	return auth.KeyOfHello(k.private, peer, life)
}

// HelloTag is as auth.Signer says.
func (k *Key) HelloTag(
	peer ed25519.PublicKey, challenge *[auth.ChallengeSize]byte, head *auth.HelloHead,
) (auth.HelloTag, error) {
	if err := k.greet(); err != nil {
		return auth.HelloTag{}, err
	}
	return auth.TagOfHello(k.private, peer, challenge, head)
}

func (k *Key) greet() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.hellos.Take(helloRate, 1, time.Now()) {
		return ErrOften
	}
	return nil
}
