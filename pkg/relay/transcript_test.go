// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"bfs/pkg/nfs3"
)

var rewrite = flag.Bool("rewrite", false, "write transcripts anew instead of checking them")

// TestTranscripts replays testdata/*.txt. A transcript is a list of exchanges: the bytes
// that a kernel sends, a line of dashes, the bytes that it gets, an empty line. All
// exchanges of a file share a connection until it is closed; then there is a new one. The
// group behind the relay prints each call it gets, and answers SUCCESS and the arguments.
//
// Sent bytes are words separated by blanks: decimal or 0x numbers are 32 bits, "text" is
// an XDR string, text:n a string of n letters, and hex:… bytes as they are. A line that
// begins with record is a whole record, bytes is sent without a mark, and fragment is a
// fragment that is not the last.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("got:\n%s\nwant:\n%s", got, text)
			}
		})
	}
}

// replay runs a transcript and writes it with the replies that really came.
func replay(t *testing.T, text string) string {
	var mu sync.Mutex
	var heard []string
	g := newFakeGroup(4)
	g.started = nil
	g.answer = func(f *fakeCall) ([]byte, error) {
		c, err := nfs3.ParseCall(f.Body)
		if err != nil {
			t.Errorf("the group got no call: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, fmt.Sprintf("group asked: program %d procedure %d read-only "+
			"%v credentials %s arguments %x", c.Program, c.Procedure, f.ReadOnly, credentials(c.Cred), c.Args))
		return echo(f)
	}
	r := newRig(t, g, nil)
	k := r.connect(t)
	var out strings.Builder
	var sent []byte
	answering := false
	for line := range strings.Lines(text) {
		switch {
		case strings.TrimSpace(line) == "----":
			answering = true
			out.WriteString(line)
			closed := false
			replies := exchange(k, sent, &closed)
			mu.Lock()
			for _, line := range append(heard, replies...) {
				out.WriteString(line + "\n")
			}
			heard, sent = nil, nil
			mu.Unlock()
			if closed {
				k.Close()
				k = r.connect(t)
			}
		case answering && strings.TrimSpace(line) != "":
			// the expected replies; compared as a whole
		default:
			answering = false
			out.WriteString(line)
			sent = append(sent, bytesOf(t, strings.TrimSpace(line))...)
		}
	}
	return out.String()
}

func credentials(c nfs3.Credentials) string {
	if c.None {
		return "none"
	}
	return fmt.Sprintf("uid %d gid %d groups %v", c.UID, c.GID, c.Groups)
}

// exchange sends the bytes and a NULL call with xid 0xffffffff, and reads replies up to
// the reply to that call.
func exchange(k *kernel, sent []byte, closed *bool) (replies []string) {
	null := []byte{0xff, 0xff, 0xff, 0xff}
	for _, v := range []uint32{msgCall, rpcVersion, nfs3.ProgramNFS, nfs3.Version, 0, 0, 0, 0, 0} {
		null = binary.BigEndian.AppendUint32(null, v)
	}
	if _, err := k.Write(append(sent, record(null)...)); err != nil {
		*closed = true
		return []string{"closed"}
	}
	for {
		b, err := k.receive()
		if err != nil {
			*closed = true
			return append(replies, "closed")
		}
		if len(b) >= 4 && binary.BigEndian.Uint32(b) == 0xffffffff {
			return replies
		}
		replies = append(replies, describe(b))
	}
}

// describe writes a reply for people.
func describe(b []byte) string {
	w := words{b: b}
	s := fmt.Sprintf("xid %d ", w.u32())
	if v := w.u32(); v != msgReply {
		return s + "is no reply"
	}
	if w.u32() == replyDenied {
		if w.u32() == rejectRPCMismatch {
			return s + fmt.Sprintf("denied RPC_MISMATCH %d..%d", w.u32(), w.u32()) + rest(&w)
		}
		return s + fmt.Sprintf("denied AUTH_ERROR %d", w.u32()) + rest(&w)
	}
	if w.u32() != flavorNone || w.u32() != 0 {
		return s + "with a strange verifier"
	}
	stats := []string{"SUCCESS", "PROG_UNAVAIL", "PROG_MISMATCH", "PROC_UNAVAIL", "GARBAGE_ARGS", "SYSTEM_ERR"}
	stat := w.u32()
	s += "accepted " + stats[stat]
	if stat == uint32(nfs3.ProgMismatch) {
		s += fmt.Sprintf(" %d..%d", w.u32(), w.u32())
	}
	return s + rest(&w)
}

func rest(w *words) string {
	if w.short {
		return " cut short"
	}
	if w.at == len(w.b) {
		return ""
	}
	return fmt.Sprintf(" %x", w.b[w.at:])
}

// bytesOf returns the bytes that a line of a transcript sends.
func bytesOf(t *testing.T, line string) []byte {
	kind, text, _ := strings.Cut(line, " ")
	var b []byte
	if kind == "" || strings.HasPrefix(kind, "#") {
		return nil
	}
	for _, word := range strings.Fields(text) {
		switch {
		case strings.HasPrefix(word, "#"):
			t.Fatalf("comment behind words: %s", line)
		case strings.HasPrefix(word, `"`):
			b = append(b, appendString(nil, strings.Trim(word, `"`))...)
		case strings.HasPrefix(word, "text:"):
			n, err := strconv.Atoi(word[5:])
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, appendString(nil, strings.Repeat("x", n))...)
		case strings.HasPrefix(word, "hex:"):
			h, err := hex.DecodeString(word[4:])
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, h...)
		default:
			v, err := strconv.ParseUint(word, 0, 32)
			if err != nil {
				t.Fatal(err)
			}
			b = binary.BigEndian.AppendUint32(b, uint32(v))
		}
	}
	switch kind {
	case "record":
		return record(b)
	case "fragment":
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
	case "bytes":
		return b
	}
	t.Fatalf("line %q", line)
	return nil
}
