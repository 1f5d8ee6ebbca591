// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bfs/pkg/pbft/internal/message"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts anew from what the code does; the diff is the review")

// A transcript is a script of commands, a line "----", and what the client did. Blocks
// are separated by an empty line, and each begins with a client of its own unless its
// first command is not "group"; lines that begin with # are prose.
//
//	group [n=4] [slots=2] [separate=N] [unborn]   begins; unborn: it does not know where its timestamps begin
//	at 30ms                        the time is this, and the clock ticks
//	start OP [read] [long]         an operation, in a free slot
//	resume SLOT T OP [long]        a request of an earlier life
//	reply FROM t=T KEY=VALUE...    v, n: view and number; tentative; r: the result; long; full, proved: what there is
//	                               of a long one; outcome; version; read; last: of a superseded request
//	key FROM, latest FROM T, rival FROM, down FROM, up FROM
//	closed FROM                    it is down, and that is noticed
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) { runTranscript(t, path) })
	}
}

func runTranscript(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	p := &play{}
	for _, block := range strings.Split(strings.TrimRight(string(text), "\n"), "\n\n") {
		script, _, _ := strings.Cut(block, "\n----")
		p.out = nil
		for _, line := range strings.Split(script, "\n") {
			if line != "" && !strings.HasPrefix(line, "#") {
				p.command(t, strings.Fields(line))
			}
		}
		blocks = append(blocks, strings.Join(append([]string{script + "\n----"}, p.out...), "\n"))
	}
	out := strings.Join(blocks, "\n\n") + "\n"
	if *rewrite {
		if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if out != string(text) {
		t.Errorf("%s: what happens has changed; go test -rewrite shows how. Now:\n%s", path, out)
	}
}

// A play is a client, and the surroundings that a script gives it.
type play struct {
	c    *Client
	now  Time
	down map[message.ReplicaID]bool
	out  []string
}

func (p *play) Open(i message.ReplicaID) bool { return !p.down[i] }
func (p *play) Queued(message.ReplicaID) int  { return 0 }
func (p *play) Chance(int64) int64            { return 0 }
func (p *play) Proves(i message.ReplicaID, x *message.Proof, result []byte) bool {
	return *x == proofOf(i, result)
}

func proofOf(i message.ReplicaID, result []byte) message.Proof {
	x := message.Proof{Nonce: uint64(i)}
	copy(x.Tag[:], result)
	return x
}

// words are the arguments of a command: those with a value by name, and the others.
func words(args []string) map[string]string {
	all := map[string]string{}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		all[name] = value
	}
	return all
}

