// SPDX-License-Identifier: Apache-2.0

// Package executor runs ordered and read-only requests on a service: the filter by timestamp, the
// reply cache in the ledger, the administrator's operations, and the version of each read. It is
// arithmetic over the state's pages; replicas and the simulator run the same code.
package executor

import (
	"crypto/ed25519"
	"encoding/binary"

	"bfs/pkg/pbft/internal/ledger"
	"bfs/pkg/pbft/internal/message"
)

// An Operation is one call of a client, as the service sees it.
type Operation struct {
	Client message.ClientID // the authenticated client; Administrator for a signed administrative call
	Rights []byte           // the rights recorded when the client was enrolled; the library does not read them
	Choice []byte           // what the primary chose and the backups accepted for this batch; empty in Query
	Body   []byte           // the application's bytes; valid during the call only
	// Blocks are the digests of the last len(Blocks)*PageSize bytes of Body, page by page and in
	// order, as fsmerkle digests the contents of a page: the library had to hash them anyway. There
	// may be fewer than Body has room for, and in Query there are none. Replicas may be given
	// different numbers of them, so no result may depend on them. Valid during the call only.
	Blocks []message.Digest
}

// A Service is the part of pbft.Service that runs operations.
type Service interface {
	Execute(op Operation) (reply []byte, wrote bool)
	Query(op Operation) (reply []byte, ok bool)
	Cost(body []byte) int
}

// A Versioned memory knows, for each page, the last batch since the latest checkpoint that changed
// it. Rolling back to a checkpoint or installing one forgets these batches with their changes.
type Versioned interface {
	// Begin says that the pages modified from now on are changed by batch n.
	Begin(n message.SeqNum)
	// Observe begins to watch which pages are read. Observed ends that, and returns the last batch
	// since the latest checkpoint that changed one of them, 0 if none did.
	Observe()
	Observed() message.SeqNum
}

// Limits bound what an operation may return and what the administrator may record, in bytes.
type Limits struct{ Reply, Rights int }

// An Executor runs operations on the service and keeps the ledger: it is the paper's
// execution of a request, with the filter by timestamp and the reply cache [TOCS §4.3].
// From equal states, equal batches leave equal states.
type Executor struct {
	service  Service
	versions Versioned // nil: the version of a read is the last batch
	ledger   *ledger.Ledger
	limits   Limits

	// The version of a read is the highest of these that matters to it (R-OUR-22).
	last       message.SeqNum // batch in the state
	checkpoint message.SeqNum // the latest
	// administered is the last batch since then with an operation of the administrator:
	// rights may have changed.
	administered message.SeqNum

	// recoveries has the last recovery request of each replica that News has told of.
	recoveries [message.MaxReplicas]message.Timestamp
}

// New returns the executor of a service whose state lies in memory, the ledger on its first pages.
func New(s Service, memory ledger.Memory, clients, slots int, limits Limits) (*Executor, error) {
	l, err := ledger.Open(memory, clients, slots)
	if err != nil {
		return nil, err
	}
	x := &Executor{service: s, ledger: l, limits: limits}
	x.versions, _ = memory.(Versioned)
	x.News()
	return x, nil
}

// Ledger returns the enrolled clients, and what each slot executed last.
func (x *Executor) Ledger() *ledger.Ledger { return x.ledger }

// Begin says that the requests executed from now on are those of batch n.
func (x *Executor) Begin(n message.SeqNum) {
	x.last = n
	if x.versions != nil {
		x.versions.Begin(n)
	}
}

// Frozen says that checkpoint n was taken of the present state.
func (x *Executor) Frozen(n message.SeqNum) { x.checkpoint = n }

// Replaced says that the state is that of checkpoint n now: it was rolled back to, or fetched.
func (x *Executor) Replaced(n message.SeqNum) {
	x.ledger.Reload()
	x.last, x.checkpoint, x.administered = n, n, 0
	x.forgetNews()
}

// An Answer is the outcome of a request, before it is put into a REPLY. Its result is good until
// the next operation is executed.
type Answer struct {
	Outcome message.Outcome
	Result  []byte
	Version message.SeqNum // of a read: see message.Answer
}

