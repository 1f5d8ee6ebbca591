// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/cmd/internal/procs"
	"bfs/cmd/internal/status"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// Attack measures the throughput of an honest client while another attacks the group: four
// replicas, the honest client and the offender, each a process of its own on this machine.
// The attack is off and on in turn, so that other load on the machine weighs on both alike.
type Attack struct {
	Program   string   // bfsd
	Names     []string // of offenders; none: all
	Rounds    int      // off and on
	Phase     time.Duration
	Transport pbft.Transport

	Durability pbft.Durability // "": disk
}

// A Damage is the result of one attack.
type Damage struct {
	Name    string  `json:"attack"`
	Before  float64 `json:"ops_per_s_off"`
	During  float64 `json:"ops_per_s_on"`
	Share   float64 `json:"percent"`          // During of Before
	Stall   float64 `json:"longest_stall_ms"` // of the honest client, while the attack is on
	CalmGap float64 `json:"calm_stall_ms"`    // the same, while it is off
	Views   uint64  `json:"views"`            // left since the attack began first
}

// The load of the honest client: this many WRITEs of this many bytes outstanding.
const (
	honestOutstanding = 8
	honestBytes       = 1 << 10
)

// Run measures one attack after the other, each on a group of its own.
func (a Attack) Run(ctx context.Context, each func(Damage) error) error {
	names := a.Names
	if len(names) == 0 {
		for _, o := range Offenders() {
			names = append(names, o.Name)
		}
	}
	for _, name := range names {
		o, err := findOffender(name)
		if err != nil {
			return err
		}
		d, err := a.suffer(ctx, o)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := each(d); err != nil {
			return err
		}
	}
	return nil
}

// suffer measures one attack.
func (a Attack) suffer(ctx context.Context, o Offender) (d Damage, err error) {
	dir, err := os.MkdirTemp("", "bfs-attack-")
	if err != nil {
		return d, err
	}
	defer os.RemoveAll(dir)
	cfg := fileGroupConfig{Program: a.Program, Dir: dir, N: 4, Size: 1 << 30, Transport: a.Transport,
		Durability: a.Durability}
	g, err := startFileGroup(ctx, cfg)
	if err != nil {
		return d, err
	}
	defer g.stop()
	file, err := g.prepareAttack(ctx, o)
	if err != nil {
		return d, err
	}
	key, err := g.enrol(ctx, !o.writes)
	if err != nil {
		return d, err
	}
	keyFile := filepath.Join(dir, "offender.key")
	if err := keys.WritePrivate(keyFile, key); err != nil {
		return d, err
	}
	m := &suffering{Attack: a, group: g, dir: dir, key: keyFile, name: o.Name, honest: newHonest(g.client, file)}
	defer m.honest.stop()
	return m.measure(ctx)
}

// prepareAttack makes the attacked file, the honest client's file, and the files that the
// offender needs.
func (g *fileGroup) prepareAttack(ctx context.Context, o Offender) (honest nfs3.FileHandle, err error) {
	for name, size := range map[string]int{attackedFile: 1 << 20, "honest": honestOutstanding * honestBytes} {
		f, err := g.files.Create(name)
		if err != nil {
			return nil, err
		}
		if _, err = f.Write(make([]byte, size)); err == nil {
			err = f.Close()
		}
		if err != nil {
			return nil, err
		}
	}
	if o.prepare != nil {
		if err := o.prepare(ctx, g); err != nil {
			return nil, err
		}
	}
	return caller{g.client}.find(ctx, "honest")
}

// A suffering is one measurement under way.
type suffering struct {
	Attack
	group    *fileGroup
	dir, key string
	name     string
	honest   *honest
}

func (m *suffering) measure(ctx context.Context) (d Damage, err error) {
	d.Name = m.name
	before, err := m.view(ctx)
	if err != nil {
		return d, err
	}
	var calm, under tallied
	for range m.Rounds {
		if err := m.phase(ctx, &calm); err != nil {
			return d, err
		}
		if err := m.attacked(ctx, &under); err != nil {
			return d, err
		}
	}
	after, err := m.view(ctx)
	d.Before, d.During, d.Views = calm.rate(), under.rate(), after-before
	d.Share, d.Stall, d.CalmGap = 100*d.During/d.Before, under.stall.Seconds()*1000, calm.stall.Seconds()*1000
	return d, err
}

// attacked is a phase with the attack on.
func (m *suffering) attacked(ctx context.Context, t *tallied) error {
	group := filepath.Join(m.group.dir, bundle.AdminDir, bundle.GroupFile)
	c, err := procs.Start("offender", filepath.Join(m.dir, "offender.log"), m.Program, "bench", "offend",
		"--group", group, "--key", m.key, "--transport", string(m.Transport), m.name)
	if err != nil {
		return err
	}
	defer c.Kill()
	ready, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	if err := c.Ready(ready); err != nil {
		return err
	}
	return m.phase(ctx, t)
}

