// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bfs/pkg/internal/rawio"
)

// Why a connection ended, besides what the network said.
var (
	ErrOversized = errors.New("transport: oversized frame")
	ErrLate      = errors.New("transport: frame not complete in time")
	ErrStalled   = errors.New("transport: peer takes nothing")
	ErrDisplaced = errors.New("transport: another connection needs the place")
)

// A Handler is told what happens on connections. For one Conn its methods are called by one
// goroutine, in the order Opened, Frames any number of times, Closed; for different ones at once.
// A handler that does not return stops the reading of its own connection, and so its peer.
type Handler interface {
	// Opened says that the connection is up, on either side, TLS and all. Frames sent here leave
	// before all others of this connection.
	Opened(c *Conn)

	// Frames hands over, in order, complete frames, up to a thousand. The slice itself and every
	// frame of at most Keep bytes are valid until Frames returns; a frame longer than Keep belongs
	// to the handler.
	Frames(c *Conn, frames [][]byte)

	// Closed says that no frame will come any more; err is nil if this side closed. It comes
	// exactly once for each Opened.
	Closed(c *Conn, err error)
}

// A Conn is one TCP connection, accepted or dialled. All methods may be called by any goroutine
// at any time.
type Conn struct {
	o    *Options
	h    Handler
	link *Link // nil if accepted
	tcp  *net.TCPConn
	raw  syscall.RawConn
	in   *rawio.Reader // of tcp
	user atomic.Value  // of userBox

	tls       *tls.Conn // nil if plain, and during the handshake; set before Opened
	records   *recordConn
	peer      [32]byte // fingerprint of the peer's TLS key
	peerKnown bool

	host    string   // the peer's
	born    uint64   // its number among the endpoint's
	place   int      // among its host's in pending
	binding [32]byte // set by the greeting, before Opened

	trusted atomic.Bool  // see Trust
	kept    atomic.Bool  // see Trust and Release
	hush    atomic.Int64 // pause before the next read, time.Duration

	framesIn, bytesIn, reads, oversizedIn atomic.Uint64

	mu       sync.Mutex
	out      queue         // frames, as Send appended them
	wire     queue         // TLS records made of out; unused if plain
	weighed  int           // of the bytes in both, counted in o.queued
	released uint64        // position in out up to which Flush asked to write
	late     delayLine     // unused without Options.Delay
	stats    Stats         // of the way out
	writing  bool          // a goroutine may write: it alone seals, writes and consumes
	closed   bool          // after this nothing starts
	why      error         // nil if this side closed
	done     chan struct{} // closed with closed
	helpers  sync.WaitGroup

	pen pen // used only by the goroutine that may write
}

type userBox struct{ v any }

func newConn(tcp *net.TCPConn, o *Options, h Handler, link *Link) (*Conn, error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	c := &Conn{o: o, h: h, link: link, tcp: tcp, raw: raw, done: make(chan struct{})}
	c.in = rawio.NewReader(raw, o.calls)
	c.trusted.Store(link != nil || o.StrangerFrame >= o.MaxFrame)
	c.kept.Store(c.trusted.Load())
	c.pen.init(c)
	return c, nil
}

// RemoteAddr returns the address of the peer.
func (c *Conn) RemoteAddr() net.Addr { return c.tcp.RemoteAddr() }

// Link returns the link that dialled the connection, nil if it was accepted.
func (c *Conn) Link() *Link { return c.link }

// SetUser attaches a value of its owner's to the connection.
func (c *Conn) SetUser(v any) { c.user.Store(userBox{v}) }

// User returns the value that SetUser attached last, nil if there is none.
func (c *Conn) User() any {
	b, _ := c.user.Load().(userBox)
	return b.v
}

// PeerFingerprint returns the fingerprint of the key with which the peer made this TLS connection
// (see NewHostTLS), and whether there is one. Transport accepts any key: compare it with what the
// peer's NEW-KEY vouches for.
func (c *Conn) PeerFingerprint() ([32]byte, bool) { return c.peer, c.peerKnown }

// Trust says that the peer of an accepted connection is known, and may from now on send frames up
// to MaxFrame. See Options.StrangerFrame. Its place is its own until Release.
func (c *Conn) Trust() {
	c.trusted.Store(true)
	c.kept.Store(true)
}

// Trusted reports whether Trust was called.
func (c *Conn) Trusted() bool { return c.trusted.Load() }

// Keep says that the peer of an accepted connection has a claim to its place before it is known for
// certain. The connection ends all the same if Trust does not follow in time.
func (c *Conn) Keep() { c.kept.Store(true) }

// Release says that the connection may end when another needs its place: its peer has a later one,
// or is no longer known.
func (c *Conn) Release() { c.kept.Store(false) }

// OneWay says that this side sends hardly anything on the connection: the kernel may delay
// acknowledgements. Only the handler may call it.
func (c *Conn) OneWay() { c.in.OneWay() }

// Hush stops reading the connection for a while, after the frames already read: the peer
// has sent much more than its share. Another call starts the while anew.
func (c *Conn) Hush(d time.Duration) { c.hush.Store(int64(d)) }

// Send queues one frame, the concatenation of parts, which it copies. It reports false, and
// counts, if the frame does not fit the queue, is longer than MaxFrame, or the connection is down.
// Nothing leaves before Flush.
func (c *Conn) Send(parts ...[]byte) bool { return c.SendShared(nil, parts...) }

