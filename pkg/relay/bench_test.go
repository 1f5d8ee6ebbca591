package relay

import (
	"bufio"
	"encoding/binary"
	"io"
	"path/filepath"
	"testing"

	"bfs/pkg/nfsstate/nfs3"
)

// BenchmarkCalls measures the relay alone: a group that answers at once, a kernel on the
// loopback that keeps depth calls under way. Both ends run here, so the time is of both.
func BenchmarkCalls(b *testing.B) {
	for _, c := range []struct {
		name            string
		procedure       uint32
		args, reply     int
		depth           int
		journal, handed bool
	}{
		{name: "getattr/depth=1", procedure: procGetattr, args: 36, reply: 92, depth: 1},
		{name: "getattr/depth=64", procedure: procGetattr, args: 36, reply: 92, depth: 64},
		{name: "getattr/depth=64/handed", procedure: procGetattr, args: 36, reply: 92, depth: 64, handed: true},
		{name: "create/journal/depth=1", procedure: procCreate, args: 80, reply: 240, depth: 1, journal: true},
		{name: "create/journal/depth=64", procedure: procCreate, args: 80, reply: 240, depth: 64, journal: true},
		{name: "write1M/journal/depth=8", procedure: procWrite, args: 1 << 20, reply: 140, depth: 8, journal: true},
		{name: "read1M/depth=8", procedure: procRead, args: 48, reply: 1 << 20, depth: 8},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := newFakeGroup(256)
			g.started = nil
			reply := success(string(make([]byte, c.reply)))
			g.answer = func(*fakeCall) ([]byte, error) { return reply, nil }
			if c.handed { // as a client does: another goroutine runs Done of many
				g.answer, g.started = nil, make(chan *fakeCall, 256)
				go func() {
					for f := range g.started {
						g.end(f, reply, nil)
					}
				}()
				defer close(g.started)
			}
			r := newRig(b, g, func(config *Config) {
				if !c.journal {
					return
				}
				j, err := OpenJournal(filepath.Join(b.TempDir(), "journal"), JournalOptions{Slots: 256})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { j.Close() })
				config.Journal = j
			})
			benchmarkCalls(b, r, c.depth, rpc(0, nfs3.ProgramNFS, c.procedure, string(make([]byte, c.args))))
		})
	}
}

func benchmarkCalls(b *testing.B, r *rig, depth int, message []byte) {
	k := r.connect(b)
	k.r = bufio.NewReaderSize(k.Conn, 1<<18)
	w := bufio.NewWriterSize(k.Conn, 1<<16)
	room := make(chan struct{}, depth)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	before := r.Stats().Writes
	b.ResetTimer()
	go func() {
		for xid := range uint32(b.N) {
			select {
			case room <- struct{}{}:
			default:
				w.Flush()
				room <- struct{}{}
			}
			binary.BigEndian.PutUint32(message[4:], xid)
			w.Write(message)
		}
		w.Flush()
	}()
	var mark [4]byte
	for range b.N {
		if _, err := io.ReadFull(k.r, mark[:]); err != nil {
			b.Fatal(err)
		}
		if _, err := k.r.Discard(int(binary.BigEndian.Uint32(mark[:]) &^ lastFragment)); err != nil {
			b.Fatal(err)
		}
		<-room
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64(r.Stats().Writes-before)/float64(b.N), "writes/call")
}
