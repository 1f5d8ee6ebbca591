// SPDX-License-Identifier: Apache-2.0

package core

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts anew from what the code does; the diff is the review")

// shown collects every refusal that some transcript showed.
var shown [refusals]bool

// A transcript is a script of commands, a line "----", and what happened. Blocks are
// separated by an empty line; text before the first command of a block that begins with #
// is prose.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) { runTranscript(t, path) })
	}
	for _, why := range Refusals() {
		if !shown[why] {
			t.Errorf("no transcript shows the refusal %q", why)
		}
	}
}

func runTranscript(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	p := &play{}
	for i, block := range strings.Split(strings.TrimRight(string(text), "\n"), "\n\n") {
		if i > 0 {
			out.WriteString("\n\n")
		}
		script, _, _ := strings.Cut(block, "\n----")
		out.WriteString(script + "\n----")
		for _, line := range strings.Split(script, "\n") {
			if line != "" && !strings.HasPrefix(line, "#") {
				p.command(t, line)
			}
		}
		for _, line := range p.take() {
			out.WriteString("\n" + line)
		}
	}
	out.WriteString("\n")
	if *rewrite {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if out.String() != string(text) {
		t.Errorf("%s: what happens has changed; go test -rewrite shows how. Now:\n%s", path, out.String())
	}
}

// A play is a group of cores and the wires between them.
type play struct {
	cores []*Core
	held  [][]*message.Batch // executed batches by replica, for equality
	wires []wire
	nonce uint64 // of the last request
	cut   map[[2]int]bool
	lines []event
	stale map[int]bool // replicas whose roots are false
	bad   map[int]bool // replicas whose service accepts no choice
	late  map[int]bool // replicas whose roots are withheld
	liars map[int]bool // replicas that serve false pages
	quiet bool         // STATUSes, acks and refusals are not told
}

type wire struct {
	from, to int
	m        message.Message
}

// An event is something one replica did.
type event struct {
	who  int
	what string
}

func (p *play) say(who int, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	for _, noise := range []string{"STATUS", "refuses", "-ACK", "second vote", "may promise"} {
		if p.quiet && strings.Contains(what, noise) {
			return
		}
	}
	p.lines = append(p.lines, event{who, what})
}

// take renders what happened since: replicas that did the same at the same time share a line.
func (p *play) take() (out []string) {
	for len(p.lines) > 0 {
		what := p.lines[0].what
		var who []int
		rest := p.lines[:0:0]
		for _, l := range p.lines {
			if l.what == what && !slices.Contains(who, l.who) && len(rest) < 3*len(p.cores) {
				who = append(who, l.who)
			} else {
				rest = append(rest, l)
			}
		}
		slices.Sort(who)
		names := strings.Trim(fmt.Sprint(who), "[]")
		if len(who) > 1 {
			what = "each " + what
		}
		out = append(out, fmt.Sprintf("%-7s %s", names, what))
		p.lines = rest
	}
	return out
}

// arguments are the words of a command: positional ones and key=value.
type arguments struct {
	words []string
	named map[string]string
}

func parse(line string) (verb string, a arguments) {
	fields := strings.Fields(line)
	a.named = map[string]string{}
	for _, f := range fields[1:] {
		if k, v, ok := strings.Cut(f, "="); ok {
			a.named[k] = v
		} else {
			a.words = append(a.words, f)
		}
	}
	return fields[0], a
}

func (a arguments) int(t *testing.T, name string, otherwise int) int {
	v, ok := a.named[name]
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s=%s: %v", name, v, err)
	}
	return n
}

func (p *play) command(t *testing.T, text string) {
	t.Helper()
	verb, a := parse(text)
	switch verb {
	case "group":
		p.group(t, a)
	case "cut", "heal":
		for _, w := range a.words {
			var from, to int
			if _, err := fmt.Sscanf(w, "%d->%d", &from, &to); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			p.cut[[2]int{from, to}] = verb == "cut"
		}
	case "false-root", "stubborn", "slow-hash", "liar":
		for _, w := range a.words {
			i, _ := strconv.Atoi(w)
			map[string]map[int]bool{"false-root": p.stale, "stubborn": p.bad, "slow-hash": p.late,
				"liar": p.liars}[verb][i] = true
		}
	case "leave":
		p.cores[a.int(t, "at", 0)].leave(message.View(a.int(t, "v", 1)))
		p.perform(a.int(t, "at", 0))
	case "request":
		p.request(t, a)
	case "deliver":
		for len(p.wires) > 0 {
			p.round()
		}
	case "tick":
		for range a.int(t, "n", 1) {
			for i, c := range p.cores {
				c.Tick()
				p.perform(i)
			}
		}
	case "keys":
		p.cores[a.int(t, "at", 0)].KeysChanged(message.ReplicaID(a.int(t, "of", 0)))
		p.perform(a.int(t, "at", 0))
	case "inject":
		p.inject(t, a)
	case "state":
		for i, c := range p.cores {
			p.say(i, "view %d, executed %d, stable %d", c.view, c.log.lastExec, c.stable.Seq)
		}
	default:
		t.Fatalf("unknown command: %s", text)
	}
}

