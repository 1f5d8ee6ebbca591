// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// memory is a map of pages.
type memory map[message.PageNum][]byte

func (m memory) Page(n message.PageNum) []byte {
	if b := m[n]; b != nil {
		return b
	}
	return make([]byte, pageSize)
}

func (m memory) Modify(n message.PageNum) []byte {
	if m[n] == nil {
		m[n] = make([]byte, pageSize)
	}
	return m[n]
}

func (m memory) digest() (d [32]byte) {
	h := sha256.New()
	for n := range message.PageNum(4096) {
		if b := m[n]; b != nil && !bytes.Equal(b, make([]byte, pageSize)) {
			fmt.Fprint(h, n)
			h.Write(b)
		}
	}
	h.Sum(d[:0])
	return d
}

func keyOf(i int) ed25519.PublicKey {
	d := sha256.Sum256([]byte{byte(i)})
	return d[:]
}

// now is when an administrator enrols, later than anything that clients here say.
const now = 1 << 40

func open(t *testing.T, m memory, clients, slots int) *Ledger {
	t.Helper()
	l, err := Open(m, clients, slots)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func key(i int, s message.Slot) message.RequestKey {
	return message.RequestKey{Client: message.ClientOf(keyOf(i)), Slot: s}
}

func TestEnrolAndRevoke(t *testing.T) {
	l := open(t, memory{}, 2, 8)
	step := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Fatalf("%s: got %v, want %v", what, got, want)
		}
	}
	step("enrol 1", l.Enrol(keyOf(1), []byte("rights"), now), nil)
	step("enrol 1 again", l.Enrol(keyOf(1), nil, now), ErrEnrolled)
	step("enrol 2", l.Enrol(keyOf(2), make([]byte, MaxRights), now), nil)
	step("enrol 3", l.Enrol(keyOf(3), nil, now), ErrFull)
	step("rights too long", l.Enrol(keyOf(3), make([]byte, MaxRights+1), now), ErrRights)
	step("revoke 3", l.Revoke(keyOf(3)), ErrNotEnrolled)
	l.Record(key(1, 5), 77, []byte("r"), true)
	step("revoke 1", l.Revoke(keyOf(1)), nil)
	step("revoke 1 again", l.Revoke(keyOf(1)), ErrNotEnrolled)
	if _, ok := l.Client(message.ClientOf(keyOf(1))); ok {
		t.Fatal("a revoked client is a client")
	}
	step("enrol 1 after all", l.Enrol(keyOf(1), []byte("new"), now), nil)
	if c, ok := l.Client(message.ClientOf(keyOf(1))); !ok || string(c.Rights) != "new" || !c.Key.Equal(keyOf(1)) {
		t.Fatalf("enrolled again: %v %v", c, ok)
	}
	if last, _ := l.Last(key(1, 5)); last.Timestamp != 77 {
		t.Fatalf("a key enrolled again goes on at %d, want 77", last.Timestamp)
	}
	step("revoke 1", l.Revoke(keyOf(1)), nil)
	step("3 takes its record", l.Enrol(keyOf(3), nil, now), nil)
	last, ok := l.Last(key(3, 5))
	if !ok || last.Timestamp != 77 || last.Outcome != message.Superseded || len(last.Result) != 0 {
		t.Fatalf("the new owner of a record inherits %v", last)
	}
	if _, ok := l.Last(key(1, 5)); ok {
		t.Fatal("the old owner still has slots")
	}
	step("enrol 1 in a full table", l.Enrol(keyOf(1), nil, now), ErrFull)
}

func TestAdministrator(t *testing.T) {
	l := open(t, memory{}, 1, 8)
	if c, ok := l.Client(message.Administrator); !ok || len(c.Key)+len(c.Rights) > 0 {
		t.Fatalf("got %v %v", c, ok)
	}
	l.Record(message.RequestKey{Client: message.Administrator}, 9, []byte("x"), true)
	if last, ok := l.Last(message.RequestKey{Client: message.Administrator}); !ok || last.Timestamp != 9 {
		t.Fatalf("got %v %v", last, ok)
	}
	l.All(func(c Client) { t.Errorf("listed: %v", c) })
}

