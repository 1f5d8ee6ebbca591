// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"bfs/cmd/internal/keys"
	"bfs/cmd/internal/status"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// Attack measures the throughput of an honest client while others attack the group: n replicas,
// the honest client and the offenders, each a process of its own on this machine, unless an
// offender is one of the replicas. The attack is off and on in turn, so that other load on the
// machine weighs on both alike.
type Attack struct {
	Program   string   // bfsd
	N         int      // replicas
	Names     []string // of offenders, those of a combination joined by +; none: all offenders, one by one
	Rounds    int      // off and on
	Phase     time.Duration
	Settle    time.Duration // before the operations of a phase count; 0: an eighth of a phase
	Transport pbft.Transport
	All       bool // strangers attack all replicas, not the primary alone

	Durability pbft.Durability // "": disk
}

// Run measures one attack after the other, each on groups of its own.
func (a Attack) Run(ctx context.Context, each func(Damage) error) error {
	all, err := a.combinations(func(Offender) bool { return true })
	if err != nil {
		return err
	}
	for _, c := range all {
		d, err := a.suffer(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if err := each(d); err != nil {
			return err
		}
	}
	return nil
}

// combinations are those of the names, or without a name each offender that is of a kind.
func (a Attack) combinations(of func(Offender) bool) (all []combination, err error) {
	if err := checkN(a.N); err != nil {
		return nil, err
	}
	names := a.Names
	if len(names) == 0 {
		for _, o := range Offenders() {
			if of(o) {
				names = append(names, o.Name)
			}
		}
	}
	for _, name := range names {
		c, err := combine(name, a.N)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// suffer measures one attack.
func (a Attack) suffer(ctx context.Context, c combination) (d Damage, err error) {
	m := &suffering{Attack: a, combination: c}
	defer func() { err = errors.Join(err, m.end()) }()
	for range a.Rounds {
		if err := m.renew(ctx); err != nil {
			return d, err
		}
		if err := m.phase(ctx, &m.calm); err != nil {
			return d, err
		}
		if err := m.attacked(ctx); err != nil {
			return d, err
		}
	}
	return m.damage(), nil
}

// A suffering is one measurement under way.
type suffering struct {
	Attack
	combination combination

	group     *fileGroup // nil: none yet
	dir       string     // of its files
	attackers *attackers
	anew      pbft.ClientConfig // of the client that connects beside the attack
	honest    []*honest         // the first is measured
	view      uint64

	calm, under tallied
	cpu         time.Duration // of the offenders, while the attack is on
	left        time.Duration // the longest time that the attack was on until the first view was left; 0: never
	connect     time.Duration // the longest time that a client needed to connect, while the attack is on
}

// renew puts up a group. The old one stays if there is one, except that a replica that offends may
// have lost its part, because the group has left its view.
func (m *suffering) renew(ctx context.Context) error {
	if m.group != nil {
		if len(m.combination.offences()) == 0 || m.view == 0 {
			return nil
		}
		if err := m.end(); err != nil {
			return err
		}
	}
	var err error
	if m.dir, err = os.MkdirTemp("", "bfs-attack-"); err != nil {
		return err
	}
	m.group, err = startFileGroup(ctx, fileGroupConfig{Program: m.Program, Dir: m.dir, N: m.N, Size: 1 << 30,
		Transport: m.Transport, Durability: m.Durability, Offences: m.combination.offences()})
	if err != nil {
		return err
	}
	file, err := m.group.prepareAttack(ctx, m.combination)
	if err != nil {
		return err
	}
	if m.attackers, err = m.group.enrolAttackers(ctx, m.combination, m.All); err != nil {
		return err
	}
	m.anew = m.group.config
	if m.anew.Key, err = m.group.enrolAbove(ctx, true); err != nil {
		return err
	}
	if err := m.startHonest(ctx, file); err != nil {
		return err
	}
	m.view, err = m.highestView(ctx)
	return err
}

// end stops the group and removes its files.
func (m *suffering) end() error {
	for _, h := range m.honest {
		h.stop()
	}
	m.honest = nil
	if m.group != nil {
		m.group.stop()
		m.group = nil
	}
	return os.RemoveAll(m.dir)
}

// startHonest starts the honest clients: one, or two if an offender prefers one of them to the
// other. Then the one that suffers is the one with the lower number.
func (m *suffering) startHonest(ctx context.Context, file nfs3.FileHandle) error {
	m.honest = []*honest{newHonest(m.group.client, file)}
	if !m.combination.starves() {
		return nil
	}
	key, err := m.group.enrol(ctx, false)
	if err != nil {
		return err
	}
	second, err := m.group.open(ctx, key)
	if err != nil {
		return err
	}
	m.group.others = append(m.group.others, second)
	m.honest = append(m.honest, newHonest(second, file))
	if pbft.ClientOf(keys.Of(key)) < pbft.ClientOf(keys.Of(m.group.config.Key)) {
		m.honest[0], m.honest[1] = m.honest[1], m.honest[0]
	}
	return nil
}

// prepareAttack makes the attacked file, the honest client's file, and the files that the
// offenders need.
func (g *fileGroup) prepareAttack(ctx context.Context, all ...combination) (honest nfs3.FileHandle, err error) {
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
	for _, c := range all {
		if err := c.prepare(ctx, g); err != nil {
			return nil, err
		}
	}
	return caller{g.client}.find(ctx, "honest")
}

// attacked is a phase with the attack on, and then a client's connect.
func (m *suffering) attacked(ctx context.Context) error {
	on, err := m.attackers.begin(ctx)
	if err != nil {
		return err
	}
	defer on.end()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	left := make(chan time.Duration, 1)
	view := m.view
	go func() { left <- m.awaitNextView(watching, view) }()
	used, err := on.cpu()
	if err != nil {
		return err
	}
	if err := m.phase(ctx, &m.under); err != nil {
		return err
	}
	now, err := on.cpu()
	if err != nil {
		return err
	}
	m.cpu += now - used
	stop()
	m.left = max(m.left, <-left)
	return m.connectAnew(ctx)
}

// awaitNextView returns how long it takes until the group has left a view, 0 if ctx ends before.
func (m *suffering) awaitNextView(ctx context.Context, view uint64) time.Duration {
	begin := time.Now()
	for pause(ctx, lookEvery) == nil {
		s, err := status.AskOne(ctx, m.group.group, observer)
		if err == nil && uint64(s.View) > view {
			return time.Since(begin)
		}
	}
	return 0
}

// connectAnew measures how long a client takes until it can make calls.
func (m *suffering) connectAnew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	begin := time.Now()
	c, err := m.group.openAs(ctx, m.anew)
	if err != nil {
		return fmt.Errorf("connect beside the attack: %w", err)
	}
	m.connect = max(m.connect, time.Since(begin))
	return c.Close()
}

// phase lets the load settle and counts the operations completed, and the views left.
func (m *suffering) phase(ctx context.Context, t *tallied) error {
	settle := m.Settle
	if settle == 0 {
		settle = m.Phase / 8
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	h := m.honest[0]
	h.count()
	h.latency()
	begin := time.Now()
	if err := pause(ctx, m.Phase); err != nil {
		return err
	}
	done, stall, err := h.count()
	t.done, t.took, t.stall = t.done+done, t.took+time.Since(begin), max(t.stall, stall)
	t.latencies.add(h.latency())
	if err != nil {
		return err
	}
	view, err := m.highestView(ctx)
	t.views, m.view = t.views+view-m.view, view
	return err
}

// A tallied is the sum of the operations of some phases.
type tallied struct {
	done        uint64
	took, stall time.Duration
	latencies   counts
	views       uint64
}

func (t *tallied) rate() float64 { return float64(t.done) / t.took.Seconds() }

// p99 is in milliseconds.
func (t *tallied) p99() float64 { return milliseconds(t.latencies.quantile(0.99)) }

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// highestView is the highest view of a replica that answers.
func (m *suffering) highestView(ctx context.Context) (v uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err = errors.New("no replica tells its view")
	for _, r := range status.Ask(ctx, m.group.group).Replicas {
		if r.Status != nil {
			v, err = max(v, uint64(r.Status.View)), nil
		}
	}
	return v, err
}
