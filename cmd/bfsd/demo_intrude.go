// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/probe"
	"bfs/cmd/internal/procs"
	"bfs/cmd/internal/status"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// The demo writes the first line, and the intruder makes the second of it.
var (
	written = []byte("this is what was written\n")
	altered = []byte("this is what was altered\n")
)

// intrudeAndRecover alters a file in a backup's memory and on its disk, shows that reads still
// return the true bytes, and has the replica recovered.
func (d *demo) intrudeAndRecover(ctx context.Context) error {
	return d.mounted(ctx, d.alterAndHeal)
}

func (d *demo) alterAndHeal(ctx context.Context, c *probe.Client) error {
	x := &intrusion{demo: d, client: c, victim: d.n - 1, text: bytes.Repeat(written, 400)}
	for _, step := range []func(context.Context) error{x.write, x.alter, x.read, x.heal, x.readWithout} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// An intrusion is the demo's intruder and the file it alters.
type intrusion struct {
	*demo
	client *probe.Client
	victim int
	text   []byte
	file   nfs3.FileHandle
}

func (x *intrusion) write(ctx context.Context) (err error) {
	fmt.Fprintf(x.out, "\nwriting %s/demo.txt through the relay: %d times %q\n",
		demoExport, len(x.text)/len(written), written)
	x.file, err = x.client.Write(ctx, "demo.txt", x.text)
	return err
}

// replica is the process of the replica that keeper i runs.
func (x *intrusion) replica(i int) (pid int, err error) {
	all, err := procs.Children(x.children[i].PID())
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("the keeper of replica %d has %d children, want 1, the replica: does %s "+
			"have keepers? Name another --dir", i, len(all), x.dir)
	}
	if err != nil {
		return 0, err
	}
	return all[0], nil
}

func (x *intrusion) home() string { return bundle.HostDir(x.path("group"), x.victim) }

func (x *intrusion) alter(context.Context) error {
	pid, err := x.replica(x.victim)
	if err != nil {
		return err
	}
	places, err := procs.AlterMemory(pid, written, altered)
	if err != nil {
		return fmt.Errorf("the intruder needs the right to trace processes: run the demo as root: %w", err)
	}
	if places == 0 {
		return fmt.Errorf("replica %d does not hold the file: nothing to alter in process %d", x.victim, pid)
	}
	fmt.Fprintf(x.out, "altering the file in the memory of replica %d (process %d): %d places now say %q\n",
		x.victim, pid, places, altered)
	places, err = procs.AlterFiles(filepath.Join(x.home(), bundle.StateDir), written, altered)
	if err == nil {
		fmt.Fprintf(x.out, "altering it on the replica's disk, in its journal and its image: %d places\n", places)
	}
	return err
}

func (x *intrusion) read(ctx context.Context) error {
	got, err := x.client.Read(ctx, x.file)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, x.text) {
		return fmt.Errorf("read %d bytes back that are not what was written", len(got))
	}
	_, err = fmt.Fprintf(x.out, "reading %s/demo.txt through the relay: all of it is as written\n", demoExport)
	return err
}

// heal makes the keeper recover the replica, and checks the outcome.
func (x *intrusion) heal(ctx context.Context) error {
	if err := x.askKeeper(ctx); err != nil {
		return err
	}
	r, err := x.ended(ctx)
	if err != nil {
		return err
	}
	if !r.Corrupt {
		return fmt.Errorf("replica %d has recovered and found nothing corrupt", x.victim)
	}
	fmt.Fprintf(x.out, "it has recovered after %v, and found that what it held was not the group's\n",
		r.Took.Duration().Round(time.Millisecond))
	return x.status(ctx)
}

// readWithout reads while as many other replicas stand still as can be spared, so that the healed
// one is needed.
func (x *intrusion) readWithout(ctx context.Context) (err error) {
	away := x.n - x.group.Quorum()
	for i := x.victim - away; i < x.victim; i++ {
		pid, err := x.replica(i)
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGSTOP)
		}
		if err != nil {
			return err
		}
		defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }() // its keeper may have started it again
		fmt.Fprintf(x.out, "\nreplica %d (process %d) stands still, so that replica %d is needed\n", i, pid, x.victim)
	}
	return x.read(ctx)
}

// askAgain is the pause between two questions.
const askAgain = 100 * time.Millisecond

// askKeeper asks for the replica's recovery when all others take part: a relay that has
// just begun may keep them busy.
func (x *intrusion) askKeeper(ctx context.Context) error {
	r, err := config.LoadReplica(filepath.Join(x.home(), bundle.ReplicaFile))
	if err != nil {
		return err
	}
	fmt.Fprintf(x.out, "recovering replica %d, as its keeper does on schedule:\n\n  bfsd recover %d --config %s\n\n",
		x.victim, x.victim, r.File)
	for {
		said, err := pbft.AskRecovery(ctx, r.Keeper, false)
		if err == nil {
			_, err = fmt.Fprintln(x.out, said)
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(askAgain):
		}
	}
}

// ended waits until the replica's recovery is over.
func (x *intrusion) ended(ctx context.Context) (pbft.Recovery, error) {
	for {
		s, err := status.AskOne(ctx, x.group, x.victim)
		if err == nil && s.Recovery.Ended {
			return s.Recovery, nil
		}
		select {
		case <-ctx.Done():
			return pbft.Recovery{}, fmt.Errorf("replica %d has not recovered: %w",
				x.victim, errors.Join(err, ctx.Err()))
		case <-time.After(askAgain):
		}
	}
}
