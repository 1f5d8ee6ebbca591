// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

// The hasher brings the tree up to date behind the owner's back. Its goroutines live only while
// there is work: one takes jobs from the queue, with a helper for big levels that it waits for;
// another calls back.
type hasher struct {
	mu    sync.Mutex // guards the fields below, the states and roots of epochs, and writing to tree
	moved sync.Cond  // the queue became shorter, and with it perhaps an epoch hashed
	tree  *tree      // written only by the owner and by the worker, so the worker reads it unlocked
	queue []*job     // in order; while working, the first is under way
	calls []*job     // finished, to be reported

	working bool
	calling bool
	stop    atomic.Bool // the job under way is to be abandoned
}

// A job hashes one checkpoint. Until it is finished it alone touches the records of the epoch
// before, and reads the frames as they lay at the checkpoint. These do not change meanwhile:
// the owner writes to no frame that a checkpoint holds, and discards none that is being hashed.
type job struct {
	from, to *epoch // to may be in use for something else once the job is finished
	seq      Seq
	frames   frames
	rooted   func(Digest)
	known    *tree // if not nil, the digests of the pages; the job frees it
	root     Digest
}

// maxUnhashed bounds the checkpoints that wait to be hashed, including the one under way,
// and so how far hashing may fall behind writing and how much memory it keeps in use.
const maxUnhashed = 4

func newHasher(t *tree) *hasher {
	h := &hasher{tree: t}
	h.moved.L = &h.mu
	return h
}

// submit queues a job, waiting for room.
func (h *hasher) submit(j *job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.queue) >= maxUnhashed {
		h.moved.Wait()
	}
	j.seq = j.to.seq
	j.from.state = epochClosed
	h.queue = append(h.queue, j)
	if !h.working {
		h.working = true
		go h.work()
	}
}

func (h *hasher) work() {
	digesters := [2]*digester{newDigester(), newDigester()}
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.queue) > 0 {
		j := h.queue[0]
		h.mu.Unlock()
		(&hashing{job: j, tree: h.tree, digesters: digesters, stop: &h.stop, sorted: func() { h.sorted(j) }}).run()
		h.mu.Lock()
		if !h.stop.Load() {
			h.finish(j)
		}
		j.drop()
		h.queue = slices.Delete(h.queue, 0, 1)
		h.stop.Store(false)
		h.moved.Broadcast()
	}
	h.working = false
}

// sorted lets the owner read the changes that a job goes on with.
func (h *hasher) sorted(j *job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	j.from.state = epochSorted
	h.moved.Broadcast()
}

// finish exchanges the digests computed with those in the tree: the tree has the new ones then,
// and the record of the epoch the old ones.
func (h *hasher) finish(j *job) {
	h.swap(j.from)
	j.from.blocks.reset()
	j.from.state = epochHashed
	j.root = *h.tree.at(h.tree.root())
	if j.known != nil && j.root != *j.known.at(j.known.root()) {
		panic("fsmerkle: the pages installed do not have the root they were verified against")
	}
	j.to.root, j.to.rooted = j.root, true
	if j.rooted == nil {
		return
	}
	h.calls = append(h.calls, j)
	if !h.calling {
		h.calling = true
		go h.call()
	}
}

func (h *hasher) swap(e *epoch) {
	for i := range e.nodes.items {
		n := &e.nodes.items[i]
		at := h.tree.at(n.key.id())
		*at, n.digest = n.digest, *at
	}
}

// call reports roots. It has a goroutine of its own, because the callback may wait for
// the owner, and the owner for hashing.
func (h *hasher) call() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.calls) > 0 {
		j := h.calls[0]
		h.calls = slices.Delete(h.calls, 0, 1)
		h.mu.Unlock()
		j.rooted(j.root)
		h.mu.Lock()
	}
	h.calling = false
}

// drop frees the memory of a job, finished or not.
func (j *job) drop() {
	if j.known != nil {
		j.known.free()
	}
}

// cancel drops the jobs and calls for checkpoints after the given one, and waits until none of
// them is being worked on.
func (h *hasher) cancel(after Seq) { h.cancelFrom(func(j *job) bool { return j.seq > after }) }

func (h *hasher) cancelAll() { h.cancelFrom(func(*job) bool { return true }) }

func (h *hasher) cancelFrom(dropped func(*job) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = slices.DeleteFunc(h.calls, dropped)
	for i, j := range slices.Backward(h.queue) {
		if i > 0 && dropped(j) {
			j.drop()
			h.queue = slices.Delete(h.queue, i, i+1)
		}
	}
	if len(h.queue) == 0 || !dropped(h.queue[0]) {
		return
	}
	h.stop.Store(true)
	for len(h.queue) > 0 {
		h.moved.Wait()
	}
}

// root returns the root of the checkpoint an epoch begins with, waiting until it is known.
func (h *hasher) root(e *epoch) Digest {
	h.mu.Lock()
	defer h.mu.Unlock()
	for !e.rooted {
		h.moved.Wait()
	}
	return e.root
}

// wait returns when the changes of a closed epoch are the owner's to read.
func (h *hasher) wait(e *epoch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for e.state < epochSorted {
		h.moved.Wait()
	}
}

