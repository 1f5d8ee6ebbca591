// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"slices"
	"time"

	"bfs/pkg/pbft/internal/client"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// A life is one process that uses a client's key. Its X25519 key never leaves the process,
// and so names it. When the process makes a new key it says so on the connection that it has.
type life struct {
	key     [message.PublicKeySize]byte // the present one
	address string
	conn    *transport.Conn // its last connection; nil if that has ended
	number  uint64          // of that connection: later ones have higher numbers
	seen    time.Time       // when it announced itself last, or its connection ended
}

// lives are the processes that have used one client's key lately, the present one last;
// at most maxLives.
//
// A process that was replaced by another and announces itself again proves that both run: its
// NEW-KEY is made for a connection that is younger than the other's. A restart never looks
// like this: a new process has a new key, and the process that ended does not come back.
type lives struct {
	all    []life
	rivals time.Time // until then two processes are known to run
}

const (
	maxLives = 4

	// rivalPeriod is how long two processes are believed to share a key after they were seen to.
	rivalPeriod = client.RivalPeriod
)

// announce notes that the process with this key has announced itself on connection c,
// which has this number, from an address. It returns the address of another process that
// runs as well, "" if none is known to.
//
// Each connection has a goroutine of its own. When a process has replaced a connection,
// the last NEW-KEY on the old one may come here after the first on the new one, though it
// was accepted before. Such a NEW-KEY shows nothing.
func (l *lives) announce(key [message.PublicKeySize]byte, address string, c *transport.Conn, number uint64,
	now time.Time) (rival string) {
	if n := len(l.all); n > 0 && number < l.all[n-1].number {
		return l.rivalOf(key, now)
	}
	this := life{key, address, c, number, now}
	i := slices.IndexFunc(l.all, func(x life) bool { return x.key == key || x.conn == c })
	if i >= 0 && i < len(l.all)-1 && l.all[len(l.all)-1].runs(now) {
		l.rivals = now.Add(rivalPeriod)
	}
	if i >= 0 {
		l.all = slices.Delete(l.all, i, i+1)
	}
	if l.all = append(l.all, this); len(l.all) > maxLives {
		l.all = slices.Delete(l.all, 0, 1)
	}
	return l.rivalOf(key, now)
}

// runs reports whether the process can still be there.
func (x *life) runs(now time.Time) bool { return x.conn != nil || now.Sub(x.seen) < rivalPeriod }

// rivalOf is the address of the process, other than the one with this key, that was seen last.
func (l *lives) rivalOf(key [message.PublicKeySize]byte, now time.Time) string {
	if !now.Before(l.rivals) {
		return ""
	}
	for _, x := range slices.Backward(l.all) {
		if x.key != key && x.runs(now) {
			return x.address
		}
	}
	return ""
}

// closed notes that a connection has ended.
func (l *lives) closed(c *transport.Conn, now time.Time) {
	for i := range l.all {
		if x := &l.all[i]; x.conn == c {
			x.conn, x.seen = nil, now
		}
	}
}
