// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
	"bfs/test/patience"
)

var owner = JournalOptions{Slots: 8, Owner: [32]byte{1, 2, 3}}

func openJournal(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := OpenJournal(path, owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func journalPath(t testing.TB) string { return filepath.Join(t.TempDir(), "journal") }

// die leaves a server as a killed process does: the file stays as it was, and no client is told.
func die(r *rig, j *Journal) {
	r.kill()
	j.Close()
}

// testKey is the key of a call that holds body, from port 700 of the loopback.
func testKey(xid uint32, body string) key {
	return key{peer: netip.MustParseAddrPort("[::1]:700"), xid: xid, digest: digestOf([]byte(body))}
}

func withJournal(j *Journal) func(*Config) { return func(c *Config) { c.Journal = j } }

// Killed after sending: the next life sends the same again, and the kernel that asks
// again gets the answer.
func TestRestartResumesWhatWasUnderway(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	g := newFakeGroup(8)
	r := newRig(t, g, withJournal(j))
	k := r.connect(t)
	sent := map[string]*fakeCall{}
	var messages [][]byte
	for xid := range uint32(5) {
		m := rpc(xid, nfs3.ProgramNFS, procRemove, fmt.Sprintf("n%03d", xid))
		messages = append(messages, m)
		k.send(m)
		f := g.next(t)
		sent[string(f.Body)] = f
	}
	big := rpc(9, nfs3.ProgramNFS, procWrite, strings.Repeat("data", 1<<18)+strings.Repeat("head", 200))
	messages = append(messages, big)
	k.send(big)
	f := g.next(t)
	sent[string(f.Body)] = f
	k.send(rpc(10, nfs3.ProgramNFS, procRead, "read")) // needs no resuming
	g.next(t)
	die(r, j)

	j = openJournal(t, path)
	g = newFakeGroup(8)
	r = newRig(t, g, withJournal(j))
	for range sent {
		f := g.next(t)
		was := sent[string(f.Body)]
		if was == nil || !f.resumed || f.slot != was.slot || f.t != was.t {
			t.Fatalf("resumed slot %d t %d, sent %+v", f.slot, f.t, was)
		}
		sent[string(f.Body)] = f
	}
	k = r.reconnect(t, k)
	for _, m := range messages[:3] { // asked again before the group answers,
		k.send(m)
	}
	r.eventually(t, "joined", func(s Stats) bool { return s.Joined == 3 })
	g.quiet(t)
	for _, f := range sent {
		g.end(f, success("okay"), nil)
	}
	for range 3 {
		if b, err := k.receive(); err != nil || !bytes.HasSuffix(b, []byte("okay")) {
			t.Fatalf("%x %v", b, err)
		}
	}
	for _, m := range messages[3:] { // and after
		k.send(m)
		k.expect(binary.BigEndian.Uint32(m[4:]), nfs3.Success, "okay")
	}
	g.quiet(t)
	if calls := j.underway(); len(calls) != 0 {
		t.Fatalf("%d operations still noted", len(calls))
	}
}

// A kernel that is refused while the relay is away comes back from another port, and from
// a third after the next restart. A call that was answered gets its answer, and one that
// was under way is joined.
func TestRestartServesKernelsFromOtherPorts(t *testing.T) {
	path := journalPath(t)
	done, waiting := rpc(1, nfs3.ProgramNFS, procRemove, "done"), rpc(2, nfs3.ProgramNFS, procRemove, "wait")
	j := openJournal(t, path)
	g := newFakeGroup(8)
	r := newRig(t, g, withJournal(j))
	k := r.connect(t)
	k.send(done)
	g.end(g.next(t), success("done"), nil)
	r.eventually(t, "answered", func(s Stats) bool { return s.BytesOut > 0 })
	k.send(waiting)
	g.next(t)
	for range 2 {
		die(r, j)
		j = openJournal(t, path)
		g = newFakeGroup(8)
		r = newRig(t, g, withJournal(j))
		f := g.next(t)
		k = r.connect(t)
		k.send(done)
		k.expect(1, nfs3.Success, "done")
		k.send(waiting)
		r.eventually(t, "joined", func(s Stats) bool { return s.Joined == 1 })
		g.quiet(t)
		if len(j.underway()) == 1 && f.resumed {
			continue
		}
		t.Fatal("the call that was under way is not any more")
	}
}

// The group may have executed a call that was sent again after a restart, and have lost its
// result. Its kernel, which comes back later, is told of the failure; to do the call again
// might be to do it twice. The next life says the same.
func TestRestartKeepsFailures(t *testing.T) {
	path := journalPath(t)
	m := rpc(1, nfs3.ProgramNFS, procRemove, "lost")
	j := openJournal(t, path)
	g := newFakeGroup(8)
	r := newRig(t, g, withJournal(j))
	k := r.connect(t)
	k.send(m)
	g.next(t)
	die(r, j)
	j = openJournal(t, path)
	g = newFakeGroup(8)
	r = newRig(t, g, withJournal(j))
	g.end(g.next(t), nil, pbft.ErrResultLost)
	for range 2 {
		k = r.reconnect(t, k)
		k.send(m)
		k.expect(1, nfs3.SystemErr, "")
		g.quiet(t)
		die(r, j)
		j = openJournal(t, path)
		g = newFakeGroup(8)
		r = newRig(t, g, withJournal(j))
	}
}

// A call that failed before it left was not executed, so it is done when it comes again.
func TestFailureBeforeACallLeftIsNoAnswer(t *testing.T) {
	g := newFakeGroup(8)
	g.refuse = pbft.ErrKeyInUse
	r := newRig(t, g, nil)
	k := r.connect(t)
	m := rpc(1, nfs3.ProgramNFS, procRemove, "aaaa")
	k.send(m)
	k.expect(1, nfs3.SystemErr, "")
	g.mu.Lock()
	g.refuse, g.answer = nil, echo
	g.mu.Unlock()
	k.send(m)
	k.expect(1, nfs3.Success, "aaaa")
}

// Killed after the answer: it is in the journal, even if its slot has been used since,
// and nothing is done again.
func TestRestartKeepsAnswers(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	g := newFakeGroup(8)
	g.answer = echo
	r := newRig(t, g, withJournal(j))
	k := r.connect(t)
	const calls = 50
	for xid := range uint32(calls) { // one after the other, so all in one slot
		k.send(rpc(xid, nfs3.ProgramNFS, procRemove, fmt.Sprintf("n%03d", xid)))
		k.expect(xid, nfs3.Success, fmt.Sprintf("n%03d", xid))
	}
	die(r, j)

	j = openJournal(t, path)
	g = newFakeGroup(8)
	r = newRig(t, g, withJournal(j))
	k = r.reconnect(t, k)
	for xid := range uint32(calls) {
		k.send(rpc(xid, nfs3.ProgramNFS, procRemove, fmt.Sprintf("n%03d", xid)))
		k.expect(xid, nfs3.Success, fmt.Sprintf("n%03d", xid))
	}
	g.quiet(t)
}

// An operation that the client closed on stays noted: the next life resumes it.
func TestClosedClientLeavesTheJournalAsItIs(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	g := newFakeGroup(8)
	r := newRig(t, g, withJournal(j))
	k := r.connect(t)
	k.send(rpc(1, nfs3.ProgramNFS, procRemove, "aaaa"))
	f := g.next(t)
	g.end(f, nil, pbft.ErrClosed)
	k.expectClosed()
	if n := len(j.underway()); n != 1 {
		t.Fatalf("got %d noted, want 1", n)
	}
	// One that failed for good is not resumed.
	k = r.connect(t)
	k.send(rpc(2, nfs3.ProgramNFS, procRemove, "bbbb"))
	f = g.next(t)
	g.end(f, nil, pbft.ErrResultLost)
	k.expect(2, nfs3.SystemErr, "")
	if n := len(j.underway()); n > 1 {
		t.Fatalf("got %d noted, want at most 1", n)
	}
}

// A client may send a call under a new slot and timestamp; then only the last counts.
func TestCallThatMovesToAnotherSlot(t *testing.T) {
	j := openJournal(t, journalPath(t))
	s, err := New(Config{Group: newFakeGroup(8), Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	k := &call{server: s, key: testKey(1, "body"), body: []byte("body")}
	for _, at := range []struct {
		slot pbft.Slot
		t    pbft.Timestamp
	}{{3, 7}, {3, 8}, {5, 9}} {
		if err := k.sending(at.slot, at.t); err != nil {
			t.Fatal(err)
		}
		calls := j.underway()
		if len(calls) != 1 || calls[0].slot != at.slot || calls[0].t != at.t {
			t.Fatalf("noted %+v", calls)
		}
	}
	if n := j.overtaken.Load(); n != 0 {
		t.Fatalf("%d overtaken", n)
	}
	if err := k.sending(8, 1); err == nil {
		t.Fatal("slot 8 of 8 was taken")
	}
}

// TestCrashAtEveryPoint copies the file at each step of random lives, as a kill there
// would leave it. The next life must find each operation that was sent and not answered,
// each recent answer, and nothing else.
func TestCrashAtEveryPoint(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	j := openJournal(t, path)
	chance := rand.New(rand.NewPCG(1, 2))
	underway, answers := map[pbft.Slot]*call{}, map[key]string{}
	for step := range 60 {
		slot := pbft.Slot(chance.IntN(owner.Slots))
		if k := underway[slot]; k != nil {
			reply := success(strings.Repeat("r", chance.IntN(ringRecord-ringHead-4)))
			j.finish(k, reply, now())
			delete(underway, slot)
			answers[k.key] = string(reply)
		} else {
			body := bytes.Repeat([]byte{byte(step)}, 1+chance.IntN(100<<chance.IntN(10)))
			k := &call{body: body, key: testKey(uint32(step), string(body)), slot: slot, t: pbft.Timestamp(step + 1)}
			if err := j.begin(k.slot, k.t, k); err != nil {
				t.Fatal(err)
			}
			underway[slot] = k
		}
		checkCopy(t, j, filepath.Join(dir, "copy"), underway, answers)
	}
}

// checkCopy opens a copy of j's file and compares its contents.
func checkCopy(t *testing.T, j *Journal, path string, underway map[pbft.Slot]*call, answers map[key]string) {
	t.Helper()
	copyMapped(t, j, path)
	after, err := OpenJournal(path, owner)
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	calls := after.underway()
	if len(calls) != len(underway) {
		t.Fatalf("%d under way, want %d", len(calls), len(underway))
	}
	for _, k := range calls {
		if was := underway[k.slot]; was == nil || was.t != k.t || was.key != k.key || !bytes.Equal(was.body, k.body) {
			t.Fatalf("slot %d: found %v, want %v", k.slot, k.key, was)
		}
	}
	found := after.answered(time.Minute)
	if len(found) != len(answers) {
		t.Fatalf("%d answers, want %d", len(found), len(answers))
	}
	for _, a := range found {
		if answers[a.key] != string(a.reply) {
			t.Fatalf("%v: answer %q, want %q", a.key, a.reply, answers[a.key])
		}
	}
}

// copyMapped copies the parts that are not zero, so that the copy is as sparse.
func copyMapped(t *testing.T, j *Journal, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(len(j.mapped))); err != nil {
		t.Fatal(err)
	}
	write := func(at, n int) {
		if _, err := f.WriteAt(j.mapped[at:at+n], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	write(0, regions)
	for i := range j.occupied {
		write(regionAt(pbft.Slot(i)), j.space[i])
	}
}

// Killed inside a write: the guard has not been stored, and the half-written record does not exist.
func TestHalfWrittenRecordsDoNotExist(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	k := &call{body: []byte("operation"), key: testKey(1, "operation"), slot: 2, t: 5}
	if err := j.begin(k.slot, k.t, k); err != nil {
		t.Fatal(err)
	}
	guard32(j.region(2)).Store(0)
	j.region(2)[regionHead] ^= 1
	j.mu.Lock()
	j.keep(k, success("okay"), now())
	j.mu.Unlock()
	guard64(j.answerAt(0)).Store(0)
	j.answerAt(0)[ringHead] ^= 1
	j.Close()
	j = openJournal(t, path)
	if len(j.underway()) != 0 || len(j.answered(time.Minute)) != 0 {
		t.Fatal("half-written records were believed")
	}
}

// Killed between keeping the answer and freeing the slot: it counts as answered.
func TestAnsweredButNotFreed(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	k := &call{body: []byte("operation"), key: testKey(1, "operation"), slot: 2, t: 5}
	if err := j.begin(k.slot, k.t, k); err != nil {
		t.Fatal(err)
	}
	j.mu.Lock()
	j.keep(k, success("okay"), now())
	j.mu.Unlock()
	j.Close()
	j = openJournal(t, path)
	if len(j.underway()) != 0 || len(j.answered(time.Minute)) != 1 {
		t.Fatalf("%d under way, %d answered; want 0, 1", len(j.underway()), len(j.answered(time.Minute)))
	}
}

func TestAnswersGoRoundTheRing(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	for i := range ringRecords + 10 {
		body := []byte(fmt.Sprint(i))
		k := &call{body: body, key: testKey(uint32(i), string(body)), slot: 1, t: pbft.Timestamp(i + 1)}
		if err := j.begin(k.slot, k.t, k); err != nil {
			t.Fatal(err)
		}
		j.finish(k, success("okay"), now())
	}
	j.Close()
	list := openJournal(t, path).answered(time.Minute)
	if len(list) != ringRecords || list[0].key.xid != 10 || list[ringRecords-1].key.xid != ringRecords+9 {
		t.Fatalf("got %d answers, %d to %d", len(list), list[0].key.xid, list[len(list)-1].key.xid)
	}
}

func TestUnusableJournals(t *testing.T) {
	fill := func(t *testing.T, path string) {
		j := openJournal(t, path)
		k := &call{body: []byte("operation"), key: testKey(1, "operation"), slot: 0, t: 5}
		if err := j.begin(k.slot, k.t, k); err != nil {
			t.Fatal(err)
		}
		j.finish(k, success("okay"), now())
		if err := j.begin(k.slot, 6, k); err != nil {
			t.Fatal(err)
		}
		j.Close()
	}
	flip := func(at int64) func(*testing.T, *os.File) {
		return func(t *testing.T, f *os.File) {
			var b [1]byte
			if _, err := f.ReadAt(b[:], at); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 0x10
			if _, err := f.WriteAt(b[:], at); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut := func(n int64) func(*testing.T, *os.File) {
		return func(t *testing.T, f *os.File) {
			if err := f.Truncate(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		damage func(*testing.T, *os.File)
		option JournalOptions
		want   string
	}{
		{"another's", nil, JournalOptions{Slots: 8, Owner: [32]byte{9}}, "belongs to another client"},
		{"other slots", nil, JournalOptions{Slots: 9, Owner: owner.Owner}, "made for 8 slots, the client has 9"},
		{"magic", flip(0), owner, "not a relay journal"},
		{"version", flip(8), owner, "version"},
		{"header", flip(20), owner, "damaged header"},
		{"cut short", cut(regions), owner, "bytes long, want"},
		{"cut very short", cut(100), owner, "cut short"},
		{"too long", cut(regions + 9*regionSize), owner, "bytes long, want"},
		{"operation", flip(regions + regionHead), owner, "damaged record of slot 0"},
		{"length", flip(regions + 23), owner, "damaged record of slot 0"},
		{"guard", flip(regions), owner, "damaged record of slot 0"},
		{"answer", flip(ringStart + ringHead), owner, "damaged answer 0"},
		{"answer's length", flip(ringStart + 65), owner, "damaged answer 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := journalPath(t)
			fill(t, path)
			if c.damage != nil {
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				c.damage(t, f)
				f.Close()
			}
			_, err := OpenJournal(path, c.option)
			if !errors.Is(err, ErrJournal) {
				t.Fatalf("got %v", err)
			}
			for _, part := range []string{c.want, path, "move the file away"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
}

// After a crash of the machine torn records are expected, and no client asks for them.
func TestTornRecordsAfterACrashOfTheMachine(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	body := []byte("operation")
	for slot := range pbft.Slot(3) {
		k := &call{body: body, key: testKey(1, string(body)), slot: slot, t: 5}
		if err := j.begin(k.slot, k.t, k); err != nil {
			t.Fatal(err)
		}
	}
	j.region(1)[regionHead] ^= 1
	j.mapped[headerBoot] ^= 1 // as another life of the machine left it
	j.Close()
	j = openJournal(t, path)
	if calls := j.underway(); len(calls) != 2 || j.Torn() != 1 {
		t.Fatalf("got %d under way, %d torn; want 2, 1", len(calls), j.Torn())
	}
}

func TestJournalIsForOneRelay(t *testing.T) {
	path := journalPath(t)
	openJournal(t, path)
	if _, err := OpenJournal(path, owner); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("got %v", err)
	}
}

func TestLostAndUnfinishedJournals(t *testing.T) {
	path := journalPath(t)
	openJournal(t, path).Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	openJournal(t, path).Close()
	// Killed while the file was made: its header is still zeros.
	if err := os.WriteFile(path, make([]byte, 123456), 0o600); err != nil {
		t.Fatal(err)
	}
	openJournal(t, path).Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	if err := os.Symlink(path, path+".link"); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJournal(path+".link", owner); err == nil {
		t.Fatal("followed a symbolic link")
	}
}

// A process killed with SIGKILL among its writes leaves a file that the next one can use.
func TestJournalSurvivesSIGKILL(t *testing.T) {
	if path := os.Getenv("RELAY_TEST_JOURNAL"); path != "" {
		scribble(t, path)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := journalPath(t)
	for range 5 {
		c := exec.Command(self, "-test.run=^TestJournalSurvivesSIGKILL$")
		c.Env = append(os.Environ(), "RELAY_TEST_JOURNAL="+path)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 1) // it has begun, and is in the middle of some write
		if _, err := out.Read(line); err != nil {
			t.Fatal(err)
		}
		c.Process.Kill()
		c.Wait()
		j := openJournal(t, path)
		for _, k := range j.underway() {
			if len(k.body) < 8 || !bytes.Equal(k.body, bytes.Repeat(k.body[:1], len(k.body))) {
				t.Fatalf("slot %d: operation %x", k.slot, k.body[:min(len(k.body), 16)])
			}
		}
		j.Close()
	}
}

// scribble begins and finishes operations until it is killed.
func scribble(t *testing.T, path string) {
	j := openJournal(t, path)
	end := time.Now().Add(patience.For(patience.Usual)) // if it is not killed
	for i := 1; time.Now().Before(end); i++ {
		body := bytes.Repeat([]byte{byte(i) | 1}, 8+i%5000)
		k := &call{body: body, key: testKey(uint32(i), string(body)), slot: pbft.Slot(i % 8), t: pbft.Timestamp(i)}
		if err := j.begin(k.slot, k.t, k); err != nil {
			t.Fatal(err)
		}
		if i == 100 {
			os.Stdout.WriteString("x")
		}
		if i%3 != 0 {
			j.finish(k, success("okay"), now())
		}
	}
}

func TestJournalNeedsAGoodNumberOfSlots(t *testing.T) {
	for _, n := range []int{-1, 0, maxSlots + 1} {
		if _, err := OpenJournal(journalPath(t), JournalOptions{Slots: n}); err == nil {
			t.Errorf("%d slots taken", n)
		}
	}
}

// The file is sparse: it takes only the space that small calls need.
func TestJournalIsSparse(t *testing.T) {
	path := journalPath(t)
	j := openJournal(t, path)
	if len(j.mapped) < owner.Slots<<20 {
		t.Fatalf("%d bytes cannot hold %d large calls", len(j.mapped), owner.Slots)
	}
	out, err := exec.Command("du", "-k", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var kib int
	fmt.Sscan(string(out), &kib)
	if kib > 4096 {
		t.Fatalf("an empty journal takes %d KiB", kib)
	}
}

// A full disk shows when space is taken, not as a fault in mapped memory, and fails that call only.
func TestFullDiskFailsTheCall(t *testing.T) {
	j := openJournal(t, journalPath(t))
	g := newFakeGroup(8)
	g.answer = echo
	r := newRig(t, g, withJournal(j))
	k := r.connect(t)
	j.file.Close() // the file gives no more space
	k.send(rpc(1, nfs3.ProgramNFS, procWrite, strings.Repeat("x", 100_000)))
	k.expect(1, nfs3.SystemErr, "")
	k.send(rpc(2, nfs3.ProgramNFS, procWrite, "small..."))
	k.expect(2, nfs3.Success, "small...")
}

// A record that is sound but holds no NFS operation was not written by us.
func TestResumeOfForeignBytes(t *testing.T) {
	for _, body := range []string{"", "not an operation",
		string(nfs3.AppendCall(nil, &nfs3.Call{Program: nfs3.ProgramNFS, Procedure: 22}))} {
		j := openJournal(t, journalPath(t))
		k := &call{body: []byte(body), key: testKey(1, body), slot: 1, t: 1}
		if err := j.begin(k.slot, k.t, k); err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{Group: newFakeGroup(8), Journal: j})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Resume(); !errors.Is(err, ErrJournal) {
			t.Fatalf("%q: got %v", body, err)
		}
	}
}
