// SPDX-License-Identifier: Apache-2.0

// Package ledger lays out the library's own pages of the replicated state: the enrolled clients
// with their rights, and for every slot of every client the request that was executed last, with
// its result [TOCS §4.3, §6.2; R-OUR-13].
//
//	page 0             header: magic u64, number of clients u32 and of slots u32, floor u64;
//	                   from byte 64 on for each replica: timestamp u64 and bound u64 of its last
//	                   recovery request, batch u64 that it was in
//	then per client    one record page, followed by its slot pages
//
//	record page        state u32 (0 free, 1 enrolled, 2 revoked), length of rights u32, key 32 bytes, rights
//	slot (512 bytes)   timestamp u64, outcome u32, length u32, result
//
// Client 0 is the administrator: its record page is empty, for its key stands in the group file.
// A revoked record keeps its timestamps, so that a key enrolled again goes on where it was; it is
// given to another key only when no record is free. The floor then covers its timestamps: it is
// the highest of all that were forgotten. The slots of a key without a record begin at the floor,
// as Superseded, so that no request is executed again that the key made when it had a record. A
// timestamp later than that of the administrator's request, which gives the record away, does not
// raise the floor: otherwise a client with made-up timestamps would leave none to later clients.
package ledger

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"

	"bfs/pkg/pbft/internal/message"
)

const (
	pageSize = 4096
	slotSize = 512
	slotHead = 16

	// SlotsPerPage is how many slots share a page.
	SlotsPerPage = pageSize / slotSize
	// KeptReply is the longest result in bytes that a slot keeps.
	KeptReply = slotSize - slotHead

	recordHead = 8 + ed25519.PublicKeySize
	// MaxRights bounds the rights of a client in bytes.
	MaxRights = pageSize - recordHead

	magic = 0x3147444c53464201 // "\x01BFSLDG1"
)

const (
	free = iota
	enrolled
	revoked
)

// Refusals of an enrolment. Their texts become replies, so all replicas say the same.
var (
	ErrEnrolled    = errors.New("this key is enrolled already")
	ErrNotEnrolled = errors.New("this key is not enrolled")
	ErrFull        = errors.New("no room for another client: revoke one, or raise clients in a new group")
	ErrRights      = errors.New("the rights are too long")
)

// Pages is the number of pages the ledger takes.
func Pages(clients, slots int) message.PageNum {
	return message.PageNum(1 + (clients+1)*(1+slots/SlotsPerPage))
}

// Memory is the state's pages, as far as the ledger needs them.
type Memory interface {
	Page(n message.PageNum) []byte
	Modify(n message.PageNum) []byte
}

// A Ledger reads and writes those pages. Its index is derived from them: Reload makes it
// anew after the pages were replaced under it.
type Ledger struct {
	memory         Memory
	clients, slots int
	index          map[message.ClientID]int
	recent         recent
	version        uint64
}

// recent is the account that was asked for last, until records change: the requests of a client
// come together.
type recent struct {
	client  message.ClientID
	account Account
	ok      bool
}

// Open returns the ledger on memory, formatting pages that were never written.
func Open(memory Memory, clients, slots int) (*Ledger, error) {
	l := &Ledger{memory: memory, clients: clients, slots: slots}
	head := memory.Page(0)
	switch binary.LittleEndian.Uint64(head) {
	case 0:
		head = memory.Modify(0)
		binary.LittleEndian.PutUint64(head, magic)
		binary.LittleEndian.PutUint32(head[8:], uint32(clients))
		binary.LittleEndian.PutUint32(head[12:], uint32(slots))
	case magic:
		c, s := binary.LittleEndian.Uint32(head[8:]), binary.LittleEndian.Uint32(head[12:])
		if c != uint32(clients) || s != uint32(slots) {
			return nil, fmt.Errorf("the state was made for %d clients of %d slots, the group file says %d of %d",
				c, s, clients, slots)
		}
	default:
		return nil, errors.New("the state's first page is not a ledger's")
	}
	l.Reload()
	return l, nil
}

// Reload derives the index again.
func (l *Ledger) Reload() {
	l.changed()
	l.index = map[message.ClientID]int{message.Administrator: 0}
	for i := 1; i <= l.clients; i++ {
		page := l.memory.Page(l.record(i))
		if binary.LittleEndian.Uint32(page) != free {
			l.index[message.ClientOf(page[8:recordHead])] = i
		}
	}
}

