package pbft

import (
	"context"
	"crypto/ed25519"
	"errors"
)

// Errors of a Client that callers branch on.
var (
	// ErrBusy: all slots are taken and the queue behind them is full.
	ErrBusy = errors.New("too many calls outstanding")
	// ErrClosed: the client was closed before the group answered.
	ErrClosed = errors.New("client closed")
	// ErrNotEnrolled: f+1 replicas say that this client's key is not enrolled, or was revoked.
	ErrNotEnrolled = errors.New("client is not enrolled in the group")
	// ErrResultLost: the operation was executed, but its result is no longer kept.
	ErrResultLost = errors.New("operation was executed, its result is no longer available")
)

// A Call is one operation for Client.Start.
type Call struct {
	Body     []byte // the operation; the client keeps it until Done, the caller must not change it
	ReadOnly bool   // a hint: try the one-round-trip path first [TOCS §6.1]

	// Sending, if not nil, is told the slot and the timestamp before the operation first leaves, for callers
	// who must be able to send the very same request after a restart (see Resume). Its error fails
	// the call. It is not called for the read-only path.
	Sending func(slot Slot, t Timestamp) error

	// Done is called exactly once, on a goroutine of the client's: it must not block. It owns reply.
	Done func(reply []byte, err error)
}

// Invoke runs one operation and waits for the reply that enough replicas agree on.
func (c *Client) Invoke(ctx context.Context, body []byte, readOnly bool) ([]byte, error) {
	type result struct {
		reply []byte
		err   error
	}
	done := make(chan result, 1)
	err := c.Start(Call{Body: body, ReadOnly: readOnly, Done: func(reply []byte, err error) { done <- result{reply, err} }})
	if err != nil {
		return nil, err
	}
	select {
	case r := <-done:
		return r.reply, r.err
	case <-ctx.Done():
		return nil, ctx.Err() // the operation itself goes on: it may still be executed
	}
}

// A Client speaks to a group for one key pair. Its slots let many operations be outstanding at once;
// further ones wait in a bounded queue, first come first served. All methods may be called from any
// goroutine.
type Client struct{}

// Start begins one operation and returns without waiting. ErrBusy if no more can be taken.
func (c *Client) Start(call Call) error { return ErrClosed }

// Resume sends again, unchanged, what an earlier life of this client sent as (slot, t). It must be
// called before any Start.
func (c *Client) Resume(slot Slot, t Timestamp, call Call) error { return ErrClosed }

// Close stops the client. Calls under way end with ErrClosed.
func (c *Client) Close() error { return nil }

// NewClient connects to a group. It does not wait for the connections: see Ready.
func NewClient(cfg ClientConfig) (*Client, error) { return nil, nil }

// Ready waits until 2f+1 replicas have exchanged keys with this client. ErrNotEnrolled if f+1 refuse it.
func (c *Client) Ready(ctx context.Context) error { return nil }

// Status of the client's connections, for people.
func (c *Client) Status() ClientStatus { return ClientStatus{} }

// ClientStatus is a client's account of itself.
type ClientStatus struct {
	ID          ClientID `json:"client"`
	View        View     `json:"view"`
	Connected   []bool   `json:"connected"` // by replica
	Outstanding int      `json:"outstanding"`
	Queued      int      `json:"queued"`
	Retries     uint64   `json:"retries"`
	Fallbacks   uint64   `json:"fallbacks"` // read-only tries that had to be ordered
}

// An Enrolment is one record of the group's client table.
type Enrolment struct {
	ID      ClientID
	Key     ed25519.PublicKey
	Rights  []byte
	Revoked bool
}

// Enrol enrols a client's key with rights. Only the administrator's client may.
func (c *Client) Enrol(ctx context.Context, key ed25519.PublicKey, rights []byte) error { return nil }

// Revoke ends a client's rights. Only the administrator's client may.
func (c *Client) Revoke(ctx context.Context, key ed25519.PublicKey) error { return nil }

// Enrolments lists the client table. Only the administrator's client may.
func (c *Client) Enrolments(ctx context.Context) ([]Enrolment, error) { return nil, nil }
