// SPDX-License-Identifier: Apache-2.0

// Package fsmerkle keeps numbered 4 KiB pages under a tree of digests, with checkpoints.
//
// It is the memory of a replicated service. Everything that the next operation can see lies on
// pages, so equal roots mean equal states, a rollback restores old pages, and a transfer fetches
// the pages that differ. The package knows nothing of files, nor of the reasons for a transfer.
//
// # Pages
//
// A [Store] has a fixed number of pages, all zeros until written; pages of zeros take no memory.
// Its owner, one goroutine at a time, reads and changes them in place:
//
//	page := s.Modify(n)  // before the first write to page n in an epoch, and best before each
//	copy(page[16:], "…")
//
// The owner's duty: no write without Modify, Overwrite, Put or, for zeros, Zero. Any
// other write makes a digest wrong without a trace; [Store.Verify] finds it.
//
// An owner that has a page's contents and their digest already, because they came in an
// operation that was digested by blocks, puts both ([Store.Put]), and the page is not
// read again for its digest.
//
// Pages, their table and the digests lie in mapped memory outside the Go heap (arena.go).
// For each byte of data about 1.011 bytes are resident: a page costs 8 bytes of table and 34 of
// digests, besides a few idle frames; one that was put 32 more until the next checkpoint is hashed.
//
// # Epochs and records
//
// [Store.Freeze] takes a checkpoint by ending one epoch and beginning another; it copies nothing.
// The first write to a page in an epoch moves the old contents into the epoch's record, frame
// and all, and gives the page a new frame [TOCS §6.2.1]. So at any time, with checkpoints 10, 20
// and 30 held:
//
//	              10 ──────────── 20 ──────────── 30 ────────────  live
//	epoch          │ record of 10  │ record of 20  │ record of 30  │
//	               │ page 3: A     │ page 5: D     │ page 3: B     │ page 3: C
//	               │ page 7: zeros │               │               │ page 5: E
//	               │               │               │               │ page 7: F
//
//	page 3 at 20   not in the record of 20; in that of 30: B
//	page 5 at 30   not in the record of 30: as it is live, E
//	Rollback(20)   first the record of 30, then that of 20: page 3 is B, page 5 is D
//	Discard(20)    the frame A is free again
//
// Each frame has one owner, the live page or one record, which frees it. Digests are kept
// in the same way: the tree has the newest, and each record has those that hashing the
// checkpoint at its end replaced.
//
// # The tree
//
//	level 3                         ┌──── root ────┐
//	level 2            ┌──────────(2,0)──┐        (2,1)        Fanout children each;
//	level 1          (1,0)             (1,1)     Digest{}      zeros below: Digest{}
//	level 0    p0 p1 p2 … p15    p16 … p31
//
// It is a plain Merkle tree, each digest over its place and all of its children ([digester]
// has the exact bytes and the argument), and not a sum of digests as in [TOCS §6.2.1]: with
// sums of that kind, a client that chooses page contents can find two states of one root. A
// checkpoint hashes the pages changed since the last and the nodes above them, on goroutines
// of its own; Freeze waits only if several checkpoints are behind. There is no number of
// last modification in a digest, so writing a page's old contents again changes nothing.
//
// The fan-out was chosen by measurement. A checkpoint of 128 pages scattered over 1 GiB took,
// per page, best of three: 5.4 µs at 16, 6.0 at 32, 6.3 at 64; of 128 neighbours 3.4, 3.4, 3.8.
//
// # Catching up
//
// [Compare] finds the pages that differ between two trees, looking only below nodes that do. An
// [Install] session fetches them from peers that may lie: starting at a root that the caller
// knows to be right, each node or page offered is believed only if it has the digest that its
// parent, believed before, has for it. Nothing is visible until [Install.Commit].
//
// # Goroutines
//
// The owner calls all methods. Behind it run, only while there is work: one that hashes,
// in the order of the checkpoints; a helper of it for many pages; and one that calls
// back. The memory that hashing reads does not change meanwhile: frozen frames are never
// written to, the records of an epoch belong to hashing until it is done with them, and
// the tree is written under a lock, when the digests of a checkpoint are complete.
//
// [TOCS] is M. Castro and B. Liskov, Practical Byzantine Fault Tolerance and Proactive Recovery,
// ACM Transactions on Computer Systems 20(4), 2002.
package fsmerkle