// body is an operation, with zeros behind it if it is to be long.
func body(op string, x map[string]string) []byte {
	if _, long := x["long"]; long {
		return append([]byte(op), make([]byte, message.ShortOperation)...)
	}
	return []byte(op)
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

func (p *play) command(t *testing.T, args []string) {
	x := words(args[1:])
	switch args[0] {
	case "group":
		p.group(x)
	case "at":
		d, err := time.ParseDuration(args[1])
		if err != nil {
			t.Fatal(err)
		}
		p.now = d
		p.c.Tick(d)
	case "start":
		_, read := x["read"]
		body := body(args[1], x)
		if !p.c.Room(len(body)) {
			p.say("no room for %s", args[1])
			return
		}
		p.c.Start(p.now, Operation{Body: body, Digest: message.OperationDigest(body), ReadOnly: read})
	case "resume":
		body := body(args[3], x)
		op := Operation{Body: body, Digest: message.OperationDigest(body)}
		s, t := message.Slot(number(args[1])), message.Timestamp(number(args[2]))
		if err := p.c.Resume(p.now, s, t, op); err != nil {
			p.say("%v", err)
		}
	case "reply":
		p.reply(message.ReplicaID(number(args[1])), x)
	case "key":
		p.c.KeyAccepted(p.now, message.ReplicaID(number(args[1])), true)
	case "latest":
		p.c.Latest(message.ReplicaID(number(args[1])), p.c.Nonce(), message.Timestamp(number(args[2])))
	case "rival":
		p.c.Rival(p.now, message.ReplicaID(number(args[1])), errors.New("another process uses the key"))
	case "closed":
		i := message.ReplicaID(number(args[1]))
		p.down[i] = true
		p.c.Disconnected(p.now, i)
	case "down", "up":
		p.down[message.ReplicaID(number(args[1]))] = args[0] == "down"
	default:
		t.Fatalf("unknown command %q", args[0])
	}
	p.perform()
}

func (p *play) group(x map[string]string) {
	cfg := Config{Client: 9, Replicas: 4, Slots: 2, Clock: 100, Separate: int(number(x["separate"]))}
	if n, ok := x["n"]; ok {
		cfg.Replicas = int(number(n))
	}
	if n, ok := x["slots"]; ok {
		cfg.Slots = int(number(n))
	}
	p.now, p.down = 0, map[message.ReplicaID]bool{}
	p.c = New(cfg, p)
	if _, unborn := x["unborn"]; !unborn {
		for i := range cfg.Replicas {
			p.c.Latest(message.ReplicaID(i), p.c.Nonce(), 0)
		}
	}
}

var outcomes = map[string]message.Outcome{
	"lost": message.Lost, "not-kept": message.NotKept, "superseded": message.Superseded,
	"not-read-only": message.NotReadOnly, "not-enrolled": message.NotEnrolled, "missing": message.Missing,
}

func (p *play) reply(from message.ReplicaID, x map[string]string) {
	has := func(name string) bool { _, ok := x[name]; return ok }
	result := []byte(x["r"])
	if has("long") {
		result = append(result, make([]byte, message.ShortResult)...)
	}
	if has("last") {
		result = make([]byte, 8)
		for i := range result {
			result[i] = byte(number(x["last"]) >> (8 * i))
		}
	}
	a := message.Answer{
		Slot: message.Slot(number(x["slot"])), Timestamp: message.Timestamp(number(x["t"])),
		Outcome: outcomes[x["outcome"]], ReadOnly: has("read"), Version: message.SeqNum(number(x["version"])),
		Length: len(result), Full: !has("long") || has("full"),
	}
	if a.Full {
		a.Result = result
	}
	if a.Long() && (has("full") || has("proved")) {
		a.Proved, a.Proof = true, proofOf(from, result)
	}
	p.c.Reply(p.now, &message.Reply{From: from, View: message.View(number(x["v"])), Seq: message.SeqNum(number(x["n"])),
		Tentative: has("tentative"), Answers: []message.Answer{a}})
}

func (p *play) say(format string, args ...any) { p.out = append(p.out, fmt.Sprintf(format, args...)) }

// perform tells the effects, and gives slots back at once.
func (p *play) perform() {
	for _, e := range p.c.Effects() {
		switch e.Verb {
		case Send:
			p.say("%6v  slot %d -> %-7s %s", p.now, e.Slot, names(e.To), p.request(&e))
		case Ask:
			p.say("%6v  -> %-14s where do timestamps begin?", p.now, names(e.To))
		case Done:
			if result := strings.TrimRight(string(e.Result), "\x00"); e.Err == nil {
				p.say("%6v  slot %d is done: %q", p.now, e.Slot, result)
			} else {
				p.say("%6v  slot %d fails: %v", p.now, e.Slot, e.Err)
			}
			p.c.Free(e.Slot)
		}
	}
}

func (p *play) request(e *Effect) string {
	q := p.c.Request(e.Slot)
	op := strings.TrimRight(string(q.Op), "\x00")
	text := fmt.Sprintf("t%d %s", q.Timestamp, op)
	if q.Timestamp > skip {
		text = fmt.Sprintf("t%d+skip %s", q.Timestamp-skip, op)
	}
	switch {
	case e.New:
		text = "new " + text
	default:
		text = "again " + text
	}
	if q.ReadOnly {
		text += ", to be read"
	}
	if q.Keep {
		text += ", to be kept"
	}
	if e.Apart {
		text += ", apart"
	}
	if e.Shown != 0 {
		text += ", apart to " + names(e.Shown)
	}
	if e.Brief != 0 {
		text += ", its digest alone to " + names(e.Brief)
	}
	if q.Replier == message.AnyReplier {
		return text + "; all return the result"
	}
	text += fmt.Sprintf("; %d returns the result", q.Replier)
	if q.Provers != 0 {
		text += ", " + names(q.Provers) + " prove it"
	}
	return text
}

func names(set uint32) string {
	var all []string
	for i := range 32 {
		if set&(1<<i) != 0 {
			all = append(all, strconv.Itoa(i))
		}
	}
	return strings.Join(all, " ")
}
