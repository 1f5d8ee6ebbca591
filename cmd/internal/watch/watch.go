// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/procs"
	"bfs/cmd/internal/status"
	"bfs/pkg/pbft"
)

// A Watch runs one replica.
type Watch struct {
	Config  *config.Keeper
	Program string // bfsd
	Log     *slog.Logger

	First []string // the command that runs the replica until its first recovery; nil: run

	TakeSerial func(uint64) error // remembers a manifest's serial number, and refuses a lower one
	Grant      func()             // lets the replica have its recovery request signed

	Output *os.File // takes the replica's output
	Ended  func()   // called when the replica's process has ended, and all that it had started
	Ready  func()   // called when the replica is ready for the first time

	account  account
	wishes   chan wish
	child    *procs.Child
	begun    time.Time // of child
	hung     chan hang
	unwatch  context.CancelFunc // ends the looks at child
	retry    *time.Timer
	pause    backoff
	skipped  int  // turns in a row
	recovers bool // the next start is a recovery
	was      bool // the start of child was one
	said     bool
}

// A hang says that a process no longer turns its loop.
type hang struct {
	child *procs.Child
	why   error
}

// A wish is for a recovery.
type wish struct {
	force  bool
	answer chan granted
}

// granted is the answer to an operator's request for a recovery: the replica's new process, or why
// there is none.
type granted struct {
	child *procs.Child
	err   error
}

const (
	// stopWithin is how long a replica may take to stop in order, handing over the
	// primary's part included.
	stopWithin = 15 * time.Second
	askWithin  = 5 * time.Second
	// glance is how often the clock is looked at, at the least: it may be set meanwhile.
	glance = 30 * time.Second
)

// New returns a watch that has not begun.
func New(c *config.Keeper, program string, log *slog.Logger) *Watch {
	return &Watch{
		Config: c, Program: program, Log: log, Output: os.Stderr,
		wishes: make(chan wish), hung: make(chan hang),
	}
}

// Run runs the replica until ctx ends, and then stops it.
func (w *Watch) Run(ctx context.Context) error {
	if err := procs.Adopt(); err != nil {
		return fmt.Errorf("become the parent of what the replica leaves behind: %w", err)
	}
	w.retry = time.NewTimer(0)
	turns := schedule{w.Config.Period, w.Config.Group.N(), int(w.Config.Self)}
	due, scheduled := turns.next(time.Now())
	w.account.begin(due)
	alarm := time.NewTicker(tick(w.Config.Period))
	defer alarm.Stop()
	notify("READY=1")
	for {
		notify("WATCHDOG=1")
		select {
		case <-ctx.Done():
			notify("STOPPING=1")
			return w.stop()
		case <-w.exited():
			w.ended()
		case <-w.ready():
			w.isReady()
		case x := <-w.hung:
			if x.child == w.child {
				w.Log.Error("the replica hangs, and is started again", "why", x.why)
				w.child.Kill()
			}
		case <-w.retry.C:
			w.begin()
		case x := <-w.wishes:
			x.answer <- w.grant(ctx, x.force)
		case now := <-alarm.C:
			if scheduled && !now.Round(0).Before(due) {
				w.turn(ctx)
				due, scheduled = turns.next(time.Now())
				w.account.turned(due, w.skipped)
			}
		}
	}
}

// tick is how often the loop turns when nothing happens: often enough for a period, and
// for systemd.
func tick(period time.Duration) time.Duration {
	t := glance
	if period > 0 {
		t = min(t, max(period/32, 10*time.Millisecond))
	}
	if p := watchdogPeriod(); p > 0 {
		t = min(t, p)
	}
	return t
}

func (w *Watch) exited() <-chan struct{} {
	if w.child == nil {
		return nil
	}
	return w.child.Exited()
}

// ready is closed when the child is ready, until isReady has been called for it.
func (w *Watch) ready() <-chan struct{} {
	if w.child == nil || w.unwatch != nil {
		return nil
	}
	return w.child.IsReady()
}

func (w *Watch) isReady() {
	ctx, cancel := context.WithCancel(context.Background())
	w.unwatch = cancel
	if w.Config.AdminListen != "" {
		go w.look(ctx, w.child)
	}
	if !w.said && w.Ready != nil {
		w.Ready()
	}
	w.said = true
	w.Log.Info("the replica is ready", "pid", w.child.PID())
}

// look has Run know when a process hangs.
func (w *Watch) look(ctx context.Context, child *procs.Child) {
	err := looks(ctx, w.Config.AdminListen, lookEvery)
	if err == nil {
		return
	}
	select {
	case w.hung <- hang{child, err}:
	case <-ctx.Done():
	}
}

// ExitRecover is the exit code of a replica's process that ended because what it held was
// false, or may have been: the next is to be a recovery. An intruder in that process can
// say so too, and has the replica recovered.
const ExitRecover = 3

// begin starts the replica. If that cannot be, it is tried again later. The replica's
// directory may say that the start is a recovery, whoever began it: then the keeper has
// to grant the recovery request.
func (w *Watch) begin() {
	w.begun = time.Now()
	w.recovers = w.recovers || pbft.MustRecover(w.Config.Directory)
	err := w.start()
	if err == nil {
		w.was, w.recovers = w.recovers, false
		return
	}
	pause := w.pause.after(0)
	w.Log.Error("the replica was not started", "why", err, "again_in", pause)
	w.retry.Reset(pause)
}

