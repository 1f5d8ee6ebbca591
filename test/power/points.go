// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfsstate"
	"bfs/pkg/pbft"
	"bfs/test/patience"
)

// An examination goes over the points at which the power could have been cut while a disk was
// recorded. It runs as the first process of a kernel, whose first disk is a copy of what the
// recorded disk was at first. It makes the recorded writes there, one after the other. At a point
// it stops, has the device mapper make a copy-on-write device of the disk, and looks at the
// replica's directory on that: to mount the file system changes it.
type examination struct {
	task    task
	log     *writeLog
	disk    *os.File
	chance  *rand.Rand
	service pbft.Service
	memory  []byte // aligned for direct writes

	promised standing // what the replica had promised before the present point
	held     standing // what its directory held at an earlier point
	done     examined
}

// A task is what the soak asks for.
type task struct {
	Self     pbft.ReplicaID
	Log      string // the file
	Seed     uint64
	Points   int      // bounds the points that are looked at; 0: all
	Promised standing // before the recording began
}

// examined is the result.
type examined struct {
	Writes, Flushes, Marks int // in the log
	Bytes                  int64
	Looked                 int      // after flushes
	Between                int      // with a part of the writes before the next flush
	Held                   standing // at the last point
	Promised               standing
}

func (x examined) String() string {
	return fmt.Sprintf("%d writes of %.1f MiB, %d flushes, %d marks; looked at %d points after flushes and %d between",
		x.Writes, float64(x.Bytes)/(1<<20), x.Flushes, x.Marks, x.Looked, x.Between)
}

func (x *examined) add(o examined) {
	x.Writes += o.Writes
	x.Flushes += o.Flushes
	x.Marks += o.Marks
	x.Bytes += o.Bytes
	x.Looked += o.Looked
	x.Between += o.Between
	x.Held, x.Promised = o.Held, o.Promised
}

// examineVerb makes this program examine a disk.
const examineVerb = "examine"

// resultSign begins the line with the result.
const resultSign = "examined: "

// examine is the work in the guest. file holds the task.
func examine(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	x := examination{}
	if err := json.Unmarshal(text, &x.task); err != nil {
		return err
	}
	log, err := os.Open(x.task.Log)
	if err != nil {
		return err
	}
	defer log.Close()
	if x.log, err = readWriteLog(log); err != nil {
		return err
	}
	if x.disk, err = openDirect("/dev/ubda"); err != nil {
		return err
	}
	defer x.disk.Close()
	if err := os.MkdirAll(hostDirectory, 0o755); err != nil {
		return err
	}
	x.chance = rand.New(rand.NewPCG(x.task.Seed, 1))
	x.promised = x.task.Promised
	if x.service, err = newService(); err != nil {
		return err
	}
	if err := x.run(); err != nil {
		return err
	}
	if text, err = json.Marshal(x.done); err != nil {
		return err
	}
	fmt.Printf("%s%s\n", resultSign, text)
	return nil
}

func openDirect(device string) (*os.File, error) {
	return os.OpenFile(device, os.O_RDWR|unix.O_DIRECT, 0)
}

func (x *examination) run() error {
	stops := x.choose()
	for i := range x.log.entries {
		e := &x.log.entries[i]
		if err := x.apply(x.disk, e, e.length); err != nil {
			return err
		}
		if err := x.count(e); err != nil {
			return err
		}
		if !stops[i] {
			continue
		}
		if err := x.stop(i); err != nil {
			return fmt.Errorf("the power is cut after entry %d of %d: %w", i, len(x.log.entries), err)
		}
	}
	x.done.Held, x.done.Promised = x.held, x.promised
	return nil
}

// choose returns the entries after which to look, each a flush or a write that is durable by
// itself. Mostly a flush comes after one write, a block of the replica's journal. Half of the
// points are at other flushes: those of segments, image, fence and file system. The rest is where a
// mark follows, as far as possible: a promise that came too early shows there.
func (x *examination) choose() map[int]bool {
	var all, rare, marked, usual []int
	odd := map[int]bool{} // entries around other writes than one of data
	writes, metadata := 0, false
	for i := range x.log.entries {
		e := &x.log.entries[i]
		if e.writes() {
			writes++
			metadata = metadata || e.metadata()
		}
		if !e.durable() {
			continue
		}
		if odd[i] = writes != 1 || metadata; odd[i] && len(all) > 0 {
			odd[all[len(all)-1]] = true
		}
		all = append(all, i)
		writes, metadata = 0, false
	}
	for _, i := range all {
		switch {
		case odd[i]:
			rare = append(rare, i)
		case i+1 < len(x.log.entries) && x.log.entries[i+1].flags&flagMark != 0:
			marked = append(marked, i)
		default:
			usual = append(usual, i)
		}
	}
	stops := map[int]bool{}
	n := x.task.Points
	if n == 0 {
		n = len(all)
	}
	x.draw(stops, rare, max(n/2, n-len(marked)-len(usual)))
	x.draw(stops, marked, n-len(stops))
	x.draw(stops, usual, n-len(stops))
	return stops
}

// draw adds n of some entries, or all if they are fewer, evenly spread.
func (x *examination) draw(stops map[int]bool, from []int, n int) {
	n = min(n, len(from))
	for i := range n {
		low, high := i*len(from)/n, (i+1)*len(from)/n
		stops[from[low+x.chance.IntN(high-low)]] = true
	}
}

func (x *examination) count(e *entry) error {
	switch {
	case e.flags&flagMark != 0:
		s, err := parseMark(e.mark)
		if err != nil {
			return err
		}
		x.promised = x.promised.and(s)
		x.done.Marks++
	case e.writes():
		x.done.Writes++
		x.done.Bytes += e.length
	}
	if e.durable() {
		x.done.Flushes++
	}
	return nil
}