func TestSlots(t *testing.T) {
	l := open(t, memory{}, 1, 16)
	if err := l.Enrol(keyOf(1), nil, now); err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("x"), KeptReply+1)
	for i, c := range []struct {
		result  []byte
		keep    bool
		outcome message.Outcome
		kept    int
	}{
		{long[:KeptReply], true, message.Executed, KeptReply},
		{[]byte("short"), true, message.Executed, 5},
		{long, true, message.Lost, 0},
		{[]byte("read"), false, message.NotKept, 0},
		{nil, true, message.Executed, 0},
	} {
		l.Record(key(1, 15), message.Timestamp(i+1), c.result, c.keep)
		last, ok := l.Last(key(1, 15))
		if !ok || last.Timestamp != message.Timestamp(i+1) || last.Outcome != c.outcome ||
			!bytes.Equal(last.Result, c.result[:c.kept]) {
			t.Errorf("%d: got %v %v", i, last, ok)
		}
	}
	for _, s := range []message.Slot{16, 17, 1<<16 - 1} {
		if _, ok := l.Last(key(1, s)); ok {
			t.Errorf("slot %d of 16 is there", s)
		}
	}
}

// Equal histories leave equal pages, whatever an overwritten result has left behind it.
func TestNothingIsLeftBehind(t *testing.T) {
	a, b := memory{}, memory{}
	la, lb := open(t, a, 1, 8), open(t, b, 1, 8)
	for _, l := range []*Ledger{la, lb} {
		if err := l.Enrol(keyOf(1), nil, now); err != nil {
			t.Fatal(err)
		}
	}
	la.Record(key(1, 0), 1, bytes.Repeat([]byte("x"), 300), true)
	la.Record(key(1, 0), 2, []byte("y"), true)
	lb.Record(key(1, 0), 2, []byte("y"), true)
	if a.digest() != b.digest() {
		t.Fatal("the pages differ")
	}
}

// When a key is enrolled again, in any record, requests that it made under its old record
// are not executed again.
func TestFloor(t *testing.T) {
	m := memory{}
	l := open(t, m, 2, 8)
	enrol := func(i int) {
		t.Helper()
		if err := l.Enrol(keyOf(i), nil, now); err != nil {
			t.Fatal(err)
		}
	}
	revoke := func(i int) {
		t.Helper()
		if err := l.Revoke(keyOf(i)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(i int, want message.Timestamp) {
		t.Helper()
		for s := range message.Slot(8) {
			last, ok := l.Last(key(i, s))
			if !ok || last.Timestamp != want || want > 0 && last.Outcome != message.Superseded {
				t.Errorf("client %d slot %d: got %v %v, want %d", i, s, last, ok, want)
			}
		}
	}
	enrol(1)
	check(1, 0)
	l.Record(key(1, 3), 70, []byte("x"), true)
	enrol(2)
	revoke(1)
	enrol(3) // in the record of 1
	check(3, 70)
	revoke(2)
	enrol(1) // in the record of 2, which knows nothing
	check(1, 70)
	l.Record(key(3, 0), 1<<63, []byte("y"), true) // a clock that is far ahead
	revoke(3)
	enrol(4)
	check(4, now)
}

func TestOpenErrors(t *testing.T) {
	m := memory{}
	open(t, m, 4, 8)
	open(t, m, 4, 8)
	if _, err := Open(m, 5, 8); err == nil || !strings.Contains(err.Error(), "made for 4 clients of 8 slots") {
		t.Errorf("another number of clients: %v", err)
	}
	m.Modify(0)[0] ^= 1
	if _, err := Open(m, 4, 8); err == nil {
		t.Error("a page that is not a ledger's")
	}
}

// TestTwin compares the ledger with maps, and with a second ledger that forgets its index
// all the time.
func TestTwin(t *testing.T) {
	const clients, slots = 3, 8
	type twin struct {
		revoked bool
		rights  string
		last    map[message.Slot]message.Timestamp
	}
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 3))
		m, n := memory{}, memory{}
		l, forgetful := open(t, m, clients, slots), open(t, n, clients, slots)
		known := map[int]*twin{}
		floor := message.Timestamp(0)
		for step := range 200 {
			i := r.IntN(6)
			switch r.IntN(4) {
			case 0:
				rights := fmt.Sprint(r.IntN(1000))
				err := l.Enrol(keyOf(i), []byte(rights), now)
				if other := forgetful.Enrol(keyOf(i), []byte(rights), now); !errors.Is(other, err) {
					t.Fatalf("seed %d step %d: %v and %v", seed, step, err, other)
				}
				if err == nil && known[i] != nil {
					known[i].revoked, known[i].rights = false, rights
				} else if err == nil {
					maps.DeleteFunc(known, func(k int, c *twin) bool { // a revoked client made room
						_, ok := l.Last(key(k, 0))
						for _, t := range c.last {
							if !ok && c.revoked {
								floor = max(floor, t)
							}
						}
						return !ok && c.revoked
					})
					known[i] = &twin{rights: rights, last: map[message.Slot]message.Timestamp{}}
					for s := range message.Slot(slots) {
						known[i].last[s] = floor
					}
				}
			case 1:
				err := l.Revoke(keyOf(i))
				_ = forgetful.Revoke(keyOf(i))
				if c := known[i]; (err == nil) != (c != nil && !c.revoked) {
					t.Fatalf("seed %d step %d: revoke: %v", seed, step, err)
				} else if c != nil {
					c.revoked = true
				}
			default:
				s := message.Slot(r.IntN(slots))
				if c := known[i]; c != nil && !c.revoked {
					c.last[s]++
					for _, x := range []*Ledger{l, forgetful} {
						x.Record(key(i, s), c.last[s], []byte(fmt.Sprint(step)), true)
					}
				}
			}
			forgetful.Reload()
			l.Account(message.ClientOf(keyOf(r.IntN(6)))) // which it may remember
			if len(known) > clients {
				t.Fatalf("seed %d step %d: %d clients, want <= %d", seed, step, len(known), clients)
			}
			for i := range 6 {
				got, ok := l.Client(message.ClientOf(keyOf(i)))
				c := known[i]
				if ok != (c != nil && !c.revoked) || ok && string(got.Rights) != c.rights {
					t.Fatalf("seed %d step %d: client %d: %v %v, want %v", seed, step, i, got, ok, c)
				}
				account, is := l.Account(message.ClientOf(keyOf(i)))
				if is != ok || ok && string(account.Rights()) != c.rights {
					t.Fatalf("seed %d step %d: account of client %d: %v %v, want %v", seed, step, i, account, is, c)
				}
				if c == nil {
					continue
				}
				for s := range message.Slot(slots) {
					if last, ok := l.Last(key(i, s)); !ok || last.Timestamp != c.last[s] {
						t.Fatalf("seed %d step %d: slot: %v, want %d", seed, step, last, c.last[s])
					}
				}
			}
		}
		if m.digest() != n.digest() {
			t.Fatalf("seed %d: Reload changes what is done", seed)
		}
	}
}