// phase lets the load settle and counts the operations completed.
func (m *suffering) phase(ctx context.Context, t *tallied) error {
	if err := pause(ctx, m.Phase/8); err != nil {
		return err
	}
	m.honest.count()
	begin := time.Now()
	if err := pause(ctx, m.Phase); err != nil {
		return err
	}
	done, stall, err := m.honest.count()
	t.done, t.took, t.stall = t.done+done, t.took+time.Since(begin), max(t.stall, stall)
	return err
}

// A tallied is the sum of the operations of some phases.
type tallied struct {
	done        uint64
	took, stall time.Duration
}

func (t *tallied) rate() float64 { return float64(t.done) / t.took.Seconds() }

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// view is the highest view of a replica.
func (m *suffering) view(ctx context.Context) (v uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, r := range status.Ask(ctx, m.group.group).Replicas {
		if r.Status == nil {
			return 0, fmt.Errorf("replica %d: %s", r.Number, r.Problem)
		}
		v = max(v, uint64(r.Status.View))
	}
	return v, nil
}

// An honest client makes the same calls again and again, each when its last answer is there.
type honest struct {
	stopping atomic.Bool
	running  sync.WaitGroup
	mu       sync.Mutex
	done     uint64
	last     time.Time // when an operation ended last
	stall    time.Duration
	since    time.Time // when that stall began
	err      error
}

// newHonest is an honest client that writes.
func newHonest(c *pbft.Client, file nfs3.FileHandle) *honest {
	var calls []pbft.Call
	for i := range honestOutstanding {
		a := nfs3.WriteArgs{File: file, Offset: uint64(i * honestBytes), Stable: nfs3.FileSync}
		a.Data = make([]byte, honestBytes)
		calls = append(calls, pbft.Call{Body: body(nfs3.ProgramNFS, nfs3.ProcWrite, a.Append(nil))})
	}
	return startHonest(c, calls)
}

func startHonest(c *pbft.Client, calls []pbft.Call) *honest {
	h := &honest{last: time.Now()}
	for _, call := range calls {
		call.Done = func(reply []byte, err error) {
			if h.note(reply, err) && c.Start(call) == nil {
				return
			}
			h.running.Done()
		}
		h.running.Add(1)
		if err := c.Start(call); err != nil {
			h.note(nil, err)
			h.running.Done()
		}
	}
	return h
}

// note counts an operation that ended, and reports whether to go on.
func (h *honest) note(reply []byte, err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && (len(reply) < 8 || [8]byte(reply) != [8]byte{}) {
		err = fmt.Errorf("an honest call was answered %.64x", reply)
	}
	if err != nil && h.err == nil {
		h.err = err
	}
	now := time.Now()
	if d := now.Sub(h.last); d > h.stall {
		h.stall, h.since = d, h.last
	}
	h.done, h.last = h.done+1, now
	return err == nil && !h.stopping.Load()
}

// count returns the operations done since the last count, and the longest time in which none ended.
func (h *honest) count() (done uint64, stall time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	done, stall, err = h.done, max(h.stall, time.Since(h.last)), h.err
	h.done, h.stall = 0, 0
	return done, stall, err
}

// stalled is when the longest stall since the last count began.
func (h *honest) stalled() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.last) > h.stall {
		return h.last
	}
	return h.since
}

func (h *honest) stop() { h.stopping.Store(true) }

// clientConfig returns the configuration of a client whose key is in a file.
func clientConfig(g *config.Group, file string, transport pbft.Transport) (pbft.ClientConfig, error) {
	key, err := keys.ReadPrivate(file)
	return pbft.ClientConfig{Group: g.Group, Key: ed25519.PrivateKey(key), Transport: transport}, err
}

// WriteDamageHead and WriteDamage print a table, a row as soon as there is one.
func WriteDamageHead(w io.Writer) error {
	_, err := fmt.Fprintf(w, damageRow, "ATTACK", "OFF ops/s", "ON ops/s", "%", "STALL ms", "(OFF)", "VIEWS")
	return err
}

const damageRow = "%-22s %10v %10v %6v %9v %7v %6v\n"

// WriteDamage prints a row.
func WriteDamage(w io.Writer, d Damage) error {
	n := func(v float64) string { return fmt.Sprintf("%.0f", v) }
	_, err := fmt.Fprintf(w, damageRow, d.Name, n(d.Before), n(d.During), n(d.Share), n(d.Stall), n(d.CalmGap), d.Views)
	return err
}
