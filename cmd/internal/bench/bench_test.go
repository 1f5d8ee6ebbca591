// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bfs/pkg/pbft"
)

// The histogram against sorting.
func TestQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h histogram
	before := h.counts()
	var all []time.Duration
	for range 20000 {
		d := time.Duration(1) << r.IntN(36)
		d += time.Duration(r.Int64N(int64(d)))
		h.add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	c := h.counts().since(before)
	if c.total() != uint64(len(all)) {
		t.Fatalf("got %d, want %d", c.total(), len(all))
	}
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		got := c.quantile(q)
		if diff := (got - want).Abs(); diff > want/60+1 {
			t.Errorf("quantile %v: got %v, want %v to a sixtieth", q, got, want)
		}
	}
}

func TestBuckets(t *testing.T) {
	last := -1
	for _, d := range []time.Duration{-5, 0, 1, 63, 64, 65, 127, 128, 1000, time.Microsecond, time.Second,
		time.Hour, 1 << 43, 1<<63 - 1} {
		i := bucketOf(d)
		if i < last || i >= histogramSize {
			t.Errorf("%d: got bucket %d after %d of %d", d, i, last, histogramSize)
		}
		last = i
		if m := middleOf(i); d >= 0 && d < 1<<42 && (m-d).Abs() > d/64+1 {
			t.Errorf("%d: bucket %d has its middle at %d", d, i, m)
		}
	}
	if got := new(counts).quantile(0.5); got != 0 {
		t.Errorf("of nothing: got %v, want 0", got)
	}
}

