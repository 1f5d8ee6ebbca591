// SPDX-License-Identifier: Apache-2.0

// Package transport moves frames, which are opaque bytes, between principals over TCP. It knows no
// message and no member: its caller judges who a peer is, what it may say and whether to believe
// it, and attaches what it learns to the Conn with SetUser.
//
// # The wire
//
//	+----------------+---------------------+----------------+---
//	| length, u32 LE | that many bytes     | length, u32 LE | ...
//	+----------------+---------------------+----------------+---
//
// A length above Options.MaxFrame ends the connection before anything is allocated for it. With
// Options.TLS the same stream runs inside TLS 1.3 [RFC8446].
//
// # Run to completion
//
// One goroutine reads a connection. It takes what the kernel has in one system call and hands the
// complete frames to Handler.Frames, on its own stack; what the handler does there (open, step,
// seal, Send, Flush) costs no hop to another goroutine. Send copies a frame into the queue of a
// connection and makes no system call; Flush writes everything queued in one. So the loop of a
// caller is
//
//	func (r *replica) Frames(c *transport.Conn, frames [][]byte) {
//		r.mu.Lock()
//		for _, f := range frames {
//			r.step(c, f) // calls Send on many connections
//		}
//		r.flushAll() // one write for each connection that has something to say
//		r.mu.Unlock()
//	}
//
// Flush never blocks. What a full socket does not take is written by a goroutine that lives until
// the queue is empty; what a full queue does not take is dropped and counted. Nothing here
// retransmits: the protocol does, by STATUS [TOCS §4.6].
//
// # Goroutines
//
//	Listener   one accepts; one for each connection accepted, which shakes hands and reads
//	Link       one dials, shakes hands and reads, for ever
//	Conn       at most one that drains the queue, while the socket is full
//
// Listener.Close and Link.Close return when all of theirs have ended.
//
// # What a stranger can take
//
// At most Options.MaxConns connections and MaxConnsPerHost from one address; on each of them one
// read buffer, one frame under construction and one queue of Options.Queue bytes, for as long as
// it keeps completing its frames in time.
package transport
