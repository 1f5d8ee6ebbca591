// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"bfs/pkg/nfs3"
)

// A client that took its answer and left is not taken for its successor on the same port,
// over a restart of the relay either.
func TestRestartForgetsAnswersThatWereTaken(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	g := newFakeGroup(8)
	g.answer = echo
	r := newRig(t, g, withJournal(j))
	k := r.connect(t)
	m := rpc(7, nfs3.ProgramNFS, procWrite, "same")
	k.send(m)
	k.expect(7, nfs3.Success, "same")
	k.Close()
	r.eventually(t, "end seen", func(s Stats) bool { return s.Connections == 0 })
	die(r, j)

	j = openJournal(t, path)
	g = newFakeGroup(8)
	g.answer = echo
	r = newRig(t, g, withJournal(j))
	k = r.reconnect(t, k)
	k.send(m)
	k.expect(7, nfs3.Success, "same")
	g.next(t)
}

// However long the relay was down, a kernel may come back for minutes from when it serves
// again, and not after that.
func TestTimeToComeBackRunsFromTheRestart(t *testing.T) {
	for _, c := range []struct {
		waited time.Duration // from when the new life serves
		lives  int           // that served before it, for a moment
		again  bool
	}{{5 * time.Minute, 0, true}, {7 * time.Minute, 0, false}, {5 * time.Minute, 2, true}} {
		path, clock := journalPath(t), newHandClock()
		j := openJournal(t, path)
		g := newFakeGroup(8)
		g.answer, g.now = echo, clock.now
		r := newRig(t, g, withJournal(j))
		k := r.connect(t)
		m := rpc(7, nfs3.ProgramNFS, procWrite, "same")
		k.send(m)
		k.expect(7, nfs3.Success, "same")
		for range c.lives + 1 {
			die(r, j)
			clock.pass(time.Hour)
			j = openJournal(t, path)
			g = newFakeGroup(8)
			g.answer, g.now = echo, clock.now
			r = newRig(t, g, withJournal(j))
			early := r.connect(t)
			early.send(rpc(1, nfs3.ProgramNFS, 0, ""))
			early.expect(1, nfs3.Success, "") // it serves
		}
		clock.pass(c.waited)
		k = r.reconnect(t, k)
		k.send(m)
		k.expect(7, nfs3.Success, "same")
		if n := len(g.started); (n == 0) != c.again {
			t.Errorf("after %v: %d calls reached the group", c.waited, n)
		}
	}
}

// An answer that was old when the relay died had been taken, or no client waited for it.
func TestOldAnswersDieWithTheRelay(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	for i, age := range []time.Duration{time.Hour, 5 * time.Minute} {
		k := &call{key: testKey(uint32(i), "x"), slot: 1}
		j.finish(k, success("okay"), instant(2*time.Hour-age))
	}
	j.alive(instant(2 * time.Hour))
	j.Close()
	list := openJournal(t, path).answered(6 * time.Minute)
	if len(list) != 1 || list[0].key.xid != 1 {
		t.Fatalf("got %d answers, want the younger", len(list))
	}
}

// The relay is away for longer than answers are kept, begins to serve, and dies before its kernels
// have come back. They may still come. A life that served for long is the last to know the answer.
func TestAnswersOutliveLivesThatNobodyReached(t *testing.T) {
	path, at := journalPath(t), instant(time.Hour)
	j := openJournal(t, path)
	j.serves(at)
	j.finish(&call{key: testKey(1, "x"), slot: 1}, success("okay"), at)
	for _, c := range []struct {
		away, served time.Duration
		kept         bool
	}{
		{7 * time.Minute, time.Second, true},
		{7 * time.Minute, 5 * time.Minute, true},
		{0, 7 * time.Minute, false},
		{0, 0, false},
	} {
		at += instant(c.away)
		j.serves(at)
		at += instant(c.served)
		j.alive(at)
		j.Close()
		j = openJournal(t, path)
		if list := j.answered(6 * time.Minute); (len(list) == 1) != c.kept {
			t.Fatalf("away %v, served %v: got %d answers, want one: %v", c.away, c.served, len(list), c.kept)
		}
	}
}

// All clients are on this machine: after its restart none of them is left to ask again.
func TestNobodyAsksAgainAfterTheMachineRestarted(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	g := newFakeGroup(8)
	r := newRig(t, g, withJournal(j))
	k := r.connect(t)
	done, waiting := rpc(1, nfs3.ProgramNFS, procWrite, "done"), rpc(2, nfs3.ProgramNFS, procWrite, "wait")
	k.send(done)
	g.end(g.next(t), success("done"), nil)
	k.expect(1, nfs3.Success, "done")
	k.send(waiting)
	g.next(t)
	j.mapped[headerBoot] ^= 1 // another life of the machine
	die(r, j)

	j = openJournal(t, path)
	g = newFakeGroup(8)
	r = newRig(t, g, withJournal(j))
	g.end(g.next(t), success("late"), nil) // the call that was under way ends
	k = r.reconnect(t, k)
	for _, m := range [][]byte{done, waiting} {
		k.send(m)
		g.end(g.next(t), success("anew"), nil)
		k.expect(binary.BigEndian.Uint32(m[4:]), nfs3.Success, "anew")
	}
}