// SendShared is Send for a frame that begins with shared bytes, which are not copied; shared may be
// nil.
func (c *Conn) SendShared(shared *Shared, parts ...[]byte) bool {
	n := 0
	if shared != nil {
		n = len(shared.b)
	}
	for _, p := range parts {
		n += len(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > c.o.MaxFrame {
		c.stats.Oversized++
		return false
	}
	if c.closed || !c.fits(n) {
		c.stats.Dropped++
		return false
	}
	c.out.appendFrame(n, shared, parts)
	c.weigh()
	c.stats.FramesOut++
	c.stats.BytesOut += uint64(headerSize + n)
	return true
}

// Queued returns how many bytes wait to be taken by the socket.
func (c *Conn) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queued()
}

// Fits reports whether a frame of n bytes would find room in the queue now.
func (c *Conn) Fits(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fits(n)
}

// queued is Queued for a caller that holds c.mu.
func (c *Conn) queued() int { return c.out.bytes() + c.wire.bytes() }

// fits is Fits for a caller that holds c.mu. A single frame finds room in an empty queue, whatever
// waits on other connections. More has no more room than is left for those.
func (c *Conn) fits(n int) bool {
	own := c.queued()
	n += headerSize
	return own+n <= c.o.Queue && (own == 0 || own+n <= c.o.QueueAll-int(c.o.queued.Load())-n)
}

// weigh counts what is queued here among what is queued on all connections. Requires c.mu, and runs
// whenever the queues have changed.
func (c *Conn) weigh() {
	now := c.queued()
	c.o.queued.Add(int64(now - c.weighed))
	c.weighed = now
}

// Stats returns the counts so far.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	s := c.stats
	c.mu.Unlock()
	s.FramesIn = c.framesIn.Load()
	s.BytesIn = c.bytesIn.Load()
	s.Reads = c.reads.Load()
	s.Oversized += c.oversizedIn.Load()
	return s
}

// Close ends the connection, without waiting for queued frames. The goroutine that reads then calls
// Closed.
func (c *Conn) Close() { c.closeFor(nil) }

// closeFor ends the connection. Closed is told the first reason.
func (c *Conn) closeFor(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.why = why
	c.late.stop()
	c.out.drop()
	c.wire.drop()
	c.weigh()
	// The socket's Close waits until the reader returns from the handler, which may be our caller,
	// or may wait for a lock of our caller's. It frees the descriptor whatever error it returns.
	c.help(func() { _ = c.tcp.Close() })
	c.closed = true
	close(c.done)
}

// help runs f on a goroutine of its own that the connection's end waits for.
// Requires c.mu, and a connection not closed.
func (c *Conn) help(f func()) {
	c.helpers.Add(1)
	go func() {
		defer c.helpers.Done()
		f()
	}()
}

// A source is read like a rawio.Reader, by its Each method.
type source interface {
	Each(space func() []byte, filled func(n int) error) error
}

// read delivers frames until the connection ends, and says why it did.
func (c *Conn) read() error {
	var in source = c.in
	if c.tls != nil {
		in = recordReader{c.tls, c.records}
	}
	s := newSplitter(c.o.StrangerFrame, c.o.ReadBuffer)
	p := patience{conn: c.tcp, limit: c.o.PartialFrame}
	if c.link == nil {
		p.limit = c.o.FirstFrame
		p.begin()
	}
	filled := func(n int) error {
		s.filled(n)
		c.bytesIn.Add(uint64(n))
		c.reads.Add(1)
		return c.deliver(s, &p)
	}
	for {
		err := in.Each(s.space, filled)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if p.lost() {
				return ErrLate
			}
		case errors.Is(err, io.EOF) && s.partial():
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
}

// deliver hands all complete frames to the handler. Its error ends the reading: a closed connection
// is not read any more.
func (c *Conn) deliver(s *splitter, p *patience) error {
	some := false
	for {
		if c.trusted.Load() {
			s.max = c.o.MaxFrame
		}
		frames, err := s.next()
		if err != nil {
			c.oversizedIn.Add(1)
			return err
		}
		if len(frames) == 0 {
			break
		}
		some = true
		c.framesIn.Add(uint64(len(frames)))
		c.h.Frames(c, frames)
	}
	trusted := c.trusted.Load()
	if some && trusted {
		p.limit = c.o.PartialFrame
		p.end()
	}
	if d := c.hush.Swap(0); d > 0 {
		c.rest(time.Duration(d))
		p.end() // our pause does not count against the peer
	}
	if s.partial() || !trusted {
		p.begin()
	}
	select {
	case <-c.done:
		return net.ErrClosed
	default:
		return nil
	}
}

// rest waits for d, or for the connection to be closed.
func (c *Conn) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.done:
	}
}

// patience bounds how long a frame may take to come. It moves the connection's read deadline as
// seldom as it can, because that costs more than a small frame: a deadline once set is left to
// expire, and only then it is checked whether a frame is still awaited.
type patience struct {
	conn  *net.TCPConn
	limit time.Duration
	since time.Time // when the frame we wait for began; zero: there is none
	armed time.Time // the connection's read deadline; zero: there is none
}

// begin starts the wait for a frame, unless it has started.
func (p *patience) begin() {
	if p.since.IsZero() {
		p.since = time.Now()
		p.arm()
	}
}

// end says that the frame we waited for has come.
func (p *patience) end() { p.since = time.Time{} }

// lost is called when the deadline has passed. It reports whether a frame was really too slow.
func (p *patience) lost() bool {
	p.armed = time.Time{}
	if p.since.IsZero() {
		_ = p.conn.SetReadDeadline(time.Time{}) // a closed connection says so when it is read
		return false
	}
	if time.Since(p.since) >= p.limit {
		return true
	}
	p.arm()
	return false
}

func (p *patience) arm() {
	end := p.since.Add(p.limit)
	if p.armed.IsZero() || end.Before(p.armed) {
		p.armed = end
		_ = p.conn.SetReadDeadline(end)
	}
}