func (p *play) group(t *testing.T, a arguments) {
	n := a.int(t, "n", 4)
	*p = play{held: make([][]*message.Batch, n), cut: map[[2]int]bool{}, stale: map[int]bool{}, bad: map[int]bool{},
		late: map[int]bool{}, liars: map[int]bool{}, quiet: a.named["quiet"] != ""}
	fence := map[int]int{a.int(t, "restarted", -1): a.int(t, "fence", 0)}
	left := map[int]int{a.int(t, "restarted", -1): a.int(t, "left", 0)}
	recovers := map[int]uint64{a.int(t, "recovers", -1): 1}
	for i := range n {
		c := New(Config{
			Self: message.ReplicaID(i), Replicas: n,
			CheckpointPeriod: message.SeqNum(a.int(t, "k", 4)), LogSize: message.SeqNum(a.int(t, "l", 8)),
			CheckpointBytes: a.int(t, "bytes", 0), Window: message.SeqNum(a.int(t, "window", 1)),
			Batch:    BatchLimit{Bytes: 1 << 10, Count: a.int(t, "batch", 8), Cost: a.int(t, "cost", 0)},
			LogBytes: a.int(t, "log", 1<<20), Clients: 16, Slots: a.int(t, "slots", 4), QueueBytes: 1 << 11,
			Ticks: Ticks{Status: a.int(t, "status", 10), Resend: 2, Forward: 2, Timeout: 20},
			Fence: message.SeqNum(fence[i]), FenceView: message.View(left[i]), Tentative: a.named["tentative"] != "",
			Piggyback: a.named["piggyback"] != "", Separate: a.named["separate"] != "", Recovery: recovers[i],
		})
		c.Trace(func(m message.Message, why Refusal) {
			shown[why] = true
			p.say(i, "refuses %s: %v", describe(m), why)
		})
		p.cores = append(p.cores, c)
		if c.Frozen(0, message.Digest{1}); recovers[i] > 0 {
			c.Resume()
		}
		p.perform(i)
	}
}

// request has a client send; authentic=0,1 names the replicas at which its MAC is good.
func (p *play) request(t *testing.T, a arguments) {
	r := message.Request{
		Client: message.ClientID(a.int(t, "client", 9)), Slot: message.Slot(a.int(t, "slot", 0)),
		Timestamp: message.Timestamp(a.int(t, "t", 1)), ReadOnly: a.named["ro"] != "", Apart: a.named["apart"] != "",
		Op: []byte(a.named["op"]),
	}
	if size := a.int(t, "size", 0); size > 0 {
		r.Op = make([]byte, size)
	}
	p.nonce++
	r.Auth.Nonce = p.nonce
	r.Auth.Tags = make([]byte, len(p.cores)*message.MACSize)
	good := a.named["authentic"]
	for i := range p.cores {
		if good == "" || strings.Contains(good, strconv.Itoa(i)) {
			r.Auth.Tags[i*message.MACSize] = 1
		}
	}
	to := a.named["to"]
	for i, c := range p.cores {
		if to == "" && c.isPrimary() || strings.Contains(to, strconv.Itoa(i)) {
			own := p.arrive(i, &r)
			if a.named["brief"] != "" {
				own = own.Stub()
			}
			c.Step(own)
		}
	}
	for i := range p.cores {
		p.perform(i)
	}
}

// arrive is a request as replica i has it: with its own judgement of the authenticator.
func (p *play) arrive(i int, r *message.Request) *message.Request {
	own := *r
	own.PassedBy = message.ReplicaID(i)
	own.Authentic = r.Client.Signs() || r.Auth.Tags[i*message.MACSize] == 1
	return &own
}