// A journal of the version before has no ports: its calls under way are seen through, and
// its answers dropped.
func TestJournalOfTheVersionBefore(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	k := &call{body: []byte("operation"), key: testKey(1, "operation"), slot: 2, t: 5}
	if err := j.begin(k.slot, k.t, k); err != nil {
		t.Fatal(err)
	}
	j.finish(&call{key: testKey(2, "x"), slot: 3, t: 4}, success("okay"), now())
	binary.LittleEndian.PutUint32(j.mapped[8:], 1)
	binary.LittleEndian.PutUint32(j.mapped[headerCRC:], crc32.Checksum(j.mapped[:headerCRC], castagnoli))
	j.answerAt(0)[64] ^= 0xff // where version 1 had something else
	j.Close()
	for range 2 { // the second time it is of our version
		j = openJournal(t, path)
		calls := j.underway()
		if len(calls) != 1 || calls[0].t != 5 || len(j.answered(time.Hour)) != 0 {
			t.Fatalf("%d under way, %d answered; want 1, 0", len(calls), len(j.answered(time.Hour)))
		}
		if string(j.mapped[8:12]) != "\x02\x00\x00\x00" {
			t.Fatalf("version %x", j.mapped[8:12])
		}
		j.Close()
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
}

// A logBook collects the lines of a log.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBook) lines(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// Calls that stay unanswered for a minute make one line, with the cause, and their end
// another, with the time it took.
func TestUnansweredCallsAreLogged(t *testing.T) {
	clock, book := newHandClock(), new(logBook)
	s, err := New(Config{
		Group: newFakeGroup(8), Log: slog.New(slog.NewTextHandler(book, nil)),
		Cause: func() string { return "reaches 2 replicas, want 3" },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.table.now = clock.now
	c := tableConn(s, 700)
	begin := func(xid, procedure uint32) *call {
		k := &call{
			server: s, conn: c, from: c.lineage, began: clock.now(), key: testKey(xid, "body"),
			program: nfs3.ProgramNFS, procedure: procedure,
		}
		s.table.admit(k)
		return k
	}
	end := func(k *call) {
		to, _ := s.table.finish(k, nil)
		s.table.release(to, 0)
	}
	first := begin(1, procWrite)
	second := begin(2, procRead)
	if name, _ := s.Oldest(); name != "WRITE" {
		t.Errorf("oldest is %q", name)
	}
	clock.pass(50 * time.Second)
	s.lookAfter(clock.now())
	if n := book.lines("unanswered"); n != 0 {
		t.Fatalf("%d lines after 50 s", n)
	}
	clock.pass(20 * time.Second)
	for range 2 {
		s.lookAfter(clock.now())
	}
	if book.lines("unanswered") != 1 || book.lines(`calls=2 oldest=WRITE cause="reaches 2 replicas, want 3"`) != 1 {
		t.Fatalf("logged:\n%s", book.b.String())
	}
	end(first)
	s.lookAfter(clock.now())
	if book.lines("answered again") != 0 {
		t.Fatal("one is still unanswered")
	}
	clock.pass(10 * time.Second)
	end(second)
	s.lookAfter(clock.now())
	if book.lines(`answered again" after=1m20s`) != 1 {
		t.Fatalf("logged:\n%s", book.b.String())
	}
	if name, age := s.Oldest(); name != "" || age != 0 {
		t.Errorf("oldest is %q, %v", name, age)
	}
}

func TestRelayThatStoppedLookingIsNotAlive(t *testing.T) {
	clock := newHandClock()
	s, err := New(Config{Group: newFakeGroup(1), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.table.now = clock.now
	s.lookAfter(clock.now())
	if err := s.Alive(); err != nil {
		t.Error(err)
	}
	clock.pass(time.Minute)
	if err := s.Alive(); err == nil || !strings.Contains(err.Error(), "1m0s") {
		t.Errorf("got %v", err)
	}
}

// Advice of one kind is given once in ten minutes, however often its cause comes up.
func TestAdviceIsNotRepeatedAtOnce(t *testing.T) {
	clock, book := newHandClock(), new(logBook)
	s, err := New(Config{Group: newFakeGroup(1), Log: slog.New(slog.NewTextHandler(book, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.table.now = clock.now
	for range 3 {
		s.advise("kind", "advice")
		clock.pass(4 * time.Minute)
	}
	if n := book.lines("advice"); n != 1 {
		t.Errorf("%d lines in 8 minutes", n)
	}
	s.advise("kind", "advice")
	if n := book.lines("advice"); n != 2 {
		t.Errorf("%d lines in 12 minutes", n)
	}
}
