// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/ed25519"
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/ledger"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// A Gate decides whose connections a replica takes on, before TLS and before any
// signature is checked, and what each principal may have the replica do unasked. Each
// member, the administrator and each enrolled client is a caller with budgets of its own.
// All other principals are one caller together, so that strangers, however many names
// they use, have one share. A stranger who takes the name of a caller fails at the
// hello's tag, for the price of one hash, and spends nothing of that caller's.
//
// All methods may be called by any goroutine.
type Gate struct {
	ring      *auth.Ring
	permanent map[message.Principal]*Caller // replicas, their keys as clients, the administrator
	strangers Caller
	Listener  atomic.Pointer[transport.Listener] // told of each connection of a caller; nil: not yet
	Refused   GateCounts

	mu      sync.Mutex
	version uint64 // of the ledger that enrolled was made from
	clients map[message.Principal]*Caller
}

// A Caller is a principal that has budgets of its own, or all strangers together.
type Caller struct {
	key ed25519.PublicKey // nil: strangers

	asking sync.Mutex                    // held while hello is computed
	hello  atomic.Pointer[auth.HelloKey] // computed at its first hello, and after a failure of the signer; nil: not yet

	mu         sync.Mutex
	handshakes transport.Bucket
	newKeys    transport.Bucket
	resends    transport.Bucket
	frames     transport.Bucket
	entering   []*transport.Conn // admitted, the oldest first; at most maxEntering of them are not known yet
	lives      lives
}

// What one caller may cause at one replica. A TLS handshake costs about a millisecond, a
// NEW-KEY and our answer two.
var (
	handshakeRate = transport.Rate{PerSecond: 8, Burst: 32}
	newKeyRate    = transport.Rate{PerSecond: 8, Burst: 64}
	resendRate    = transport.Rate{PerSecond: 2, Burst: 4}    // NEW-KEYs that we send because a frame would not open
	frameRate     = transport.Rate{PerSecond: 64, Burst: 256} // frames of clients that are not enrolled; QUERY-STABLEs
)

// maxEntering is how many connections of a caller keep their places before its NEW-KEY has come.
const maxEntering = 2

// NewGate returns a gate that always knows these principals, by their keys: members, as
// replicas and with their keys as clients, and the administrator.
func NewGate(ring *auth.Ring, permanent map[message.Principal]ed25519.PublicKey) *Gate {
	t := &Gate{ring: ring, permanent: map[message.Principal]*Caller{}}
	for p, key := range permanent {
		t.permanent[p] = &Caller{key: key}
	}
	return t
}

// Follow makes callers of the clients that are enrolled. A client that was enrolled
// before keeps its budgets.
func (t *Gate) Follow(l *ledger.Ledger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clients != nil && t.version == l.Version() {
		return
	}
	old := t.clients
	t.version, t.clients = l.Version(), map[message.Principal]*Caller{}
	l.All(func(c ledger.Client) {
		p := message.Principal{Client: message.ClientOf(c.Key)}
		switch x := old[p]; {
		case c.Revoked:
		case x != nil && x.key.Equal(c.Key):
			t.clients[p] = x
		default:
			t.clients[p] = &Caller{key: append(ed25519.PublicKey(nil), c.Key...)}
		}
	})
}

// caller is the caller that p is, or with which p is counted.
func (t *Gate) caller(p message.Principal) *Caller {
	if x := t.permanent[p]; x != nil {
		return x
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if x := t.clients[p]; x != nil {
		return x
	}
	return &t.strangers
}

// A Visitor is on a connection that was admitted and has brought no NEW-KEY yet.
type Visitor struct {
	Principal message.Principal
	Caller    *Caller
}

// Admit judges a hello. It returns nil if the connection is refused.
func (t *Gate) Admit(c *transport.Conn, challenge []byte, hello *[auth.HelloSize]byte) *Visitor {
	p, ok := auth.HelloFrom(hello)
	x := t.caller(p)
	stranger := x == &t.strangers
	if !ok || stranger && p.IsReplica() || !stranger && !t.made(x, challenge, hello) {
		t.Refused.hello.Add(1)
		return nil
	}
	if !x.take(&x.handshakes, handshakeRate, 1) {
		t.Refused.often.Add(1)
		return nil
	}
	if !stranger {
		x.enter(c)
		if l := t.Listener.Load(); l != nil {
			l.Welcome(c)
		}
	}
	return &Visitor{p, x}
}

// made reports whether the caller made this hello.
func (t *Gate) made(x *Caller, challenge []byte, hello *[auth.HelloSize]byte) bool {
	k := x.hello.Load()
	if k == nil {
		k = t.helloKey(x)
	}
	return k != nil && k.Made(challenge, hello)
}

// helloKey lets the signer compute the key for the caller's hellos. It returns nil if the
// signer fails or the caller's key is no valid key.
func (t *Gate) helloKey(x *Caller) *auth.HelloKey {
	x.asking.Lock()
	defer x.asking.Unlock()
	if k := x.hello.Load(); k != nil {
		return k
	}
	k, err := t.ring.HelloKey(x.key)
	if err != nil {
		return nil
	}
	x.hello.Store(&k)
	return &k
}

// MayBring reports whether a caller that is not enrolled may bring n more frames, and
// counts them as refused if not.
func (t *Gate) MayBring(x *Caller, n int) bool {
	if x.take(&x.frames, frameRate, min(n, int(frameRate.Burst))) {
		return true
	}
	t.Refused.frames.Add(uint64(n))
	return false
}

// MayKey reports whether the caller may bring one more NEW-KEY.
func (x *Caller) MayKey() bool { return x.take(&x.newKeys, newKeyRate, 1) }

// MayResend reports whether the caller may have one more NEW-KEY sent because a frame
// would not open.
func (x *Caller) MayResend() bool { return x.take(&x.resends, resendRate, 1) }

// Announced notes that a process of a client, which life names, has announced itself on c.
// It returns the address of another process that uses the client's key, "" if none is known.
func (x *Caller) Announced(life [message.PublicKeySize]byte, c *transport.Conn) (rival string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.lives.announce(life, c.RemoteAddr().String(), c, c.Number(), time.Now())
}

// RivalOf is the address of another process that uses the key of the client, "" if none is known.
func (x *Caller) RivalOf(life [message.PublicKeySize]byte) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.lives.rivalOf(life, time.Now())
}

// Closed notes that a connection of a client has ended.
func (x *Caller) Closed(c *transport.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lives.closed(c, time.Now())
}

// take spends n of one of the caller's budgets, if so much is left.
func (x *Caller) take(b *transport.Bucket, r transport.Rate, n int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return b.Take(r, float64(n), time.Now())
}

// enter lets an admitted connection keep its place until it is known, or until later
// connections of the caller enter.
func (x *Caller) enter(c *transport.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	c.Keep()
	if x.entering = append(x.entering, c); len(x.entering) > maxEntering {
		if c := x.entering[0]; !c.Trusted() {
			c.Release()
		}
		x.entering = append(x.entering[:0:0], x.entering[1:]...)
	}
}
