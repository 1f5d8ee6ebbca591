// SPDX-License-Identifier: Apache-2.0

package transport

// A HandshakeHandler is a Handler that is also told of connections whose TLS handshake
// failed, for which Opened was not called.
type HandshakeHandler interface {
	Handler
	HandshakeFailed(c *Conn, err error)
}
