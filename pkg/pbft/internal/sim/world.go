// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/ledger"
	"bfs/pkg/pbft/internal/message"
)

// tick is the length of a core's tick in the world's time.
const tick = 100

// Bounds of a world that no schedule changes.
const (
	ledgerSlots  = 8
	queueBytes   = 4 * longest
	longest      = 9 << 10 // of an operation
	firstTimeout = 40      // ticks of a view-change timer
	maxEvents    = 3_000_000
)

// world is a whole group with its clients, network and clock. One goroutine runs it, and
// everything that happens follows from the seed.
type world struct {
	n, f, q  int // replicas, those that may lie, a quorum
	shape    shape
	rng      *rand.Rand
	now      int64
	events   events
	sites    []*site // by replica
	clients  []*caller
	network  network
	judge    judge
	wire     message.Limits
	first    pbft.PageNum     // of the service's pages
	proofs   map[proof]sealed // which replicas find a request's MAC good
	keys     keys
	nonce    uint64
	everyone []bool // all replicas: those that find a correct client's MAC good
	calm     bool   // all faults have stopped
	quiet    bool   // and nobody calls for more than it has called for
	marks    marks
	lost     bool // more than f replicas have forgotten their state: the group can only do no harm
	err      error
	log      func(string)
	stepped  int
	ahead    func(r *replica)                                     // called when r is the first to execute a batch
	early    []func(r *replica, v message.View, n message.SeqNum) // called when r executes n tentatively in view v
	acting   *replica                                             // whose event it is
	plot     plot
	cunning  *cunning
	robber   *rand.Rand   // not nil: some intruders take the fence along
	cured    map[int]bool // replicas that an intruder was in, and that have recovered
}

// shape is the group's configuration.
type shape struct {
	replicas    int
	period, log message.SeqNum // K and L
	bytes       int            // of operations that bring a checkpoint before that; 0: none do
	window      message.SeqNum
	batch       int
	clients     int   // correct ones
	slots       int   // of a client in use
	think       int   // ticks between its calls, at most
	stop        int   // tick at which all faults end
	stubborn    bool  // liars go on lying after that
	quiet       bool  // and earlier calls must be answered before any client calls again
	writes      bool  // correct clients read nothing
	long        bool  // and all that they write has a long result
	tentative   bool  // batches are executed when they have prepared
	piggyback   bool  // COMMITs ride on other messages
	foresees    bool  // replicas raise their fences before they must
	durable     bool  // replicas remember what is on their disks
	sync        int64 // a sync takes so long at most
	copying     int64 // some pages are copied to an image in so long at most
	separate    bool  // clients send long operations to all, proposals name them
	// gather: messages of one sender that come within so many hundredths of a tick are
	// taken in together; 0: one by one.
	gather int64
}

// A proof names an authenticator: the request it is for, what else it covers, and its nonce.
type proof struct {
	digest   message.Digest
	nonce    uint64
	readOnly bool
	apart    bool
	replier  message.ReplicaID
	provers  uint32
}

func proofOf(r *message.Request) proof {
	nonce := r.Auth.Nonce
	if len(r.Signature) >= 8 {
		nonce = binary.LittleEndian.Uint64(r.Signature)
	}
	return proof{r.Digest(), nonce, r.ReadOnly, r.Apart, r.Replier, r.Provers}
}

// A site is where one replica lives: mostly one live copy of it, two if it is a twin.
type site struct {
	copies []*replica
	lies   []lie
	memory *liarMemory
	fence  message.SeqNum // survives restarts, and so does
	view   message.View   // what it had reached

	counter  uint64         // of its signatures
	corrupt  bool           // an intruder was in it, and it has not recovered since
	cured    message.SeqNum // messages about batches up to here count as the last intruder's
	bound    message.SeqNum // H_M, while it recovers and was told to
	position uint64         // how far its journal was durable when the fence was raised
	lost     bool           // its fence is lost, and it has not recovered since
	promised message.SeqNum // the highest number for which its core promised something before that
	twins    bool
	away     bool // cut off until all that correct clients called for is answered
	forgets  bool // and restarts then
}

// liar reports whether the replica is faulty: it lies, or an intruder was in it and its
// recovery is not over.
func (s *site) liar() bool { return s.edits() || s.corrupt }

// edits reports whether the replica sends other messages than its core wants to.
func (s *site) edits() bool { return len(s.lies) > 0 || s.twins }

// liarAt is liar for messages about batch n: an intruder may have sent them before the
// replica recovered.
func (s *site) liarAt(n message.SeqNum) bool { return s.liar() || n <= s.cured }

