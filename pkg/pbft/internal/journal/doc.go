// SPDX-License-Identifier: Apache-2.0

// Package journal keeps what a replica must remember over a crash: records, in the order
// in which they were appended.
//
// [Journal.Append] puts a record into memory and returns its [Position]; [Journal.Flush] makes
// durable all that was appended before it began, with one sync however much that is (group commit).
// A message that rests on a record leaves when the record is durable: see [Gate].
//
// # On disk
//
// The journal is a ring of segments, files of a fixed size whose blocks are reserved when they are
// made and used again when nobody needs what they hold: the sync of a block that was written before
// costs a quarter of one that grows a file. A segment begins with a header:
//
//	0   8  "bfsjrnl" and the format's version
//	8   8  the segment's number, rising from segment to segment by steps that nobody can guess
//	16  32 the group's digest
//	48  4  CRC-32C of what stands above
//
// From offset 4096 on there are blocks, each the contents of one flush or a part of it, and aligned
// to 4096 bytes, so that no write touches what was durable before:
//
//	0   4  CRC-32C of what follows, to the end of the records
//	4   4  length of the records in bytes
//	8   8  the segment's number: what an earlier use of the file left does not pass for a block of this
//	       one, even if a client wrote there what looks like a block
//	16  8  position of the first record
//	24  8  position up to which all was durable when the block was written
//	32  8  number of the oldest segment that was needed then
//	40  .. records: length (4 bytes), batch number that the record is about (8), sticky slot
//	       (1; its highest bit marks a copy), contents
//
// All numbers are little-endian.
//
// # Reading it again
//
// After a crash the blocks of the last flush are there or not, each for itself. The journal ends
// before the first position that no block holds. If a block says that this position was durable
// once, then the disk has lost or changed what it promised to keep: Open says so with [ErrCorrupt],
// and the replica must not trust what is left. It says so, too, if the oldest segment does not
// begin with a block: that one was durable before any block named this segment the oldest. Anything
// else counts as the torn tail of a flush that nobody was told of. So do all blocks of a later
// segment that does not begin with one: its copies of sticky records are lost, and it must not
// become the oldest without them. The last flush of all may have been damaged later and look the
// same: so a replica that stops in order notes the position in its fence. Open never appends to
// what it finds: it goes on in a new segment.
//
// # A full disk
//
// [Journal.Reserve] has some segments ready beyond those in use. When another one is needed and the
// disk has no room for it, Flush says so with [ErrFull]: what it wrote is durable, the other
// records wait, and a later Flush goes on with them.
//
// Reserve also removes files that the journal has not needed for some time: those beyond the
// segments that were in use at once lately, and the spare ones (demand.go). Their names are used
// again.
//
// # Sticky records
//
// A segment is used again when the image on disk has passed all batches that its records are about.
// A few records are needed for longer, such as the latest VIEW-CHANGE. They are appended to a
// sticky slot: the latest record of each slot is written again at the head of every new segment.
package journal
