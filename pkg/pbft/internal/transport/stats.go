// SPDX-License-Identifier: Apache-2.0

package transport

// Stats count what happened on a Conn, or on all connections that a Listener or a Link has had.
type Stats struct {
	FramesIn, BytesIn   uint64 // bytes with their headers, without TLS's
	FramesOut, BytesOut uint64 // accepted by Send
	Reads               uint64 // that returned bytes: many frames may share one
	Writes              uint64 // system calls
	Flushes             uint64 // calls of Flush that found bytes to write
	Dropped             uint64 // frames Send refused: queue full, connection down
	Oversized           uint64 // frames longer than MaxFrame, either way
	Opened, Closed      uint64 // connections
	Refused             uint64 // connections too many: not accepted, or another one closed for it
	Unwelcome           uint64 // connections whose hello was refused
	Failed              uint64 // dials and handshakes that came to nothing
}

// Add adds o's counts.
func (s *Stats) Add(o Stats) {
	s.FramesIn += o.FramesIn
	s.BytesIn += o.BytesIn
	s.FramesOut += o.FramesOut
	s.BytesOut += o.BytesOut
	s.Reads += o.Reads
	s.Writes += o.Writes
	s.Flushes += o.Flushes
	s.Dropped += o.Dropped
	s.Oversized += o.Oversized
	s.Opened += o.Opened
	s.Closed += o.Closed
	s.Refused += o.Refused
	s.Unwelcome += o.Unwelcome
	s.Failed += o.Failed
}
