// SPDX-License-Identifier: Apache-2.0

// Package auth says who spoke. It seals messages with MACs under session keys, opens them, and
// exchanges those keys in signed NEW-KEYs [TOCS §2, §5.2.2].
//
// Every ordered pair of principals has a session key of its own, chosen by the receiver and sent
// to the sender sealed with HPKE. A MAC is an AES-128-GMAC tag, measured to be three times faster
// than any other candidate on the target, over a fixed-size header that holds the digest of the
// rest. Its nonce is a counter on the wire that never repeats under a key: one counter serves all
// keys of a process, and keys never outlive the process, because they are sealed to an X25519 key
// that is made by the process and kept nowhere. A process makes a new one from time to time, and
// refuses what was sealed under the session keys that it had chosen before: see refresh.go.
package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"bfs/pkg/pbft/internal/message"
)

// TrailerSize is the length of what Seal appends to a message: a nonce and a tag.
const TrailerSize = 8 + message.MACSize

// Refusals of a NEW-KEY.
var (
	ErrVersion   = errors.New("peer speaks another major version of the protocol")
	ErrGroup     = errors.New("peer's group file differs from ours in what must be equal")
	ErrIdentity  = errors.New("NEW-KEY is not from whom it says, or not for us")
	ErrReplayed  = errors.New("NEW-KEY is not fresh: it was made for another connection, or came on it before")
	ErrOlder     = errors.New("NEW-KEY on a connection that its sender has replaced by a later one")
	ErrSignature = errors.New("NEW-KEY has a bad signature")
	ErrWentBack  = errors.New("a replica's signature counter went back: its directory is an old copy, and " +
		"its fence may be too; stop it and run bfsd replica replace in an empty directory")
	ErrSealed = errors.New("NEW-KEY's session key does not open")
)

// A Signer holds a principal's long-term key. It signs NEW-KEYs and recovery requests and nothing
// else, and appends a counter. A replica's never goes back, not even over a restart [TOCS §5.1]. No
// Signer reads a clock: a clock that was ahead once would lock its owner out of whatever compares
// counters.
type Signer interface {
	PublicKey() ed25519.PublicKey
	// Count returns the next value of the counter; it is durable before Count returns.
	Count() (uint64, error)
	Sign(covered []byte) ([]byte, error)
	// HelloKey returns the key that checks hellos from the owner of another long-term key, in one
	// life of ours.
	HelloKey(peer ed25519.PublicKey, life Life) (HelloKey, error)
	// HelloTag makes the tag of our hello that answers another principal's challenge.
	HelloTag(peer ed25519.PublicKey, challenge *[ChallengeSize]byte, head *HelloHead) (HelloTag, error)
}

const keySize = 16

type key struct {
	raw   [keySize]byte
	aead  cipher.AEAD
	seen  atomic.Uint64  // highest nonce opened under it, of messages that come in order
	used  atomic.Bool    // a message was opened under it, so the peer has it
	epoch uint64         // of the ring that chose it
	now   *atomic.Uint64 // the present epoch of that ring; nil if the peer chose it

	renewal uint64         // of its session
	renewed *atomic.Uint64 // the session's last one
}

func newKey(raw []byte) *key {
	k := &key{}
	copy(k.raw[:], raw)
	block, err := aes.NewCipher(k.raw[:])
	if err != nil {
		panic("auth: aes key of a fixed length: " + err.Error())
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		panic("auth: gcm over aes: " + err.Error())
	}
	return k
}

// A Session holds the keys that this process shares with one peer. The zero Session has no keys; it
// seals nothing and opens nothing.
type Session struct {
	Peer message.Principal
	key  ed25519.PublicKey // the peer's long-term key

	out  atomic.Pointer[key]            // for messages to the peer; the peer chose it
	in   atomic.Pointer[key]            // for messages from the peer; we chose it
	wire atomic.Pointer[message.Digest] // fingerprint of the peer's TLS certificate, zero if its transport is plain

	mu      sync.Mutex
	sealTo  [message.PublicKeySize]byte // the peer's X25519 key, zero if not known
	sealed  [message.PublicKeySize]byte // the one that in was sealed to last
	channel uint64                      // number of the connection of the last NEW-KEY accepted
	counter uint64                      // of that NEW-KEY
	highest uint64                      // counter of any NEW-KEY accepted

	saying  sync.Mutex    // held while a NEW-KEY is made and queued: see InOrder
	lives   atomic.Uint64 // see Lives
	renewed atomic.Uint64 // how often Renew was called
}

