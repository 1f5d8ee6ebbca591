// SPDX-License-Identifier: Apache-2.0

package signing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"bfs/pkg/internal/disk"
)

// acceptAgain is the pause after a connection could not be accepted.
const acceptAgain = 100 * time.Millisecond

// maxConnections bounds the connections that are open at once. One more displaces the oldest.
const maxConnections = 16

// Rules say which users may ask a Server for what.
type Rules struct {
	Users     []uint32                         // user numbers of processes that may have the key used
	Operators []uint32                         // user numbers of processes that may ask for a recovery
	Recover   func(force bool) (string, error) // recovers the replica; nil: it cannot be recovered
	Status    func() []byte                    // what Users may know of the keeper; nil: nothing
	Refused   func(uid uint32, why error)      // is called for each refusal; may be nil
}

// A Server serves a Key on a Unix socket.
type Server struct {
	key    *Key
	rules  Rules
	path   string
	listen *net.UnixListener

	mu     sync.Mutex
	conns  []*end // the oldest first
	closed bool
	all    sync.WaitGroup
}

// An end is one connection.
type end struct {
	*net.UnixConn
	recovers bool // an operator waits on it, while the replica's process comes and goes
}

// Serve serves key at path. A socket that an earlier process left there is replaced, so
// the caller sees to it that there is one process.
func Serve(path string, key *Key, rules Rules) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace the keeper's socket: %w", err)
	}
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the keeper's socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	// Every user may connect, and the number of the user decides.
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s := &Server{key: key, rules: rules, path: path, listen: l}
	s.all.Go(s.accept)
	return s, nil
}

func (s *Server) accept() {
	for {
		c, err := s.listen.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as a lack of descriptors
			time.Sleep(acceptAgain)
			continue
		}
		if e := (&end{UnixConn: c}); s.enter(e) {
			s.all.Go(func() { s.serve(e) })
		}
	}
}

// enter gives a connection its place.
func (s *Server) enter(c *end) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	if len(s.conns) >= maxConnections {
		_ = s.conns[0].Close() // its goroutine takes it out
	}
	s.conns = append(s.conns, c)
	return true
}

func (s *Server) leave(c *end) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = slices.DeleteFunc(s.conns, func(x *end) bool { return x == c })
}

// serve answers the requests of one connection until it ends or sends something that is no request.
func (s *Server) serve(c *end) {
	defer s.leave(c)
	uid, err := peerUser(c.UnixConn)
	if err != nil {
		return
	}
	for {
		frame, err := readFrame(c, maxRequest)
		if err != nil {
			return
		}
		r, err := decode(frame)
		if err != nil {
			s.refused(uid, err)
			return
		}
		s.mu.Lock()
		c.recovers = r.op == opRecover && slices.Contains(s.rules.Operators, uid)
		s.mu.Unlock()
		answer := s.answer(uid, &r)
		if writeFrame(c, answer) != nil || c.SetReadDeadline(noDeadline) != nil {
			return
		}
	}
}

// answer performs a request, or says why not.
func (s *Server) answer(uid uint32, r *request) []byte {
	if who := s.may(r.op); !slices.Contains(who, uid) {
		return s.refuse(uid, fmt.Errorf("user %d may not ask for this", uid))
	}
	body, err := s.perform(r)
	if err != nil {
		return s.refuse(uid, err)
	}
	return append([]byte{statusDone}, body[:min(len(body), maxText)]...)
}

func (s *Server) may(op operation) []uint32 {
	if op == opRecover {
		return s.rules.Operators
	}
	return s.rules.Users
}

func (s *Server) refuse(uid uint32, why error) []byte {
	s.refused(uid, why)
	status, text := byte(statusRefused), why.Error()
	if disk.IsFull(why) {
		status = statusFull
	}
	return append([]byte{status}, text[:min(len(text), maxText)]...)
}

func (s *Server) refused(uid uint32, why error) {
	if s.rules.Refused != nil {
		s.rules.Refused(uid, why)
	}
}

func (s *Server) perform(r *request) ([]byte, error) {
	switch r.op {
	case opIdentify:
		return append(append([]byte{version}, s.key.Public()...), s.key.group[:]...), nil
	case opCount:
		n, err := s.key.Count()
		return binary.LittleEndian.AppendUint64(nil, n), err
	case opSign:
		return s.key.Sign(r.covered)
	case opHelloKey:
		k, err := s.key.HelloKey(r.peer, r.life)
		return k[:], err
	case opHelloTag:
		t, err := s.key.HelloTag(r.peer, &r.challenge, &r.head)
		return t[:], err
	case opStatus:
		if s.rules.Status == nil {
			return nil, errors.New("this keeper tells nothing of itself")
		}
		return s.rules.Status(), nil
	case opRecover:
		if s.rules.Recover == nil {
			return nil, errors.New("this keeper recovers no replica")
		}
		text, err := s.rules.Recover(r.force)
		return []byte(text), err
	}
	return nil, errFrame // decode knows no other
}

// Disconnect ends all connections except those of operators that wait for a recovery. So no
// connection of an earlier process of the replica is left.
func (s *Server) Disconnect() { s.disconnect(false) }

func (s *Server) disconnect(operators bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		if operators || !c.recovers {
			_ = c.Close()
		}
	}
}

// Close ends the server and waits for its goroutines.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := s.listen.Close()
	s.disconnect(true)
	s.all.Wait()
	return errors.Join(err, os.Remove(s.path))
}
