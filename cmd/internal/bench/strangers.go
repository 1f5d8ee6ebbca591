// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"time"

	"bfs/pkg/pbft"
)

// strangers are attackers who have no key of the group: each connects as fast as one processor can.
// Two that harm nobody are for comparison, since the loss of a processor alone slows the replicas
// of a small machine.
func strangers() []Offender {
	return []Offender{
		stranger("handshakes", "hellos under ever new names, and TLS handshakes", strange(shakeHands)),
		stranger("hellos", "a TLS ClientHello in the place of a hello", strange(helloTLS)),
		stranger("borrowed", "hellos in the administrator's name, and as many bytes as a NEW-KEY has", strange(borrow)),
		stranger("silent", "connections on which nothing is said", strange(sayNothing)),
		stranger("neighbour", "the same, from the address that the honest client has", strangeFrom(nil, sayNothing)),
		{Name: "busy", About: "a processor is used for nothing", By: ByNobody, run: busy},
		{Name: "closed-port", About: "connections to a port where nobody listens", By: ByNobody, run: closedPort},
	}
}

func stranger(name, about string, run attack) Offender {
	return Offender{Name: "stranger-" + name, About: about, By: ByStranger, run: run}
}

// atOnce is the number of connections that a stranger makes at a time.
const atOnce = 256

// strange is an attack from an address from which no client was ever admitted.
func strange(on func(net.Conn)) attack {
	return strangeFrom(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, on)
}

// strangeFrom connects from an address, nil being the honest client's, again and again.
func strangeFrom(from net.Addr, on func(net.Conn)) attack {
	return func(ctx context.Context, o *offence) error {
		runtime.GOMAXPROCS(1)
		d := net.Dialer{LocalAddr: from}
		for i := range atOnce {
			go func() {
				for n := i; ctx.Err() == nil; n++ {
					if conn, err := d.DialContext(ctx, "tcp", o.targets[n%len(o.targets)]); err == nil {
						on(conn)
						_ = conn.Close()
					}
				}
			}()
		}
		o.ready()
		<-ctx.Done()
		return nil
	}
}

func busy(ctx context.Context, o *offence) error {
	runtime.GOMAXPROCS(1)
	o.ready()
	for sum := [sha256.Size]byte{}; ctx.Err() == nil; {
		sum = sha256.Sum256(sum[:])
	}
	return nil
}

func closedPort(ctx context.Context, o *offence) error {
	o.targets = []string{"127.0.0.1:1"}
	return strange(func(net.Conn) {})(ctx, o)
}

// The sizes of the greeting before TLS.
const (
	challengeSize = 32
	helloSize     = 48
)

// version reads a challenge and returns its fourth byte, which is the version of the protocol.
func version(conn net.Conn) (byte, error) {
	var challenge [challengeSize]byte
	_, err := io.ReadFull(conn, challenge[:])
	return challenge[3], err
}

func sayHello(conn net.Conn, client pbft.ClientID) error {
	v, err := version(conn)
	if err != nil {
		return err
	}
	var b [helloSize]byte
	rand.Read(b[:])
	b[0], b[1] = v, 0
	binary.LittleEndian.PutUint64(b[2:], uint64(client))
	_, err = conn.Write(b[:])
	return err
}

func shakeHands(conn net.Conn) {
	public, _, err := ed25519.GenerateKey(nil)
	if err == nil && sayHello(conn, pbft.ClientOf(public)) == nil {
		helloTLS(conn)
	}
}

func helloTLS(conn net.Conn) {
	_ = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}).Handshake()
}

func borrow(conn net.Conn) {
	if sayHello(conn, pbft.Administrator) == nil {
		_, _ = conn.Write(make([]byte, 500))
		_, _ = io.Copy(io.Discard, conn)
	}
}

// silentFor is how long a connection is held on which nothing is said.
const silentFor = time.Second

func sayNothing(conn net.Conn) {
	end := time.AfterFunc(silentFor, func() { _ = conn.Close() })
	defer end.Stop()
	_, _ = version(conn)
}
