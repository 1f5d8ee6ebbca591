// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bfs/test/cluster"
	"bfs/test/patience"
)

// With -disks the disk of one host breaks in each round, below its file system. The soak
// tells the first process of the host's kernel which fault to make. This process has set
// the kernel's device mapper between the file system and the disk.
const (
	refusing = "refusing" // writes fail from some moment on: the replica stops, and says that its disk failed
	// lying: writes are lost from some moment on, and flushes succeed; then the power of
	// all hosts is cut.
	lying = "lying"
	// damaged: blocks of journal and image cannot be read when the replica starts; the
	// replica stops and says so, or fetches the lost contents.
	damaged = "damaged"
	full    = "full" // the file system fills: the replica stands aside and says so, and goes on when there is room
)

var diskKinds = []string{refusing, lying, damaged, full}

// orderPort is the port at which the first process of a host's kernel takes orders: one
// line each, on a connection of its own.
const orderPort = 7460

// mapped makes the device between the file system and the disk, and returns its name. The
// listed bad blocks are unreadable.
func mapped(bad string) (device string, err error) {
	table := fmt.Sprintf("0 %d linear /dev/ubda 0", sectors())
	if bad != "" {
		table = fmt.Sprintf("0 %d dust /dev/ubda 0 %d", sectors(), diskBlock)
	}
	if err := dmsetup("create", "host", "--noudevsync", "--noudevrules", "--table", table); err != nil {
		return "", err
	}
	for block := range strings.FieldsSeq(strings.ReplaceAll(bad, ",", " ")) {
		if err := dmsetup("message", "host", "0", "addbadblock "+block); err != nil {
			return "", err
		}
	}
	if bad != "" {
		err = dmsetup("message", "host", "0", "enable")
	}
	return "/dev/dm-0", err
}

// diskBlock is the size of a block of the hosts' file systems.
const diskBlock = 4096

// sectors is the length of the disk, in units of 512 bytes.
func sectors() uint64 {
	text, _ := os.ReadFile("/sys/block/ubda/size")
	n := uint64(0)
	_, _ = fmt.Sscan(string(text), &n) // dmsetup refuses a device of length 0
	return n
}

