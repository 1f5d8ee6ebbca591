// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"bfs/pkg/pbft"
	"bfs/test/cluster"
	"bfs/test/guest"
	"bfs/test/patience"
)

// With -replay the group runs on three hosts of its four, and the device mapper of the first host's
// kernel records each write and each flush of the disk, below the file system. After the power cut
// one more kernel makes the same writes on a copy of the disk, and looks at the replica's directory
// after each flush (points.go), that is, whenever the power could have been cut. Since no quorum
// forms without the first replica, the others tell what it has promised (promises.go).

// Kernel modules that a recording and an examination need.
var (
	recordModules  = []string{"dm-mod", "dm-log-writes"}
	examineModules = []string{"dm-mod", "dm-snapshot"}
)

const (
	writesSize = 16 << 30 // bounds what is recorded of one life; the file is sparse
	changeSize = 1 << 30  // bounds what a look changes

	examineMemory = 768 // MiB
	examineIn     = 30 * time.Minute

	// A life that is recorded has each worker do leastRecorded operations, and by chance up to
	// furtherRecorded more. In the middle another host's power is cut.
	leastRecorded   = 20
	furtherRecorded = 60
	lifeAtMost      = 90 * time.Second
)

// Files of a host whose disk is recorded.
func (x *host) before() string { return x.disk + ".before" } // the disk when the recording began
func (x *host) writes() string { return x.disk + ".writes" } // the record
func (x *host) copied() string { return x.disk + ".copy" }   // the disk on which an examination repeats the writes
func (x *host) change() string { return x.disk + ".change" } // what a look at this disk changes
func (x *host) task() string   { return x.disk + ".task" }

// record prepares a recording of a host whose power is off.
func (h *hosts) record(ctx context.Context, x *host) error {
	if err := copyDisk(ctx, x.disk, x.before()); err != nil {
		return err
	}
	return empty(x.writes(), writesSize)
}

func copyDisk(ctx context.Context, from, to string) error {
	if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cp %s: %w: %s", from, err, out)
	}
	return nil
}

// empty makes a file of zeros.
func empty(file string, size int64) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// recording makes the device that records the writes of the first disk on the second.
func recording() (device string, err error) {
	table := fmt.Sprintf("0 %d log-writes /dev/ubda /dev/ubdb", sectors())
	return "/dev/dm-0", dmsetup("create", "host", "--noudevsync", "--noudevrules", "--table", table)
}

// replay lets the workers work, cuts the power, and looks at what the recorded disk was at each
// point before.
func (s *soak) replay(ctx context.Context) error {
	h := s.room.(*hosts)
	x := h.all[0]
	if err := s.beRecorded(ctx, h, x); err != nil {
		return err
	}
	s.cut()
	began := time.Now()
	job := task{Log: x.writes(), Seed: s.chance.Uint64(), Points: s.points, Promised: s.promised}
	result, err := h.examine(ctx, x, job)
	if err != nil {
		return fmt.Errorf("the disk of %s: %w", x.name, err)
	}
	s.promised = result.Promised
	took := time.Since(began)
	if err := s.room.on(ctx, s.chance.Int64()); err != nil {
		return err
	}
	if err := s.await(ctx, s.goals(func(c crew) int { return c.size() + 1 })); err != nil {
		return err
	}
	if err := s.check(ctx); err != nil {
		return err
	}
	s.done.rounds++
	s.done.examined.add(result)
	s.say("round %d: %v, in %.0f s; it held %+v", s.done.rounds, result, took.Seconds(), result.Held)
	return nil
}

// beRecorded lets the workers work until the recorded disk has seen enough.
func (s *soak) beRecorded(ctx context.Context, h *hosts, x *host) error {
	began, image := time.Now(), x.image(ctx)
	work := func(c crew) int { return c.size()*leastRecorded + s.chance.IntN(c.size()*furtherRecorded) }
	if err := s.await(ctx, s.goals(work)); err != nil {
		return err
	}
	if err := h.again(ctx, h.all[1+s.chance.IntN(len(h.all)-1)], ""); err != nil {
		return err
	}
	if err := s.await(ctx, s.goals(work)); err != nil {
		return err
	}
	for x.image(ctx) == image && time.Since(began) < s.life {
		if err := s.await(ctx, s.goals(func(c crew) int { return c.size() })); err != nil {
			return err
		}
	}
	// The image's promise shows at the flushes that come after it has followed.
	return s.await(ctx, s.goals(func(c crew) int { return c.size() * leastAcked }))
}

// image returns the checkpoint of the replica's image, 0 if it does not tell.
func (x *host) image(ctx context.Context) pbft.SeqNum {
	now, err := cluster.Status(ctx, x.admin())
	if err != nil || now.Disk == nil {
		return 0
	}
	return now.Disk.Image
}

// examine looks at the points of a recording.
func (h *hosts) examine(ctx context.Context, x *host, t task) (result examined, err error) {
	if err := copyDisk(ctx, x.before(), x.copied()); err != nil {
		return result, err
	}
	if err := empty(x.change(), changeSize); err != nil {
		return result, err
	}
	text, err := json.Marshal(t)
	if err != nil {
		return result, err
	}
	if err := os.WriteFile(x.task(), text, 0o644); err != nil {
		return result, err
	}
	ctx, cancel := patience.Context(ctx, examineIn)
	defer cancel()
	g, err := guest.Start(ctx, guest.Options{
		Bare: []string{h.program, examineVerb, x.task()}, OwnLoopback: true, Modules: examineModules,
		Disks: []string{x.copied(), x.change()}, MemoryMB: examineMemory, SpreadCPU: true, Timeout: examineIn,
	})
	if err != nil {
		return result, err
	}
	r, err := g.Wait()
	if err != nil {
		return result, err
	}
	for line := range strings.Lines(r.Output) {
		if text, found := strings.CutPrefix(line, resultSign); found && r.Exit == 0 {
			return result, json.Unmarshal([]byte(text), &result)
		}
	}
	return result, fmt.Errorf("%s\n(again: the disk as it was is %s, and what was written is in %s)",
		strings.TrimSpace(r.Output), x.before(), x.writes())
}
