// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/signing"
)

// keep starts the keeper of a replica, in a directory of its own.
func (c *cluster) keep(i int, dir string) *pbft.Keeper {
	c.t.Helper()
	k, err := pbft.StartKeeper(pbft.KeeperConfig{Group: c.g, Self: pbft.ReplicaID(i), Key: c.keys[i], Directory: dir,
		Socket: socketIn(dir), Users: []uint32{uint32(os.Geteuid())}})
	if err != nil {
		c.t.Fatal(err)
	}
	return k
}

func socketIn(dir string) string { return filepath.Join(dir, "keeper.sock") }

// kept leaves a replica's key to its keeper.
func kept(dir string) func(*pbft.ReplicaConfig) {
	return func(cfg *pbft.ReplicaConfig) { cfg.Key, cfg.Keeper = nil, socketIn(dir) }
}

// freshKeeper makes the directory of a keeper that has signed nothing.
func freshKeeper(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := pbft.MarkFreshKeeper(dir, ""); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A hangingKeeper has a replica's key, and answers nothing while it hangs.
type hangingKeeper struct {
	auth.Signer
	asked chan struct{} // has one element if it was asked since it hangs

	mu     sync.Mutex
	hangs  chan struct{} // closed when it goes on; nil: it does not hang
	only   bool          // for recovery requests only
	closed bool
}

func newHangingKeeper(t *testing.T, key ed25519.PrivateKey, dir string) *hangingKeeper {
	t.Helper()
	s, err := auth.NewFileSigner(key, filepath.Join(dir, "counter"))
	if err != nil {
		t.Fatal(err)
	}
	return &hangingKeeper{Signer: s, asked: make(chan struct{}, 1)}
}

// hang makes the keeper hang when it is asked for recovery requests, or for anything.
func (k *hangingKeeper) hang(only bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hangs, k.only = make(chan struct{}), only
}

// goOn ends that.
func (k *hangingKeeper) goOn() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hangs != nil {
		close(k.hangs)
	}
	k.hangs = nil
}

// Close has calls fail that are under way, as signing.Client does.
func (k *hangingKeeper) Close() error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.goOn()
	return nil
}

func (k *hangingKeeper) Sign(covered []byte) ([]byte, error) {
	signed, err := message.ParseSigned(covered)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	hangs := k.hangs
	if k.only && signed.Recovery == nil {
		hangs = nil
	}
	k.mu.Unlock()
	if hangs != nil {
		select {
		case k.asked <- struct{}{}:
		default:
		}
		<-hangs
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, signing.ErrClosed
	}
	return k.Signer.Sign(covered)
}

// answers checks that a replica tells how it is.
func answers(t *testing.T, r *pbft.Replica) (s pbft.Status) {
	t.Helper()
	told := make(chan pbft.Status, 1)
	go func() { told <- r.Status() }()
	select {
	case s = <-told:
	case <-deadline(t).Done():
		t.Fatal("the replica tells nothing while its keeper hangs: somebody waits with its lock")
	}
	return s
}

// While its keeper hangs a replica executes, shows its status, and stops when it is told
// to: no goroutine waits for the keeper under the replica's lock, whether for a recovery
// request, for fresh session keys, or for those of a peer that was restarted.
func TestKeeperHangs(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportTLS)
	const kept, other = 3, 2
	dir := t.TempDir()
	k := newHangingKeeper(t, c.keys[kept], dir)
	k.hang(true)
	for i := range kept {
		c.start(i)
	}
	client := c.client(c.enrolled(c.client(c.admin), ""))
	goesOn := func(r *pbft.Replica) {
		t.Helper()
		<-k.asked
		before := answers(t, r).LastExecuted
		eventually(t, "it executes while its keeper hangs", func() bool {
			invoke(t, client, "i", false)
			return answers(t, r).LastExecuted > before
		})
	}
	count(t, client, int(c.g.Limits.CheckpointPeriod))
	r := c.start(kept, recovering, pbft.SignWith(k))
	goesOn(r)
	k.goOn()
	c.recovered(kept)

	k.hang(false)
	c.stop(other)
	c.start(other)
	goesOn(r)
	k.goOn()
	c.agree(0, func() { invoke(t, client, "p", false) })

	k.hang(false)
	r.RefreshKeys()
	<-k.asked
	answers(t, r)
	c.stop(kept)
}