// One second, 1000 operations of 2 ms in 100 batches, 3 s of CPU at replicas and 1 s at clients.
func TestResultArithmetic(t *testing.T) {
	var h histogram
	h.add(time.Hour) // before the measurement
	m := Micro{N: 4, Op: Op{4096, 0}, Path: PathReadWrite, Clients: 2, Outstanding: 3, Transport: pbft.TransportPlain,
		Durability: "replicated"}
	begin := time.Now()
	first := sample{at: begin, latencies: h.counts(), own: 5 * time.Second,
		replicas: 7 * time.Second, batch: 50, retries: 1}
	for range 1000 {
		h.add(2 * time.Millisecond)
	}
	second := sample{at: begin.Add(time.Second), latencies: h.counts(), own: 6 * time.Second,
		replicas: 10 * time.Second, batch: 150, retries: 3, fallbacks: 4}
	got := *m.result(first, second)
	got.P50, got.P99, got.Max = near(got.P50, 2000), near(got.P99, 2000), near(got.Max, 2000)
	want := Result{
		OpsPerSecond: 1000, P50: 2000, P99: 2000, Max: 2000, CPU: 4000,
		N: 4, Op: "4/0", Path: "rw", Clients: 2, Outstanding: 3,
		Durability: "replicated", Transport: "plain", Seconds: 1, Operations: 1000, ReplicaCPU: 3000, OpsPerBatch: 10,
		Retries: 2, RetryRate: 0.002, Fallbacks: 4,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// near is want if got is, to two per cent.
func near(got, want float64) float64 {
	if got > want*0.98 && got < want*1.02 {
		return want
	}
	return got
}

// The names that later measurements are compared by.
func TestResultFields(t *testing.T) {
	text, err := json.Marshal(Result{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"ops_per_s", "p50_us", "p99_us", "cpu_us_per_op", "n", "op", "path", "clients", "outstanding",
		"durability", "transport",
	} {
		if !strings.Contains(string(text), `"`+name+`":`) {
			t.Errorf("field %s is missing in %s", name, text)
		}
	}
}

func TestOps(t *testing.T) {
	for s, want := range map[string]Op{"0/0": {}, "4/0": {4096, 0}, "0/4": {0, 4096}, "1024/1024": {1 << 20, 1 << 20}} {
		got, err := ParseOp(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("%s: got %v, %v", s, got, err)
		}
		if body := got.body(); len(body) != max(want.Argument, opHead) || len(result(body)) != want.Result {
			t.Errorf("%s: got an operation of %d bytes with a result of %d", s, len(body), len(result(body)))
		}
	}
	for _, s := range []string{"", "4", "4/", "/4", "-1/0", "0/1025", "4/0/0", "a/b"} {
		if got, err := ParseOp(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, got)
		}
	}
	if result([]byte{1, 2}) != nil || len(result([]byte{255, 255, 255, 255})) != 1<<20 {
		t.Error("a foreign operation gets a result out of bounds")
	}
}

func TestMicroCheck(t *testing.T) {
	good := Micro{N: 4, Path: PathReadOnly, Clients: 1, Outstanding: 1, Duration: time.Second, Durability: "replicated",
		KeyPeriod: time.Minute}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for flag, change := range map[string]func(*Micro){
		"--n":           func(m *Micro) { m.N = 3 },
		"--path":        func(m *Micro) { m.Path = "wr" },
		"--clients":     func(m *Micro) { m.Clients = 0 },
		"--outstanding": func(m *Micro) { m.Outstanding = 5000 },
		"--duration":    func(m *Micro) { m.Duration = 0 },
		"--durability":  func(m *Micro) { m.Durability = "disc" },
		"--key-period":  func(m *Micro) { m.KeyPeriod = time.Millisecond },
		"--warmup":      func(m *Micro) { m.Warmup = -1 },
	} {
		m := good
		change(&m)
		if err := m.Check(); err == nil || !strings.HasPrefix(err.Error(), flag+":") {
			t.Errorf("got %v, want an error about %s", err, flag)
		}
	}
}

func TestTreeIsAsLargeAsItSays(t *testing.T) {
	tree := newTree()
	if len(tree.dirs) != treeDirs || len(tree.files) != treeHeaders+treeUnits {
		t.Errorf("got %d directories and %d files", len(tree.dirs), len(tree.files))
	}
	if again := newTree(); !slices.Equal(tree.files, again.files) {
		t.Error("a second tree differs from the first")
	}
	if n := tree.bytes(); n < 200_000 || n > 400_000 {
		t.Errorf("got %d bytes, want about as many as the original's 226 kB", n)
	}
}

func TestAndrew(t *testing.T) {
	target := t.TempDir()
	a := Andrew{Scale: 2, Target: target}
	if _, err := exec.LookPath("tcc"); err == nil {
		a.Compiler = "tcc"
	} else {
		t.Log("not run: the compile phase, because there is no tcc (apt-get install tcc)")
	}
	r, err := a.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := r.Seconds
	if r.Files != 140 || (s.Compile > 0) != (a.Compiler != "") || s.Total < s.Mkdir+s.Copy+s.Stat+s.Read {
		t.Errorf("got %+v", r)
	}
	if left, err := os.ReadDir(target); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A file system that loses or changes data must not get a figure.
func TestAndrewNotices(t *testing.T) {
	damage := func(do func(file string) error) error {
		dir := t.TempDir()
		w := &work{tree: newTree(), copies: []string{filepath.Join(dir, "c")}}
		for _, phase := range []func(context.Context) error{w.mkdir, w.copyFiles} {
			if err := phase(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := do(filepath.Join(dir, "c", w.tree.files[9].name)); err != nil {
			t.Fatal(err)
		}
		if err := w.stat(t.Context()); err != nil {
			return err
		}
		return w.read(t.Context())
	}
	if err := damage(func(string) error { return nil }); err != nil {
		t.Errorf("undamaged: got %v", err)
	}
	if damage(os.Remove) == nil {
		t.Error("a file was lost, and nothing said")
	}
	flip := func(file string) error {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(file, b, fs.FileMode(0o644))
	}
	if damage(flip) == nil {
		t.Error("a bit was changed, and nothing said")
	}
}

func TestAndrewCheck(t *testing.T) {
	for flag, a := range map[string]Andrew{
		"--target": {Scale: 1},
		"--scale":  {Target: "/tmp"},
		"--cc":     {Scale: 1, Target: "/tmp", Compiler: "no-such-compiler"},
	} {
		if err := a.check(); err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("got %v, want an error about %s", err, flag)
		}
	}
}

// Stream and FileTree in a directory of this machine count the files that they made, and
// leave none behind.
func TestMountedWorkloads(t *testing.T) {
	dir := t.TempDir()
	s, err := Stream{Target: dir, Size: 3<<20 + 5}.Run(t.Context())
	if err != nil || s.Seconds.Write <= 0 || s.Seconds.Read <= 0 {
		t.Errorf("stream: got %+v, %v", s, err)
	}
	r, err := FileTree{Target: dir, Files: []int{30, 101}, Each: 10, Threads: 4}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rates) != 2 || r.Rates[0].Listed != 30 || r.Rates[1].Listed != 101 || r.Seconds["stat_101"] <= 0 {
		t.Errorf("tree: got %+v", r)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := (FileTree{Files: []int{1}, Each: 1, Threads: 1}).Run(t.Context()); err == nil {
		t.Error("neither a target nor a group: got no error")
	}
}
