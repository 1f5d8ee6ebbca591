// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/archive"
	"bfs/pkg/pbft/internal/message"
)

// A Certificate says which checkpoint of which group an archive holds.
type Certificate = archive.Certificate

// Why an archive is refused: errors.Is tells which.
var (
	ErrNoArchive     = archive.ErrNone
	ErrDamaged       = archive.ErrDamaged
	ErrFalse         = archive.ErrFalse
	ErrNotVouchedFor = errors.New("nobody vouches for the archive")
)

// A BackupConfig says how a backup is made.
type BackupConfig struct {
	Tree     Tree                  // of the group's service
	From     ReplicaID             // the replica that is asked first
	Within   time.Duration         // for the group to take a checkpoint; reading it may take longer
	Progress func(done, whole int) // may be nil; of whole parts, of about one size, done are read
}

// backupTries bounds the checkpoints that a backup begins to read, from one replica after
// the other. A replica keeps a checkpoint for as long as it can, see loan. A replica that
// has gone on to the next checkpoint before it is first asked costs a try too.
const backupTries = 12

// Backup writes the latest checkpoint of the group to the file at path, for its owner alone to
// read. It holds everything that was answered before the call. The client has the administrator's
// key, and then signs the archive, or a member's. The checkpoint is the one that f+1 of a quorum
// of the replicas name; its pages come from one of them, and are checked against their digests.
// Without an error the file is on disk; after an error there is no file, or it is as it was.
func (c *Client) Backup(ctx context.Context, path string, cfg BackupConfig) (*Certificate, error) {
	file, err := durable.Create(path)
	if err != nil {
		return nil, err
	}
	defer file.Discard()
	var last error
	n := c.group.N()
	for try := range max(backupTries, n) {
		k, err := c.awaitWithin(ctx, cfg.Within)
		if err == nil {
			err = file.Truncate(0)
		}
		if err != nil {
			return nil, err
		}
		from := c.wires.usable(int(cfg.From) + try)
		b := backup{read: c.reader(from, k.Seq), whose: fmt.Sprintf("replica %d", from), checkpoint: k, tree: cfg.Tree,
			progress: cfg.Progress}
		certificate, err := b.write(ctx, file, c.group, c.wires.key)
		switch {
		case err == nil:
			return certificate, file.Commit()
		case !errors.Is(err, errGone) && !errors.Is(err, errSilent) && !errors.Is(err, errFalse):
			return nil, err
		}
		last = err
	}
	return nil, fmt.Errorf("no replica gave all pages of a checkpoint; if much is written just now, "+
		"try again later: the last: %w", last)
}

func (c *Client) awaitWithin(ctx context.Context, d time.Duration) (Certified, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return c.await(ctx)
}

var errFalse = errors.New("it answers with what is not in the checkpoint")

// reader reads nodes and pages of a checkpoint from a replica.
func (c *Client) reader(from ReplicaID, seq SeqNum) reads {
	return func(ctx context.Context, nodes []NodeID) ([][]byte, error) {
		return c.reading.items(ctx, from, seq, nodes)
	}
}

// reads returns the contents of nodes and pages, in order. It may be called by several goroutines.
type reads func(ctx context.Context, nodes []NodeID) ([][]byte, error)

// A backup reads one checkpoint from one replica.
type backup struct {
	read       reads
	whose      string // what it is read from
	checkpoint Certified
	tree       Tree
	progress   func(done, whole int)
}

// A digested is a node whose digest is known. Its contents are yet to be read.
type digested struct {
	id     NodeID
	digest Digest
}

// write writes the archive, and signs it with the administrator's key or a member's.
func (b *backup) write(ctx context.Context, file io.WriterAt, g *Group, key ed25519.PrivateKey) (*Certificate, error) {
	top, fanout := b.tree.Shape()
	families, err := b.families(ctx, top, fanout)
	if err != nil {
		return nil, err
	}
	w := archive.NewWriter(file)
	const familiesPages = 1024 // are read, and in memory, at a time
	step := max(1, familiesPages/fanout)
	for i := 0; i < len(families); i += step {
		if b.progress != nil {
			b.progress(i, len(families))
		}
		pages, err := b.below(ctx, families[i:min(i+step, len(families))])
		if err == nil {
			err = b.copy(ctx, w, pages)
		}
		if err != nil {
			return nil, err
		}
	}
	c := &Certificate{Name: g.Name, Epoch: g.Epoch, Group: g.Digest(), Seq: b.checkpoint.Seq, Root: b.checkpoint.Root,
		Level: top.Level, Fanout: uint16(fanout), Signer: g.signer(key)}
	return c, w.Close(c, func(covered []byte) []byte { return ed25519.Sign(key, covered) })
}