// Cost returns the cost of running a request (core.Config.Cost): its length, plus the
// cost that the service names. An administrator's request to the library costs at most a
// look at all records.
func (x *Executor) Cost(r *message.Request) int {
	body := r.Op
	if r.Client == message.Administrator {
		if len(body) == 0 || body[0] != AdminService {
			return r.Length()
		}
		body = body[1:]
	}
	return r.Length() + min(max(x.service.Cost(body), 0), maxCost)
}

// maxCost bounds the cost that a service may name, so that no sum of costs wraps.
const maxCost = 1 << 30

// Seen answers a request that the slot's last execution has overtaken: again if it is the same one
// [TOCS §4.3, R-REQ-1]. The result may alias a page.
func (x *Executor) Seen(r *message.Request) (Answer, bool) {
	if i, recovers := r.Client.Recoverer(); recovers {
		return x.recovered(i, r)
	}
	account, ok := x.ledger.Account(r.Client)
	if !ok {
		return Answer{Outcome: message.NotEnrolled}, true
	}
	return overtaken(account, r)
}

func overtaken(account ledger.Account, r *message.Request) (Answer, bool) {
	last, ok := account.Last(r.Slot)
	switch {
	case !ok:
		return Answer{Outcome: message.NotEnrolled}, true
	case r.Timestamp == last.Timestamp && last.Outcome != message.Superseded:
		return Answer{Outcome: last.Outcome, Result: last.Result}, true
	case r.Timestamp <= last.Timestamp:
		return Answer{Outcome: message.Superseded,
			Result: binary.LittleEndian.AppendUint64(nil, uint64(last.Timestamp))}, true
	}
	return Answer{}, false
}

// Executed reports whether the state knows that this request, or a later one of its slot,
// was executed.
func (x *Executor) Executed(r *message.Request) bool {
	if i, recovers := r.Client.Recoverer(); recovers {
		return r.Timestamp <= x.ledger.Recovery(i).Timestamp
	}
	last, ok := x.ledger.Last(r.Key())
	return ok && r.Timestamp <= last.Timestamp
}

// Execute runs one request of a committed batch. A request that the slot has executed already does
// not run again; one of a client that is not enrolled has no effect at all (R-NRM-7). Ran reports
// whether it did. The answer is good until the next call.
func (x *Executor) Execute(r *message.Request, choice []byte) (a Answer, ran bool) {
	if i, recovers := r.Client.Recoverer(); recovers {
		return x.recover(i, r)
	}
	account, ok := x.ledger.Account(r.Client)
	if !ok {
		return Answer{Outcome: message.NotEnrolled}, false
	}
	if a, seen := overtaken(account, r); seen {
		return a, false
	}
	var result []byte
	var wrote bool
	if r.Client == message.Administrator {
		x.administered = x.last
		result, wrote = x.administer(r, choice)
	} else {
		result, wrote = x.service.Execute(Operation{Client: r.Client, Rights: account.Rights(), Choice: choice,
			Body: r.Op, Blocks: r.Blocks()})
	}
	if len(result) > x.limits.Reply {
		// This is a mistake of the service, the same at every replica: no client would accept such
		// a reply.
		account.Record(r.Slot, r.Timestamp, result, true)
		return Answer{Outcome: message.Lost}, true
	}
	account.Record(r.Slot, r.Timestamp, result, wrote || r.Keep)
	return Answer{Outcome: message.Executed, Result: result}, true
}

// Query answers a read-only request from the present state (R-OPT-RO-3). A result names its
// version: the last batch that changed anything it depends on, as far as that is known, and no
// earlier than the latest checkpoint, from which on all replicas know it alike (R-OUR-22).
func (x *Executor) Query(r *message.Request) Answer {
	account, ok := x.ledger.Account(r.Client)
	if !ok {
		return Answer{Outcome: message.NotEnrolled}
	}
	op := Operation{Client: r.Client, Rights: account.Rights(), Body: r.Op}
	if r.Client == message.Administrator {
		switch {
		case len(r.Op) > 0 && r.Op[0] == AdminService:
			op.Body = r.Op[1:]
		case len(r.Op) == 4 && r.Op[0] == AdminList:
			return Answer{message.Executed, x.list(int(binary.LittleEndian.Uint16(r.Op[2:]))), x.version(0)}
		default:
			return Answer{Outcome: message.NotReadOnly}
		}
	}
	if x.versions != nil {
		x.versions.Observe()
	}
	result, ok := x.service.Query(op)
	changed := x.last
	if x.versions != nil {
		changed = x.versions.Observed()
	}
	if !ok || len(result) > x.limits.Reply {
		return Answer{Outcome: message.NotReadOnly}
	}
	return Answer{message.Executed, result, x.version(changed)}
}