// ready reports whether the checkpoint that begins the first of these epochs is hashed,
// and the records of all that are closed can be read.
func (h *hasher) ready(since []*epoch) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range since {
		if e.state == epochClosed {
			return false
		}
	}
	return since[0].rooted
}

// idle waits until nothing is queued.
func (h *hasher) idle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.queue) > 0 {
		h.moved.Wait()
	}
}

func (h *hasher) hashed(e *epoch) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return e.state == epochHashed
}

// undo puts the digests changed by the newest epoch back, if they were computed at all, and
// leaves the epoch as it began. No earlier job can be under way while there are any to put back.
func (h *hasher) undo(e *epoch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.state == epochHashed {
		h.swap(e)
	}
	e.nodes.reset()
	e.state = epochOpen
}

// children copies the digests of an interior node's children as of the beginning of the first
// of the given epochs: those in the tree, put back by each record from the newest on. An epoch
// not yet hashed has not reached the tree. The checkpoint itself must have been hashed.
func (h *hasher) children(since []*epoch, id NodeID) []Digest {
	h.mu.Lock()
	defer h.mu.Unlock()
	family := slices.Clone(h.tree.children(id))
	first := id.Child(0)
	for _, e := range slices.Backward(since) {
		if e.state != epochHashed {
			continue
		}
		for _, n := range nodesFrom(e.nodes.items, first.key()) {
			at := n.key - first.key()
			if at >= Fanout {
				break
			}
			family[at] = n.digest
		}
	}
	return family
}

// nodesFrom returns the part of a sorted list that begins at a key.
func nodesFrom(sorted []nodeDigest, key nodeKey) []nodeDigest {
	i, _ := slices.BinarySearchFunc(sorted, key, func(n nodeDigest, k nodeKey) int {
		return cmp.Compare(n.key, k)
	})
	return sorted[i:]
}

// hashing is the work of one job.
type hashing struct {
	*job
	tree      *tree
	digesters [2]*digester
	stop      *atomic.Bool
	sorted    func() // called when the changes are
}

// run fills the nodes of the epoch with the new digests of all that changed, level by level
// from the pages up. It visits dirty paths only: a page whose contents came out as they were is
// dropped at once.
func (w *hashing) run() {
	changes := w.from.changes.items
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.page, b.page) })
	w.sorted()
	nodes := &w.from.nodes
	nodes.reset()
	nodes.extend(len(changes))
	w.share(len(changes), func(d *digester, lo, hi int) {
		for i := lo; i < hi; i++ {
			nodes.items[i] = nodeDigest{NodeID{Index: uint64(changes[i].page)}.key(), w.page(d, changes[i])}
		}
	})
	if w.stop.Load() {
		return // some nodes were left as they were
	}
	nodes.items = slices.DeleteFunc(nodes.items, func(n nodeDigest) bool {
		return *w.tree.at(n.key.id()) == n.digest
	})
	begin := 0
	for level := uint8(1); level <= w.tree.root().Level && !w.stop.Load(); level++ {
		begin = w.level(nodes, begin)
	}
}

func (w *hashing) page(d *digester, c change) Digest {
	n := PageNum(c.page)
	switch {
	case c.now == absent:
		return Digest{}
	case w.known != nil:
		return *w.known.at(NodeID{Index: uint64(n)})
	case c.block != 0:
		return d.pageOf(n, w.from.blocks.items[c.block-1])
	default:
		return d.page(n, w.frames.bytes(c.now))
	}
}

// level appends the parents of the nodes from begin on, and returns where they begin.
func (w *hashing) level(nodes *vector[nodeDigest], begin int) int {
	end := len(nodes.items)
	for i := begin; i < end; i++ {
		parent := nodes.items[i].key.id().Parent().key()
		if last := len(nodes.items) - 1; last < end || nodes.items[last].key != parent {
			nodes.push(nodeDigest{key: parent})
		}
	}
	changed, parents := nodes.items[begin:end], nodes.items[end:]
	w.share(len(parents), func(d *digester, lo, hi int) {
		rest := nodesFrom(changed, parents[lo].key.id().Child(0).key())
		for i := lo; i < hi; i++ {
			id := parents[i].key.id()
			first := id.Child(0).key()
			copy(d.family[:], w.tree.children(id))
			for len(rest) > 0 && rest[0].key-first < Fanout {
				d.family[rest[0].key-first] = rest[0].digest
				rest = rest[1:]
			}
			parents[i].digest = d.node(id, w.tree.root(), d.family[:])
		}
	})
	return end
}

// shareBlock is how many digests are computed between two looks at whether to stop.
const shareBlock = 64

// share does f for blocks of 0 to n, on two goroutines if there is enough to do.
func (w *hashing) share(n int, f func(d *digester, lo, hi int)) {
	var next atomic.Int64
	run := func(d *digester) {
		for !w.stop.Load() {
			lo := int(next.Add(shareBlock)) - shareBlock
			if lo >= n {
				return
			}
			f(d, lo, min(lo+shareBlock, n))
		}
	}
	if n > 2*shareBlock {
		var helper sync.WaitGroup
		helper.Go(func() { run(w.digesters[1]) })
		defer helper.Wait()
	}
	run(w.digesters[0])
}
