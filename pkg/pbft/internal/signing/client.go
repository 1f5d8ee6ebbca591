// SPDX-License-Identifier: Apache-2.0

package signing

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
)

// callWithin bounds one call of a Client, its connection included. A keeper answers in tens of
// microseconds, and in a disk's time once in counterBlock counts.
const callWithin = 5 * time.Second

// ErrRefused is a keeper's refusal.
var ErrRefused = errors.New("the keeper refuses")

// errPeer is the refusal to ask about bytes that are no public key.
var errPeer = fmt.Errorf("want a public key of %d bytes", keySize)

// A Client is an auth.Signer whose key is at a Server. It connects at its first call, and
// again when its connection has ended. It is safe for use by many goroutines; one call is
// under way at a time. A keeper that hangs holds each of them for callWithin, so none of
// them may hold a lock that others need to go on.
type Client struct {
	path   string
	public ed25519.PublicKey
	group  message.Digest

	asking sync.Mutex // held during a call

	mu     sync.Mutex
	conn   net.Conn // nil: none
	closed bool
}

// ErrClosed is the end of a call of a Client that was closed, perhaps meanwhile.
var ErrClosed = errors.New("the connection to the keeper was closed by this process")

// Dial returns a client of the keeper at path, which must have the key with this public
// half and be of this group.
func Dial(path string, public ed25519.PublicKey, group message.Digest) (*Client, error) {
	c := &Client{path: path, public: public, group: group}
	c.asking.Lock()
	defer c.asking.Unlock()
	_, err := c.connect()
	return c, err
}

// connect connects, and asks which replica the keeper is for. The caller holds asking.
func (c *Client) connect() (net.Conn, error) {
	conn, err := dial(c.path)
	if err == nil {
		err = c.use(conn)
	}
	if err != nil {
		return nil, err
	}
	b, err := exchange(conn, &request{op: opIdentify}, callWithin)
	if err == nil {
		err = c.recognise(b)
	}
	if err != nil {
		c.drop()
		return nil, fmt.Errorf("keeper at %s: %w", c.path, c.orClosed(err))
	}
	return conn, nil
}

// use makes a connection the one that there is, unless the client is closed.
func (c *Client) use(conn net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close()
		return ErrClosed
	}
	c.conn = conn
	return nil
}

// drop ends the connection that there is.
func (c *Client) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn = nil
}

// orClosed returns the cause of a call's end: Close, or else err.
func (c *Client) orClosed(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	return err
}

func (c *Client) connection() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

func dial(path string) (net.Conn, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, fmt.Errorf("keeper at %s: %w", path, err)
	}
	defer done()
	conn, err := net.DialTimeout("unix", short, callWithin)
	if err != nil {
		return nil, fmt.Errorf("keeper at %s: %w: is bfsd keeper running?", path, err)
	}
	return conn, nil
}

// recognise judges a keeper's account of itself.
func (c *Client) recognise(b []byte) error {
	switch {
	case len(b) != identitySize || b[0] != version:
		return fmt.Errorf("%w of this version: run bfsd keeper and bfsd run of one build", errFrame)
	case !bytes.Equal(b[1:1+keySize], c.public):
		return errors.New("it has another key than the group file names for this replica")
	case !bytes.Equal(b[1+keySize:], c.group[:]):
		return errors.New("it has another group file: start it again after the file has changed")
	}
	return nil
}

// call sends a request whose answer has want bytes. A connection that has ended is replaced once.
func (c *Client) call(r *request, want int) ([]byte, error) {
	c.asking.Lock()
	defer c.asking.Unlock()
	conn := c.connection()
	for again := conn != nil; ; again = false {
		if conn == nil {
			var err error
			if conn, err = c.connect(); err != nil {
				return nil, err
			}
		}
		b, err := exchange(conn, r, callWithin)
		if err == nil && len(b) != want {
			err = errFrame
		}
		if err == nil || errors.Is(err, ErrRefused) {
			return b, err
		}
		c.drop()
		conn = nil
		if err = c.orClosed(err); !again || errors.Is(err, ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, fmt.Errorf("keeper at %s: %w", c.path, err)
		}
	}
}

// exchange sends a request and waits for the answer.
func exchange(conn net.Conn, r *request, within time.Duration) ([]byte, error) {
	if err := writeFrame(conn, r.encode()); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	b, err := readFrame(conn, maxAnswer)
	switch {
	case err != nil:
		return nil, err
	case b[0] == statusRefused:
		return nil, fmt.Errorf("%w: %s", ErrRefused, b[1:])
	case b[0] == statusFull:
		return nil, fmt.Errorf("%w: on its disk there is %w: %s", ErrRefused, syscall.ENOSPC, b[1:])
	case b[0] != statusDone:
		return nil, errFrame
	}
	return b[1:], nil
}

// PublicKey implements auth.Signer.
func (c *Client) PublicKey() ed25519.PublicKey { return c.public }

// Count implements auth.Signer.
func (c *Client) Count() (uint64, error) {
	b, err := c.call(&request{op: opCount}, 8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// Sign implements auth.Signer.
func (c *Client) Sign(covered []byte) ([]byte, error) {
	return c.call(&request{op: opSign, covered: covered}, ed25519.SignatureSize)
}

// HelloKey implements auth.Signer.
func (c *Client) HelloKey(peer ed25519.PublicKey, life auth.Life) (k auth.HelloKey, err error) {
	if len(peer) != keySize {
		return k, errPeer
	}
	b, err := c.call(&request{op: opHelloKey, peer: peer, life: life}, len(k))
	copy(k[:], b)
	return k, err
}

// HelloTag implements auth.Signer.
func (c *Client) HelloTag(
	peer ed25519.PublicKey, challenge *[auth.ChallengeSize]byte, head *auth.HelloHead,
) (t auth.HelloTag, err error) {
	if len(peer) != keySize {
		return t, errPeer
	}
	b, err := c.call(&request{op: opHelloTag, peer: peer, challenge: *challenge, head: *head}, len(t))
	copy(t[:], b)
	return t, err
}

// Close ends the connection, and with it a call that is under way.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}

// AskRecovery asks the keeper at path to recover its replica, and waits for as long as ctx says. It
// returns what the keeper did.
func AskRecovery(ctx context.Context, path string, force bool) (string, error) {
	b, err := ask(ctx, path, &request{op: opRecover, force: force}, recoverWithin)
	return string(b), err
}

// AskStatus asks the keeper at path what it tells of itself, on a connection of its own:
// nothing else waits for the answer.
func AskStatus(ctx context.Context, path string) ([]byte, error) {
	return ask(ctx, path, &request{op: opStatus}, callWithin)
}

// ask asks for one thing on a connection of its own.
func ask(ctx context.Context, path string, r *request, within time.Duration) ([]byte, error) {
	conn, err := dial(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	b, err := exchange(conn, r, within)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return b, err
}

// recoverWithin bounds how long a keeper may take to recover its replica, in AskRecovery.
const recoverWithin = time.Hour