func dmsetup(args ...string) error {
	out, err := exec.Command("dmsetup", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("dmsetup %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// takeOrders serves orders in a host's kernel.
func takeOrders(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err == nil {
			err = obey(strings.TrimSpace(line))
		}
		answer := "ok"
		if err != nil {
			answer = err.Error()
		}
		fmt.Fprintln(c, strings.ReplaceAll(answer, "\n", "; "))
		c.Close()
	}
}

// ballast is the file that fills the file system.
const ballast = hostDirectory + "/ballast"

func obey(word string) error {
	switch word {
	case refusing:
		return replaceTable("error_writes")
	case lying:
		return replaceTable("drop_writes")
	case full:
		return fill()
	case "room":
		return os.Remove(ballast)
	}
	return fmt.Errorf("no order %q", word)
}

// replaceTable gives all later writes to the disk the named feature of the device mapper,
// such as error_writes. Writes under way end before.
func replaceTable(feature string) error {
	const forever = 1 << 20 // seconds
	table := fmt.Sprintf("0 %d flakey /dev/ubda 0 0 %d 1 %s", sectors(), forever, feature)
	return errors.Join(
		dmsetup("suspend", "--nolockfs", "--noudevsync", "host"),
		dmsetup("load", "host", "--table", table),
		dmsetup("resume", "--noudevsync", "--noudevrules", "host"))
}

func fill() error {
	f, err := os.Create(ballast)
	if err != nil {
		return err
	}
	defer f.Close()
	at := int64(0)
	for chunk := int64(16 << 20); chunk >= 4096; {
		if err := unix.Fallocate(int(f.Fd()), 0, at, chunk); errors.Is(err, syscall.ENOSPC) {
			chunk /= 2
		} else if err != nil {
			return err
		} else {
			at += chunk
		}
	}
	return nil
}

// order gives an order to the first process of a host's kernel.
func (x *host) order(ctx context.Context, word string) error {
	ctx, cancel := patience.Context(ctx, settleIn)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", x.wire.Address(), orderPort))
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if _, err := fmt.Fprintln(c, word); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && answer != "ok\n" {
		err = errors.New(strings.TrimSpace(answer))
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", x.name, word, err)
	}
	return nil
}

// breakDisk breaks the disk of one host while clients work, judges, and repairs the host.
func (s *soak) breakDisk(ctx context.Context) error {
	// The group may serve before the last replica has started, which ends if its disk is full then.
	if err := s.whole(ctx); err != nil {
		return err
	}
	h := s.room.(*hosts)
	x := h.all[s.chance.IntN(len(h.all))]
	kind := s.only
	if kind == "" {
		kind = diskKinds[s.chance.IntN(len(diskKinds))]
	}
	said := len(x.said())
	err := s.await(ctx, s.goals(func(c crew) int { return c.size() + s.chance.IntN(c.size()*leastAcked) }))
	if err != nil {
		return err
	}
	switch kind {
	case refusing:
		err = s.refuse(ctx, h, x)
	case lying:
		err = s.lie(ctx, h, x)
	case damaged:
		err = s.damage(ctx, h, x)
	case full:
		err = s.fillUp(ctx, x)
	}
	if err == nil {
		err = s.await(ctx, s.goals(func(c crew) int { return c.size() + 1 }))
	}
	if err == nil {
		err = s.check(ctx)
	}
	if err == nil {
		err = s.whole(ctx)
	}
	if err != nil {
		return fmt.Errorf("the disk of %s is %s: %w", x.name, kind, err)
	}
	s.done.rounds++
	s.say("round %d: the disk of %s is %s; %v; it said: %s",
		s.done.rounds, x.name, kind, s.done.wrong, worst(x.said()[said:]))
	return nil
}

// refuse makes writes fail: the replica must stop by itself.
func (s *soak) refuse(ctx context.Context, h *hosts, x *host) error {
	said := len(x.said())
	if err := x.order(ctx, refusing); err != nil {
		return err
	}
	if err := s.reach(ctx, "the replica stops", func() bool {
		return !x.running.Running() || strings.Contains(x.said()[said:], hasEnded)
	}); err != nil {
		return err
	}
	text := x.said()[said:]
	if !strings.Contains(text, "input/output error") && !strings.Contains(text, "read-only file system") {
		return fmt.Errorf("it does not say why it stops:\n%s", text)
	}
	if err := s.await(ctx, s.goals(func(c crew) int { return c.size() + 1 })); err != nil {
		return fmt.Errorf("without it: %w", err)
	}
	return h.again(ctx, x, "")
}

// lie makes the disk lose writes. The loss shows only after a power cut.
func (s *soak) lie(ctx context.Context, h *hosts, x *host) error {
	if err := x.order(ctx, lying); err != nil {
		return err
	}
	if err := s.await(ctx, s.goals(func(c crew) int { return c.size() * leastAcked })); err != nil {
		return err
	}
	s.cut()
	return h.on(ctx, s.chance.Int64())
}

// damage makes some blocks of the replica's files unreadable when the replica starts.
func (s *soak) damage(ctx context.Context, h *hosts, x *host) error {
	x.off()
	bad, err := s.drawBlocks(ctx, x)
	if err != nil {
		return err
	}
	said := len(x.said())
	if err := h.again(ctx, x, strings.Join(bad, ",")); err != nil {
		return err
	}
	stopped := false
	err = s.reach(ctx, "the replica starts or stops", func() bool {
		stopped = strings.Contains(x.said()[said:], hasEnded)
		now, err := cluster.Status(ctx, x.admin())
		return stopped || err == nil && now.Active && !now.Fetching && now.SilentUntil == 0
	})
	if err != nil {
		return err
	}
	if text := x.said()[said:]; stopped && !strings.Contains(text, "input/output error") {
		return fmt.Errorf("it does not say why it stops:\n%s", text)
	}
	if err := s.await(ctx, s.goals(func(c crew) int { return c.size() + 1 })); err != nil {
		return err
	}
	if stopped {
		return h.again(ctx, x, "")
	}
	return nil
}

// drawBlocks chooses blocks at random among those of the files in the replica's disk directory.
func (s *soak) drawBlocks(ctx context.Context, x *host) (bad []string, err error) {
	// debugfs does not read ext4's journal, so the journal is replayed first.
	replay := exec.CommandContext(ctx, "e2fsck", "-E", "journal_only", "-y", x.disk)
	if out, err := replay.CombinedOutput(); err != nil && replay.ProcessState.ExitCode() != 1 {
		return nil, fmt.Errorf("e2fsck (Debian package e2fsprogs): %w: %s", err, out)
	}
	image, journal := []string{"pages", "table"}, []string{"journal-000", "journal-001", "journal-002"}
	of := func(names []string) (all []string, err error) {
		for _, name := range names {
			out, err := exec.CommandContext(ctx, "debugfs", "-R", "blocks /state/disk/"+name, x.disk).Output()
			if err != nil {
				return nil, fmt.Errorf("debugfs (Debian package e2fsprogs): %w", err)
			}
			blocks := strings.Fields(string(out))
			if len(blocks) > 0 {
				all = append(all, blocks[s.chance.IntN(min(len(blocks), 512))])
			}
		}
		return all, nil
	}
	all, err := of(image[:1+s.chance.IntN(2)])
	if err == nil && (len(all) == 0 || s.chance.IntN(2) == 0) { // there may be no image yet
		var more []string
		more, err = of(journal)
		all = append(all, more...)
	}
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no journal", x.disk)
	}
	s.chance.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+s.chance.IntN(len(all))], nil
}

