// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/signing"
)

// counterCopyFile is the name of the counter's second file where no other directory is named for it.
const counterCopyFile = "signature.counter.copy"

// A KeeperConfig is what the process needs that holds a replica's long-term key in the replica's stead.
type KeeperConfig struct {
	Group     *Group
	Self      ReplicaID
	Key       ed25519.PrivateKey
	Directory string // the counter of signatures; only the keeper's user may write to it
	Copy      string // a second directory for the counter, best on another disk; empty: Directory
	Socket    string // where the replica finds the keeper

	Users     []uint32                         // user numbers of processes that may have the key used
	Operators []uint32                         // user numbers of processes that may ask for a recovery
	Recover   func(force bool) (string, error) // recovers the replica and says what was done; nil: it cannot be
	Logger    *slog.Logger
}

// A Keeper holds a replica's long-term key, and signs NEW-KEYs and recovery requests of that replica for the replica's process.
type Keeper struct {
	server *signing.Server
	lock   io.Closer
}

// ErrCounter is the refusal to start a keeper whose counter is not known: it could sign under a value that it has used.
var ErrCounter = errors.New("this keeper's counter of signatures is lost or old")

// MarkFreshKeeper writes the counter of a key that has signed nothing yet.
func MarkFreshKeeper(directory, copy string) error { return writeCounter(directory, copy, 1) }

// RenewCounter writes a counter above all that was used, for a keeper whose directory is lost or was put back: the clock's
// nanoseconds, as Replace does. The counter rises by one for each signature and never comes near them.
func RenewCounter(directory, copy string) error {
	return writeCounter(directory, copy, uint64(time.Now().UnixNano()))
}

func writeCounter(directory, copy string, value uint64) error {
	for _, path := range counterFiles(directory, copy) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	}
	_, err := durable.CreateMonotone(counterFiles(directory, copy), value)
	return err
}

func counterFiles(directory, copy string) [2]string {
	if copy == "" {
		copy = directory
	}
	return [2]string{filepath.Join(directory, counterFile), filepath.Join(copy, counterCopyFile)}
}

// StartKeeper begins to serve a replica's key.
func StartKeeper(cfg KeeperConfig) (*Keeper, error) {
	if !cfg.Group.Members[cfg.Self].Key.Equal(cfg.Key.Public()) {
		return nil, fmt.Errorf("replica %d: this private key is not the one whose public half the group file names", cfg.Self)
	}
	lock, err := lockDirectory(cfg.Directory)
	if err != nil {
		return nil, err
	}
	counter, err := durable.OpenMonotone(counterFiles(cfg.Directory, cfg.Copy))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrCounter, err), lock.Close())
	}
	key := signing.NewKey(cfg.Key, cfg.Group.Digest(), cfg.Self, ClientOf(cfg.Group.Members[cfg.Self].Key), counter)
	server, err := signing.Serve(cfg.Socket, key, cfg.rules())
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &Keeper{server, lock}, nil
}

// refusedEvery is how often the log tells of refusals: who asks for what is refused has no log to flood.
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

// Disconnect ends the connections of the replica's process, which has ended or is to end.
func (k *Keeper) Disconnect() { k.server.Disconnect() }

// Close stops serving.
func (k *Keeper) Close() error { return errors.Join(k.server.Close(), k.lock.Close()) }

// AskRecovery asks the keeper at a socket to recover its replica, and returns what was done. Without force the keeper refuses
// while the group cannot spare the replica.
func AskRecovery(ctx context.Context, socket string, force bool) (string, error) {
	return signing.AskRecovery(ctx, socket, force)
}

// signer is the owner of this replica's long-term key: the keeper, or this process.
func (cfg *ReplicaConfig) signer() (auth.Signer, error) {
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
