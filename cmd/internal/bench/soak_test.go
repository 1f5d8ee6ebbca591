// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"bfs/pkg/nfs3"
)

// Growth that does not end is more than the noise of the rounds before, noise alone is not, and
// neither is what a process takes until it is warm.
func TestGrew(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, x := range map[string]struct {
		at   func(round int) float64
		grew bool
	}{
		"leak":             {func(n int) float64 { return 100 + float64(3*n) }, true},
		"leak and noise":   {func(n int) float64 { return 100 + float64(3*n) + 8*r.Float64() }, true},
		"late leak":        {func(n int) float64 { return 100 + float64(max(0, 3*(n-10))) }, true},
		"leak of one":      {func(n int) float64 { return 40 + float64(n) }, true},
		"breathes":         {func(int) float64 { return 32 + float64(r.IntN(14)) }, false},
		"late burst":       {func(n int) float64 { return 37 + 8*float64(n/27) }, false},
		"noise":            {func(int) float64 { return 100 + 30*r.Float64() }, false},
		"constant":         {func(int) float64 { return 40 }, false},
		"one more, once":   {func(n int) float64 { return 40 + float64(n/20) }, false},
		"warm in the half": {func(n int) float64 { return 100 - 90/float64(n+1) }, false},
	} {
		var figures []float64
		for n := range 30 {
			figures = append(figures, x.at(n))
		}
		if by, noise := grew(figures); (by > noise) != x.grew {
			t.Errorf("%s: got %.1f of growth and %.1f of noise, want growth %v", name, by, noise, x.grew)
		}
	}
	grew(make([]float64, growRounds)) // as few as are judged
}

// A soak tells which replica grew, and in what. It judges neither those that were restarted nor the
// one that offends, and no soak that was short.
func TestSoakJudgesGrowth(t *testing.T) {
	soaked := func(took time.Duration, grows ...int) *soaking {
		x := &soaking{Soak: Soak{Attack: Attack{N: 7}}, took: took, figures: make([][]usage, 7)}
		x.group = &fileGroup{setup: fileGroupConfig{Offences: map[int]string{5: soakOffence}}}
		for i := range x.figures {
			for n := range growRounds {
				u := usage{Resident: 200, Descriptors: 40, Goroutines: 30}
				if slices.Contains(grows, i) {
					u.Descriptors += float64(3 * n)
				}
				x.figures[i] = append(x.figures[i], u)
			}
		}
		return x
	}
	for name, x := range map[string]*soaking{
		"nothing grows":         soaked(time.Hour),
		"others grow":           soaked(time.Hour, 0, 1, 2, 5),
		"it grows in a minute":  soaked(time.Minute, 3, 4, 6),
		"it stopped right away": {},
	} {
		if err := x.judge(); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
	err := soaked(time.Hour, 4).judge()
	if err == nil || !strings.HasPrefix(err.Error(), "replica 4: file descriptors grew by 9.0") ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want that replica 4 has more descriptors", err)
	}
}

// A lane reads what it wrote last. Anything else is an error.
func TestCheckedLane(t *testing.T) {
	l := &checked{offset: honestBytes, reads: true}
	read := func(data []byte) []byte {
		r := nfs3.ReadResult{Status: nfs3.OK, Data: [][]byte{data}}
		return r.Append(nfs3.AppendReply(nil, nfs3.Success))
	}
	write := func(count uint32) []byte {
		r := nfs3.WriteResult{Status: nfs3.OK, Count: count, Committed: nfs3.FileSync}
		return r.Append(nfs3.AppendReply(nil, nfs3.Success))
	}
	var last []byte
	for range 3 {
		if c := l.next(); c.ReadOnly {
			t.Fatal("the first call is a READ")
		}
		if err := l.judge(write(honestBytes)); err != nil {
			t.Fatal(err)
		}
		old := last
		last = bytes.Clone(l.content())
		if c := l.next(); !c.ReadOnly {
			t.Fatal("a WRITE follows a WRITE")
		}
		if err := l.judge(read(last)); err != nil {
			t.Fatal(err)
		}
		for _, wrong := range [][]byte{old, last[:len(last)-1], make([]byte, honestBytes)} {
			if err := l.judge(read(wrong)); err == nil || !strings.Contains(err.Error(), "wrong answer") {
				t.Errorf("got %v for another content, want a wrong answer", err)
			}
		}
	}
	l.next()
	if l.judge(write(honestBytes-1)) == nil {
		t.Error("a short write was taken")
	}
}

func TestSoakRefuses(t *testing.T) {
	good := Soak{Attack: Attack{N: 7, Phase: time.Second}, For: time.Hour, Stall: time.Second}
	all, err := good.list()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if by := c.by(); by != ByClient && by != ByStranger {
			t.Errorf("%s is by a %s", c.name, by)
		}
	}
	for want, change := range map[string]func(*Soak){
		"--n":               func(s *Soak) { s.N = 3 },
		"--phase":           func(s *Soak) { s.Phase = 0 },
		"--soak":            func(s *Soak) { s.For = 0 },
		"--stall":           func(s *Soak) { s.Stall = 0 },
		"strangers only":    func(s *Soak) { s.Names = []string{"common+replica-late"} },
		`got "uncommon", w`: func(s *Soak) { s.Names = []string{"uncommon"} },
	} {
		bad := good
		change(&bad)
		if _, err := bad.list(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// An honest client is in trouble when nothing has ended for too long, even if it goes on by now,
// and for good when a call failed.
func TestTrouble(t *testing.T) {
	const longest = time.Minute
	now := time.Now()
	for want, h := range map[string]*honest{
		"":                       {last: now, stall: longest / 2},
		"served nothing for 1m3": {last: now, stall: longest + 30*time.Second},
		"served nothing for 2m":  {last: now.Add(-2 * longest)},
		"client: wrong answer":   {last: now, err: errors.New("wrong answer")},
	} {
		err := h.trouble(longest)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// The summary tells the rates of both halves, so that a group that serves ever less is seen.
func TestSoakTellsRates(t *testing.T) {
	x := &soaking{group: &fileGroup{}, rates: []float64{900, 1000, 1100, 20, 30, 40}}
	r := x.soaked()
	if r.First != 1000 || r.Last != 30 {
		t.Errorf("got %.0f and %.0f operations a second, want 1000 and 30", r.First, r.Last)
	}
	var out bytes.Buffer
	if err := WriteSoaked(&out, r); err != nil || !strings.Contains(out.String(), "1000 honest") ||
		!strings.Contains(out.String(), "30 in the last") {
		t.Errorf("%v: got %q", err, out.String())
	}
}
