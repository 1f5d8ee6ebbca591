// SPDX-License-Identifier: Apache-2.0

package pbft

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

// A gate decides whose connections a replica takes on, before TLS and before any signature is checked, and what each principal may
// have the replica do unasked. Each member, the administrator and each enrolled client is a caller with budgets of its own. All
// other principals are one caller together, so that strangers, however many names they use, have one share. A stranger who takes
// the name of a caller fails at the hello's tag, for the price of one hash, and spends nothing of that caller's.
//
// All methods may be called by any goroutine.
type gate struct {
	ring      *auth.Ring
	permanent map[message.Principal]*caller // members, as replicas and with their keys as clients, and the administrator
	strangers caller
	listener  atomic.Pointer[transport.Listener] // told of each connection of a caller; nil: not yet
	refused   gateCounts

	mu      sync.Mutex
	version uint64 // of the ledger that enrolled was made from
	clients map[message.Principal]*caller
}

// gateCounts counts refusals of the gate.
type gateCounts struct{ hello, often, frames atomic.Uint64 }

func (c *gateCounts) list() []Refusals {
	return []Refusals{
		{"hello of nobody we know", c.hello.Load()},
		{"connections too often", c.often.Load()},
		{"frames too often", c.frames.Load()},
	}
}

// A caller is a principal that has budgets of its own, or all strangers together.
type caller struct {
	key ed25519.PublicKey // nil: strangers

	asking sync.Mutex                    // held while hello is computed
	hello  atomic.Pointer[auth.HelloKey] // computed at the first hello that names it, and again if the signer failed; nil: not yet

	mu         sync.Mutex
	handshakes transport.Bucket
	newKeys    transport.Bucket
	resends    transport.Bucket
	frames     transport.Bucket
	entering   []*transport.Conn // admitted, the oldest first; at most maxEntering keep their places before they are known
	lives      lives
}

// What one caller may cause at one replica. A TLS handshake costs about a millisecond, a NEW-KEY and our answer two.
var (
	handshakeRate = transport.Rate{PerSecond: 8, Burst: 32}
	newKeyRate    = transport.Rate{PerSecond: 8, Burst: 64}
	resendRate    = transport.Rate{PerSecond: 2, Burst: 4}    // NEW-KEYs that we send because something would not open
	frameRate     = transport.Rate{PerSecond: 64, Burst: 256} // frames of who is not enrolled; QUERY-STABLEs
)

// maxEntering is how many connections of a caller keep their places before its NEW-KEY has come.
const maxEntering = 2

func newGate(g *Group, self ReplicaID, ring *auth.Ring) *gate {
	t := &gate{ring: ring, permanent: map[message.Principal]*caller{}}
	for i, m := range g.Members {
		if i != int(self) {
			t.permanent[message.Principal{Replica: ReplicaID(i)}] = &caller{key: m.Key}
		}
		t.permanent[message.Principal{Client: ClientOf(m.Key)}] = &caller{key: m.Key} // see Replace
	}
	t.permanent[message.Principal{Client: Administrator}] = &caller{key: g.Administrator}
	return t
}

// follow makes callers of the clients that are enrolled. A client that was enrolled before keeps its budgets.
func (t *gate) follow(l *ledger.Ledger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clients != nil && t.version == l.Version() {
		return
	}
	old := t.clients
	t.version, t.clients = l.Version(), map[message.Principal]*caller{}
	l.All(func(c ledger.Client) {
		p := message.Principal{Client: ClientOf(c.Key)}
		switch x := old[p]; {
		case c.Revoked:
		case x != nil && x.key.Equal(c.Key):
			t.clients[p] = x
		default:
			t.clients[p] = &caller{key: append(ed25519.PublicKey(nil), c.Key...)}
		}
	})
}

// caller is the one that p is, or is counted with.
func (t *gate) caller(p message.Principal) *caller {
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

// A visitor is on a connection that was admitted and has brought no NEW-KEY yet.
type visitor struct {
	principal message.Principal
	caller    *caller
}

// admit judges a hello: nil if its connection goes no further.
func (t *gate) admit(c *transport.Conn, challenge []byte, hello *[auth.HelloSize]byte) *visitor {
	p, ok := auth.HelloFrom(hello)
	x := t.caller(p)
	stranger := x == &t.strangers
	if !ok || stranger && p.IsReplica() || !stranger && !t.made(x, challenge, hello) {
		t.refused.hello.Add(1)
		return nil
	}
	if !x.take(&x.handshakes, handshakeRate, 1) {
		t.refused.often.Add(1)
		return nil
	}
	if !stranger {
		x.enter(c)
		if l := t.listener.Load(); l != nil {
			l.Welcome(c)
		}
	}
	return &visitor{p, x}
}

// made reports whether the caller made this hello.
func (t *gate) made(x *caller, challenge []byte, hello *[auth.HelloSize]byte) bool {
	k := x.hello.Load()
	if k == nil {
		k = t.helloKey(x)
	}
	return k != nil && k.Made(challenge, hello)
}

// helloKey has the signer compute the key for the caller's hellos. Nil: the signer fails, or the caller's key is none.
func (t *gate) helloKey(x *caller) *auth.HelloKey {
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

// take spends n of one of the caller's budgets, if so much is left.
func (x *caller) take(b *transport.Bucket, r transport.Rate, n int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return b.Take(r, float64(n), time.Now())
}

// enter has an admitted connection keep its place until it is known, or later ones of the caller enter.
func (x *caller) enter(c *transport.Conn) {
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