func (w *Watch) start() error {
	f, err := w.openChecked()
	if err != nil {
		return err
	}
	defer f.Close()
	if w.recovers || len(w.First) == 0 {
		w.First = []string{"run"}
	}
	plan := procs.Plan{Name: "bfsd", File: f,
		Args: append(slices.Clone(w.First), "--config", w.Config.File), Output: w.Output}
	if w.recovers {
		plan.Args = append(plan.Args, "--recover")
		w.Grant()
	}
	if u := w.Config.User; u.Other {
		plan.As = &syscall.Credential{Uid: u.UID, Gid: u.GID}
		if err := w.makeDirectory(); err != nil {
			return err
		}
	}
	if w.child, err = plan.Start(); err != nil {
		return err
	}
	w.account.started(w.recovers)
	w.Log.Info("the replica is started", "pid", w.child.PID(), "recovery", w.recovers)
	return nil
}

// makeDirectory makes the replica's directory anew if it is gone: its user may not be
// able to.
func (w *Watch) makeDirectory() error {
	switch err := os.Mkdir(w.Config.Directory, 0o700); {
	case errors.Is(err, os.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return os.Lchown(w.Config.Directory, int(w.Config.User.UID), int(w.Config.User.GID))
}

// ended cleans up after a replica that ended by itself, and has it started again. One
// that was started as a recovery is started as one again: it may have ended because its
// memory is false, in whatever way.
func (w *Watch) ended() {
	w.recovers = w.was || w.child.ExitCode() == ExitRecover
	how := w.child.HowEnded()
	w.clear()
	pause := w.pause.after(time.Since(w.begun))
	w.Log.Warn("the replica ended, and is started again", "how", how, "in", pause)
	w.retry.Reset(pause)
}

// clear ends all that a replica that has ended left behind.
func (w *Watch) clear() {
	if w.unwatch != nil {
		w.unwatch()
	}
	w.child, w.unwatch = nil, nil
	if err := procs.KillOrphans(); err != nil {
		w.Log.Error("after the replica ended", "err", err)
	}
	if w.Ended != nil {
		w.Ended()
	}
}

// stop ends the replica in order.
func (w *Watch) stop() error {
	w.retry.Stop()
	if w.child == nil {
		return nil
	}
	err := w.child.Stop(stopWithin)
	w.clear()
	return err
}

// turn recovers the replica at its place in the schedule, or gives the turn up.
func (w *Watch) turn(ctx context.Context) {
	r := w.report(ctx)
	self := int(w.Config.Self)
	reasons := append(objections(r, self, w.period()), unfinished(r, self, w.skipped)...)
	what := decide(reasons, w.skipped, w.Config.Group.Durability)
	if what == skip {
		w.skipped++
		w.Log.Warn("no recovery at this turn", "why", strings.Join(reasons, "; "), "given_up", w.skipped)
		return
	}
	if what == force {
		w.Log.Warn("recovery although others do not take part, after too many turns were given up",
			"why", strings.Join(reasons, "; "), "given_up", w.skipped)
	}
	if err := w.recover(); err != nil {
		w.Log.Error("no recovery: the replica runs on", "why", err)
		return
	}
	w.skipped = 0
}

// grant recovers the replica at an operator's request, or refuses.
func (w *Watch) grant(ctx context.Context, force bool) granted {
	r := w.report(ctx)
	self := int(w.Config.Self)
	reasons := append(objections(r, self, w.period()), unfinished(r, self, 0)...)
	if len(reasons) > 0 && !force {
		return granted{err: fmt.Errorf("not now: %s (--force recovers all the same)", strings.Join(reasons, "; "))}
	}
	if err := w.recover(); err != nil {
		return granted{err: err}
	}
	return granted{child: w.child}
}

func (w *Watch) period() pbft.SeqNum { return w.Config.Group.Limits.CheckpointPeriod }

// report asks each replica of the group for its status.
func (w *Watch) report(ctx context.Context) *status.Report {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	g := *w.Config.Group
	g.Admin = slices.Clone(g.Admin)
	g.Admin[w.Config.Self] = w.Config.AdminListen // which may be on the loopback only
	return status.Ask(ctx, &g)
}

// recover stops the replica and starts it so that it recovers. An executable that may not
// be started is no reason to stop the replica, or an upgrade without its manifest would
// stop one host after the other.
func (w *Watch) recover() error {
	f, err := w.openChecked()
	if err != nil {
		return err
	}
	f.Close()
	w.Log.Info("recovering the replica")
	if err := w.stop(); err != nil {
		w.Log.Warn("the replica did not stop in order", "err", err)
	}
	w.recovers = true
	w.begin()
	if w.child == nil {
		return errors.New("the replica was stopped and could not be started: see the keeper's log")
	}
	return nil
}

// Recover recovers the replica now, and waits until its new process is ready or ctx ends.
func (w *Watch) Recover(ctx context.Context, force bool) (string, error) {
	x := wish{force, make(chan granted, 1)}
	select {
	case w.wishes <- x:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	got := <-x.answer
	if got.err != nil {
		return "", got.err
	}
	if err := got.child.Ready(ctx); err != nil {
		return "", fmt.Errorf("the replica was started and is not ready: %w", err)
	}
	return fmt.Sprintf("replica %d was started again, as process %d, and recovers", w.Config.Self, got.child.PID()), nil
}
