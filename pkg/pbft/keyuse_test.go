package pbft

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// Only a process that was replaced and is back, while the other can still be there, shows that two use a key.
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
			rival = l.announce(key(byte(x)), string(x), last, now)
		}
		if (rival != "") != c.rivalry {
			t.Errorf("%s: rival %q", c.name, rival)
		}
		if len(l.all) > maxLives {
			t.Errorf("%s: %d lives are kept", c.name, len(l.all))
		}
		if c.rivalry {
			if l.rivalOf(key('a'), now) == "a" || l.rivalOf(key('b'), now) != "a" {
				t.Errorf("%s: one is told of %q, the other of %q", c.name, l.rivalOf(key('a'), now), l.rivalOf(key('b'), now))
			}
			if r := l.rivalOf(key('b'), now.Add(rivalPeriod)); r != "" {
				t.Errorf("%s: %q is remembered for ever", c.name, r)
			}
		}
	}
	var l lives
	now := time.Now()
	conn := new(transport.Conn)
	l.announce(key('a'), "a", new(transport.Conn), now)
	l.announce(key('b'), "b", conn, now)
	l.closed(conn, now)
	if rival := l.announce(key('a'), "a", new(transport.Conn), now.Add(rivalPeriod)); rival != "" {
		t.Errorf("a process that ended long ago is a rival: %q", rival)
	}
}

// A replica that lies does not get a client to believe that its key is in use, however often it says so; two do.
func TestOneReplicaIsNoRival(t *testing.T) {
	g := &Group{Members: make([]Member, 4)}
	c := &Client{endpoint: &endpoint{group: g, log: slog.New(slog.DiscardHandler)}, peers: make([]*replicaEnd, 4)}
	for range 10 {
		if c.toldOfRival(2, "192.0.2.1:7"); c.inUse() != nil {
			t.Fatalf("one replica is believed: %v", c.inUse())
		}
	}
	if c.toldOfRival(1, "192.0.2.1:7"); !errors.Is(c.inUse(), ErrKeyInUse) {
		t.Fatalf("two replicas are not believed: %v", c.inUse())
	}
	c.rivalry.until = time.Now()
	if c.inUse() != nil {
		t.Fatal("it is believed for ever")
	}
}

// A liar cannot drive the timestamps of a client up, nor hide what two others know.
func TestOrigin(t *testing.T) {
	g := &Group{Members: make([]Member, 4)}
	for _, c := range []struct {
		name string
		say  [3]Timestamp
		want Timestamp
	}{
		{"all alike", [3]Timestamp{7, 7, 7}, 7},
		{"a liar upwards", [3]Timestamp{1<<64 - 1, 7, 7}, 7},
		{"a liar downwards", [3]Timestamp{0, 7, 7}, 7},
		{"the clock is later", [3]Timestamp{3, 3, 3}, 5},
	} {
		x := &Client{endpoint: &endpoint{group: g, log: slog.New(slog.DiscardHandler)}, slots: make([]clientSlot, 2)}
		x.catchUp(5)
		x.newOrigin()
		for i, at := range c.say {
			m := &message.ReplyStable{Nonce: x.origin.nonce, From: ReplicaID(i), Latest: at}
			x.onOrigin(m)
			x.onOrigin(m) // nobody counts twice
			if x.origin.known != (i == 2) {
				t.Fatalf("%s: known after %d answers: %v", c.name, i+1, x.origin.known)
			}
		}
		if x.slots[1].last != c.want {
			t.Errorf("%s: begins above %d, want %d", c.name, x.slots[1].last, c.want)
		}
	}
}
