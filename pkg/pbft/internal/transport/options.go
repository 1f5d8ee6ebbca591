// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/tls"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"bfs/pkg/internal/rawio"
)

// MostRead is how many bytes one read brings at most, unless Options.ReadBuffer says otherwise.
const MostRead = 256 << 10

// Options bound what connections may cost. A zero field takes the default named beside it, so the
// zero Options serve.
type Options struct {
	MaxFrame int // longest frame in bytes, both ways: 2 MiB
	Queue    int // bytes queued on one connection to be sent, at least a frame's: 16 MiB

	// QueueAll bounds the bytes queued on all connections accepted by one Listener, beside one
	// frame on each. One connection may have no more of them than are left for the others: no
	// bound but Queue.
	QueueAll int

	// TLS, if not nil, runs the connection inside TLS: as the server of accepted connections, as
	// the client of dialled ones. See HostTLS.
	TLS *tls.Config

	// Answer (for dialled connections) and Admit (for accepted ones) make connections begin with a
	// greeting (see Challenge); nil: there is none. Answer makes the hello that answers a
	// challenge, Admit decides whether the connection goes on.
	Answer   func(*Challenge, *Hello) error
	Admit    func(*Conn, *Challenge, *Hello) bool
	Protocol [4]byte  // begins each challenge: name and version
	Life     [12]byte // follows it: names the life of the accepting process, for which the keys of hellos are made

	// Named are addresses whose connections may come as often as those of any other peer that was
	// welcome. See ArrivalRate.
	Named []netip.Addr

	// Flooded, if not nil, is told of an address from which connections come far too
	// often, so that most are dropped; the zero address stands for all that are not known.
	// It is told of the same one again after ten minutes, and of another after a second.
	Flooded func(from netip.Addr)

	MaxConns        int // connections accepted at one time: 1024; untrusted ones make room, see Conn.Trust
	MaxConnsPerHost int // of these from one IP address, which must not lock out the others: a quarter

	// StrangerFrame, if smaller than MaxFrame, is the longest frame an accepted connection may
	// bring before Conn.Trust is called on it: MaxFrame. It keeps those we do not know yet from
	// making us allocate large frames.
	StrangerFrame int

	FirstFrame   time.Duration // time to a first frame, and with StrangerFrame to trust: 10 s
	PartialFrame time.Duration // a frame that has begun is complete within: 30 s
	Stall        time.Duration // a peer must take some of its queued bytes within this time: 15 s

	DialTimeout time.Duration // for TCP and TLS to come up, on either side: 5 s
	BackoffMin  time.Duration // pause after the first failed dial: 20 ms
	BackoffMax  time.Duration // bound of the pause, which doubles with each failure: 1 s

	ReadBuffer   int // bytes one read may bring: MostRead. A buffer starts small and grows to this
	SocketBuffer int // SO_SNDBUF and SO_RCVBUF: 0 leaves them to the kernel, which tunes them

	// Delay, if not nil, says for how long frames are held back before they leave, in order, as a
	// longer wire would. For benchmarks only.
	Delay func() time.Duration

	calls  *rawio.Calls  // how the socket is read and written; tests choose
	queued *atomic.Int64 // bytes queued on all connections of an endpoint
}

// withDefaults fills in the fields that the caller left zero.
func (o Options) withDefaults() Options {
	setDefault(&o.MaxFrame, 2<<20)
	setDefault(&o.Queue, 16<<20)
	setDefault(&o.QueueAll, math.MaxInt)
	setDefault(&o.MaxConns, 1024)
	setDefault(&o.MaxConnsPerHost, max(1, o.MaxConns/4))
	setDefault(&o.StrangerFrame, o.MaxFrame)
	setDefault(&o.FirstFrame, 10*time.Second)
	setDefault(&o.PartialFrame, 30*time.Second)
	setDefault(&o.Stall, 15*time.Second)
	setDefault(&o.DialTimeout, 5*time.Second)
	setDefault(&o.BackoffMin, 20*time.Millisecond)
	setDefault(&o.BackoffMax, time.Second)
	setDefault(&o.ReadBuffer, MostRead)
	o.ReadBuffer = max(o.ReadBuffer, minReadBuffer)
	if o.calls == nil {
		o.calls = &rawio.Silent
	}
	return o
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}
