// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// NewHostTLS makes a fresh key for a host's TLS connections, in an unsigned certificate, and the
// key's fingerprint, which NEW-KEY vouches for: SHA-256 of the SubjectPublicKeyInfo [RFC5280
// §4.1.2.7].
func NewHostTLS() (cert tls.Certificate, fingerprint [32]byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fingerprint, fmt.Errorf("transport: make a TLS key: %w", err)
	}
	// The certificate is only the key's envelope: its fields are constant, and no one reads them.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // none [RFC5280 §4.1.2.5]
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fingerprint, fmt.Errorf("transport: make a TLS certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fingerprint, fmt.Errorf("transport: read our own TLS certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, fingerprintOf(leaf), nil
}

// HostTLS returns the configuration, for both sides, of connections whose ends prove possession of
// a key by TLS 1.3, without any authority. current is asked for our certificate at each handshake,
// so that the key can be renewed. A caller must compare Conn.PeerFingerprint with the one that the
// peer's NEW-KEY vouches for; without that the peer may be anybody.
func HostTLS(current func() *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return current(), nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return current(), nil
		},
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // no chain to verify: see above
		VerifyConnection:   verifyShape,
	}
}

// verifyShape refuses certificates of a kind that NewHostTLS does not make, among them
// those that are expensive to verify.
func verifyShape(s tls.ConnectionState) error {
	if len(s.PeerCertificates) != 1 {
		return fmt.Errorf("transport: got %d peer certificates, want 1", len(s.PeerCertificates))
	}
	switch key := s.PeerCertificates[0].PublicKey.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return nil
		}
	}
	return errors.New("transport: peer's TLS key is neither Ed25519 nor P-256")
}

func fingerprintOf(cert *x509.Certificate) [32]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// hardened returns config as every endpoint uses it: TLS 1.3 only, no resumption, so that each
// connection proves its keys anew, and full records from the first.
func hardened(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.MinVersion = tls.VersionTLS13
	config.SessionTicketsDisabled = true
	config.ClientSessionCache = nil
	config.DynamicRecordSizingDisabled = true
	return config
}

// handshake brings TLS up, if it is wanted.
func (c *Conn) handshake() error {
	if c.o.TLS == nil {
		return nil
	}
	if err := c.tcp.SetDeadline(time.Now().Add(c.o.DialTimeout)); err != nil {
		return fmt.Errorf("transport: %w", err)
	}
	records := &recordConn{TCPConn: c.tcp, c: c, buf: make([]byte, recordBuffer)}
	var conn *tls.Conn
	if c.link == nil {
		conn = tls.Server(records, c.o.TLS)
	} else {
		conn = tls.Client(records, c.o.TLS)
	}
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("transport: TLS handshake: %w", err)
	}
	if err := c.tcp.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("transport: %w", err)
	}
	if certs := conn.ConnectionState().PeerCertificates; len(certs) > 0 {
		c.peer, c.peerKnown = fingerprintOf(certs[0]), true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tls, c.records = conn, records
	return nil
}

const (
	recordHeader = 5                                 // [RFC8446 §5.1]
	recordBuffer = 4 * (recordHeader + 16<<10 + 256) // four of the largest records [RFC8446 §5.2]
)

// A recordConn is what the TLS library takes for the network. Its reads stop at the end of each
// record, though it takes as much as the kernel has: so it knows whether more can be had without
// waiting. Its writes, once the handshake is over, go to Conn.wire and never block.
type recordConn struct {
	*net.TCPConn
	c    *Conn
	buf  []byte
	r, w int  // buf[r:w] is received and not yet read
	left int  // bytes of the current record not yet read
	fed  bool // received bytes are put into space by the connection's reader: after the handshake
}

// Read reads from the current record, or if that is done, from the next.
func (rc *recordConn) Read(p []byte) (int, error) {
	for rc.left == 0 {
		if n, ok := rc.nextLength(); ok {
			rc.left = n
		} else if err := rc.fill(); err != nil {
			return 0, err
		}
	}
	if rc.r == rc.w {
		if err := rc.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, rc.buf[rc.r:min(rc.w, rc.r+rc.left)])
	rc.r += n
	rc.left -= n
	return n, nil
}

// nextLength returns the length of the record at r, with its header, if the header is there.
func (rc *recordConn) nextLength() (int, bool) {
	if rc.w-rc.r < recordHeader {
		return 0, false
	}
	return recordHeader + int(binary.BigEndian.Uint16(rc.buf[rc.r+3:])), true
}

// space returns the memory for received bytes. It is never empty: the longest record that
// a header can claim leaves room.
func (rc *recordConn) space() []byte {
	rc.w = copy(rc.buf, rc.buf[rc.r:rc.w])
	rc.r = 0
	return rc.buf[rc.w:]
}

// fill receives more, at least a byte.
func (rc *recordConn) fill() error {
	if rc.fed {
		return errDry
	}
	n, err := rc.c.in.Read(rc.space())
	rc.w += n
	if n > 0 {
		return nil
	}
	return err
}

// ready reports whether a whole record can be read without waiting.
func (rc *recordConn) ready() bool {
	n, ok := rc.nextLength()
	return ok && rc.left == 0 && rc.w-rc.r >= n
}

// Write sends directly during the handshake, and afterwards queues.
func (rc *recordConn) Write(p []byte) (int, error) {
	c := rc.c
	c.mu.Lock()
	if c.tls == nil {
		c.mu.Unlock()
		return rc.TCPConn.Write(p)
	}
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if c.wire.bytes() > 2*sealLimit { // a peer that asks for key updates and does not read
		return 0, ErrStalled
	}
	c.wire.append(p)
	return len(p), nil
}

// A recordReader reads as many records as are there, where tls.Conn reads one at a time.
type recordReader struct {
	tls     *tls.Conn
	records *recordConn
}

func (r recordReader) Read(p []byte) (n int, err error) {
	n, err = r.tls.Read(p)
	for err == nil && n < len(p) && r.records.ready() {
		var k int
		k, err = r.tls.Read(p[n:])
		n += k
	}
	return n, err
}

// Each implements source.
func (r recordReader) Each(space func() []byte, filled func(n int) error) error {
	rc := r.records
	rc.fed = true
	open := func() error {
		for {
			p := space()
			n, err := r.Read(p)
			if n > 0 {
				if err := filled(n); err != nil {
					return err
				}
			}
			if err == errDry || err == nil && n < len(p) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	if err := open(); err != nil { // bytes that came right after the handshake
		return err
	}
	return rc.c.in.Each(rc.space, func(n int) error {
		rc.w += n
		return open()
	})
}

// errDry says that all received bytes have been read. To the TLS library it is a temporary error.
var errDry net.Error = dry{}

type dry struct{}

func (dry) Error() string   { return "transport: nothing more received" }
func (dry) Timeout() bool   { return true }
func (dry) Temporary() bool { return true }

// seal turns the released part of out into TLS records on wire, if wire is empty. Requires the pen
// and c.mu, which it gives up meanwhile.
func (c *Conn) seal() error {
	if c.wire.bytes() > 0 || c.closed {
		return nil
	}
	slices := c.out.slices(c.pen.slices[:0], min(int(c.released-c.out.taken), sealLimit))
	c.mu.Unlock()
	n := 0
	var err error
	for _, s := range slices {
		if _, err = c.tls.Write(s); err != nil {
			break
		}
		n += len(s)
	}
	clear(slices)
	c.mu.Lock()
	if err != nil {
		return fmt.Errorf("transport: seal: %w", err)
	}
	if !c.closed {
		c.out.consume(n)
	}
	return nil
}
