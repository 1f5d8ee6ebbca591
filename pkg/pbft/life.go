// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/fence"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/lies"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/sparing"
	"bfs/pkg/pbft/internal/store"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/internal/wire"
)

// StartReplica starts a replica; it runs until Close, or until it stops itself because of
// its own disk or its own bug (see Done).
func StartReplica(cfg ReplicaConfig) (*Replica, error) {
	cfg.Recover = cfg.Recover || MustRecover(cfg.Directory)
	r, err := newReplica(cfg)
	if err != nil {
		return nil, err
	}
	l := r.group.Limits
	window := SeqNum(cfg.Window)
	if window <= 0 {
		window = DefaultWindow
	}
	batch := l.BatchCount
	if !cfg.has(Batching) {
		batch = 1
	}
	c := core.Config{
		Self: cfg.Self, Replicas: r.group.N(),
		CheckpointPeriod: l.CheckpointPeriod, CheckpointBytes: l.CheckpointBytes, LogSize: l.LogSize, Window: window,
		Tentative: cfg.has(Tentative), Piggyback: cfg.has(Piggyback), Separate: cfg.has(Separate),
		Batch: core.BatchLimit{Bytes: l.BatchBytes, Count: batch, Cost: l.BatchCost}, Cost: r.exec.Cost,
		LogBytes: l.LogBytes, Clients: l.Clients + 1 + r.group.N(), Slots: l.Slots, QueueBytes: queueBytes,
		Ticks: core.Ticks{Status: 15, Resend: 5, Forward: 3, Timeout: 40}, Now: sinceStart(),
	}
	if c.Lost = r.fence.IsLost(); c.Lost && !cfg.Recover {
		return nil, errors.Join(fmt.Errorf("%w: only a recovery may start it", ErrForgotten), r.ending.lock.Close())
	}
	if cfg.Recover {
		if c.Recovery, err = r.recovery.begin(c.Lost); err != nil {
			return nil, errors.Join(err, r.ending.lock.Close())
		}
	}
	if r.group.Durability == DurabilityDisk {
		if err := r.recall(c); err != nil {
			return nil, errors.Join(err, r.ending.lock.Close())
		}
	} else {
		if !c.Lost {
			c.Fence, c.FenceView = r.fence.Last(), r.fence.View()
		}
		r.adopt(core.New(c))
	}
	if n := r.core.SilentUntil(); n > 0 {
		r.replies.mute = true
		r.end.Log.Warn("this replica voted before, and has no durable state: it only listens until a "+
			"checkpoint is stable at or above all it can have voted for. If more than f replicas say this "+
			"the group has lost its state: begin a new epoch from a backup (bfsd restore)", "checkpoint", n)
	}
	return r, r.start()
}

// queueBytes bounds the operations of all clients that wait at a replica, beside one of each
// client. A correct client has up to 8 MiB of long ones under way, and less when they take long,
// so that all of them together hardly fill this (client.bulk). What is refused is sent again to all
// replicas, which costs more.
const queueBytes = 128 << 20

func newReplica(cfg ReplicaConfig) (*Replica, error) {
	g := cfg.Group
	switch {
	case g == nil || cfg.Service == nil:
		return nil, errors.New("a replica needs a group and a service")
	case int(cfg.Self) >= g.N():
		return nil, fmt.Errorf("replica %d: the group has replicas 0 to %d", cfg.Self, g.N()-1)
	case cfg.Keeper == "" && !g.Members[cfg.Self].Key.Equal(cfg.Key.Public()):
		return nil, fmt.Errorf("replica %d: this private key is not the one whose public half the group file names",
			cfg.Self)
	}
	lock, err := lockDirectory(cfg.Directory)
	if err != nil {
		return nil, err
	}
	r, err := assemble(cfg)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	r.ending.lock = lock
	return r, nil
}

// assemble reads what an earlier life left in the directory and makes the parts of a replica.
func assemble(cfg ReplicaConfig) (*Replica, error) {
	g := cfg.Group
	signer, err := cfg.signer()
	if err != nil {
		return nil, err
	}
	promises, err := fence.Open(cfg.path(fenceFile), g.Digest())
	if err != nil {
		return nil, err
	}
	r := &Replica{cfg: cfg, group: g, fence: promises, peers: newPeers(g, cfg.Self)}
	r.end, err = newEndpoint(g, message.Principal{Replica: cfg.Self}, signer, cfg.Transport, cfg.Delay, cfg.Logger)
	if err != nil {
		return nil, err
	}
	if r.exec, err = newExecutor(g, cfg.Service); err != nil {
		return nil, err
	}
	r.join()
	r.recovery.signer = signer
	return r, nil
}