func newWorld(s shape, seed uint64) *world {
	w := &world{
		n: s.replicas, f: (s.replicas - 1) / 3, shape: s, rng: rand.New(rand.NewPCG(seed, 1)),
		cured: map[int]bool{}, proofs: map[proof]sealed{},
		first: ledger.Pages(maxClients, ledgerSlots), plot: newPlot(),
	}
	w.q = quorum(w.n, w.f)
	w.wire = message.Limits{Replicas: w.n, Operation: longest, BatchBytes: 4 << 10, BatchCount: 64, Choice: 64,
		Reply: 1 << 10, WindowLength: int(s.log)}
	for range w.n {
		w.everyone = append(w.everyone, true)
	}
	w.shape.copying = max(w.shape.copying, tick)
	w.network.init(w)
	w.keys.init(w, seed)
	w.judge.init(w)
	for i := range s.clients {
		w.clients = append(w.clients, newClient(w, i))
	}
	for range w.n {
		w.sites = append(w.sites, &site{})
	}
	return w
}

// quorum is the least number of replicas of which any two sets share more than f. It is computed
// here from its purpose, so that a mistake in the core's formula does not become the judge's.
func quorum(n, f int) int {
	q := n
	for 2*(q-1)-n > f {
		q--
	}
	return q
}

// maxClients is how many clients are enrolled in every schedule, correct and faulty.
const maxClients = 8

// clientKey is client i's public key. Only its digest matters.
func clientKey(i int) []byte {
	k := sha256.Sum256([]byte{'c', byte(i)})
	return k[:]
}

// start brings the replicas to life.
func (w *world) start() {
	for i, s := range w.sites {
		s.copies = append(s.copies, newReplica(w, i, 0))
		if s.twins {
			s.copies = append(s.copies, newReplica(w, i, 1))
		}
		if s.liar() {
			w.remember(i)
		}
	}
	for _, c := range w.clients {
		c.start()
	}
}

// remember gives a liar its memory.
func (w *world) remember(i int) {
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), uint64(i)))
	w.sites[i].memory = &liarMemory{rng: rng, changes: map[message.ReplicaID]*message.ViewChange{}, plot: &w.plot}
}

// at has f happen at time t.
func (w *world) at(t int64, f func()) { w.events.push(max(t, w.now), f) }

// time is the world's as cores know it.
func (w *world) time() time.Duration { return time.Duration(w.now) * core.Tick / tick }

func (w *world) after(d int64, f func()) { w.at(w.now+d, f) }

// step lets the next event happen. It returns false if none is left, or if a judge has
// failed the run.
func (w *world) step() bool {
	if w.err != nil || w.events.empty() {
		return false
	}
	e := w.events.pop()
	w.now = e.at
	w.stepped++
	if w.stepped > maxEvents {
		w.fail("livelock: %d things have happened", w.stepped)
		return false
	}
	w.guarded(e.do)
	return w.err == nil
}

// guarded runs f. A core that panics has found its own bug, unless it is a liar's, whose
// two copies or edited messages may well confuse it.
func (w *world) guarded(f func()) {
	defer func() {
		why := recover()
		switch {
		case why == nil:
		case w.acting != nil && w.acting.lies():
			w.acting.stop(fmt.Sprint(why))
		default:
			w.fail("panic: %v\n%s", why, debug.Stack())
		}
	}()
	f()
}

// runUntil lets events happen until time t, or until done returns true.
func (w *world) runUntil(t int64, done func() bool) bool {
	for !w.events.empty() && w.events.next() <= t {
		if !w.step() {
			return false
		}
		if done != nil && done() {
			return true
		}
	}
	w.now = max(w.now, t)
	return done == nil && w.err == nil
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("tick %d.%02d: %s", w.now/tick, w.now%tick, fmt.Sprintf(format, args...))
		w.say("FAILED %v", w.err)
	}
}

func (w *world) say(format string, args ...any) {
	if w.log != nil {
		w.log(fmt.Sprintf("%6d.%02d  ", w.now/tick, w.now%tick) + fmt.Sprintf(format, args...))
	}
}

// chance is true with probability p.
func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// correct are the live copies of the replicas that do not lie.
func (w *world) correct() (all []*replica) {
	for _, s := range w.sites {
		if !s.liar() {
			all = append(all, s.copies...)
		}
	}
	return all
}

// disabled counts the replicas other than i that lie, are away, or have forgotten.
func (w *world) disabled(i int) (n int) {
	for j, s := range w.sites {
		if j != i && (s.liar() || s.away || s.copies[0].down || s.copies[0].core.SilentUntil() > 0 ||
			s.copies[0].estimates()) {
			n++
		}
	}
	return n
}

// lostByRestart counts the replicas that do not help the others after a restart of all: those that
// lie or are away, and those whose recovery is not over, for they then believe nothing of their
// memory.
func (w *world) lostByRestart() (n int) {
	for _, s := range w.sites {
		if s.liar() || s.away || s.copies[0].recovers || s.copies[0].core.SilentUntil() > 0 {
			n++
		}
	}
	return n
}

// liars counts the replicas that lie.
func (w *world) liars() (n int) {
	for _, s := range w.sites {
		if s.liar() {
			n++
		}
	}
	return n
}

// mayLose reports whether replica i may be restarted or go away: the correct ones among
// the others are a quorum.
func (w *world) mayLose(i int) bool { return w.disabled(i) < w.n-w.q }

