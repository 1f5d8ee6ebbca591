package pbft

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/journal"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
	"bfs/pkg/pbft/internal/transport"
)

// A keeper is what a replica keeps on disk, in disk mode, and what it says that must wait for the disk. All but the flusher's syncs is
// under the replica's lock.
type keeper struct {
	store *store.Store[said]
	wake  chan struct{} // has one element if the flusher is to run
	bytes int           // of the results among what is held
	ended chan struct{} // closed when the flusher has ended
}

// said is something that waits for the disk: a message for one replica, or for all, or a REPLY. It is sealed when it leaves, for the
// nonces of a connection rise.
type said struct {
	message message.Message // nil: a REPLY
	all     bool
	to      ReplicaID

	conn       *transport.Conn
	session    *auth.Session
	head, long []byte
}

// journalDirectory is where in a replica's directory its journal and image lie.
const journalDirectory = "disk"

// heldBytes bounds the results of REPLYs that wait for the disk. A REPLY for which there is no room is dropped; its client asks again.
const heldBytes = 64 << 20

// openKeeper opens the journal in a replica's directory and returns the messages that it holds.
func openKeeper(directory string, g *Group, self ReplicaID) (*keeper, []message.Message, error) {
	path := filepath.Join(directory, journalDirectory)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, nil, err
	}
	lim := g.wire()
	s, records, err := store.Open[said](disk.OS(path), g.Digest(), journal.Options{SegmentBytes: g.segmentBytes()}, self, &lim)
	if err != nil {
		return nil, nil, fmt.Errorf("journal in %s: %w", path, err)
	}
	return &keeper{store: s, wake: make(chan struct{}, 1), ended: make(chan struct{})}, records, nil
}

// segmentBytes is the length of a segment of the journal: several of the longest records fit.
func (g *Group) segmentBytes() int {
	const least = 16 << 20
	return max(least, 4*(g.maxFrame()+4096)/4096*4096)
}

// holds keeps a message that must wait for the disk, and reports whether it did.
func (r *Replica) holds(x said) bool {
	return r.keeper != nil && core.IsPromise(x.message) && r.keeper.store.Hold(x)
}

// holdReply keeps what an outbox holds, and a long result behind it, if it must wait for the disk.
func (r *Replica) holdReply(box *outbox, long []byte) bool {
	if r.keeper == nil || !r.keeper.store.Waiting() {
		return false
	}
	if r.keeper.bytes+len(long) > heldBytes {
		r.edge.dropped.Add(1)
		return true
	}
	r.keeper.bytes += len(long)
	r.keeper.store.Hold(said{conn: box.conn, session: box.session, head: bytes.Clone(box.reply.Head()), long: bytes.Clone(long)})
	return true
}

// say lets something leave that waited for the disk.
func (r *Replica) say(x said) {
	switch {
	case x.message == nil:
		r.keeper.bytes -= len(x.long)
		r.sendReply(x.conn, x.session, x.head, x.long)
	case x.all:
		r.measured.multicast(x.message)
		r.multicast(x.message)
	default:
		r.sendTo(x.to, x.message)
	}
}

// poke has the flusher run if something waits for it. The caller holds the lock.
func (k *keeper) poke() {
	if k.store.Waiting() {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

// flush is a goroutine that syncs the journal whenever something waits for that: what came during one sync has the next in common.
func (r *Replica) flush() {
	k := r.keeper
	defer close(k.ended)
	for {
		select {
		case <-r.stop:
			return
		case <-k.wake:
		}
		durable, err := k.store.Flush()
		r.enter()
		switch {
		case err != nil:
			r.fail(fmt.Errorf("this replica's disk: %w: nothing that was to be kept since the last good sync is certain; see to the disk,"+
				" then start the replica again", err))
		case !r.stopping:
			k.store.Flushed(durable, r.say)
		}
		r.leave()
	}
}

// close makes durable what was noted, when the flusher has ended.
func (k *keeper) close() error {
	<-k.ended
	_, err := k.store.Flush()
	if closing := k.store.Close(); err == nil {
		err = closing
	}
	return err
}