// A Channel is a connection; a NEW-KEY is fresh as long as its connection lives. The receiver of
// NEW-KEYs has a part in choosing ID, so nobody can make one before the connection exists [R-PR-4
// has a counter for this, which a lost file or a clock can turn against its owner]. Of two
// connections of one peer the later has the higher Number.
type Channel struct {
	ID     message.Digest
	Number uint64
}

// TransportKey is the fingerprint of the TLS certificate that the peer's last NEW-KEY vouches for.
func (s *Session) TransportKey() (d message.Digest) {
	if w := s.wire.Load(); w != nil {
		d = *w
	}
	return d
}

// Owner reports whether the session is with the owner of this long-term key.
func (s *Session) Owner(publicKey ed25519.PublicKey) bool { return s.key.Equal(publicKey) }

// NewSession returns a session with the owner of a long-term key.
func NewSession(peer message.Principal, publicKey ed25519.PublicKey) *Session {
	return &Session{Peer: peer, key: publicKey}
}

// Ready reports whether messages can be sealed for the peer.
func (s *Session) Ready() bool { return s.out.Load() != nil }

// A Ring is one principal's end of all its sessions.
type Ring struct {
	self      message.Principal
	group     message.Digest
	signer    Signer
	transport message.Digest
	own       atomic.Pointer[sealingKey] // the key of the present epoch
	epoch     atomic.Uint64
	nonce     atomic.Uint64
	life      Life
}

// NewRing makes the keys with which a principal begins the life of this process.
// transport is the fingerprint of its TLS certificate, zero for plain connections.
func NewRing(self message.Principal, group message.Digest, signer Signer, transport message.Digest) (*Ring, error) {
	r := &Ring{self: self, group: group, signer: signer, transport: transport}
	rand.Read(r.life[:])
	return r, r.Refresh()
}

// NewKey makes the NEW-KEY that opens a connection to the session's peer, or answers the
// peer's. If the peer's X25519 key is known the message carries the session key for
// messages from the peer to us: the same as before while the peer lives and our epoch
// lasts, a fresh one if the peer has restarted, for then its nonces restart too. It is good
// on the channel of this ID only. rival tells a client of another process with its key.
//
// A caller that sends the NEW-KEY calls this in InOrder. The signer may take seconds, and
// nothing of the session is locked meanwhile: the peer's NEW-KEYs are taken in. If a NEW-KEY
// comes from the peer's next process meanwhile, that process refuses ours and answers it.
func (r *Ring) NewKey(s *Session, channel message.Digest, rival string) (*message.NewKey, error) {
	m, err := r.unsigned(s, channel, rival)
	if err != nil {
		return nil, err
	}
	if m.Counter, err = r.signer.Count(); err != nil {
		return nil, fmt.Errorf("count NEW-KEY: %w", err)
	}
	signature, err := r.signer.Sign(m.AppendCovered(nil))
	if err != nil {
		return nil, fmt.Errorf("sign NEW-KEY: %w", err)
	}
	copy(m.Signature[:], signature)
	return m, nil
}

// unsigned is a NEW-KEY without counter and signature.
func (r *Ring) unsigned(s *Session, channel message.Digest, rival string) (*message.NewKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := r.own.Load() // in order: a NEW-KEY never follows one of a later epoch
	m := &message.NewKey{
		Major: message.VersionMajor, Minor: message.VersionMinor, Group: r.group,
		From: r.self, To: s.Peer, SealTo: own.public, TransportKey: r.transport, Wants: !s.Ready(),
		Channel: channel, Rival: []byte(rival[:min(len(rival), message.MaxRival)]),
	}
	copy(m.SenderKey[:], r.signer.PublicKey())
	if s.sealTo != ([message.PublicKeySize]byte{}) {
		if err := r.sealKey(s, m, own.epoch); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// sealInfo binds a sealed key to its direction.
func sealInfo(from, to message.Principal) []byte {
	return fmt.Appendf(nil, "bfs session key v1 for messages from %d.%d to %d.%d",
		from.Replica, from.Client, to.Replica, to.Client)
}

func (r *Ring) sealKey(s *Session, m *message.NewKey, epoch uint64) error {
	public, err := ecdh.X25519().NewPublicKey(s.sealTo[:])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSealed, err)
	}
	to, err := hpke.NewDHKEMPublicKey(public)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSealed, err)
	}
	in, renewal := s.in.Load(), s.renewed.Load()
	if in == nil || in.epoch != epoch || in.renewal != renewal {
		var raw [keySize]byte
		rand.Read(raw[:])
		in = newKey(raw[:])
		in.epoch, in.now, in.renewal, in.renewed = epoch, &r.epoch, renewal, &s.renewed
		s.in.Store(in)
	}
	m.Sealed, err = hpke.Seal(to, hpke.HKDFSHA256(), hpke.AES128GCM(), sealInfo(s.Peer, r.self), in.raw[:])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSealed, err)
	}
	m.Recipient, s.sealed = s.sealTo, s.sealTo
	return nil
}