// join gives each part what it needs of the others.
func (r *Replica) join() {
	g, self, state, log := r.group, r.cfg.Self, r.cfg.Service.State(), r.end.Log
	gate := wire.NewGate(r.end.Ring, g.callers(self))
	gate.Follow(r.exec.Ledger())
	r.ending = newEnding(log)
	r.measured.started = time.Now()
	r.keeper = newKeeperWatch(&r.cfg, r.measured.started)
	r.clients = newClients(r.exec, gate)
	r.mismatches.end, r.mismatches.group, r.mismatches.self = r.end, g, self
	r.transfer.state = state
	r.receiver = receiver{end: r.end, group: g, self: self, gate: gate, peers: r.peers,
		clients: r.clients, transfer: &r.transfer}
	r.out = &outgoing{end: r.end, peers: r.peers, liar: lies.Installed(), trace: r.cfg.Trace,
		sparing: sparing.Sparing{Off: !r.cfg.has(Sparing), Group: g.Size()}}
	r.replies = replies{out: r.out, clients: r.clients, self: self, full: !r.cfg.has(DigestReplies)}
	r.pages = pageServer{state: state, out: r.out, log: log, size: g.Limits.LogSize}
	r.events = events{log: log, group: g, self: self, peers: r.peers, fence: r.fence}
	r.recovery = recovering{cfg: &r.cfg, log: log, fence: r.fence, started: r.measured.started}
}

// callers are the principals that a replica always knows, by their keys.
func (g *Group) callers(self ReplicaID) map[message.Principal]ed25519.PublicKey {
	all := map[message.Principal]ed25519.PublicKey{{Client: Administrator}: g.Administrator}
	for i, m := range g.Members {
		if i != int(self) {
			all[message.Principal{Replica: ReplicaID(i)}] = m.Key
		}
		all[message.Principal{Client: ClientOf(m.Key)}] = m.Key // see Replace
	}
	return all
}

// adopt gives the core to the parts that ask it.
func (r *Replica) adopt(c *core.Core) {
	r.core = c
	r.out.sparing.Core, r.pages.core = c, c
	if r.image != nil {
		r.image.core = c
	}
}

// start begins the connections and the goroutines.
func (r *Replica) start() error {
	address := r.cfg.Listen
	if address == "" {
		address = r.group.Members[r.cfg.Self].Address
	}
	r.mu.Lock()
	r.clock.start()
	// The links come first: a replica that connects to us is answered on them.
	for i, p := range r.peers {
		if p != nil {
			p.link = transport.Dial(r.group.Members[i].Address, r.end.Answering(p.session), &outbound{r, p})
		}
	}
	if r.core != nil {
		r.begin()
		r.clock.reset()
	}
	r.mu.Unlock()
	options := r.end.Options
	options.Admit, options.Named, options.Flooded = inbound{r}.admit, r.group.hosts(), r.events.flooded
	listener, err := transport.Listen(address, options, inbound{r})
	if err != nil {
		return r.abandon(err)
	}
	r.listener = listener
	r.receiver.gate.Listener.Store(listener)
	go r.tick()
	go newKeys{r}.run()
	if r.out.liar.Floods() {
		go r.flood()
	}
	r.keeper.start(r.ending.stop)
	return nil
}

// abandon ends a start that failed.
func (r *Replica) abandon(err error) error {
	r.mu.Lock()
	r.ending.begin()
	r.mu.Unlock()
	_ = closeSigner(r.recovery.signer)
	r.peers.close()
	r.recovery.signing.Wait()
	err = errors.Join(err, r.fence.Settle(), r.disk.close(), r.ending.lock.Close())
	close(r.ending.done)
	return err
}

// StartUnreplicated serves the same clients and the same service from one process,
// without ordering: the baseline that the paper calls NO-REP [TOCS §8.1.1]. cfg.Group
// must have one member.
func StartUnreplicated(cfg ReplicaConfig) (*Replica, error) {
	if cfg.Group != nil && cfg.Group.N() != 1 {
		return nil, fmt.Errorf("unreplicated: the group has %d replicas, want 1", cfg.Group.N())
	}
	r, err := newReplica(cfg)
	if err != nil {
		return nil, err
	}
	return r, r.start()
}

