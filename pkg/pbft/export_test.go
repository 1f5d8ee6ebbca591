// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/fence"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/internal/wire"
)

// StepDown makes a primary leave its view, as it does before a proactive recovery. It
// reports whether this replica was the primary.
func (r *Replica) StepDown() bool {
	r.enter()
	defer r.leave()
	before, _ := r.core.View()
	r.core.StepDown()
	after, _ := r.core.View()
	return after > before
}

// Executes returns a function that executes requests on a service, and reports of each
// request whether it ran.
func Executes(g *Group, s Service) (func(r *message.Request) (ran bool), error) {
	x, err := newExecutor(g, s)
	return func(r *message.Request) bool {
		_, ran := x.Execute(r, nil)
		return ran
	}, err
}

// SignWith makes s hold a replica's long-term key.
func SignWith(s auth.Signer) func(*ReplicaConfig) {
	return func(cfg *ReplicaConfig) { cfg.owner = s }
}

// BoundSignatures bounds the signatures that a replica checks for another one to n a
// second. It holds for replicas that are started from now on, until the test ends.
func BoundSignatures(t testing.TB, n int) {
	old := signaturesPerSecond
	signaturesPerSecond = n
	t.Cleanup(func() { signaturesPerSecond = old })
}

// BoundFloods bounds what other replicas may say besides votes, in a second for each replica, and
// the idle requests of a client, for each of its slots. It holds for replicas that are started from
// now on, until the test ends.
func BoundFloods(t testing.TB, chatter, idle int) {
	oldChatter, oldIdle := chatterPerSecond, idlePerSlot
	chatterPerSecond, idlePerSlot = chatter, idle
	t.Cleanup(func() { chatterPerSecond, idlePerSlot = oldChatter, oldIdle })
}

// AskWithin gives other replicas the time d to answer a first start, until the test ends.
func AskWithin(t testing.TB, d time.Duration) {
	old := askWithin
	askWithin = d
	t.Cleanup(func() { askWithin = old })
}

// ShortSegments shortens the segments of the journals of replicas that are started from
// now on, so that the image follows soon, until the test ends.
func ShortSegments(t testing.TB) {
	old := leastSegment
	leastSegment = 4096
	t.Cleanup(func() { leastSegment = old })
}

// WriteFence writes a fence as an intruder may. With distrust it says that the journal does not
// hold all promises.
func WriteFence(t testing.TB, path string, g *Group, n SeqNum, v View, distrust bool) {
	t.Helper()
	position := uint64(0)
	if distrust {
		position = store.NoJournal
	}
	digest := g.Digest()
	b := binary.LittleEndian.AppendUint64(digest[:], uint64(v))
	b = binary.LittleEndian.AppendUint64(b, uint64(n))
	if err := os.WriteFile(path, binary.LittleEndian.AppendUint64(b, position), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ForgeImage has an image say that it is of checkpoint n.
func ForgeImage(t testing.TB, directory string, g *Group, tree Tree, n SeqNum) {
	t.Helper()
	im, err := image.Open(disk.OS(directory), image.Options{Group: g.Digest(), Pages: image.MaxPages, Tree: tree})
	if err != nil {
		t.Fatal(err)
	}
	_, root, _ := im.Checkpoint()
	u, err := im.Begin(n, root)
	if err == nil {
		_, err = u.Step(nil, 1)
	}
	if err == nil {
		err = errors.Join(u.Write(), u.Commit(), im.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// LoseFence writes what OpenDirectory writes for a recovery without a fence.
func LoseFence(t testing.TB, path string, g *Group) {
	t.Helper()
	if err := os.WriteFile(path, fence.Lost(g.Digest()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// FillDisks gives replicas that are started from now on disks that fill returns to be
// full, or to have room, by the replica's directory, until the test ends. A replica that
// stands aside looks often whether there is room.
func FillDisks(t testing.TB) (fill func(directory string, full bool)) {
	var mu sync.Mutex
	disks := map[string]*atomic.Bool{}
	of := func(directory string) *atomic.Bool {
		mu.Lock()
		defer mu.Unlock()
		if disks[directory] == nil {
			disks[directory] = new(atomic.Bool)
		}
		return disks[directory]
	}
	oldOpen, oldPause := openDisk, fullPause
	openDisk = func(directory string) disk.FS { return fullFS{disk.OS(directory), of(filepath.Dir(directory))} }
	fullPause = 5 * time.Millisecond
	t.Cleanup(func() { openDisk, fullPause = oldOpen, oldPause })
	return func(directory string, full bool) { of(directory).Store(full) }
}

// A fullFS is a directory of a file system that may be full.
type fullFS struct {
	disk.FS
	full *atomic.Bool
}

func (f fullFS) Create(name string) (disk.File, error) {
	if f.full.Load() {
		return nil, syscall.ENOSPC
	}
	file, err := f.FS.Create(name)
	return fullFile{file, f.full}, err
}

func (f fullFS) Open(name string) (disk.File, error) {
	file, err := f.FS.Open(name)
	return fullFile{file, f.full}, err
}

type fullFile struct {
	disk.File
	full *atomic.Bool
}

func (f fullFile) fits(end int64) error {
	if size, err := f.Size(); err != nil || !f.full.Load() || end <= size {
		return err
	}
	return syscall.ENOSPC
}

func (f fullFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.fits(off + int64(len(b))); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

func (f fullFile) WriteThrough(b []byte, off int64) error {
	if err := f.fits(off + int64(len(b))); err != nil {
		return err
	}
	return f.File.WriteThrough(b, off)
}

func (f fullFile) Allocate(size int64) error {
	if err := f.fits(size); err != nil {
		return err
	}
	return f.File.Allocate(size)
}

// PushAtOnce has backups push an idle group without waiting for its primary, until the test ends.
func PushAtOnce(t testing.TB) {
	old := pushAfter
	pushAfter = 0
	t.Cleanup(func() { pushAfter = old })
}

// Reach bounds the progress that replicas claim by the progress that can be true.
var Reach = reach

// LoanPages makes replicas keep a lent checkpoint while checkpoints alone hold at most n
// pages, until the test ends.
func LoanPages(t testing.TB, n int) {
	old := loanPages
	loanPages = func(int) int { return n }
	t.Cleanup(func() { loanPages = old })
}

// RefreshKeys refreshes the session keys, as the replica itself does every KeyPeriod.
func (r *Replica) RefreshKeys() {
	r.enter()
	defer r.leave()
	r.refreshKeys()
}

// RefreshKeyOf refreshes the session key under which replica i speaks, as happens when
// that recovers.
func (r *Replica) RefreshKeyOf(i ReplicaID) {
	r.enter()
	defer r.leave()
	r.refreshKeyOf(i)
}

// KeyEpoch is the epoch of the session key under which replica i speaks to this one.
func (r *Replica) KeyEpoch(i ReplicaID) uint64 { return r.end.Ring.EpochOf(r.peers[i].session) }

// Opened makes the replica take in a message that it opened in an epoch of its keys: a
// STATUS of replica i, which says how far i has executed. It returns what the replica
// then knows of i's progress.
func (r *Replica) Opened(i ReplicaID, executed SeqNum, epoch uint64) (known SeqNum) {
	conn := new(transport.Conn)
	conn.SetUser(&wire.Remote{Session: r.peers[i].session})
	inbound{r}.deliver(conn, []message.Message{&message.Status{Active: true, LastExecuted: executed, From: i}}, epoch)
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known = r.core.Peer(i)
	return known
}