// Version changes whenever the clients may have.
func (l *Ledger) Version() uint64 { return l.version }

func (l *Ledger) changed() {
	l.version++
	l.recent.ok = false
}

func (l *Ledger) record(i int) message.PageNum {
	return message.PageNum(1 + i*(1+l.slots/SlotsPerPage))
}

// A Client is one record. Rights alias the page: they are good until the next enrolment.
type Client struct {
	Key     ed25519.PublicKey
	Rights  []byte
	Revoked bool
}

func (l *Ledger) read(i int) Client {
	page := l.memory.Page(l.record(i))
	n := binary.LittleEndian.Uint32(page[4:])
	return Client{
		Key:     ed25519.PublicKey(page[8:recordHead]),
		Rights:  page[recordHead : recordHead+n : recordHead+n],
		Revoked: binary.LittleEndian.Uint32(page) == revoked,
	}
}

// Client returns an enrolled client's record. The administrator's is empty.
func (l *Ledger) Client(id message.ClientID) (Client, bool) {
	i, ok := l.index[id]
	if !ok {
		return Client{}, false
	}
	if i == 0 {
		return Client{}, true
	}
	c := l.read(i)
	return c, !c.Revoked
}

// All calls f for every record that is not free, in their order on the pages.
func (l *Ledger) All(f func(Client)) {
	for i := 1; i <= l.clients; i++ {
		if binary.LittleEndian.Uint32(l.memory.Page(l.record(i))) != free {
			f(l.read(i))
		}
	}
}

// MayEnrol returns the reason why a key cannot be given a record, nil if it can.
func (l *Ledger) MayEnrol(key ed25519.PublicKey) error {
	i, known := l.index[message.ClientOf(key)]
	switch {
	case known && (i == 0 || !l.read(i).Revoked || !l.read(i).Key.Equal(key)):
		return ErrEnrolled
	case !known && l.vacant() == 0:
		return ErrFull
	}
	return nil
}

// Enrol gives a key its record. The administrator asked for it at now.
func (l *Ledger) Enrol(key ed25519.PublicKey, rights []byte, now message.Timestamp) error {
	if len(rights) > MaxRights {
		return ErrRights
	}
	if err := l.MayEnrol(key); err != nil {
		return err
	}
	id := message.ClientOf(key)
	i, known := l.index[id]
	if !known {
		i = l.vacant()
		if old := l.memory.Page(l.record(i)); binary.LittleEndian.Uint32(old) == revoked {
			delete(l.index, message.ClientOf(old[8:recordHead]))
			l.raiseFloor(min(l.latest(i), now))
		}
		l.clearSlots(i)
	}
	l.changed()
	page := l.memory.Modify(l.record(i))
	clear(page)
	binary.LittleEndian.PutUint32(page, enrolled)
	binary.LittleEndian.PutUint32(page[4:], uint32(len(rights)))
	copy(page[8:recordHead], key)
	copy(page[recordHead:], rights)
	l.index[id] = i
	return nil
}

// vacant is the first free record, else the first revoked one, else 0.
func (l *Ledger) vacant() (i int) {
	for k := l.clients; k >= 1; k-- {
		switch binary.LittleEndian.Uint32(l.memory.Page(l.record(k))) {
		case free:
			i = k
		case revoked:
			if i == 0 || binary.LittleEndian.Uint32(l.memory.Page(l.record(i))) == revoked {
				i = k
			}
		}
	}
	return i
}

const floorAt = 16 // on page 0

func (l *Ledger) floor() message.Timestamp {
	return message.Timestamp(binary.LittleEndian.Uint64(l.memory.Page(0)[floorAt:]))
}

func (l *Ledger) raiseFloor(t message.Timestamp) {
	if t > l.floor() {
		binary.LittleEndian.PutUint64(l.memory.Modify(0)[floorAt:], uint64(t))
	}
}

// latest is the highest timestamp that a record's slots know.
func (l *Ledger) latest(i int) (t message.Timestamp) {
	for s := range l.slots {
		last, _ := Account{l, i}.Last(message.Slot(s))
		t = max(t, last.Timestamp)
	}
	return t
}

// Latest returns the highest timestamp in a client's slots, revoked or not. For a client
// without a record it returns the timestamp with which the slots of a new record would begin.
func (l *Ledger) Latest(id message.ClientID) message.Timestamp {
	if i, ok := l.index[id]; ok {
		return l.latest(i)
	}
	return l.floor()
}