// signer is the member or administrator that has a key.
func (g *Group) signer(key ed25519.PrivateKey) archive.Signer {
	if g.Administrator.Equal(key.Public()) {
		return archive.Administrator
	}
	for i, m := range g.Members {
		if m.Key.Equal(key.Public()) {
			return archive.FirstReplica + archive.Signer(i)
		}
	}
	return archive.Nobody
}

// families returns the nodes of the level above the pages, in order, without those of
// zeros. They take 48 bytes each.
func (b *backup) families(ctx context.Context, top NodeID, fanout int) (level []digested, err error) {
	level = []digested{{top, b.checkpoint.Root}}
	for range top.Level - 1 {
		var next []digested
		for len(level) > 0 {
			n := min(message.MaxFetch, len(level))
			children, err := b.below(ctx, level[:n])
			if err != nil {
				return nil, err
			}
			next, level = append(next, children...), level[n:]
		}
		level = next
	}
	return level, nil
}

// below returns the children of interior nodes that are not zeros, in order.
func (b *backup) below(ctx context.Context, nodes []digested) (all []digested, err error) {
	for len(nodes) > 0 {
		n := min(message.MaxFetch, len(nodes))
		contents, err := b.contents(ctx, nodes[:n])
		if err != nil {
			return nil, err
		}
		for k, x := range nodes[:n] {
			children, err := b.children(x, contents[k])
			if err != nil {
				return nil, err
			}
			for i, d := range children {
				if !d.IsZero() {
					all = append(all, digested{NodeID{Level: x.id.Level - 1,
						Index: x.id.Index*uint64(len(children)) + uint64(i)}, d})
				}
			}
		}
		nodes = nodes[n:]
	}
	return all, nil
}

// children decodes and checks an interior node.
func (b *backup) children(x digested, contents []byte) ([]Digest, error) {
	_, fanout := b.tree.Shape()
	if len(contents) == fanout*message.DigestSize {
		children := make([]Digest, fanout)
		for i := range children {
			children[i] = Digest(contents[i*message.DigestSize:])
		}
		if b.tree.Combine(x.id, children) == x.digest {
			return children, nil
		}
	}
	return nil, b.lied(x.id)
}

func (b *backup) lied(id NodeID) error {
	return fmt.Errorf("%s: %w: node %d of level %d", b.whose, errFalse, id.Index, id.Level)
}

// readers is how many FETCHes are under way for pages.
const readers = 4

// copy reads pages, several FETCHes at a time, and writes them in order.
func (b *backup) copy(ctx context.Context, w *archive.Writer, pages []digested) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	contents := make([][]byte, len(pages))
	places := make(chan struct{}, readers)
	var all sync.WaitGroup
	for at := 0; at < len(pages); at += message.MaxFetch {
		end := min(at+message.MaxFetch, len(pages))
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			some, err := b.contents(ctx, pages[at:end])
			if err != nil {
				cancel(err)
				return
			}
			copy(contents[at:end], some)
			b.check(pages[at:end], some, cancel)
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for i, x := range pages {
		if err := w.Page(PageNum(x.id.Index), contents[i]); err != nil {
			return err
		}
	}
	return nil
}

// check compares pages with their digests.
func (b *backup) check(pages []digested, contents [][]byte, fail func(error)) {
	for i, x := range pages {
		if len(contents[i]) != PageSize || b.tree.Digest(PageNum(x.id.Index), contents[i]) != x.digest {
			fail(b.lied(x.id))
			return
		}
	}
}

func (b *backup) contents(ctx context.Context, nodes []digested) ([][]byte, error) {
	ids := make([]NodeID, len(nodes))
	for i, x := range nodes {
		ids[i] = x.id
	}
	return b.read(ctx, ids)
}
