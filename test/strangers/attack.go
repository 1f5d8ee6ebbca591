// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"bfs/pkg/pbft"
)

// The attacks, in the order of their turns.
const (
	off       = "off"       // nobody
	busy      = "busy"      // one core is used for nothing
	handshake = "handshake" // a stranger's hello under ever new names, and a TLS handshake
	hello     = "hello"     // a TLS ClientHello in the place of a hello
	borrowed  = "borrowed"  // hellos in the administrator's name, each followed by a NEW-KEY's length of bytes
	silent    = "silent"    // connections on which nothing is said
	neighbour = "neighbour" // the same, from the address that the honest client has
	closed    = "closed"    // connections to a closed port: the cost of a flood to the kernel alone
)

var kinds = []string{off, busy, handshake, hello, borrowed, silent, neighbour, closed}

// attackers is the number of connections that the attacker makes at a time, on its one core.
const attackers = 256

// beginAttack starts the attacker's process. The function end stops it.
func beginAttack(kind string, targets []pbft.Member) (end func(), err error) {
	if kind == off {
		return func() {}, nil
	}
	var addresses []string
	for _, m := range targets {
		addresses = append(addresses, m.Address)
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-attack", kind, "-targets", strings.Join(addresses, ","))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }, nil
}

// runAttack attacks until it is killed.
func runAttack(kind, targets string) error {
	runtime.GOMAXPROCS(1)
	if kind == busy {
		for sum := [sha256.Size]byte{}; ; {
			sum = sha256.Sum256(sum[:])
		}
	}
	attack := map[string]func(net.Conn){handshake: attackHandshake, hello: attackHello, borrowed: attackBorrowed,
		silent: attackSilent, neighbour: attackSilent, closed: func(net.Conn) {}}[kind]
	if attack == nil {
		return fmt.Errorf("attack %q: not one of %v", kind, kinds)
	}
	addresses := strings.Split(targets, ",")
	if kind == closed {
		addresses = []string{"127.0.0.1:1"}
	}
	// Strangers connect from an address of their own, from which no client was ever admitted.
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	if kind == neighbour {
		from.LocalAddr = nil
	}
	for i := range attackers {
		go func() {
			for n := i; ; n++ {
				if conn, err := from.Dial("tcp", addresses[n%len(addresses)]); err == nil {
					attack(conn)
					_ = conn.Close()
				}
			}
		}()
	}
	select {}
}

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

func sayHello(conn net.Conn, client uint64) error {
	v, err := version(conn)
	if err != nil {
		return err
	}
	var b [helloSize]byte
	rand.Read(b[:])
	b[0], b[1] = v, 0
	binary.LittleEndian.PutUint64(b[2:], client)
	_, err = conn.Write(b[:])
	return err
}

func attackHandshake(conn net.Conn) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil || sayHello(conn, uint64(pbft.ClientOf(public))) != nil {
		return
	}
	_ = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}).Handshake()
}

func attackHello(conn net.Conn) {
	_ = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}).Handshake()
}

func attackBorrowed(conn net.Conn) {
	if sayHello(conn, uint64(pbft.Administrator)) == nil {
		_, _ = conn.Write(make([]byte, 500))
		_, _ = io.Copy(io.Discard, conn)
	}
}

func attackSilent(conn net.Conn) {
	go func() {
		time.Sleep(time.Second)
		_ = conn.Close()
	}()
	_, _ = version(conn)
}
