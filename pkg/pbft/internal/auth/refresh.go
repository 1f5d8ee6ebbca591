// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"fmt"

	"bfs/pkg/pbft/internal/message"
)

// A ring's life is divided into epochs. Each begins with a new X25519 key, and all session keys
// that the ring chose before are refused from that instant on: keys that an intruder read from our
// memory or a peer's no longer open or prove anything [TOCS §5.2.2; R-PR-6, R-OUR-8]. Messages
// under way are lost; they come again, sealed under the new keys.
//
// A refresh changes the keys of one direction only, for the receiver chooses them. Two peers that
// refresh at once seal their NEW-KEYs to X25519 keys that are erased when the NEW-KEYs arrive.
// Each sees this and answers with a NEW-KEY for the other's new key, and then both are done.

// A sealingKey is the X25519 key of one epoch, to which peers seal the session keys that
// they choose.
type sealingKey struct {
	private hpke.PrivateKey
	public  [message.PublicKeySize]byte
	epoch   uint64
}

// Refresh begins a new epoch. The old private key is dropped here; the garbage collector
// reuses its memory. The caller must send a NEW-KEY to every peer: otherwise none of
// their messages opens.
func (r *Ring) Refresh() error {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make x25519 key: %w", err)
	}
	own := &sealingKey{epoch: r.epoch.Load() + 1}
	if own.private, err = hpke.NewDHKEMPrivateKey(private); err != nil {
		return fmt.Errorf("make hpke key: %w", err)
	}
	copy(own.public[:], private.PublicKey().Bytes())
	r.own.Store(own)
	r.epoch.Store(own.epoch)
	return nil
}

// Renew ends the use of the one session key under which the session's peer speaks to us: what
// was sealed under it is refused from this instant on. The other sessions of the ring keep
// theirs. The caller has to send the peer a NEW-KEY: otherwise none of its messages opens.
func (s *Session) Renew() { s.renewed.Add(1) }

// Epoch returns the number of the present epoch. A caller that opens messages on one goroutine and
// counts them on another asks before it opens them and again before they count: if the two differ,
// some may have been sealed under keys that are refused by now.
func (r *Ring) Epoch() uint64 { return r.epoch.Load() }

// EpochOf is Epoch for the messages of one session: it rises when that is renewed, too.
func (r *Ring) EpochOf(s *Session) uint64 { return r.epoch.Load() + s.renewed.Load() }

// refused reports whether a key of ours opens nothing: there is none, or its time is over.
func (k *key) refused() bool {
	return k == nil || k.now == nil || k.epoch != k.now.Load() || k.renewal != k.renewed.Load()
}

// use notes that the peer speaks under a key.
func (k *key) use() {
	if !k.used.Load() {
		k.used.Store(true)
	}
}

// spoken reports whether the peer speaks under our present key. As long as the peer's
// process lives it needs no other key, whatever X25519 key it has by now.
func (s *Session) spoken() bool {
	k := s.in.Load()
	return !k.refused() && k.used.Load()
}

// reborn reports whether a NEW-KEY is from another process than the last that we accepted, or may
// be. A new process counts nonces anew, so it must not seal under a key that the other had. A
// process that only refreshes its keys says so on its present connection, and has our key.
func (s *Session) reborn(m *message.NewKey, on Channel) bool {
	return s.sealTo != m.SealTo && (on.Number != s.channel || m.Wants)
}

// Lives counts the processes that the peer has been, as far as we can tell: for each, our session
// key was chosen anew. Messages that an earlier one sealed no longer open.
func (s *Session) Lives() uint64 { return s.lives.Load() }

// InOrder runs f, which makes NEW-KEYs for the session's peer and queues them, when no
// other goroutine does so: their counters must rise in the order in which they are sent.
func (s *Session) InOrder(f func()) {
	s.saying.Lock()
	defer s.saying.Unlock()
	f()
}