func TestPages(t *testing.T) {
	m := memory{}
	l := open(t, m, 3, 16)
	for i := range 3 {
		if err := l.Enrol(keyOf(i), nil, now); err != nil {
			t.Fatal(err)
		}
		l.Record(key(i, 15), 1, []byte("x"), true)
	}
	for n := range m {
		if n >= Pages(3, 16) {
			t.Errorf("page %d is written, want < %d", n, Pages(3, 16))
		}
	}
}

// Latest is the highest timestamp of a client's slots, and the floor for a client without
// a record. The version changes with the clients.
func TestLatest(t *testing.T) {
	l := open(t, memory{}, 1, 2*SlotsPerPage)
	before := l.Version()
	if err := l.Enrol(keyOf(1), nil, now); err != nil || l.Version() == before {
		t.Fatal(err, "or the version stays")
	}
	for s, at := range []message.Timestamp{5, 9, 7} {
		l.Record(key(1, message.Slot(s*7)), at, nil, true)
	}
	l.Record(message.RequestKey{Client: message.Administrator, Slot: 1}, 3, nil, true)
	for who, want := range map[message.ClientID]message.Timestamp{message.ClientOf(keyOf(1)): 9,
		message.Administrator: 3, message.ClientOf(keyOf(2)): 0} {
		if got := l.Latest(who); got != want {
			t.Errorf("client %v: got %d, want %d", who, got, want)
		}
	}
	before = l.Version()
	if err := l.Revoke(keyOf(1)); err != nil || l.Version() == before || l.Latest(message.ClientOf(keyOf(1))) != 9 {
		t.Errorf("revoked: %v, version %d, latest %d", err, l.Version(), l.Latest(message.ClientOf(keyOf(1))))
	}
	if err := l.Enrol(keyOf(2), nil, now); err != nil {
		t.Fatal(err)
	}
	if got := l.Latest(message.ClientOf(keyOf(3))); got != 9 {
		t.Errorf("one without a record begins at %d, want the floor of 9", got)
	}
}
