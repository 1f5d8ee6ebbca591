// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/keys"
	"bfs/cmd/internal/procs"
)

// attackers are the parts of a combination against one group, with a key each.
type attackers struct {
	combination
	group *fileGroup
	all   bool     // strangers attack all replicas, not the primary alone
	keys  []string // a file for each part
}

// enrolAttackers makes the keys of the attackers, none for those that are replicas.
func (g *fileGroup) enrolAttackers(ctx context.Context, c combination, all bool) (*attackers, error) {
	a := &attackers{combination: c, group: g, all: all, keys: make([]string, len(c.parts))}
	for i, p := range c.parts {
		if p.replica != apart {
			continue
		}
		key, err := g.enrolAbove(ctx, !p.writes)
		if err != nil {
			return nil, err
		}
		a.keys[i] = filepath.Join(g.setup.Dir, fmt.Sprintf("%s-%d.key", c.name, i))
		if err := keys.WritePrivate(a.keys[i], key); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// An onslaught is an attack that is on.
type onslaught struct {
	pids     []int
	children []*procs.Child // those of the processes that are not replicas
	offs     []func()       // what turns each part off
}

// begin turns the attack on.
func (a *attackers) begin(ctx context.Context) (*onslaught, error) {
	on := &onslaught{}
	for i := range a.parts {
		if err := a.beginPart(ctx, i, on); err != nil {
			on.end()
			return nil, err
		}
	}
	return on, nil
}

func (a *attackers) beginPart(ctx context.Context, i int, on *onslaught) error {
	p := a.parts[i]
	if p.replica != apart {
		pid := a.group.replicas[p.replica].PID()
		on.pids = append(on.pids, pid)
		on.offs = append(on.offs, func() { _ = syscall.Kill(pid, SignalOff) }) // it may have ended
		return syscall.Kill(pid, SignalOn)
	}
	g := a.group
	c, err := procs.Start(p.Name, filepath.Join(g.setup.Dir, "offender.log"), g.setup.Program, "bench", "offend",
		"--group", filepath.Join(g.dir, bundle.AdminDir, bundle.GroupFile), "--key", a.keys[i],
		"--transport", string(g.setup.Transport), fmt.Sprintf("--all=%t", a.all), p.Name)
	if err != nil {
		return err
	}
	on.pids, on.children, on.offs = append(on.pids, c.PID()), append(on.children, c), append(on.offs, c.Kill)
	ready, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	return c.Ready(ready)
}

// cpu is the processor time that the attackers' processes have used. A process that has ended by
// itself is an error: it attacks nobody.
func (o *onslaught) cpu() (total time.Duration, err error) {
	for _, c := range o.children {
		select {
		case <-c.Exited():
			return 0, c.Failure()
		default:
		}
	}
	for _, pid := range o.pids {
		d, err := procs.CPU(pid)
		if err != nil {
			return 0, err
		}
		total += d
	}
	return total, nil
}

// end turns the attack off.
func (o *onslaught) end() {
	for _, off := range o.offs {
		off()
	}
}
