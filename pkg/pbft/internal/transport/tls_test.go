// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// Each side learns the other's fingerprint; a key renewed is used from the next connection.
func TestFingerprints(t *testing.T) {
	certA, printA, err := NewHostTLS()
	if err != nil {
		t.Fatal(err)
	}
	certB, printB, err := NewHostTLS()
	if err != nil {
		t.Fatal(err)
	}
	if printA == printB {
		t.Fatal("two hosts have one key")
	}
	accepted := make(chan *Conn, 1)
	a := Options{TLS: HostTLS(func() *tls.Certificate { return &certA })}
	b := Options{TLS: HostTLS(func() *tls.Certificate { return &certB }), BackoffMin: time.Millisecond}
	l := listen(t, a, funcs{opened: func(c *Conn) { accepted <- c }})
	k, c := dial(t, l.Addr(), b, funcs{})
	s := await(t, accepted)
	if got, ok := c.PeerFingerprint(); !ok || got != printA {
		t.Errorf("client: got %x, %v", got, ok)
	}
	if got, ok := s.PeerFingerprint(); !ok || got != printB {
		t.Errorf("server: got %x, %v", got, ok)
	}
	k.Close()

	var printC [32]byte
	if certB, printC, err = NewHostTLS(); err != nil {
		t.Fatal(err)
	}
	dial(t, l.Addr(), b, funcs{})
	if got, _ := await(t, accepted).PeerFingerprint(); got != printC {
		t.Errorf("server after renewal: got %x", got)
	}

	plain := listen(t, Options{}, funcs{})
	_, c = dial(t, plain.Addr(), Options{}, funcs{})
	if _, ok := c.PeerFingerprint(); ok {
		t.Error("a plain connection has a fingerprint")
	}
}

// What is not TLS 1.3 with one certificate of our kind does not come up, and no handler
// hears of it.
func TestTLSRefused(t *testing.T) {
	ours := hostTLS(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{
		"plain":          nil,
		"no certificate": {InsecureSkipVerify: true},
		"TLS 1.2":        {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12},
		"RSA":            withCert(t, rsaKey, rsaKey.Public()),
		"P-384":          withCert(t, p384, p384.Public()),
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, Options{TLS: ours}, funcs{
				opened: func(*Conn) { t.Error("came up") },
			})
			raw := stranger(t, l.Addr())
			if config == nil {
				if _, err := raw.Write([]byte{5, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'}); err != nil {
					t.Fatal(err)
				}
			} else {
				c := tls.Client(raw, config)
				_ = c.Handshake() // may look good to the client until it reads
				_, _ = c.Read(make([]byte, 1))
			}
			_, _ = raw.Read(make([]byte, 64)) // an alert perhaps
			l.Close()
			if s := l.Stats(); s.Failed != 1 || s.Opened != 0 {
				t.Errorf("got %+v", s)
			}
		})
	}
}

func withCert(t *testing.T, key, public any) *tls.Config {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}}
}

// Records that come a byte at a time, or many at once, are read like others.
func TestRecordsInPieces(t *testing.T) {
	for _, size := range []int{1, 100_000} {
		o := Options{TLS: hostTLS(t)}
		got := make(chan []byte, 10)
		l := listen(t, o, funcs{frames: func(_ *Conn, frames [][]byte) {
			for _, f := range frames {
				got <- bytes.Clone(f)
			}
		}})
		_, c := dial(t, inPieces(t, l.Addr(), size), o, funcs{})
		for n := range uint64(10) {
			c.Send(numbered(n, 8+int(n)*700))
		}
		c.Flush()
		for n := range uint64(10) {
			if f := await(t, got); !bytes.Equal(f, numbered(n, 8+int(n)*700)) {
				t.Errorf("got another frame than %d, of %d bytes", n, len(f))
			}
		}
	}
}

// inPieces listens for one connection, and passes on to addr what it brings, so many bytes at a
// time, and back what comes.
func inPieces(t *testing.T, addr net.Addr, size int) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	t.Cleanup(tasks.Wait)
	far := stranger(t, addr)
	tasks.Go(func() {
		defer l.Close()
		near, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		tasks.Go(func() {
			defer near.Close()
			io.Copy(near, far)
		})
		defer far.Close()
		for b := make([]byte, size); ; {
			n, err := near.Read(b)
			if err != nil {
				return
			}
			far.Write(b[:n])
		}
	})
	return l.Addr()
}
