// SPDX-License-Identifier: Apache-2.0

package transport

// A HandshakeHandler is a Handler that is told of connections on which TLS did not come
// up, and which it has therefore never heard of.
type HandshakeHandler interface {
	Handler
	HandshakeFailed(c *Conn, err error)
}