// inject hands replica at a message that from is made to have sent.
func (p *play) inject(t *testing.T, a arguments) {
	at, from := a.int(t, "at", 0), message.ReplicaID(a.int(t, "from", 0))
	view, n := message.View(a.int(t, "v", 0)), message.SeqNum(a.int(t, "n", 1))
	digest := message.Digest{byte(a.int(t, "d", 0xd0))}
	var m message.Message
	switch a.words[0] {
	case "PRE-PREPARE":
		var b message.Batch
		for slot := range a.int(t, "requests", 1) {
			r := message.Request{Client: 7, Slot: message.Slot(slot), Timestamp: message.Timestamp(a.int(t, "t", 1)),
				Op: make([]byte, a.int(t, "size", 1)), Authentic: true}
			r.Auth.Tags = make([]byte, len(p.cores)*message.MACSize)
			b.Requests = append(b.Requests, &r)
		}
		m = &message.PrePrepare{View: view, Seq: n, Digest: b.Digest(), Batch: b, From: from}
	case "PREPARE":
		m = &message.Prepare{View: view, Seq: n, Digest: digest, From: from}
	case "COMMIT":
		m = &message.Commit{View: view, Seq: n, From: from}
	case "CHECKPOINT":
		m = &message.Checkpoint{Seq: n, Digest: digest, From: from}
	case "STATUS":
		m = &message.Status{View: view, Active: true, LastExecuted: message.SeqNum(a.int(t, "executed", 0)), From: from}
	case "VIEW-CHANGE":
		vc := &message.ViewChange{View: view,
			Checkpoints: []message.CheckpointID{{Digest: message.Digest{1}}}, From: from}
		vc.P = []message.Prepared{{Seq: n, Digest: digest}}
		vc.Q = vc.P
		m = vc
	case "NEW-VIEW":
		nv := &message.NewView{View: view, Checkpoint: message.CheckpointID{Digest: message.Digest{1}},
			Chosen: []message.Digest{digest}, From: from}
		for j, d := range p.cores[at].change.digests {
			if p.cores[at].change.last[j] != nil {
				nv.V = append(nv.V, message.Vouched{From: message.ReplicaID(j), Digest: d})
			}
		}
		m = nv
	case "BATCH":
		m = &message.BatchBody{PrePrepare: message.PrePrepare{Digest: digest}}
	case "FORWARD":
		q := message.Request{Client: message.ClientID(a.int(t, "client", 9)),
			Timestamp: message.Timestamp(a.int(t, "t", 1)), Op: []byte(a.named["op"])}
		if size := a.int(t, "size", 0); size > 0 {
			q.Op = make([]byte, size)
		}
		m = &message.Forward{Client: q.Client, Timestamp: q.Timestamp, Digest: q.Digest(), From: from}
	case "DATA":
		m = &message.Data{Seq: n, Tag: uint32(a.int(t, "tag", 0)), From: from}
	default:
		t.Fatalf("inject %q", a.words)
	}
	p.cores[at].Step(m)
	p.perform(at)
}

// round delivers all that is under way now.
func (p *play) round() {
	now := p.wires
	p.wires = nil
	for _, w := range now {
		if p.cut[[2]int{w.from, w.to}] {
			continue
		}
		p.cores[w.to].Step(p.onWire(w))
	}
	for i := range p.cores {
		p.perform(i)
	}
}

// onWire is the message as its receiver decodes it.
func (p *play) onWire(w wire) message.Message {
	switch m := w.m.(type) {
	case *message.Request:
		r := p.arrive(w.to, m)
		r.PassedBy = message.ReplicaID(w.from)
		return r
	case *message.ViewChange:
		copied := *m
		copied.Relayed = w.from != int(m.From)
		return &copied
	case *message.PrePrepare:
		copied := *m
		copied.Batch.Requests = nil
		for _, r := range m.Batch.Requests {
			copied.Batch.Requests = append(copied.Batch.Requests, p.arrive(w.to, r))
		}
		return &copied
	}
	return w.m
}

func (p *play) perform(i int) {
	c := p.cores[i]
	for {
		effects := c.Effects()
		if len(effects) == 0 {
			return
		}
		for _, e := range effects {
			p.effect(i, e)
		}
	}
}

