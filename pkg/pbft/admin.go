// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"

	"bfs/pkg/pbft/internal/executor"
)

// An Enrolment is one record of the group's client table.
type Enrolment = executor.Enrolment

var errNotAdministrator = errors.New("only the administrator's key may do this")

// administer runs one of the library's own operations and returns its result.
func (c *Client) administer(ctx context.Context, op []byte, readOnly bool) ([]byte, error) {
	if c.wires.id != Administrator {
		return nil, errNotAdministrator
	}
	return wait(ctx, func(done func([]byte, error)) error {
		return c.begin(Call{Body: op, ReadOnly: readOnly, Done: done})
	})
}

// change runs an operation whose reply is empty, or says why it was not done.
func (c *Client) change(ctx context.Context, op []byte) error {
	refusal, err := c.administer(ctx, op, false)
	if err == nil && len(refusal) > 0 {
		err = errors.New(string(refusal))
	}
	return err
}

// Enrol enrols a client's key with rights. Only the administrator's client may.
func (c *Client) Enrol(ctx context.Context, key ed25519.PublicKey, rights []byte) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("key: got %d bytes, want %d", len(key), ed25519.PublicKeySize)
	}
	return c.change(ctx, append(append([]byte{executor.AdminEnrol}, key...), rights...))
}

// Revoke ends a client's rights. Only the administrator's client may.
func (c *Client) Revoke(ctx context.Context, key ed25519.PublicKey) error {
	return c.change(ctx, append([]byte{executor.AdminRevoke}, key...))
}

// Enrolments lists the client table. Only the administrator's client may.
func (c *Client) Enrolments(ctx context.Context) (all []Enrolment, err error) {
	for {
		op := binary.LittleEndian.AppendUint16([]byte{executor.AdminList, 0}, uint16(len(all)))
		b, err := c.administer(ctx, op, true)
		if err != nil {
			return nil, err
		}
		page, ok := executor.ParseList(b)
		if !ok {
			return nil, errors.New("the group's list of clients is malformed")
		}
		if len(page) == 0 {
			return all, nil
		}
		all = append(all, page...)
	}
}