// apply makes the first bytes of a write.
func (x *examination) apply(to *os.File, e *entry, length int64) error {
	if !e.writes() || length == 0 {
		return nil
	}
	if int64(len(x.memory)) < e.length {
		memory, err := unix.Mmap(-1, 0, int(e.length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		if x.memory != nil {
			_ = unix.Munmap(x.memory)
		}
		x.memory = memory
	}
	if err := x.log.read(e, x.memory); err != nil {
		return err
	}
	_, err := to.WriteAt(x.memory[:length], e.offset)
	return err
}

// stop looks at the disk as it is after entry i if all later writes are lost, and then as it is if
// some of them are not.
func (x *examination) stop(i int) error {
	for j := i + 1; j < len(x.log.entries) && x.log.entries[j].flags&flagMark != 0; j++ {
		s, err := parseMark(x.log.entries[j].mark)
		if err != nil {
			return err
		}
		x.promised = x.promised.and(s) // nothing was written since
	}
	now, err := x.look(nil)
	if err != nil {
		return err
	}
	x.held = x.held.and(now)
	x.done.Looked++
	var next []entry
	for _, e := range x.log.entries[i+1:] {
		if e.writes() {
			next = append(next, e)
		}
		if e.durable() {
			break
		}
	}
	if len(next) == 0 {
		return nil
	}
	part := x.part(next)
	if _, err := x.look(part); err != nil {
		return fmt.Errorf("and %v of the writes before the next flush are there: %w", part, err)
	}
	x.done.Between++
	return nil
}

// A piece is the beginning of a write, in bytes.
type piece struct {
	entry
	length int64
}

func (p piece) String() string {
	return fmt.Sprintf("%d bytes of %d at %d", p.length, p.entry.length, p.offset)
}

// part chooses some of the writes that a disk may have kept though it was not told to flush. One
// write in four that are kept is kept up to a sector. A block of the file system's metadata is kept
// whole: ext4 does not mount when its super block or the end of its journal is torn.
func (x *examination) part(writes []entry) (kept []piece) {
	many := x.chance.IntN(4)
	for _, e := range writes {
		if x.chance.IntN(4) > many {
			continue
		}
		p := piece{e, e.length}
		if !e.metadata() && x.chance.IntN(4) == 0 {
			p.length = x.chance.Int64N(e.length/512+1) * 512
		}
		kept = append(kept, p)
	}
	return kept
}

// look mounts the disk with some more writes on it, and compares what the replica's directory
// holds with what it must hold.
func (x *examination) look(more []piece) (now standing, err error) {
	table := fmt.Sprintf("0 %d snapshot /dev/ubda /dev/ubdb N 8", sectors())
	if err := dmsetup("create", "look", "--noudevsync", "--noudevrules", "--table", table); err != nil {
		return now, err
	}
	now, err = x.lookAt("/dev/dm-0", more)
	if remove := dmsetup("remove", "--retry", "--noudevsync", "--noudevrules", "look"); err == nil {
		err = remove
	}
	return now, err
}

func (x *examination) lookAt(device string, more []piece) (now standing, err error) {
	if err := x.add(device, more); err != nil {
		return now, err
	}
	if err := unix.Mount(device, hostDirectory, "ext4", unix.MS_NOATIME, ""); err != nil {
		return now, fmt.Errorf("mount %s: %w", device, err)
	}
	report, err := x.verify()
	if err := errors.Join(err, unmount(hostDirectory)); err != nil {
		return now, err
	}
	if len(report.Problems) > 0 {
		return now, errors.New(strings.Join(report.Problems, "; "))
	}
	now = standingOf(report)
	if short := now.lacks(x.promised); short != "" {
		return now, fmt.Errorf("the directory holds less than the replica promised:%s", short)
	}
	if short := now.lacks(x.held); short != "" {
		return now, fmt.Errorf("the directory holds less than it did before:%s", short)
	}
	return now, nil
}

// unmount tries again while a process that is being started has a copy of a file of this one.
func unmount(directory string) error {
	ctx, cancel := patience.Context(context.Background(), settleIn)
	defer cancel()
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	for {
		err := unix.Unmount(directory, 0)
		if !errors.Is(err, unix.EBUSY) || ctx.Err() != nil {
			return err
		}
		<-again.C
	}
}

func (x *examination) add(device string, more []piece) error {
	if len(more) == 0 {
		return nil
	}
	f, err := openDirect(device)
	if err != nil {
		return err
	}
	for _, p := range more {
		err = errors.Join(err, x.apply(f, &p.entry, p.length))
	}
	return errors.Join(err, f.Close())
}

// verify looks at the replica's directory, as bfsd verify does.
func (x *examination) verify() (*pbft.DirectoryReport, error) {
	g, err := readGroup(filepath.Join(hostDirectory, "group.toml"))
	if err != nil {
		return nil, err
	}
	return pbft.VerifyDirectory(pbft.ReplicaConfig{
		Group: g, Self: x.task.Self, Directory: filepath.Join(hostDirectory, "state"), Service: x.service,
	})
}

// newService makes a file system, whose tree of digests is the group's.
func newService() (pbft.Service, error) {
	store, err := fsmerkle.New(fsmerkle.Options{Pages: stateSize / pbft.PageSize})
	if err != nil {
		return nil, err
	}
	reserved := pbft.ReservedPages(pbft.DefaultLimits())
	return nfsstate.New(store, nfsstate.Config{Pages: stateSize / pbft.PageSize, Reserved: uint64(reserved)})
}