// version returns the version of an answer whose pages the given batch changed last.
func (x *Executor) version(changed message.SeqNum) message.SeqNum {
	return max(changed, x.administered, x.checkpoint)
}

// The first byte of an administrator's operation.
const (
	AdminService = iota // the rest is for the service
	AdminEnrol          // key, rights
	AdminRevoke         // key
	AdminList           // a zero byte, index of the first record as u16
	AdminAdmit          // key, the rest is for the service: see Admitter
)

// administer runs an administrative operation. The reply of the library's own is empty if
// it was done, else the reason why not.
func (x *Executor) administer(r *message.Request, choice []byte) (result []byte, wrote bool) {
	op := r.Op
	if len(op) == 0 {
		return []byte("empty operation"), false
	}
	kind, body := op[0], op[1:]
	var err error
	switch {
	case kind == AdminService:
		return x.service.Execute(Operation{Client: message.Administrator, Choice: choice, Body: body})
	case kind == AdminEnrol && len(body) > ed25519.PublicKeySize+x.limits.Rights:
		err = ledger.ErrRights
	case kind == AdminEnrol && len(body) >= ed25519.PublicKeySize:
		err = x.ledger.Enrol(body[:ed25519.PublicKeySize], body[ed25519.PublicKeySize:], r.Timestamp)
	case kind == AdminAdmit && len(body) >= ed25519.PublicKeySize:
		return x.admit(r, choice, body)
	case kind == AdminRevoke && len(body) == ed25519.PublicKeySize:
		err = x.ledger.Revoke(body)
	case kind == AdminList && len(body) == 3:
		return x.list(int(binary.LittleEndian.Uint16(body[1:]))), false
	default:
		return []byte("unknown administrative operation"), false
	}
	if err != nil {
		return []byte(err.Error()), false
	}
	return nil, true
}

const (
	listPage = 32 // enrolments that one reply lists at most
	// ListHead is the length in bytes of one of these besides the rights.
	ListHead = 1 + ed25519.PublicKeySize + 2
)

// list encodes up to listPage enrolments from index first, as many as a reply holds: for
// each a flag, the key, the length of the rights as u16 and the rights.
func (x *Executor) list(first int) (b []byte) {
	i, full := 0, false
	x.ledger.All(func(c ledger.Client) {
		full = full || i >= first && len(b)+ListHead+len(c.Rights) > x.limits.Reply
		if i >= first && i < first+listPage && !full {
			flag := byte(0)
			if c.Revoked {
				flag = 1
			}
			b = append(b, flag)
			b = append(b, c.Key...)
			b = binary.LittleEndian.AppendUint16(b, uint16(len(c.Rights)))
			b = append(b, c.Rights...)
		}
		i++
	})
	return b
}

// An Enrolment is one record of the group's client table.
type Enrolment struct {
	ID      message.ClientID
	Key     ed25519.PublicKey
	Rights  []byte
	Revoked bool
}

// ParseList decodes the reply to AdminList.
func ParseList(b []byte) (all []Enrolment, ok bool) {
	for len(b) > 0 {
		if len(b) < ListHead {
			return nil, false
		}
		n := int(binary.LittleEndian.Uint16(b[ListHead-2:]))
		if len(b) < ListHead+n {
			return nil, false
		}
		key := append(ed25519.PublicKey(nil), b[1:ListHead-2]...)
		rights := append([]byte(nil), b[ListHead:ListHead+n]...)
		all = append(all, Enrolment{ID: message.ClientOf(key), Key: key, Rights: rights, Revoked: b[0] != 0})
		b = b[ListHead+n:]
	}
	return all, true
}