// Accept takes in a peer's NEW-KEY, which came on a channel. One that is not fresh on
// that channel is refused before its signature is checked. answer says that the peer does
// not have, or no longer has, a session key of ours, so that a NEW-KEY is due to it: its
// X25519 key is new, or it does not know ours, or we never sealed a key to it. The peer
// may have sealed its session key to an X25519 key that we have erased since. changed
// says that we may now seal for it under a new key.
func (r *Ring) Accept(s *Session, m *message.NewKey, on Channel) (answer, changed bool, err error) {
	switch {
	case m.Major != message.VersionMajor:
		return false, false, ErrVersion
	case m.Group != r.group:
		return false, false, ErrGroup
	case m.Channel != on.ID:
		return false, false, ErrReplayed
	case m.From != s.Peer || m.To != r.self || !s.key.Equal(ed25519.PublicKey(m.SenderKey[:])):
		return false, false, ErrIdentity
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case on.Number < s.channel:
		return false, false, ErrOlder
	case on.Number == s.channel && m.Counter <= s.counter:
		return false, false, ErrReplayed
	}
	if !ed25519.Verify(s.key, m.AppendCovered(nil), m.Signature[:]) {
		return false, false, ErrSignature
	}
	if s.wentBack(m) {
		return false, false, ErrWentBack
	}
	var fresh *key
	own := r.own.Load()
	if m.Recipient == own.public {
		raw, err := hpke.Open(own.private, hpke.HKDFSHA256(), hpke.AES128GCM(), sealInfo(r.self, s.Peer), m.Sealed)
		if err != nil || len(raw) != keySize {
			return false, false, ErrSealed
		}
		fresh = newKey(raw)
	}
	if s.reborn(m, on) {
		s.in.Store(nil)
		s.lives.Add(1)
	}
	s.channel, s.counter, s.highest = on.Number, m.Counter, max(s.highest, m.Counter)
	answer = s.sealed != m.SealTo && !s.spoken() || m.Recipient != own.public || m.Wants
	s.sealTo = m.SealTo
	wire := m.TransportKey
	s.wire.Store(&wire)
	if old := s.out.Load(); fresh != nil && (old == nil || old.raw != fresh.raw) {
		s.out.Store(fresh)
		changed = true
	}
	return answer, changed, nil
}

// wentBack reports whether a NEW-KEY brings a replica's new X25519 key below the counter of an
// earlier one. A replica that refreshes its keys counts on, so this one has begun a new life.
// The counter's file lies beside the fence: if the counter was restored from an old copy, so
// was the fence, and the replica may vote a second time. Clients count anew in each life.
func (s *Session) wentBack(m *message.NewKey) bool {
	return s.Peer.IsReplica() && s.sealTo != m.SealTo && m.Counter <= s.highest
}

// Scratch is working memory for sealing and opening, one for each goroutine or lock.
type Scratch struct {
	nonce   [12]byte
	tag     [message.MACSize]byte
	covered []byte
}

// coverage returns the bytes that the MAC of m protects, given its encoding with the type byte.
func (x *Scratch) coverage(m message.Message, encoded []byte) []byte {
	c := message.Covered(m, encoded, x.covered)
	if &c[0] != &encoded[0] {
		x.covered = c // its memory is used again
	}
	return c
}

func (x *Scratch) mac(k *key, nonce uint64, covered []byte) []byte {
	binary.LittleEndian.PutUint64(x.nonce[4:], nonce)
	return k.aead.Seal(x.tag[:0], x.nonce[:], nil, covered)
}

func (x *Scratch) check(k *key, nonce uint64, covered, tag []byte) bool {
	binary.LittleEndian.PutUint64(x.nonce[4:], nonce)
	_, err := k.aead.Open(x.tag[:0], x.nonce[:], tag, covered)
	return err == nil
}

