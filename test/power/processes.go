// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"syscall"

	"bfs/test/cluster"
)

// processes is the room in which replicas are processes of this machine.
type processes struct {
	group     *cluster.Group
	addresses []string
}

func (p *processes) make(ctx context.Context) (err error) {
	if err := p.group.AddReplicas(ctx, cluster.Config{Prepare: adjust, Size: stateSize}); err != nil {
		return err
	}
	p.addresses, err = cluster.ReadAdmins(p.group.File(), replicas)
	return err
}

func (p *processes) on(context.Context, int64) error {
	for _, r := range p.group.Replicas {
		if err := r.Start(); err != nil {
			return err
		}
	}
	return nil
}

// off kills all processes before it waits for the end of any.
func (p *processes) off() {
	for _, r := range p.group.Replicas {
		_ = r.Signal(syscall.SIGKILL) // one that has ended by itself is waited for as well
	}
	for _, r := range p.group.Replicas {
		r.Kill()
	}
}

func (p *processes) ended() string {
	var names []string
	for _, r := range p.group.Replicas {
		select {
		case <-r.Ended():
			names = append(names, r.Name)
		default:
		}
	}
	return strings.Join(names, ", ")
}

func (p *processes) admins() []string { return p.addresses }

func (p *processes) logs() string { return p.group.Logs(40) }

func (p *processes) close() { p.off() }