// clearSlots sets a record's slots to those of a key that was never enrolled. The slots of a free
// record are like that while the floor is 0.
func (l *Ledger) clearSlots(i int) {
	floor := l.floor()
	if floor == 0 && l.latest(i) == 0 {
		return
	}
	for k := range l.slots / SlotsPerPage {
		page := l.memory.Modify(l.record(i) + 1 + message.PageNum(k))
		clear(page)
		for at := 0; floor > 0 && at < pageSize; at += slotSize {
			binary.LittleEndian.PutUint64(page[at:], uint64(floor))
			binary.LittleEndian.PutUint32(page[at+8:], uint32(message.Superseded))
		}
	}
}

// Revoke ends a client's rights. Its timestamps stay.
func (l *Ledger) Revoke(key ed25519.PublicKey) error {
	i, ok := l.index[message.ClientOf(key)]
	if !ok || i == 0 || l.read(i).Revoked || !l.read(i).Key.Equal(key) {
		return ErrNotEnrolled
	}
	l.changed()
	binary.LittleEndian.PutUint32(l.memory.Modify(l.record(i)), revoked)
	return nil
}

// Last is what a slot executed last.
type Last struct {
	Timestamp message.Timestamp
	Outcome   message.Outcome
	Result    []byte // aliases the page
}

// An Account is where an enrolled client's slots are. It is good until the next
// enrolment, revocation or Reload.
type Account struct {
	l *Ledger
	i int
}

// Account returns an enrolled client's.
func (l *Ledger) Account(id message.ClientID) (Account, bool) {
	if l.recent.ok && l.recent.client == id {
		return l.recent.account, true
	}
	i, ok := l.index[id]
	if !ok || i > 0 && binary.LittleEndian.Uint32(l.memory.Page(l.record(i))) == revoked {
		return Account{}, false
	}
	l.recent = recent{id, Account{l, i}, true}
	return l.recent.account, true
}

// Rights returns the rights in the client's record; they alias the page. The administrator has
// none.
func (a Account) Rights() []byte {
	if a.i == 0 {
		return nil
	}
	return a.l.read(a.i).Rights
}

func (a Account) slot(s message.Slot) (page message.PageNum, offset int) {
	return a.l.record(a.i) + 1 + message.PageNum(int(s)/SlotsPerPage), int(s) % SlotsPerPage * slotSize
}

// Last returns the slot's last execution; not ok if there is no such slot.
func (a Account) Last(s message.Slot) (Last, bool) {
	if int(s) >= a.l.slots {
		return Last{}, false
	}
	n, offset := a.slot(s)
	b := a.l.memory.Page(n)[offset : offset+slotSize]
	length := binary.LittleEndian.Uint32(b[12:])
	return Last{
		Timestamp: message.Timestamp(binary.LittleEndian.Uint64(b)),
		Outcome:   message.Outcome(binary.LittleEndian.Uint32(b[8:])),
		Result:    b[slotHead : slotHead+length],
	}, true
}

// Record notes an execution. The result of an operation that changed nothing need not be kept
// (R-OUR-14); one that is too long cannot be.
func (a Account) Record(s message.Slot, t message.Timestamp, result []byte, keep bool) {
	n, offset := a.slot(s)
	b := a.l.memory.Modify(n)[offset : offset+slotSize]
	outcome := message.Executed
	switch {
	case !keep:
		outcome, result = message.NotKept, nil
	case len(result) > KeptReply:
		outcome, result = message.Lost, nil
	}
	old := binary.LittleEndian.Uint32(b[12:])
	binary.LittleEndian.PutUint64(b, uint64(t))
	binary.LittleEndian.PutUint32(b[8:], uint32(outcome))
	binary.LittleEndian.PutUint32(b[12:], uint32(len(result)))
	if n := copy(b[slotHead:], result); n < int(old) {
		clear(b[slotHead+n : slotHead+int(old)]) // bytes behind a result are always zero
	}
}

// Last returns the last execution of a slot, its client revoked or not; not ok if there
// is no such client or slot.
func (l *Ledger) Last(k message.RequestKey) (Last, bool) {
	i, ok := l.index[k.Client]
	if !ok {
		return Last{}, false
	}
	return Account{l, i}.Last(k.Slot)
}

// Record notes an execution by a client that has a record.
func (l *Ledger) Record(k message.RequestKey, t message.Timestamp, result []byte, keep bool) {
	Account{l, l.index[k.Client]}.Record(k.Slot, t, result, keep)
}
