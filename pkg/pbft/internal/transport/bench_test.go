// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"
)

// echoServer, set in the environment, makes the test binary serve echoes until its input ends,
// and print then how much CPU time it took.
const echoServer = "TRANSPORT_ECHO_SERVER"

func init() {
	if os.Getenv(echoServer) == "" {
		return
	}
	l, err := Listen("127.0.0.1:0", Options{}, echo)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(cpuTime().Nanoseconds())
	}
	l.Close()
	os.Exit(0)
}

var echo = funcs{frames: func(c *Conn, frames [][]byte) {
	for _, f := range frames {
		c.Send(f)
	}
	c.Flush()
}}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pingPong sends b.N frames to an echo at addr, one at a time, from the goroutine that reads.
func pingPong(b *testing.B, addr string, o Options, size int, othersCPU func() time.Duration) {
	took := make([]time.Duration, 0, b.N)
	body := make([]byte, size)
	done := make(chan struct{})
	var last time.Time
	ping := func(c *Conn) {
		last = time.Now()
		c.Send(body)
		c.Flush()
	}
	start := make(chan *Conn, 1)
	k := Dial(addr, o, funcs{
		opened: func(c *Conn) { start <- c },
		frames: func(c *Conn, _ [][]byte) {
			if took = append(took, time.Since(last)); len(took) == b.N {
				close(done)
				return
			}
			ping(c)
		},
	})
	defer k.Close()
	c := <-start
	cpu := cpuTime() + othersCPU()
	b.ReportAllocs()
	b.ResetTimer()
	ping(c)
	<-done
	b.StopTimer()
	cpu = cpuTime() + othersCPU() - cpu
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(cpu.Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
}

func nobody() time.Duration { return 0 }

func BenchmarkPingPong(b *testing.B) {
	for name, o := range map[string]Options{"plain": {}, "tls": {TLS: hostTLS(b)}} {
		for _, size := range []int{64, 4 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				b.SetBytes(2 * int64(size))
				l := listen(b, o, echo)
				pingPong(b, l.Addr().String(), o, size, nobody)
			})
		}
	}
}

// BenchmarkPingPongProcesses runs the echo in a process of its own.
func BenchmarkPingPongProcesses(b *testing.B) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), echoServer+"=1")
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
	addr := lines.Text()
	childCPU := func() time.Duration {
		var ns int64
		_, _ = fmt.Fprintln(in)
		lines.Scan()
		if _, err := fmt.Sscan(lines.Text(), &ns); err != nil {
			b.Fatal(err)
		}
		return time.Duration(ns)
	}
	b.Run("64", func(b *testing.B) { pingPong(b, addr, Options{}, 64, childCPU) })
}

// BenchmarkStream sends frames as fast as they are taken, so many to a flush.
func BenchmarkStream(b *testing.B) {
	for name, o := range map[string]Options{"plain": {}, "tls": {TLS: hostTLS(b)}} {
		for _, shape := range []struct{ size, batch int }{{64, 1}, {64, 16}, {64, 256}, {4 << 10, 16}, {1 << 20, 1}} {
			b.Run(fmt.Sprintf("%s/%dx%d", name, shape.size, shape.batch), func(b *testing.B) {
				stream(b, o, shape.size, shape.batch)
			})
		}
	}
}

func stream(b *testing.B, o Options, size, batch int) {
	taken := make(chan int, 1)
	total := 0
	l := listen(b, o, funcs{frames: func(_ *Conn, f [][]byte) {
		if total += len(f); total >= b.N {
			taken <- total
		}
	}})
	k, c := dial(b, l.Addr(), o, funcs{})
	body := make([]byte, size)
	binary.LittleEndian.PutUint32(body, uint32(size))
	b.SetBytes(int64(size))
	b.ReportAllocs()
	cpu := cpuTime()
	b.ResetTimer()
	for sent := 0; sent < b.N; {
		if c.Send(body) {
			sent++
		}
		if sent%batch == 0 || sent == b.N {
			c.Flush()
			for c.Queued() > 4<<20 { // the peer is behind: let it run
				time.Sleep(50 * time.Microsecond) // not a limit: a pace
			}
		}
	}
	<-taken
	b.StopTimer()
	s := k.Stats()
	b.ReportMetric(float64(s.FramesOut)/float64(s.Writes), "frames/write")
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(b.N), "cpu-ns/frame")
}
