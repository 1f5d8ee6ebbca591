// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/signing"
)

// A KeeperConfig configures a keeper, the process that holds a replica's long-term key in
// the replica's stead.
type KeeperConfig struct {
	Group     *Group
	Self      ReplicaID
	Key       ed25519.PrivateKey
	Directory string // what the keeper remembers; only the keeper's user may write to it
	Copy      string // a second directory for that, best on another disk; empty: Directory
	Socket    string // where the replica finds the keeper

	Users     []uint32                         // user numbers of processes that may have the key used
	Operators []uint32                         // user numbers of processes that may ask for a recovery
	Recover   func(force bool) (string, error) // recovers the replica and says what was done; nil: it cannot be
	Status    func() KeeperStatus              // what the watchdog knows; nil: nothing
	Logger    *slog.Logger
}

// A Keeper holds a replica's long-term key, and signs NEW-KEYs and recovery requests of
// that replica for the replica's process.
type Keeper struct {
	key    *signing.Key
	server *signing.Server
	lock   io.Closer

	mu     sync.Mutex // protects memory.serial; the server has the counter
	memory *keeperMemory
}

// StartKeeper begins to serve a replica's key.
func StartKeeper(cfg KeeperConfig) (*Keeper, error) {
	if !cfg.Group.Members[cfg.Self].Key.Equal(cfg.Key.Public()) {
		return nil, fmt.Errorf("replica %d: this private key does not belong to the public key in the group file",
			cfg.Self)
	}
	lock, err := lockDirectory(cfg.Directory)
	if err != nil {
		return nil, err
	}
	memory, err := openMemory(cfg.Directory, cfg.Copy)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	asClient := ClientOf(cfg.Group.Members[cfg.Self].Key)
	key := signing.NewKey(cfg.Key, cfg.Group.Digest(), cfg.Self, asClient, memory.counter)
	k := &Keeper{key: key, lock: lock, memory: memory}
	rules := cfg.rules()
	rules.Status = func() []byte { return k.status(cfg.Status) }
	if k.server, err = signing.Serve(cfg.Socket, key, rules); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return k, nil
}

// refusedEvery is how often the log tells of refusals: a process whose requests are
// refused must not flood the log.
const refusedEvery = time.Second

func (cfg *KeeperConfig) rules() signing.Rules {
	r := signing.Rules{Users: cfg.Users, Operators: cfg.Operators, Recover: cfg.Recover}
	if cfg.Logger != nil {
		var told atomic.Int64
		r.Refused = func(uid uint32, why error) {
			now, last := time.Now().UnixNano(), told.Load()
			if now-last > int64(refusedEvery) && told.CompareAndSwap(last, now) {
				cfg.Logger.Warn("refused", "user", uid, "why", why)
			}
		}
	}
	return r
}

// TakeSerial remembers the serial number of a list that the keeper is about to obey. It refuses one
// that is lower than a serial number it took before: somebody has put back an old list.
func (k *Keeper) TakeSerial(serial uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if last := k.memory.serial.Value(); serial < last {
		return fmt.Errorf("it has serial number %d, and %d was taken before: put the newest one there", serial, last)
	}
	return k.memory.serial.Raise(serial)
}

// Grant lets the replica have a recovery request signed. It is called before the replica
// is started as a recovery.
func (k *Keeper) Grant() { k.key.Grant() }

// Disconnect ends the connections of the replica's process, which has ended or is to end.
func (k *Keeper) Disconnect() { k.server.Disconnect() }

// Close stops serving.
func (k *Keeper) Close() error { return errors.Join(k.server.Close(), k.lock.Close()) }

// maxProblem bounds KeeperStatus.Problem, so that the whole fits an answer of the keeper.
const maxProblem = 200

// status is the keeper's account of itself for the socket.
func (k *Keeper) status(watchdog func() KeeperStatus) []byte {
	var s KeeperStatus
	if watchdog != nil {
		s = watchdog()
	}
	s.Problem = s.Problem[:min(len(s.Problem), maxProblem)]
	s.Counter = k.key.Counter()
	k.mu.Lock()
	s.Serial = k.memory.serial.Value()
	k.mu.Unlock()
	b, err := json.Marshal(s)
	if err != nil {
		return nil
	}
	return b
}

// AskRecovery asks the keeper at a socket to recover its replica, and returns what the
// keeper did. Without force the keeper refuses while the group cannot spare the replica.
func AskRecovery(ctx context.Context, socket string, force bool) (string, error) {
	return signing.AskRecovery(ctx, socket, force)
}

// signer is the owner of this replica's long-term key: the keeper, or this process.
func (cfg *ReplicaConfig) signer() (auth.Signer, error) {
	if cfg.owner != nil {
		return cfg.owner, nil
	}
	if cfg.Keeper != "" {
		return signing.Dial(cfg.Keeper, cfg.Group.Members[cfg.Self].Key, cfg.Group.Digest())
	}
	return auth.NewFileSigner(cfg.Key, cfg.path(counterFile))
}

// newClient connects to the group as the owner of this replica's key. done ends it.
func (cfg *ReplicaConfig) newClient() (c *Client, done func(), err error) {
	config := ClientConfig{Group: cfg.Group, Key: cfg.Key, Transport: cfg.Transport, Logger: cfg.Logger}
	if cfg.Keeper != "" {
		if config.signer, err = cfg.signer(); err != nil {
			return nil, nil, err
		}
	}
	if c, err = NewClient(config); err != nil {
		return nil, nil, errors.Join(err, closeSigner(config.signer))
	}
	return c, func() { _, _ = c.Close(), closeSigner(config.signer) }, nil
}

func closeSigner(s auth.Signer) error {
	if c, ok := s.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