func (p *play) effect(i int, e Effect) {
	c := p.cores[i]
	switch e.Verb {
	case Send:
		p.say(i, "-> %d  %s", e.To, describe(e.Message))
		p.wires = append(p.wires, wire{i, int(e.To), clone(e.Message)})
	case Multicast:
		p.say(i, "-> *  %s", describe(e.Message))
		for to := range p.cores {
			if to != i {
				p.wires = append(p.wires, wire{i, to, clone(e.Message)})
			}
		}
	case Choose:
		c.Chosen(e.Seq, []byte{byte(e.Seq)})
	case Accept:
		c.Accepted(e.Proposal, !p.bad[i])
	case Execute:
		p.held[i] = append(p.held[i], e.Batch)
		how := ""
		if e.Standing.Tentative {
			how = " tentatively"
		}
		if e.Mute {
			how = " and answers nobody"
		}
		p.say(i, "executes n%d%s: %s", e.Seq, how, operations(e.Batch))
		for _, r := range e.Batch.Requests {
			if x, ok := message.RecoveryOf(r); ok {
				c.Recovered(x.Replica, e.Seq, x.Bound, r.Timestamp)
			}
		}
	case Confirm:
		p.say(i, "knows that n%d has committed", e.Seq)
	case Rollback:
		p.say(i, "rolls back to n%d", e.Seq)
	case Repeat:
		p.say(i, "executes n%d once more: %s", e.Seq, operations(e.Batch))
	case Fence:
		p.say(i, "may promise up to n%d and view %d", e.Seq, e.View)
	case Speak:
		p.say(i, "is silent no more")
	case Hush:
		p.say(i, "answers nobody from now on")
	case Refresh:
		p.say(i, "gives %d a new key", e.To)
		c.RefreshedFor(e.To)
	case Sign:
		p.say(i, "signs its recovery request, H_M n%d", e.Seq)
		r := message.Recovery{Replica: message.ReplicaID(i), Counter: 1, Bound: e.Seq}.Request([]byte("signed"))
		r.Authentic, r.PassedBy = true, message.ReplicaID(i)
		c.Signed(r)
	case Distrust:
		p.say(i, "sets aside what it remembers: %s", e.Reason)
	case Healed:
		p.say(i, "has recovered")
	case Query:
		ground := ""
		if st := c.Ground(max(c.LastExecuted(), c.Ahead())); st.Tentative {
			ground = fmt.Sprintf(" as of n%d, tentatively", st.Seq)
		}
		p.say(i, "answers %s%s", describe(e.Request), ground)
	case Freeze:
		root := message.Digest{byte(e.Seq), 0xcc}
		if p.stale[i] {
			root[1] = 0xbd
		}
		p.say(i, "freezes its state at n%d", e.Seq)
		if !p.late[i] {
			c.Frozen(e.Seq, root)
		}
	case Discard:
		p.say(i, "checkpoint n%d is stable", e.Seq)
	case Fetch:
		p.say(i, "begins to fetch checkpoint n%d", e.Seq)
		c.Fetching(newToy(e.Seq))
	case Serve:
		data := p.serve(i, e.Message.(*message.Fetch))
		p.say(i, "-> %d  %s", e.To, describe(data))
		p.wires = append(p.wires, wire{i, int(e.To), data})
	case Install:
		p.say(i, "installs checkpoint n%d", e.Seq)
		c.Installed(e.Seq)
	case Stop:
		p.say(i, "stops: %s", e.Reason)
	}
}

// clone guards against messages that change after they were sent.
func clone(m message.Message) message.Message {
	switch m := m.(type) {
	case *message.Prepare:
		c := *m
		return &c
	case *message.Commit:
		c := *m
		return &c
	case *message.Checkpoint:
		c := *m
		return &c
	}
	return m
}

func operations(m *message.Batch) string {
	if len(m.Requests) == 0 {
		return "nothing"
	}
	var ops []string
	for _, r := range m.Requests {
		if x, ok := message.RecoveryOf(r); ok {
			ops = append(ops, fmt.Sprintf("recovery of %d", x.Replica))
			continue
		}
		op := string(r.Op)
		if strings.Trim(op, "\x00") == "" {
			op = fmt.Sprintf("(%d bytes)", len(r.Op))
		}
		ops = append(ops, op)
	}
	return strings.Join(ops, ", ")
}

func checkpointsFrom(all []message.CheckpointID) string {
	var out []string
	for _, k := range all {
		out = append(out, strconv.Itoa(int(k.Seq)))
	}
	return "{" + strings.Join(out, " ") + "}"
}

func tuples(all []message.Prepared) string {
	var out []string
	for _, p := range all {
		out = append(out, fmt.Sprintf("n%d %s v%d", p.Seq, short(p.Digest), p.View))
	}
	return "{" + strings.Join(out, ", ") + "}"
}