// Seal appends the message's wire form for the session's peer to b. It returns b
// unchanged if there is no session key yet; then the peer has nothing to open it with.
func (r *Ring) Seal(s *Session, x *Scratch, b []byte, m message.Message) []byte {
	k := s.out.Load()
	if k == nil {
		return b
	}
	start := len(b)
	b = append(b, byte(m.Type()))
	b = m.AppendBody(b)
	return r.sealTail(k, x, b, x.coverage(m, b[start:]))
}

// SealBody is Seal for a message that was encoded before, its type first, so that a
// multicast encodes once.
func (r *Ring) SealBody(s *Session, x *Scratch, trailer []byte, m message.Message, encoded []byte) []byte {
	if k := s.out.Load(); k != nil {
		return r.sealTail(k, x, trailer, x.coverage(m, encoded))
	}
	return nil
}

// SealHead is SealBody for a caller that has the encoding of all that the MAC covers.
func (r *Ring) SealHead(s *Session, x *Scratch, trailer, covered []byte) []byte {
	if k := s.out.Load(); k != nil {
		return r.sealTail(k, x, trailer, covered)
	}
	return nil
}

func (r *Ring) sealTail(k *key, x *Scratch, b, covered []byte) []byte {
	nonce := r.nonce.Add(1)
	b = binary.LittleEndian.AppendUint64(b, nonce)
	return append(b, x.mac(k, nonce, covered)...)
}

// Proofs have nonces of their own kind, so that the MAC of a result, whose bytes a client may have
// chosen, is never a message's MAC.
const (
	messageNonce = 0
	proofNonce   = 1
)

// Prove makes the proof of a long result for the session's peer. It is not ok if there is
// no session key yet.
func (r *Ring) Prove(s *Session, x *Scratch, result []byte) (p message.Proof, ok bool) {
	k := s.out.Load()
	if k == nil {
		return p, false
	}
	p.Nonce = r.nonce.Add(1)
	x.nonce[0] = proofNonce
	copy(p.Tag[:], x.mac(k, p.Nonce, result))
	x.nonce[0] = messageNonce
	return p, true
}

// Proves reports whether the session's peer made this proof of this result.
func (s *Session) Proves(x *Scratch, p *message.Proof, result []byte) bool {
	k := s.in.Load()
	if k.refused() {
		return false
	}
	x.nonce[0] = proofNonce
	ok := x.check(k, p.Nonce, result, p.Tag[:])
	x.nonce[0] = messageNonce
	return ok
}

// Split cuts the trailer off a sealed frame.
func Split(frame []byte) (body, trailer []byte, ok bool) {
	if len(frame) <= TrailerSize {
		return nil, nil, false
	}
	n := len(frame) - TrailerSize
	return frame[:n:n], frame[n:], true
}

// Open checks that the session's peer sealed m, which was decoded from encoded, and that it did so
// after everything opened before: a connection keeps the order of messages, so a nonce that does
// not rise is a replay.
func (s *Session) Open(x *Scratch, m message.Message, encoded, trailer []byte) bool {
	k := s.in.Load()
	if k.refused() {
		return false
	}
	nonce := binary.LittleEndian.Uint64(trailer)
	seen := k.seen.Load()
	if nonce <= seen {
		return false
	}
	if !x.check(k, nonce, x.coverage(m, encoded), trailer[8:]) {
		return false
	}
	k.use()
	return k.seen.CompareAndSwap(seen, nonce)
}

// Authenticate gives a client's request its authenticator: a MAC for every replica whose
// key the client has, zeros for the others.
func (r *Ring) Authenticate(replicas []*Session, x *Scratch, m *message.Request) {
	nonce := r.nonce.Add(1)
	x.covered = m.AppendCovered(x.covered[:0])
	m.Auth.Nonce = nonce
	m.Auth.Tags = m.Auth.Tags[:0]
	for _, s := range replicas {
		if k := s.out.Load(); k != nil {
			m.Auth.Tags = append(m.Auth.Tags, x.mac(k, nonce, x.covered)...)
		} else {
			m.Auth.Tags = append(m.Auth.Tags, make([]byte, message.MACSize)...)
		}
	}
}

// OpenRequest checks replica self's entry of a request's authenticator against the session with its
// client. Requests are relayed, so their nonces come in any order.
func (s *Session) OpenRequest(x *Scratch, self message.ReplicaID, m *message.Request) bool {
	k := s.in.Load()
	tag := m.Auth.Tag(self)
	if k.refused() || tag == nil {
		return false
	}
	x.covered = m.AppendCovered(x.covered[:0])
	if !x.check(k, m.Auth.Nonce, x.covered, tag) {
		return false
	}
	k.use()
	return true
}
