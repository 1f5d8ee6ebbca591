// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"bfs/pkg/pbft/internal/executor"
)

// An Admitter is a Service whose administrator's operations can enrol a client: see Client.Admit.
type Admitter = executor.Admitter

// Admit enrols a client's key with the rights that the service answers op with, and
// returns the service's reply, which says whether it did. An error says that the library
// refused, and then the service was not asked. Only the administrator's client may.
func (c *Client) Admit(ctx context.Context, key ed25519.PublicKey, op []byte) (reply []byte, err error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("key: got %d bytes, want %d", len(key), ed25519.PublicKeySize)
	}
	result, err := c.administer(ctx, append(append([]byte{executor.AdminAdmit}, key...), op...), false)
	switch {
	case err != nil:
		return nil, err
	case len(result) > 0 && result[0] == executor.AdmitAnswered:
		return result[1:], nil
	case len(result) > 0 && result[0] == executor.AdmitRefused:
		return nil, errors.New(string(result[1:]))
	}
	return nil, errors.New("the replicas do not know this operation: they run an older bfsd")
}
