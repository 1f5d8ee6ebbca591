// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"testing"
	"time"

	"bfs/pkg/pbft/internal/transport"
)

// Only a process that was replaced and is back, while the other can still be there, shows
// that two use a key.
func TestLives(t *testing.T) {
	key := func(n byte) (k [32]byte) { k[0] = n; return k }
	for _, c := range []struct {
		name    string
		lives   string // in the order in which they announce themselves; x ends the connection of the last
		rivalry bool
	}{
		{"one", "aaaa", false},
		{"restarts", "abcdefgh", false},
		{"restarts whose connections end", "axbxcxdx", false},
		{"two", "aba", true},
		{"two, the second often", "abbba", true},
		{"two, and the other's connection just ended", "abxa", true},
		{"three", "abca", true},
	} {
		var l lives
		now := time.Now()
		rival := ""
		var last *transport.Conn
		for _, x := range c.lives {
			if x == 'x' {
				l.closed(last, now)
				continue
			}
			last = new(transport.Conn)
			rival = l.announce(key(byte(x)), string(x), last, 0, now)
		}
		if (rival != "") != c.rivalry {
			t.Errorf("%s: rival %q", c.name, rival)
		}
		if len(l.all) > maxLives {
			t.Errorf("%s: %d lives are kept", c.name, len(l.all))
		}
		if c.rivalry {
			if l.rivalOf(key('a'), now) == "a" || l.rivalOf(key('b'), now) != "a" {
				t.Errorf("%s: one is told of %q, the other of %q",
					c.name, l.rivalOf(key('a'), now), l.rivalOf(key('b'), now))
			}
			if r := l.rivalOf(key('b'), now.Add(rivalPeriod)); r != "" {
				t.Errorf("%s: %q is remembered for ever", c.name, r)
			}
		}
	}
	refreshed, conns := lives{}, []*transport.Conn{new(transport.Conn), new(transport.Conn)}
	for i := range 2 * maxLives {
		rival := refreshed.announce(key(byte(i)), "a", conns[0], 0, time.Now())
		if rival != "" || len(refreshed.all) > 1 {
			t.Errorf("a process that refreshes its keys is taken for %d, and has the rival %q",
				len(refreshed.all), rival)
		}
	}
	refreshed.announce(key('b'), "b", conns[1], 0, time.Now())
	if rival := refreshed.announce(key('c'), "a", conns[0], 0, time.Now()); rival != "b" {
		t.Errorf("a process that refreshes its keys after another has come: rival %q", rival)
	}
	var l lives
	now := time.Now()
	conn := new(transport.Conn)
	l.announce(key('a'), "a", new(transport.Conn), 0, now)
	l.announce(key('b'), "b", conn, 0, now)
	l.closed(conn, now)
	if rival := l.announce(key('a'), "a", new(transport.Conn), 0, now.Add(rivalPeriod)); rival != "" {
		t.Errorf("a process that ended long ago is a rival: %q", rival)
	}
}

// A process that refreshes its keys and replaces its connection is alone, in whichever
// order the NEW-KEYs on the two connections come here.
func TestOvertakenLife(t *testing.T) {
	key := func(n byte) (k [32]byte) { k[0] = n; return k }
	now, first, second := time.Now(), new(transport.Conn), new(transport.Conn)
	for late := byte(2); late <= 3; late++ {
		var l lives
		l.announce(key(1), "a", first, 1, now)
		l.announce(key(3), "b", second, 2, now)
		for _, rival := range []string{l.announce(key(late), "a", first, 1, now),
			l.announce(key(4), "b", second, 2, now)} {
			if rival != "" {
				t.Errorf("key %d comes late: rival %q", late, rival)
			}
		}
	}
}
