// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"bfs/pkg/nfs3"
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

// relayServer, set in the environment, makes the test binary serve a group that answers at
// once, until its input ends, and print for each line of input how much CPU time it took.
const relayServer = "RELAY_BENCH_SERVER"

func init() {
	if os.Getenv(relayServer) == "" {
		return
	}
	g := newFakeGroup(256)
	g.started = nil
	reply := success(string(make([]byte, 92)))
	g.answer = func(*fakeCall) ([]byte, error) { return reply, nil }
	s, err := New(Config{Group: g, InsecurePorts: true})
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { _ = s.Serve(l) }()
	fmt.Println(l.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			panic(err)
		}
		fmt.Println(u.Utime.Nano() + u.Stime.Nano())
	}
	os.Exit(0)
}

// BenchmarkCallsProcess runs the relay in a process of its own, as it runs beside a
// kernel, and measures the CPU time of that process.
func BenchmarkCallsProcess(b *testing.B) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), relayServer+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer in.Close()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		b.Fatal("no address")
	}
	kernel, err := net.Dial("tcp", lines.Text())
	if err != nil {
		b.Fatal(err)
	}
	defer kernel.Close()
	cpu := func() (ns int64) {
		_, _ = fmt.Fprintln(in)
		lines.Scan()
		if _, err := fmt.Sscan(lines.Text(), &ns); err != nil {
			b.Fatal(err)
		}
		return ns
	}
	message := rpc(0, nfs3.ProgramNFS, procGetattr, string(make([]byte, 36)))
	reply := make([]byte, 4+acceptedSize+96)
	before := cpu()
	b.ResetTimer()
	for xid := range uint32(b.N) {
		binary.BigEndian.PutUint32(message[4:], xid)
		if _, err := kernel.Write(message); err != nil {
			b.Fatal(err)
		}
		n, err := io.ReadAtLeast(kernel, reply, 4)
		if err == nil {
			length := 4 + int(binary.BigEndian.Uint32(reply)&^lastFragment)
			_, err = io.ReadFull(kernel, reply[n:length])
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(cpu()-before)/1e3/float64(b.N), "relay-cpu-µs/call")
}
