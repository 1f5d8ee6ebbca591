// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// Recovery measures how replicas of a group recover while clients go on working: replicas that are
// processes of their own, with a state of a given size. In each round a backup recovers and then
// the primary, each after a calm phase, so that other load on the machine weighs on both alike.
type Recovery struct {
	Program    string // bfsd
	N          int
	Dead       int   // replicas, the last ones, that are killed before and stay away
	State      int64 // bytes of file data
	Clients    int
	Rounds     int
	Phase      time.Duration // that is calm before each recovery
	Durability pbft.Durability
	Transport  pbft.Transport
	Restart    bool // start replicas without --recover: they come back as after a reboot
}

// A Recovered is one recovery. Its parts are those of [TOCS §8.2.3, Table II], in seconds: Stop
// saves the state, Start is the reboot, Load restores the state and checks each page of it, and
// Check includes what had to be fetched.
type Recovered struct {
	Role     string  `json:"role"` // backup or primary
	Replica  int     `json:"replica"`
	Stop     float64 `json:"stop_seconds"`  // from SIGTERM to the end of the process, handing over included
	Start    float64 `json:"start_seconds"` // until the next process reads the disk
	Load     float64 `json:"load_seconds"`
	Estimate float64 `json:"estimate_seconds"`
	Request  float64 `json:"request_seconds"`
	Check    float64 `json:"check_seconds"`
	Total    float64 `json:"total_seconds"`
	Corrupt  bool    `json:"corrupt"`

	Calm   counted `json:"calm"`   // in the phase before
	During counted `json:"during"` // from SIGTERM until the recovery is over
}

// A counted holds the rate and the longest stalls of all clients in a time.
type counted struct {
	OpsPerS    float64 `json:"ops_per_s"`
	WriteStall float64 `json:"write_stall_ms"` // the longest time in which none of a client's writes was answered
	ReadStall  float64 `json:"read_stall_ms"`  // and none of its reads
	WriteAt    float64 `json:"write_stall_began_seconds"`
	ReadAt     float64 `json:"read_stall_began_seconds"`
}

const (
	backup  = "backup"
	primary = "primary"

	recoverWithin = 5 * time.Minute // from SIGTERM, on a machine that may be busy
)

// Check tells what cannot be measured.
func (m Recovery) Check() error {
	quorum := pbft.GroupSize(m.N).Quorum()
	switch {
	case checkN(m.N) != nil:
		return checkN(m.N)
	case m.Dead < 0 || m.Dead > m.N-1-quorum:
		return fmt.Errorf("--dead: got %d, want 0 to %d: of %d replicas one recovers, and %d must serve",
			m.Dead, m.N-1-quorum, m.N, quorum)
	case m.State < 1<<20:
		return fmt.Errorf("--state: got %d bytes, want 1MiB or more", m.State)
	case m.Clients < 1:
		return fmt.Errorf("--clients: got %d, want 1 or more", m.Clients)
	case m.Rounds < 1:
		return fmt.Errorf("--rounds: got %d, want 1 or more", m.Rounds)
	case m.Phase <= 0:
		return fmt.Errorf("--phase: got %v, want more than 0, such as 2s", m.Phase)
	case m.Durability != pbft.DurabilityDisk && m.Durability != pbft.DurabilityReplicated:
		return fmt.Errorf("--durability: got %q, want disk or replicated", m.Durability)
	}
	return nil
}

