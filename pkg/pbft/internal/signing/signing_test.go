// SPDX-License-Identifier: Apache-2.0

package signing

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bfs/pkg/internal/disk"
	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
)

var (
	_     auth.Signer = (*Client)(nil)
	group             = message.Digest{7}
	me                = uint32(os.Geteuid())
)

const (
	self     = message.ReplicaID(2)
	asClient = message.ClientID(99)
)

// A home is where a key's counter and socket are.
type home struct {
	t       *testing.T
	dir     string
	private ed25519.PrivateKey
}

func newHome(t *testing.T) *home {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &home{t, t.TempDir(), private}
	if _, err := durable.CreateMonotone(h.counter(), 1); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *home) counter() [2]string { return [2]string{h.dir + "/counter", h.dir + "/copy"} }
func (h *home) socket() string     { return h.dir + "/socket" }
func (h *home) public() ed25519.PublicKey {
	return h.private.Public().(ed25519.PublicKey)
}

func (h *home) key() *Key {
	h.t.Helper()
	counter, err := durable.OpenMonotone(h.counter())
	if err != nil {
		h.t.Fatal(err)
	}
	return NewKey(h.private, group, self, asClient, counter)
}

func (h *home) serve(r Rules) *Server {
	h.t.Helper()
	s, err := Serve(h.socket(), h.key(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *home) dial() *Client {
	h.t.Helper()
	c, err := Dial(h.socket(), h.public(), group)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// newKey is a NEW-KEY as the replica would have it signed.
func (h *home) newKey(counter uint64) *message.NewKey {
	m := &message.NewKey{Major: message.VersionMajor, Group: group, From: message.Principal{Replica: self},
		To: message.Principal{Replica: 1}, Channel: message.Digest{5}, Counter: counter}
	copy(m.SenderKey[:], h.public())
	return m
}

// A key signs the NEW-KEYs and recovery requests of its own replica, each value of the
// counter once, and refuses all else.
func TestWhatIsSigned(t *testing.T) {
	h := newHome(t)
	k := h.key()
	count := func() uint64 {
		n, err := k.Count()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	recovery := func(g message.Digest, r message.ReplicaID, n uint64) []byte {
		return message.Recovery{Replica: r, Counter: n, Bound: 128}.AppendCovered(nil, g)
	}
	changed := func(change func(*message.NewKey)) []byte {
		m := h.newKey(count())
		change(m)
		return m.AppendCovered(nil)
	}
	k.Grant()
	first, second := count(), count()
	for _, c := range []struct {
		name    string
		covered []byte
		want    error
	}{
		{"the later first", h.newKey(second).AppendCovered(nil), nil},
		{"the earlier then", h.newKey(first).AppendCovered(nil), nil},
		{"a counter that was used", h.newKey(first).AppendCovered(nil), ErrCounter},
		{"a counter to come", h.newKey(second + 100).AppendCovered(nil), ErrCounter},
		{"as the key's client", changed(func(m *message.NewKey) { m.From = message.Principal{Client: asClient} }), nil},
		{"as another replica", changed(func(m *message.NewKey) { m.From.Replica = 1 }), ErrForeign},
		{"as another client", changed(func(m *message.NewKey) { m.From = message.Principal{Client: 3} }), ErrForeign},
		{"with another key", changed(func(m *message.NewKey) { m.SenderKey[0]++ }), ErrForeign},
		{"for another group", changed(func(m *message.NewKey) { m.Group[0]++ }), ErrForeign},
		{"for no connection", changed(func(m *message.NewKey) { m.Channel = message.Digest{} }), ErrChannel},
		{"a recovery request", recovery(group, self, count()), nil},
		{"another replica's", recovery(group, 1, count()), ErrForeign},
		{"another group's", recovery(message.Digest{}, self, count()), ErrForeign},
		{"with an unknown counter", recovery(group, self, first), ErrCounter},
		{"anything else", []byte("pay to the bearer"), message.ErrMalformed},
		{"nothing", nil, message.ErrMalformed},
	} {
		signature, err := k.Sign(c.covered)
		if !errors.Is(err, c.want) || (err == nil) != ed25519.Verify(h.public(), c.covered, signature) {
			t.Errorf("%s: got %x, %v, want %v", c.name, signature, err, c.want)
		}
	}
}

// Recovery requests are signed for a recovery that the watchdog has begun, and not many for one.
func TestRecoveriesAreGranted(t *testing.T) {
	h := newHome(t)
	k := h.key()
	ask := func() error {
		n, err := k.Count()
		if err == nil {
			_, err = k.Sign(message.Recovery{Replica: self, Counter: n, Bound: 128}.AppendCovered(nil, group))
		}
		return err
	}
	for recovery := range 2 {
		if err := ask(); !errors.Is(err, ErrNoRecovery) {
			t.Fatalf("before recovery %d: got %v", recovery, err)
		}
		k.Grant()
		for range maxRecoveries {
			if err := ask(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The counter goes on above all it gave out, however the keeper ended. A file that was
// put back is noticed.
func TestCounterSurvives(t *testing.T) {
	h := newHome(t)
	last := uint64(0)
	old, err := os.ReadFile(h.counter()[0])
	if err != nil {
		t.Fatal(err)
	}
	for life := range 5 {
		k := h.key()
		for range 200 * life {
			n, err := k.Count()
			if err != nil || n <= last {
				t.Fatalf("life %d: %d after %d, %v", life, n, last, err)
			}
			last = n
		}
	}
	if err := os.WriteFile(h.counter()[0], old, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := durable.OpenMonotone(h.counter()); !errors.Is(err, durable.ErrPutBack) {
		t.Errorf("with an old counter: got %v", err)
	}
}

// A client is a Signer like another, over a keeper's restart too. Its peers cannot tell
// it from a key in its own process.
func TestClient(t *testing.T) {
	h := newHome(t)
	s := h.serve(Rules{Users: []uint32{me}})
	c := h.dial()
	for range 2 {
		n, err := c.Count()
		if err != nil {
			t.Fatal(err)
		}
		covered := h.newKey(n).AppendCovered(nil)
		if signature, err := c.Sign(covered); err != nil || !ed25519.Verify(h.public(), covered, signature) {
			t.Errorf("got %x, %v", signature, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = h.serve(Rules{Users: []uint32{me}})
	}
	defer s.Close()
	peer, _, _ := ed25519.GenerateKey(nil)
	local := auth.NewMemorySigner(h.private)
	k1, err1 := c.HelloKey(peer, auth.Life{1})
	k2, err2 := local.HelloKey(peer, auth.Life{1})
	if k1 != k2 || err1 != nil || err2 != nil {
		t.Errorf("hello keys: got %x, %v and %x, %v", k1, err1, k2, err2)
	}
	t1, err1 := c.HelloTag(peer, &[auth.ChallengeSize]byte{1}, &auth.HelloHead{2})
	t2, err2 := local.HelloTag(peer, &[auth.ChallengeSize]byte{1}, &auth.HelloHead{2})
	if t1 != t2 || err1 != nil || err2 != nil {
		t.Errorf("hello tags: got %x, %v and %x, %v", t1, err1, t2, err2)
	}
	if _, err := c.HelloKey(peer[:31], auth.Life{}); err == nil {
		t.Error("a hello key with bytes that are no public key")
	}
	if _, err := c.Sign([]byte("pay to the bearer")); !errors.Is(err, ErrRefused) {
		t.Errorf("a wrong request: got %v", err)
	}
}

// A keeper of another key or group is noticed when it is dialled, and one that is not
// there is named.
func TestDialTellsWhatIsWrong(t *testing.T) {
	h := newHome(t)
	for want, dial := range map[string]func() (*Client, error){
		"is bfsd keeper running":      func() (*Client, error) { return Dial(h.dir+"/none", h.public(), group) },
		"has another key":             func() (*Client, error) { return Dial(h.socket(), make([]byte, 32), group) },
		"it has another group file: ": func() (*Client, error) { return Dial(h.socket(), h.public(), message.Digest{}) },
	} {
		s := h.serve(Rules{Users: []uint32{me}})
		if _, err := dial(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		_ = s.Close()
	}
}

// A user who is not named is refused, and the keeper is told.
func TestOtherUsersAreRefused(t *testing.T) {
	h := newHome(t)
	told := make(chan error, 10)
	s := h.serve(Rules{Users: []uint32{me + 1}, Operators: []uint32{me + 1}, Refused: func(_ uint32, why error) {
		told <- why
	}})
	defer s.Close()
	if _, err := Dial(h.socket(), h.public(), group); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	if _, err := AskRecovery(t.Context(), h.socket(), false); !errors.Is(err, ErrRefused) {
		t.Errorf("a recovery: got %v", err)
	}
	if len(told) != 2 {
		t.Errorf("%d refusals were told, want 2", len(told))
	}
}

// An operator asks for a recovery, and is told its outcome.
func TestAskRecovery(t *testing.T) {
	h := newHome(t)
	var s *Server
	s = h.serve(Rules{Users: []uint32{me}, Operators: []uint32{me}, Recover: func(force bool) (string, error) {
		if !force {
			return "", errors.New("not now")
		}
		s.Disconnect() // the replica's process ends meanwhile
		return "done", nil
	}})
	defer s.Close()
	if got, err := AskRecovery(t.Context(), h.socket(), true); got != "done" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := AskRecovery(t.Context(), h.socket(), false); err == nil || !strings.Contains(err.Error(), "not now") {
		t.Errorf("got %v", err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := AskRecovery(done, h.socket(), true); err == nil {
		t.Error("an answer after the asker had gone")
	}
}

// Close ends a call whose keeper hangs, and later calls fail: a replica that is told to
// stop does not wait for its keeper.
func TestCloseEndsACall(t *testing.T) {
	h := newHome(t)
	l, err := net.Listen("unix", h.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hangs := make(chan struct{})
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		identity := append(append([]byte{statusDone, version}, h.public()...), group[:]...)
		if _, err := readFrame(conn, maxRequest); err != nil || writeFrame(conn, identity) != nil {
			t.Errorf("the client did not ask who this is: %v", err)
		}
		if _, err := readFrame(conn, maxRequest); err != nil {
			t.Errorf("the client asked for nothing: %v", err)
		}
		close(hangs)
	}()
	c := h.dial()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Count()
		ended <- err
	}()
	<-hangs
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("the call that was under way: got %v", err)
	}
	if _, err := c.Count(); !errors.Is(err, ErrClosed) {
		t.Errorf("a later call: got %v", err)
	}
}

// Bytes that are no request end the connection and nothing else; connections beyond the
// bound displace the oldest; and a socket in a directory with a long name is reached.
func TestHostileConnections(t *testing.T) {
	h := newHome(t)
	h.dir = filepath.Join(h.dir, strings.Repeat("long", 30))
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := durable.CreateMonotone(h.counter(), 1); err != nil {
		t.Fatal(err)
	}
	s := h.serve(Rules{Users: []uint32{me}})
	defer s.Close()
	for _, said := range []string{"\x00\x00", "\xff\xff", "\x01\x00\x00", "\x01\x00\xff",
		"\x02\x00\x06\x02", "\x02\x00\x04x"} {
		conn, err := dial(h.socket())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(said)); err != nil {
			t.Fatal(err)
		}
		if b, err := readFrame(conn, maxAnswer); err == nil {
			t.Errorf("%q: answered %q", said, b)
		}
		_ = conn.Close()
	}
	var silent []net.Conn
	for range 2 * maxConnections {
		conn, err := dial(h.socket())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	if _, err := h.dial().Count(); err != nil {
		t.Errorf("with many connections: %v", err)
	}
	if _, err := silent[0].Read(make([]byte, 1)); err == nil {
		t.Error("the oldest connection is still there")
	}
}

// A request is encoded as it was before it was decoded.
func FuzzDecode(f *testing.F) {
	for _, r := range []request{{op: opIdentify}, {op: opCount}, {op: opSign, covered: []byte("x")},
		{op: opRecover, force: true}, {op: opStatus},
		{op: opHelloKey, peer: make([]byte, keySize)}, {op: opHelloTag, peer: make([]byte, keySize)}} {
		f.Add(r.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decode(b); err == nil && !bytes.Equal(r.encode(), b) {
			t.Errorf("%x is written %x", b, r.encode())
		}
	})
}

// A key answers, whatever a process asks to have signed, with a signature of a NEW-KEY or recovery
// request, or a refusal.
func FuzzSign(f *testing.F) {
	dir := f.TempDir()
	counter, err := durable.CreateMonotone([2]string{dir + "/a", dir + "/b"}, 1)
	if err != nil {
		f.Fatal(err)
	}
	_, private, _ := ed25519.GenerateKey(nil)
	k := NewKey(private, group, self, asClient, counter)
	f.Add([]byte("bfs new-key v1\x00"))
	f.Add(message.Recovery{Replica: self, Counter: 1, Bound: 1}.AppendCovered(nil, group))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := k.Sign(b); err != nil {
			return
		}
		s, err := message.ParseSigned(b)
		if err != nil || s.From != (message.Principal{Replica: self}) && s.NewKey == nil {
			t.Errorf("signed %x", b)
		}
	})
}

// That the keeper's disk is full is known from its answer, and not from the text of that.
func TestFullDiskIsKnown(t *testing.T) {
	h := newHome(t)
	why := fmt.Errorf("count: %w", syscall.EDQUOT)
	s := h.serve(Rules{Users: []uint32{me}, Operators: []uint32{me}, Recover: func(bool) (string, error) {
		return "", why
	}})
	defer s.Close()
	_, err := AskRecovery(context.Background(), h.socket(), false)
	if !disk.IsFull(err) || !errors.Is(err, ErrRefused) {
		t.Errorf("the keeper's disk is full, and the error is %v", err)
	}
	why = errors.New("no space left on device, says somebody else")
	if _, err := AskRecovery(context.Background(), h.socket(), false); err == nil || disk.IsFull(err) {
		t.Errorf("the keeper's disk is not full, and the error is %v", err)
	}
}