func short(d message.Digest) string { return fmt.Sprintf("%x", d[:2]) }

// riding lists the COMMITs on a message.
func riding(commits []message.SeqNum) (s string) {
	for _, n := range commits {
		s += fmt.Sprintf(" + COMMIT n%d", n)
	}
	return s
}

// stubs lists the requests whose operations a proposal does not hold.
func stubs(m *message.PrePrepare) (s string) {
	for _, r := range m.Batch.Requests {
		if r.IsStub() {
			s += fmt.Sprintf(" without c%d.%d t%d", r.Client, r.Slot, r.Timestamp)
		}
	}
	return s
}

func describe(m message.Message) string {
	switch m := m.(type) {
	case *message.Request:
		if m.IsStub() {
			return fmt.Sprintf("REQUEST c%d.%d t%d without its operation", m.Client, m.Slot, m.Timestamp)
		}
		return fmt.Sprintf("REQUEST c%d.%d t%d", m.Client, m.Slot, m.Timestamp)
	case *message.ReplyStable:
		return fmt.Sprintf("REPLY-STABLE c n%d, p n%d", m.Taken, m.Prepared)
	case *message.Recovered:
		return fmt.Sprintf("RECOVERED n%d v%d", m.Seq, m.View)
	case *message.PrePrepare:
		return fmt.Sprintf("PRE-PREPARE v%d n%d %s%s%s", m.View, m.Seq, short(m.Digest), stubs(m), riding(m.Commits))
	case *message.Prepare:
		return fmt.Sprintf("PREPARE v%d n%d %s%s", m.View, m.Seq, short(m.Digest), riding(m.Commits))
	case *message.Commit:
		return fmt.Sprintf("COMMIT v%d n%d", m.View, m.Seq)
	case *message.Checkpoint:
		return fmt.Sprintf("CHECKPOINT n%d %s", m.Seq, short(m.Digest))
	case *message.Status:
		if !m.Active {
			return fmt.Sprintf("STATUS v%d pending, h%d executed %d, has VIEW-CHANGEs %04b, NEW-VIEW %v",
				m.View, m.Low, m.LastExecuted, m.ViewChanges, m.HasNewView)
		}
		silent := ""
		if m.SilentUntil > 0 {
			silent = fmt.Sprintf(", silent until n%d", m.SilentUntil)
		}
		return fmt.Sprintf("STATUS v%d h%d executed %d, prepared %x, committed %x%s",
			m.View, m.Low, m.LastExecuted, []byte(m.Prepared), []byte(m.Committed), silent)
	case *message.ViewChange:
		return fmt.Sprintf("VIEW-CHANGE v%d of %d: h%d C%s P%s Q%s",
			m.View, m.From, m.Low, checkpointsFrom(m.Checkpoints), tuples(m.P), tuples(m.Q))
	case *message.ViewChangeAck:
		return fmt.Sprintf("VIEW-CHANGE-ACK v%d of %d", m.View, m.Of)
	case *message.NewView:
		var from, chosen []string
		for _, v := range m.V {
			from = append(from, strconv.Itoa(int(v.From)))
		}
		for _, d := range m.Chosen {
			chosen = append(chosen, short(d))
		}
		return fmt.Sprintf("NEW-VIEW v%d V{%s} n%d X{%s}",
			m.View, strings.Join(from, " "), m.Checkpoint.Seq, strings.Join(chosen, " "))
	case *message.Forward:
		if m.Executed {
			return fmt.Sprintf("FORWARD c%d.%d t%d, executed", m.Client, m.Slot, m.Timestamp)
		}
		return fmt.Sprintf("FORWARD c%d.%d t%d", m.Client, m.Slot, m.Timestamp)
	case *message.FetchBatch:
		return fmt.Sprintf("FETCH-BATCH %d", len(m.Digests))
	case *message.BatchBody:
		return fmt.Sprintf("BATCH %s", short(m.Digest))
	case *message.Decided:
		return fmt.Sprintf("DECIDED n%d %s", m.Seq, short(m.Digest))
	case *message.Fetch:
		return fmt.Sprintf("FETCH n%d, %d nodes", m.Seq, len(m.Nodes))
	case *message.Data:
		if m.Gone {
			return fmt.Sprintf("DATA n%d gone", m.Seq)
		}
		return fmt.Sprintf("DATA n%d, %d nodes", m.Seq, len(m.Items))
	}
	return m.Type().String()
}