// authentic reports whether the request's MAC is good at replica i. Only its client can make one.
func (w *world) authentic(r *message.Request, i int) bool {
	x, known := w.proofs[proofOf(r)]
	if r.Client.Signs() {
		return known // it is signed
	}
	tag := r.Auth.Tag(message.ReplicaID(i))
	return known && w.keys.proves(&x, i) && len(tag) > 0 && tag[0] == 1
}

// seal makes the authenticator of a request whose MACs are good at the replicas that good names.
func (w *world) seal(r *message.Request, good []bool) {
	r.Altered()
	w.nonce++
	if r.Client.Signs() {
		r.Signature = binary.LittleEndian.AppendUint64(nil, w.nonce)
		r.Signature = append(r.Signature, make([]byte, message.SignatureSize-8)...)
		w.proofs[proofOf(r)] = sealed{good: good}
		return
	}
	r.Auth.Nonce = w.nonce
	r.Auth.Tags = make([]byte, w.n*message.MACSize)
	for i := range w.n {
		if good[i] {
			r.Auth.Tags[i*message.MACSize] = 1
		}
	}
	w.proofs[proofOf(r)] = sealed{good, w.keys.sealing(r)}
}

// encode encodes a message for the wire: its type and its canonical encoding.
func encode(m message.Message) []byte {
	return m.AppendBody(append(make([]byte, 0, 128), byte(m.Type())))
}

// network carries messages, or loses them.
type network struct {
	w                          *world
	loss, duplication, corrupt float64
	delay, spread              int64 // of every message, and at most more
	straggle                   float64
	straggleBy                 int64
	cut                        [][]int                   // [from][to]: partitions between them; replicas, then clients
	side                       []int                     // which copy of a twin each replica is with; 2: with both
	sieve                      map[message.Type][]uint32 // [from]: whom nothing of this type reaches
	losses                     []loss
}

func (x *network) init(w *world) {
	x.w = w
	x.delay, x.spread = 20, 30
	x.side = make([]int, w.n)
	for i := range x.side {
		x.side[i] = 2
	}
	all := w.n + maxClients + 1 // and the administrator
	x.cut = make([][]int, all)
	for i := range x.cut {
		x.cut[i] = make([]int, all)
	}
}

// cutOff cuts a replica off from all others, in both directions.
func (x *network) cutOff(i int) {
	for j := range x.cut {
		x.cut[i][j], x.cut[j][i] = 1, 1
	}
}

// send carries something from one principal to another and has arrive called, once, more
// than once or never.
func (x *network) send(from, to int, arrive func()) {
	w := x.w
	if x.cut[from][to] > 0 || !w.calm && (w.chance(x.loss) || w.chance(x.corrupt)) {
		return
	}
	copies := 1
	if !w.calm && w.chance(x.duplication) {
		copies++
	}
	for range copies {
		d := x.delay + w.rng.Int64N(x.spread+1)
		if !w.calm && w.chance(x.straggle) {
			d += w.rng.Int64N(x.straggleBy)
		}
		w.after(d, func() {
			if x.cut[from][to] == 0 {
				arrive()
			}
		})
	}
}

// A loss tells which messages the network loses, until the faults end.
type loss func(from, to int, m message.Message) bool

// loses: at present no such message gets from one principal to the other.
func (x *network) loses(from, to int, m message.Message) bool {
	for _, lost := range x.losses {
		if lost(from, to, m) {
			return true
		}
	}
	s := x.sieve[m.Type()]
	return s != nil && from < x.w.n && s[from]&(1<<to) != 0
}

// reaches: a replica and a copy of a twin hear of each other at present.
func (x *network) reaches(other, twin *replica) bool {
	side := x.side[other.id]
	return side == 2 || side == twin.twin
}

// events is a heap of what will happen, by time and then in the order of its arranging.
type events struct {
	heap  []event
	count uint64
}

type event struct {
	at    int64
	order uint64
	do    func()
}

func (e event) before(f event) bool { return e.at < f.at || e.at == f.at && e.order < f.order }

func (h *events) empty() bool { return len(h.heap) == 0 }

func (h *events) next() int64 { return h.heap[0].at }

func (h *events) push(at int64, do func()) {
	h.count++
	h.heap = append(h.heap, event{at, h.count, do})
	for i := len(h.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.heap[i].before(h.heap[up]) {
			return
		}
		h.heap[i], h.heap[up] = h.heap[up], h.heap[i]
		i = up
	}
}

func (h *events) pop() event {
	top, last := h.heap[0], len(h.heap)-1
	h.heap[0] = h.heap[last]
	h.heap[last] = event{}
	h.heap = h.heap[:last]
	for i := 0; ; {
		least := i
		for _, k := range []int{2*i + 1, 2*i + 2} {
			if k < last && h.heap[k].before(h.heap[least]) {
				least = k
			}
		}
		if least == i {
			return top
		}
		h.heap[i], h.heap[least] = h.heap[least], h.heap[i]
		i = least
	}
}

// names writes replica numbers one after another.
func names(all []int) string { return strings.Trim(fmt.Sprint(all), "[]") }