// Run measures, and calls each with every recovery that is over.
func (m Recovery) Run(ctx context.Context, each func(Recovered) error) error {
	if err := m.Check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bfs-recovery-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	g, err := startFileGroup(ctx, fileGroupConfig{Program: m.Program, Dir: dir, N: m.N, Size: 2*m.State + 256<<20,
		Transport: m.Transport, Durability: m.Durability})
	if err != nil {
		return err
	}
	defer g.stop()
	if err := writeLarge(g.files, m.State); err != nil {
		return fmt.Errorf("fill the state: %w", err)
	}
	if err := g.settle(ctx); err != nil {
		return fmt.Errorf("fill the state: %w", err)
	}
	x := &recoveries{Recovery: m, group: g}
	defer x.close()
	if err := x.startClients(ctx); err != nil {
		return err
	}
	for _, p := range g.replicas[m.N-m.Dead:] {
		p.Kill()
	}
	for range m.Rounds {
		for _, role := range []string{backup, primary} {
			r, err := x.measure(ctx, role)
			if err != nil {
				return fmt.Errorf("recover a %s: %w", role, err)
			}
			if err := each(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// A recoveries is one measurement under way.
type recoveries struct {
	Recovery
	group   *fileGroup
	clients []*pbft.Client
	writers []*honest
	readers []*honest
}

// startClients starts clients that write and read, each a file of its own.
func (x *recoveries) startClients(ctx context.Context) error {
	for i := range x.Clients {
		name := fmt.Sprintf("client-%d", i)
		if err := x.group.files.WriteFile(name, make([]byte, honestOutstanding*honestBytes), 0o644); err != nil {
			return err
		}
		key, err := x.group.enrol(ctx, false)
		if err != nil {
			return err
		}
		c, err := x.group.open(ctx, key)
		if err != nil {
			return err
		}
		x.clients = append(x.clients, c)
		file, err := caller{c}.find(ctx, name)
		if err != nil {
			return err
		}
		x.writers = append(x.writers, newHonest(c, file))
		x.readers = append(x.readers, newReader(c, file))
	}
	return nil
}

func (x *recoveries) close() {
	for _, h := range append(x.writers, x.readers...) {
		h.stop()
	}
	for _, c := range x.clients {
		_ = c.Close() // the measurement is over
	}
}

// newReader is an honest client that reads, with half as many calls outstanding as one that writes.
func newReader(c *pbft.Client, file nfs3.FileHandle) *honest {
	lanes := make([]lane, honestOutstanding/2)
	for i := range lanes {
		lanes[i] = same(readCall(file, 0, honestBytes))
	}
	return startHonest(c, lanes)
}

// count counts what all clients have done since the last count.
func (x *recoveries) count(since time.Time) (c counted, err error) {
	took := time.Since(since)
	writes, stall, at, err := countAll(x.writers)
	c.WriteStall, c.WriteAt = stall.Seconds()*1000, at.Sub(since).Seconds()
	reads, stall, at, problem := countAll(x.readers)
	c.ReadStall, c.ReadAt = stall.Seconds()*1000, at.Sub(since).Seconds()
	c.OpsPerS = float64(writes+reads) / took.Seconds()
	return c, errors.Join(err, problem)
}

// countAll adds up the calls of clients, and finds the longest stall of any, and when it began.
func countAll(all []*honest) (done uint64, stall time.Duration, at time.Time, err error) {
	for _, h := range all {
		began := h.stalled()
		d, s, e := h.count()
		done, err = done+d, errors.Join(err, e)
		if s > stall {
			stall, at = s, began
		}
	}
	return done, stall, at, err
}

// measure recovers one replica after a calm phase.
func (x *recoveries) measure(ctx context.Context, role string) (r Recovered, err error) {
	ctx, cancel := context.WithTimeout(ctx, recoverWithin+2*x.Phase)
	defer cancel()
	r.Role = role
	if r.Replica, err = x.choose(ctx, role); err != nil {
		return r, err
	}
	if _, err = x.count(time.Now()); err != nil {
		return r, err
	}
	begin := time.Now()
	if err := pause(ctx, x.Phase); err != nil {
		return r, err
	}
	if r.Calm, err = x.count(begin); err != nil {
		return r, err
	}
	begin = time.Now()
	if err := x.recover(ctx, &r); err != nil {
		return r, err
	}
	r.During, err = x.count(begin)
	return r, err
}

// choose waits until all replicas that live take part, and names the one to recover: the primary,
// or the backup of them that would be primary last.
func (x *recoveries) choose(ctx context.Context, role string) (int, error) {
	at, err := x.group.whole(ctx, x.Dead)
	if role == backup {
		at = min((at+x.N-1)%x.N, x.N-x.Dead-1)
	}
	return at, err
}

// recover stops a replica, starts it so that it recovers, and waits until it has.
func (x *recoveries) recover(ctx context.Context, r *Recovered) error {
	begin := time.Now()
	if err := x.group.replicas[r.Replica].Stop(recoverWithin); err != nil {
		return err
	}
	stopped := time.Now()
	if x.Restart {
		if err := x.group.start(r.Replica); err != nil {
			return err
		}
		err := x.group.takesPart(ctx, r.Replica)
		r.Stop, r.Total = stopped.Sub(begin).Seconds(), time.Since(begin).Seconds()
		r.Start = r.Total - r.Stop
		return err
	}
	if err := x.group.start(r.Replica, "--recover"); err != nil {
		return err
	}
	s, err := x.group.recovered(ctx, r.Replica)
	if err != nil {
		return err
	}
	over := time.Now().Add(-s.Ago.Duration())
	p := s.Parts
	r.Stop, r.Total, r.Corrupt = stopped.Sub(begin).Seconds(), over.Sub(begin).Seconds(), s.Corrupt
	r.Start = r.Total - r.Stop - s.Took.Duration().Seconds()
	r.Load, r.Estimate = p.Load.Duration().Seconds(), p.Estimate.Duration().Seconds()
	r.Request, r.Check = p.Request.Duration().Seconds(), p.Check.Duration().Seconds()
	return nil
}

// The paper's figures, in seconds [TOCS §8.2.3, Table II]: its reboot slept for 30 s, and what is
// 0.03 for its NEW-KEYs is in Estimate.
var published = []struct {
	what string
	Recovered
}{
	{"paper, 205 MB", Recovered{Stop: 2.84, Start: 30.05, Load: 0.09, Estimate: 0.24, Request: 0.03,
		Check: 9.34, Total: 42.59}},
	{"paper, 1 GB", Recovered{Stop: 6.3, Start: 30.05, Load: 0.30, Estimate: 0.19, Request: 0.03,
		Check: 106.81, Total: 143.68}},
}

const recoveredRow = "%-16s %4v %6v %6v %6v %8v %7v %7v %7v %7v %7v %12v %12v\n"

// WriteRecoveredHead, WriteRecovered and WriteRecoveredFoot print a table: a row as soon as there
// is one, and below them the slowest of each part, and the paper's figures.
func WriteRecoveredHead(w io.Writer) error {
	_, err := fmt.Fprintf(w, recoveredRow, "SECONDS", "REPL", "STOP", "START", "LOAD", "ESTIMATE",
		"REQUEST", "CHECK", "TOTAL", "OPS/S", "(CALM)", "STALL w/r ms", "(CALM) ms")
	return err
}

// WriteRecovered prints a row.
func WriteRecovered(w io.Writer, r Recovered) error {
	what := r.Role
	if r.Corrupt {
		what += " corrupt"
	}
	n := func(v float64) string { return fmt.Sprintf("%.0f", v) }
	return r.write(w, what, fmt.Sprint(r.Replica), n(r.During.OpsPerS), n(r.Calm.OpsPerS),
		r.During.stalls(), r.Calm.stalls())
}

func (c counted) stalls() string { return fmt.Sprintf("%.0f/%.0f", c.WriteStall, c.ReadStall) }

func (r Recovered) write(w io.Writer, what string, others ...any) error {
	s := func(v float64) string { return fmt.Sprintf("%.2f", v) }
	row := append([]any{what, others[0], s(r.Stop), s(r.Start), s(r.Load), s(r.Estimate), s(r.Request), s(r.Check),
		s(r.Total)}, others[1:]...)
	_, err := fmt.Fprintf(w, recoveredRow, row...)
	return err
}

// WriteRecoveredFoot prints the summary below the recoveries.
func WriteRecoveredFoot(w io.Writer, all []Recovered) error {
	var most Recovered
	for _, r := range all {
		most.Stop, most.Start, most.Load = max(most.Stop, r.Stop), max(most.Start, r.Start), max(most.Load, r.Load)
		most.Estimate, most.Request = max(most.Estimate, r.Estimate), max(most.Request, r.Request)
		most.Check = max(most.Check, r.Check)
		most.Total = max(most.Total, r.Total)
		most.During.atLeast(r.During)
		most.Calm.atLeast(r.Calm)
	}
	err := most.write(w, "longest", "-", "-", "-", most.During.stalls(), most.Calm.stalls())
	for _, p := range published {
		err = errors.Join(err, p.write(w, p.what, "-", "-", "-", "-", "-"))
	}
	return err
}

func (c *counted) atLeast(o counted) {
	c.WriteStall, c.ReadStall = max(c.WriteStall, o.WriteStall), max(c.ReadStall, o.ReadStall)
}
