// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"bfs/pkg/pbft"
	"bfs/test/cluster"
	"bfs/test/patience"
)

const (
	recoverWithin = time.Minute            // a recovery, on a quiet machine
	lookEvery     = 100 * time.Millisecond // how often to ask whether one has ended
)

// recovering is a group of four replicas with disks. They recover in turn, each once in
// every window. With a window of 0 the next recovery begins when the last has ended, so
// that a recovery is always under way.
func recovering(window time.Duration) func(context.Context, string, placement) (*running, error) {
	return func(ctx context.Context, dir string, p placement) (*running, error) {
		config := cluster.Config{Replicas: 4, Wrap: p.wrap(), Transport: p.transport,
			Durability: string(pbft.DurabilityDisk)}
		g, server, err := startBFS(ctx, dir, config)
		if err != nil {
			return nil, err
		}
		admins, err := cluster.ReadAdmins(g.File(), config.Replicas)
		if err != nil {
			server.stop()
			return nil, err
		}
		ctx, cancel := context.WithCancel(ctx)
		rounds := &recoveries{group: g, admins: admins, every: window / time.Duration(config.Replicas),
			ended: make(chan struct{})}
		go rounds.run(ctx)
		server.disks = false // the processes change, so neither their processor time nor what they write can be told
		server.pids = func() []int { return nil }
		server.stop = func() {
			cancel()
			<-rounds.ended
			fmt.Fprintln(os.Stderr, rounds)
			g.Stop()
		}
		return server, nil
	}
}

// recoveries counts and times the recoveries of a group under measurement.
type recoveries struct {
	group  *cluster.Group
	admins []string
	every  time.Duration // from the start of one to the start of the next

	ended chan struct{} // closed when no more will come
	count int
	sum   time.Duration // of their times, from SIGTERM to recovered
	err   error         // of the one that failed: none was begun after it
}

func (r *recoveries) String() string {
	if r.err != nil {
		return fmt.Sprintf("recovery %d FAILED: %v", r.count+1, r.err)
	}
	if r.count == 0 {
		return "no recovery ended"
	}
	return fmt.Sprintf("%d recoveries, %.1f s each", r.count, (r.sum / time.Duration(r.count)).Seconds())
}

// run recovers the replicas in turn until ctx ends.
func (r *recoveries) run(ctx context.Context) {
	defer close(r.ended)
	for replica := 0; ctx.Err() == nil; replica = (replica + 1) % len(r.admins) {
		began := time.Now()
		if err := r.recover(ctx, replica); err != nil {
			if ctx.Err() == nil {
				r.err = fmt.Errorf("replica %d: %w", replica, err)
			}
			return
		}
		r.count++
		r.sum += time.Since(began)
		select {
		case <-time.After(r.every - time.Since(began)):
		case <-ctx.Done():
		}
	}
}

func (r *recoveries) recover(ctx context.Context, replica int) error {
	ctx, cancel := patience.Context(ctx, recoverWithin)
	defer cancel()
	p := r.group.Replicas[replica]
	p.Terminate()
	if err := p.StartWith("--recover"); err != nil {
		return err
	}
	for {
		if status, err := cluster.Status(ctx, r.admins[replica]); err == nil && status.Recovery.Ended {
			return nil
		}
		select {
		case <-p.Ended():
			return errors.New("it has ended: " + p.LogTail(3))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery): // not a limit
		}
	}
}