// Replicas whose keys are at their keepers form a group. A replica is heard after its
// restart and after its keeper's; it may be replaced with no key at hand; and it is not
// there without its keeper.
func TestReplicasWithKeepers(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportTLS)
	var dirs []string
	var keepers []*pbft.Keeper
	for i := range c.replicas {
		dirs = append(dirs, freshKeeper(t))
		keepers = append(keepers, c.keep(i, dirs[i]))
		c.start(i, kept(dirs[i]))
	}
	client := c.client(c.enrolled(c.client(c.admin), ""))
	before := invoke(t, client, "i", false)
	for i := range c.replicas {
		c.stop(i)
		if err := keepers[i].Close(); err != nil {
			t.Fatal(err)
		}
		keepers[i] = c.keep(i, dirs[i])
		c.start(i, kept(dirs[i]))
		c.stop((i + 1) % 4) // so that the group needs the one that came back
		if got := invoke(t, client, "i", false); got != before+1 {
			t.Fatalf("got %d, want %d", got, before+1)
		}
		before++
		c.start((i+1)%4, kept(dirs[(i+1)%4]))
	}
	const lost = 2
	c.stop(lost)
	cfg := pbft.ReplicaConfig{Group: c.g, Self: lost, Keeper: socketIn(dirs[lost]), Directory: t.TempDir(),
		Transport: c.transport}
	if err := pbft.OpenDirectory(deadline(t), cfg); !errors.Is(err, pbft.ErrForgotten) {
		t.Errorf("with an empty directory: got %v", err)
	}
	if _, err := pbft.Replace(deadline(t), cfg); err != nil {
		t.Fatal(err)
	}
	if err := pbft.OpenDirectory(deadline(t), cfg); err != nil {
		t.Errorf("replaced: got %v", err)
	}
	for _, k := range keepers {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	cfg.Service = c.service(lost)
	if _, err := pbft.StartReplica(cfg); err == nil {
		t.Error("a replica started without its keeper")
	}
}

// A keeper starts with what it remembers: of a key that has signed nothing, or renewed;
// not without, and not twice.
func TestKeepersMemory(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	dir, second := t.TempDir(), t.TempDir()
	cfg := pbft.KeeperConfig{Group: c.g, Self: 1, Key: c.keys[1], Directory: dir, Copy: second, Socket: socketIn(dir)}
	if _, err := pbft.StartKeeper(cfg); !errors.Is(err, pbft.ErrKeeperMemory) {
		t.Errorf("without a counter: got %v", err)
	}
	renew := func(dir, second string) error {
		serial, err := pbft.RenewKeeper(dir, second)
		if serial != 4 {
			t.Errorf("renewed: got serial number %d, want 4", serial)
		}
		return err
	}
	for _, ready := range []func(string, string) error{pbft.MarkFreshKeeper, renew} {
		if err := ready(dir, second); err != nil {
			t.Fatal(err)
		}
		k, err := pbft.StartKeeper(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pbft.StartKeeper(cfg); err == nil {
			t.Error("two keepers of one key")
		}
		if err := k.TakeSerial(4); err != nil {
			t.Error(err)
		}
		if err := k.TakeSerial(3); err == nil {
			t.Error("a serial number went back")
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(second, "signature.counter.copy")); err != nil {
		t.Fatal(err)
	}
	if _, err := pbft.StartKeeper(cfg); !errors.Is(err, pbft.ErrKeeperMemory) {
		t.Errorf("with half a counter: got %v", err)
	}
	cfg.Key = c.keys[2]
	if _, err := pbft.StartKeeper(cfg); err == nil {
		t.Error("a keeper of another replica's key")
	}
}

// A replica whose key is at its keeper recovers when the keeper has begun a recovery, and gets no
// recovery request signed before.
func TestRecoveryWithKeepers(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	dir := freshKeeper(t)
	k := c.keep(3, dir)
	defer k.Close()
	for i := range 3 {
		c.start(i)
	}
	c.start(3, kept(dir))
	client := c.client(c.enrolled(c.client(c.admin), ""))
	count(t, client, 3)
	c.stop(3)
	c.start(3, kept(dir), recovering)
	eventually(t, "the recovery waits for its signature", func() bool {
		return c.replicas[3].Status().Recovery.Phase == "requesting"
	})
	k.Grant()
	c.recovered(3)
	c.stop(0)
	count(t, client, 3)
}