// fillUp fills the file system.
func (s *soak) fillUp(ctx context.Context, x *host) error {
	if err := x.order(ctx, full); err != nil {
		return err
	}
	err := s.reach(ctx, "the replica stands aside", func() bool {
		now, err := cluster.Status(ctx, x.admin())
		return err == nil && now.Disk.Full != ""
	})
	if err != nil {
		return err
	}
	if err := s.await(ctx, s.goals(func(c crew) int { return c.size() + 1 })); err != nil {
		return fmt.Errorf("without it: %w", err)
	}
	return x.order(ctx, "room")
}

// reach waits until the condition holds; the argument what names it.
func (s *soak) reach(ctx context.Context, what string, is func() bool) error {
	ctx, cancel := patience.Context(ctx, settleIn)
	defer cancel()
	look := time.NewTicker(20 * lookEvery)
	defer look.Stop()
	for !is() {
		for _, c := range s.crews {
			if err := c.failure(); err != nil {
				return fmt.Errorf("%s: %w", c.name(), err)
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("%w before %s", ctx.Err(), what)
		}
	}
	return nil
}

// again cuts the power of one host and switches it on, with some blocks of its disk unreadable.
func (h *hosts) again(ctx context.Context, x *host, bad string) error {
	x.off()
	return h.start(ctx, x, "eager", bad)
}

func (x *host) off() {
	if x.running != nil {
		x.running.Kill()
		_, _ = x.running.Wait() // a killed guest has no result
		x.running = nil
	}
}

// said returns the output of the host's replica, of all its boots.
func (x *host) said() string {
	text, _ := os.ReadFile(x.log.Name())
	return string(text)
}

// hasEnded is the line that the first process prints when the replica has ended.
const hasEnded = "power: the replica has ended"

// worst returns the last error of a log, or else the last warning.
func worst(log string) (line string) {
	for _, sign := range []string{"level=WARN", "level=ERROR", "bfsd: "} {
		for l := range strings.Lines(log) {
			if strings.Contains(l, sign) && !strings.Contains(l, "may outgrow") {
				line = strings.TrimSpace(l)
			}
		}
	}
	return line
}

// deviceModules are the kernel modules that mapped needs.
var deviceModules = []string{"dm-mod", "dm-flakey", "dm-dust"}

// deviceMapper reports whether the guest kernel's device mapper can be used.
func deviceMapper() error {
	if _, err := exec.LookPath("dmsetup"); err != nil {
		return errors.New("needs dmsetup (Debian package dmsetup)")
	}
	return nil
}
