// SPDX-License-Identifier: Apache-2.0

// Package lies makes the replicas and clients of this process misbehave: for demonstrations,
// measurements and tests. They have the keys of correct ones, as an intruder would: a lie is
// authenticated after it was told, so that it comes with the right MAC, unless the MAC is what is
// wrong.
//
// No option of the product installs a Teller: pbfttest.Lie and pbfttest.Offend do, and hidden
// commands of the demonstration and of the benchmark call these, each in a process of its own.
package lies

import (
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// Habits are what a process does otherwise than a correct one. Where a habit is nil it does as a
// correct one does. A replica calls them under its lock, a client under its own.
type Habits struct {
	// Message changes a message for other replicas, except DATA and NEW-KEY. It returns a copy if
	// it changes something.
	Message func(message.Message) message.Message
	// Result changes a client's result, in the same way.
	Result func([]byte) []byte
	// Withhold reports whether a message is not sent. A REPLY is nil here.
	Withhold func(to message.Principal, m message.Message) bool
	// Spoil reports whether the MAC of a message to a principal is made wrong.
	Spoil func(to message.Principal) bool
	// Late is how long everything waits before it leaves.
	Late time.Duration
	// Dawdle is how long a primary waits before it makes the batch that is due.
	Dawdle time.Duration
	// Hold reports whether it holds back a request that is to be ordered. It then calls later once,
	// on another goroutine, or drops the request.
	Hold func(q *message.Request, later func()) bool
	// Flood makes up the nth message for all other replicas, which are sent as fast as they take
	// them; nil: there is nothing to say now.
	Flood func(at Standing, n uint64) message.Message
	// Ask changes a client's request that was authenticated, and returns what is sent before it.
	Ask func(q *message.Request) (before []*message.Request)
}

// A Standing is where a replica that floods the others stands.
type Standing struct {
	Self     message.ReplicaID
	View     message.View
	Executed message.SeqNum
	Stable   message.Checkpoint
	Window   int // L
}

// A Teller has habits while it is on. A nil Teller has none.
type Teller struct {
	habits Habits
	on     atomic.Bool
}

// New returns a Teller that is off.
func New(h Habits) *Teller { return &Teller{habits: h} }

// Switch turns a Teller on or off.
func (t *Teller) Switch(on bool) { t.on.Store(on) }

// now are the habits that count now.
func (t *Teller) now() *Habits {
	if t == nil || !t.on.Load() {
		return &none
	}
	return &t.habits
}

var none Habits

// Message is what is said instead of m.
func (t *Teller) Message(m message.Message) message.Message {
	if say := t.now().Message; say != nil {
		return say(m)
	}
	return m
}

// Result is what is answered instead of a result.
func (t *Teller) Result(b []byte) []byte {
	if say := t.now().Result; say != nil {
		return say(b)
	}
	return b
}

// Withholds reports whether m is not sent; nil is a REPLY.
func (t *Teller) Withholds(to message.Principal, m message.Message) bool {
	hide := t.now().Withhold
	return hide != nil && hide(to, m)
}

// Spoil makes the MAC at the end of a trailer wrong if it is to be.
func (t *Teller) Spoil(to message.Principal, trailer []byte) {
	if wrong := t.now().Spoil; wrong != nil && len(trailer) > 0 && wrong(to) {
		trailer[len(trailer)-1] ^= 0xff
	}
}

// Late is how long everything waits before it leaves.
func (t *Teller) Late() time.Duration { return t.now().Late }

// Dawdle is how long a primary waits before it makes a batch.
func (t *Teller) Dawdle() time.Duration { return t.now().Dawdle }

// Hold is how requests are held back (Habits.Hold), nil if none is.
func (t *Teller) Hold() func(q *message.Request, later func()) bool { return t.now().Hold }

// Floods reports whether there are messages to make up, now or when it is on.
func (t *Teller) Floods() bool { return t != nil && t.habits.Flood != nil }

// Flood makes up a message; nil: there is none now.
func (t *Teller) Flood(at Standing, n uint64) message.Message {
	if say := t.now().Flood; say != nil {
		return say(at, n)
	}
	return nil
}

// Ask changes a client's request, and returns what is sent before it.
func (t *Teller) Ask(q *message.Request) (before []*message.Request) {
	if ask := t.now().Ask; ask != nil {
		return ask(q)
	}
	return nil
}

var installed atomic.Pointer[Teller]

// Install makes replicas and clients that are started from now on do as t says.
func Install(t *Teller) { installed.Store(t) }

// Installed is the present Teller, nil if there is none.
func Installed() *Teller { return installed.Load() }
