// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bfs/pkg/pbft"
)

// A combination holds the attacks that are on at the same time.
type combination struct {
	name  string // the parts' names, joined by +
	parts []attacker
}

// An attacker is one part of a combination.
type attacker struct {
	Offender
	replica int // that commits it; apart: a process of its own does
}

const (
	apart    = -1
	observer = 1 // a replica that never offends: combine gives it no part
)

// combine finds the attacks of a name such as common+replica-fetches, and gives each one that takes
// a replica a replica of a group of n. The primary is the first. The backups are N-2, N-3 and so
// on, which the others need if one more is slow: the last in line for primary would be spared (see
// package sparing).
func combine(name string, n int) (combination, error) {
	c, backup := combination{name: name}, n-2
	for _, one := range strings.Split(name, "+") {
		o, err := findOffender(one)
		if err != nil {
			return c, err
		}
		p := attacker{o, apart}
		switch o.By {
		case ByPrimary:
			p.replica = 0
		case ByReplica:
			p.replica = backup
			backup--
		}
		c.parts = append(c.parts, p)
	}
	return c, c.check(pbft.GroupSize(n))
}

func (c combination) check(n pbft.GroupSize) error {
	replicas, primaries := 0, 0
	for i, p := range c.parts {
		if slices.ContainsFunc(c.parts[:i], func(o attacker) bool { return o.Name == p.Name }) {
			return fmt.Errorf("attack %q: %s is in it twice, want each part once", c.name, p.Name)
		}
		if p.replica != apart {
			replicas++
		}
		if p.By == ByPrimary {
			primaries++
		}
	}
	switch {
	case primaries > 1:
		return fmt.Errorf("attack %q: %d parts are the primary's, want one at most", c.name, primaries)
	case replicas > n.Faulty():
		return fmt.Errorf("attack %q: %d replicas of %d offend, want %d at most, which is f: name fewer, or use "+
			"--n %d", c.name, replicas, n, n.Faulty(), 3*replicas+1)
	}
	return nil
}

// offences says which replicas offend, and how.
func (c combination) offences() map[int]string {
	all := map[int]string{}
	for _, p := range c.parts {
		if p.replica != apart {
			all[p.replica] = p.Name
		}
	}
	return all
}

// by says who attacks, part by part.
func (c combination) by() By {
	var all []string
	for _, p := range c.parts {
		all = append(all, string(p.By))
	}
	return By(strings.Join(all, "+"))
}

// starves reports whether it hinders the client of the lowest number only.
func (c combination) starves() bool {
	return slices.ContainsFunc(c.parts, func(p attacker) bool { return p.Offender.starves })
}

// prepare makes the files that the parts need.
func (c combination) prepare(ctx context.Context, g *fileGroup) error {
	for _, p := range c.parts {
		if p.Offender.prepare == nil {
			continue
		}
		if err := p.Offender.prepare(ctx, g); err != nil {
			return fmt.Errorf("%s: prepare: %w", p.Name, err)
		}
	}
	return nil
}
