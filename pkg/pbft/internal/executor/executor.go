package pbft

import (
	"crypto/ed25519"
	"encoding/binary"

	"bfs/pkg/pbft/internal/ledger"
	"bfs/pkg/pbft/internal/message"
)

// An executor runs operations on the service and keeps the ledger: it is the paper's execution of a request,
// with the filter by timestamp and the reply cache [TOCS §4.3]. From equal states, equal batches
// leave equal states.
type executor struct {
	service Service
	ledger  *ledger.Ledger
	limits  Limits
}

func newExecutor(g *Group, s Service) (*executor, error) {
	l, err := ledger.Open(s.State(), g.Limits.Clients, g.Limits.Slots)
	if err != nil {
		return nil, err
	}
	return &executor{service: s, ledger: l, limits: g.Limits}, nil
}

// An answer is what a request came to, before it is in a REPLY. Its result is good until the next operation is executed.
type answer struct {
	outcome message.Outcome
	result  []byte
}

// seen answers a request that the slot's last execution has overtaken: again if it is the same one
// [TOCS §4.3, R-REQ-1]. The result may alias a page.
func (x *executor) seen(r *message.Request) (answer, bool) {
	account, ok := x.ledger.Account(r.Client)
	if !ok {
		return answer{outcome: message.NotEnrolled}, true
	}
	return overtaken(account, r)
}

func overtaken(account ledger.Account, r *message.Request) (answer, bool) {
	last, ok := account.Last(r.Slot)
	switch {
	case !ok:
		return answer{outcome: message.NotEnrolled}, true
	case r.Timestamp == last.Timestamp && last.Outcome != message.Superseded:
		return answer{last.Outcome, last.Result}, true
	case r.Timestamp <= last.Timestamp:
		return answer{message.Superseded, binary.LittleEndian.AppendUint64(nil, uint64(last.Timestamp))}, true
	}
	return answer{}, false
}

// executed reports whether the state knows that this request, or a later one of its slot, was executed.
func (x *executor) executed(r *message.Request) bool {
	last, ok := x.ledger.Last(r.Key())
	return ok && r.Timestamp <= last.Timestamp
}

// execute runs one request of a committed batch. A request that the slot has executed already does not run
// again; one of a client that is not enrolled has no effect at all (R-NRM-7). Ran reports whether it did. The answer is good
// until the next call.
func (x *executor) execute(r *message.Request, choice []byte) (a answer, ran bool) {
	account, ok := x.ledger.Account(r.Client)
	if !ok {
		return answer{outcome: message.NotEnrolled}, false
	}
	if a, seen := overtaken(account, r); seen {
		return a, false
	}
	var result []byte
	var wrote bool
	if r.Client == Administrator {
		result, wrote = x.administer(r, choice)
	} else {
		result, wrote = x.service.Execute(Operation{Client: r.Client, Rights: account.Rights(), Choice: choice, Body: r.Op, Blocks: r.Blocks()})
	}
	if len(result) > x.limits.Reply {
		// The service's mistake, and the same at every replica: no client takes such a reply.
		account.Record(r.Slot, r.Timestamp, result, true)
		return answer{outcome: message.Lost}, true
	}
	account.Record(r.Slot, r.Timestamp, result, wrote || r.Keep)
	return answer{message.Executed, result}, true
}

// query answers a read-only request from the present state (R-OPT-RO-3).
func (x *executor) query(r *message.Request) answer {
	account, ok := x.ledger.Account(r.Client)
	if !ok {
		return answer{outcome: message.NotEnrolled}
	}
	op := Operation{Client: r.Client, Rights: account.Rights(), Body: r.Op}
	if r.Client == Administrator {
		switch {
		case len(r.Op) > 0 && r.Op[0] == adminService:
			op.Body = r.Op[1:]
		case len(r.Op) == 4 && r.Op[0] == adminList:
			return answer{message.Executed, x.list(int(binary.LittleEndian.Uint16(r.Op[2:])))}
		default:
			return answer{outcome: message.NotReadOnly}
		}
	}
	result, ok := x.service.Query(op)
	if !ok || len(result) > x.limits.Reply {
		return answer{outcome: message.NotReadOnly}
	}
	return answer{message.Executed, result}
}

// What the administrator's operations begin with.
const (
	adminService = iota // the rest is for the service
	adminEnrol          // key, rights
	adminRevoke         // key
	adminList           // a zero byte, index of the first record as u16
)

// administer runs an administrative operation. The reply of the library's own is empty if it was done, else the
// reason why not.
func (x *executor) administer(r *message.Request, choice []byte) (result []byte, wrote bool) {
	op := r.Op
	if len(op) == 0 {
		return []byte("empty operation"), false
	}
	kind, body := op[0], op[1:]
	var err error
	switch {
	case kind == adminService:
		return x.service.Execute(Operation{Client: Administrator, Choice: choice, Body: body})
	case kind == adminEnrol && len(body) > ed25519.PublicKeySize+x.limits.Rights:
		err = ledger.ErrRights
	case kind == adminEnrol && len(body) >= ed25519.PublicKeySize:
		err = x.ledger.Enrol(body[:ed25519.PublicKeySize], body[ed25519.PublicKeySize:], r.Timestamp)
	case kind == adminRevoke && len(body) == ed25519.PublicKeySize:
		err = x.ledger.Revoke(body)
	case kind == adminList && len(body) == 3:
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
	listPage = 32                            // enrolments that one reply lists at most
	listHead = 1 + ed25519.PublicKeySize + 2 // bytes of one besides the rights
)

// list encodes up to listPage enrolments from index first, as many as a reply holds: for each a flag, the key, the
// length of the rights as u16 and the rights.
func (x *executor) list(first int) (b []byte) {
	i, full := 0, false
	x.ledger.All(func(c ledger.Client) {
		full = full || i >= first && len(b)+listHead+len(c.Rights) > x.limits.Reply
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

// parseList is the reverse of list.
func parseList(b []byte) (all []Enrolment, ok bool) {
	for len(b) > 0 {
		if len(b) < listHead {
			return nil, false
		}
		n := int(binary.LittleEndian.Uint16(b[listHead-2:]))
		if len(b) < listHead+n {
			return nil, false
		}
		key := append(ed25519.PublicKey(nil), b[1:listHead-2]...)
		rights := append([]byte(nil), b[listHead:listHead+n]...)
		all = append(all, Enrolment{ID: ClientOf(key), Key: key, Rights: rights, Revoked: b[0] != 0})
		b = b[listHead+n:]
	}
	return all, true
}

// ClientOf derives a client's number from its public key.
func ClientOf(key ed25519.PublicKey) ClientID { return message.ClientOf(key) }