// recall makes a core from what an earlier life left on the disk. A journal that has lost
// something is dropped: then only the fence is known, and the replica is silent, as after
// every restart in replicated mode.
func (r *Replica) recall(cfg core.Config) error {
	tree, ok := r.cfg.Service.State().(Tree)
	if !ok {
		return errors.New(`durability = "disk" needs a State that is a pbft.Tree`)
	}
	began := time.Now()
	records, err := r.openJournal(filepath.Join(r.cfg.Directory, journalDirectory))
	if err != nil {
		return r.cfg.cannotStart("journal", err)
	}
	r.recovery.countAhead(r.disk)
	switch cfg.Durable = true; {
	case cfg.Lost:
	case r.disk.trusted:
		cfg.Raised, cfg.RaisedView = r.fence.Last(), r.fence.View()
	default:
		cfg.Fence, cfg.FenceView = r.fence.Last(), r.fence.View()
	}
	state, err := r.loadImage(tree)
	if err != nil {
		return errors.Join(r.cfg.cannotStart("image", err), r.disk.store.Close())
	}
	r.adopt(core.Restore(cfg, state, records))
	if r.image.restored = state; state.Seq > 0 || r.core.LastExecuted() > 0 {
		r.end.Log.Info("read the disk", "checkpoint", state.Seq, "executed", r.core.LastExecuted(),
			"took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// cannotStart names the directory, and the next step if its disk is full or cannot be read.
func (cfg *ReplicaConfig) cannotStart(what string, err error) error {
	switch {
	case disk.IsFull(err):
		return fmt.Errorf("%s in %s: %w: make room there, then start the replica again", what, cfg.Directory, err)
	case errors.Is(err, syscall.EIO):
		return fmt.Errorf("%s in %s: %w: the disk is damaged: put another one in, then run bfsd replica "+
			"replace, as after the loss of the directory", what, cfg.Directory, err)
	}
	return fmt.Errorf("%s in %s: %w", what, cfg.Directory, err)
}

// countAhead writes the file of the signature counter now, into the room that is kept for
// it if the disk is full. Without it this replica can make no NEW-KEY, and no other
// replica accepts its messages.
func (x *recovering) countAhead(k *storage) {
	err := k.writeSmall(func() error {
		_, err := x.signer.Count()
		return err
	})
	if err != nil {
		x.log.Error("this replica cannot write to its directory, so that it can make no NEW-KEY",
			"directory", x.cfg.Directory, "reason", err)
	}
}

// openJournal opens the journal in a directory, or a new one if it has lost something,
// and returns its records.
func (r *Replica) openJournal(directory string) ([]message.Message, error) {
	if r.recovery.blank { // the next write of the fence makes this durable
		if err := os.RemoveAll(directory); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	o := r.cfg.storeOptions()
	o.ReserveBytes = r.cfg.reserveBytes()
	m, err := store.Recall[said](o, r.fence.Position(), r.fence.Distrust)
	if err != nil {
		return nil, err
	}
	r.disk = &storage{store: m.Store, turns: r, ending: r.ending, clock: &r.clock, out: r.out,
		measured: &r.measured, directory: directory, configured: r.cfg.Directory, trusted: m.Whole,
		wake: make(chan struct{}, 1), look: make(chan struct{}, 1)}
	r.image = &imageFollower{disk: r.disk, state: r.cfg.Service.State(), pages: &r.pages}
	r.replies.disk = r.disk
	r.fence.WriteWith(r.disk.writeSmall)
	if m.Why != nil {
		r.recovery.found = true
		r.end.Log.Error("the journal is not whole, and is not used: this replica keeps silent until the "+
			"others have passed all that it can have promised", "reason", m.Why, "directory", r.cfg.Directory)
	}
	if m.Whole {
		r.fence.Follow(r.disk.position)
	}
	return m.Records, nil
}

// reserveBytes is how much room is kept for the journal, and as much again for the image,
// on a disk that is full. It is 0 if the reserve is to be spent.
func (cfg *ReplicaConfig) reserveBytes() int {
	if cfg.SpendReserve {
		return 0
	}
	return cfg.Group.Limits.windowBytes()
}

// windowBytes bounds the operations of L batches. A checkpoint comes when operations of
// CheckpointBytes were executed since the last, and is stable before as many again are
// executed. So the window holds twice that, and one batch more.
func (l *Limits) windowBytes() int {
	batch := max(l.BatchBytes, l.Operation)
	all := min(int(l.LogSize)*batch, l.LogBytes)
	if l.CheckpointBytes > 0 {
		all = min(all, 2*l.CheckpointBytes+batch)
	}
	return all
}

// loadImage brings the state to the image's checkpoint. It stays the initial one if there is no
// image, or one that is not whole: then what the image has is used when the state is fetched.
func (r *Replica) loadImage(tree Tree) (state message.CheckpointID, err error) {
	damaged, err := r.disk.store.OpenImage(image.MaxPages, tree)
	if err != nil {
		return state, err
	}
	r.exec.Frozen(0)
	r.image.initial = freeze(r.cfg.Service.State(), 0)
	state, lacks, err := r.disk.store.LoadState(func(n SeqNum, root Digest) (store.Session, error) {
		return r.cfg.Service.State().Install(n, root)
	})
	switch {
	case err != nil:
		return state, err
	case damaged, lacks > 0:
		r.recovery.found = true
		r.end.Log.Error("the image of the state is not as it was written: this replica fetches "+
			"what it lacks from the others", "pages", lacks, "all", damaged, "directory", r.cfg.Directory)
	case state.Seq > 0:
		r.exec.Replaced(state.Seq)
		r.receiver.gate.Follow(r.exec.Ledger())
	}
	return state, nil
}

// begin takes the first checkpoint, and in disk mode runs the batches that the journal
// holds. The caller holds the lock.
func (r *Replica) begin() {
	if r.disk == nil {
		if r.freeze(0); r.cfg.Recover {
			r.recovery.note(r.core)
			r.core.Resume()
		}
		return
	}
	r.disk.resuming = true
	if r.image.restored.Seq == 0 {
		r.core.Frozen(0, r.image.initial)
	}
	r.perform()
	r.recovery.note(r.core)
	r.exec.News() // recoveries before this life are no news
	r.core.Resume()
	r.perform()
	r.disk.resuming = false
	for _, run := range []func(){r.disk.flush, r.image.run} {
		r.disk.ends.Go(run)
	}
}

// handOverLook is how often HandOver looks whether the next view has begun.
const handOverLook = 2 * time.Millisecond

// HandOver is called before a replica is stopped. If it is the primary it leaves its
// view, so that the others begin the next one at once and not when their timers run out
// (R-VT-5), and HandOver returns when that view has begun here, or with an error when ctx
// is done. A backup, or a replica that votes for nothing, has nothing to hand over.
func (r *Replica) HandOver(ctx context.Context) error {
	old, leads := r.leaveView()
	if !leads {
		return nil
	}
	present := func() (View, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.core.View()
	}
	look := time.NewTicker(handOverLook)
	defer look.Stop()
	for {
		if view, active := present(); active && view > old {
			return nil
		}
		select {
		case <-look.C:
		case <-r.ending.stop:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("hand over view %d: the others have not begun the next view: %w", old, ctx.Err())
		}
	}
}

// leaveView makes a primary leave its view, and returns that view.
func (r *Replica) leaveView() (old View, leads bool) {
	if r.core == nil {
		return 0, false
	}
	r.enter()
	defer r.leave()
	old, active := r.core.View()
	if !active || r.ending.begun || r.disk.aside() || r.core.SilentUntil() > 0 ||
		old.Primary(r.group.N()) != r.cfg.Self {
		return old, false
	}
	r.events.handsOver = true
	r.core.StepDown()
	return old, true
}

// liveWithin is how long the loop may stand still before Live calls for help: longer than
// any work under the lock takes.
const liveWithin = 30 * time.Second

// Live says why the replica must be started anew: it has stopped, or its loop stands
// still. A view change, a lost peer or a missing quorum is no such reason.
func (r *Replica) Live() error {
	select {
	case <-r.ending.done:
		return fmt.Errorf("the replica has stopped")
	default:
	}
	if still := time.Since(time.Unix(0, r.clock.turned.Load())); still > liveWithin {
		return fmt.Errorf("the loop has not turned for %v", still.Round(time.Second))
	}
	return nil
}
