package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
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

// What is not TLS 1.3 with one certificate of our kind does not come up, and no handler hears of it.
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
