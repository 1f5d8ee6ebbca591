// SPDX-License-Identifier: Apache-2.0

// Package pbft replicates a deterministic service on n >= 3f+1 machines, so that it gives
// right answers as long as at most f of them fail, in whatever way: crash, lie, or belong
// to an intruder. It is the algorithm of
//
//	[TOCS]  M. Castro and B. Liskov: Practical Byzantine Fault Tolerance and Proactive Recovery.
//	        ACM Transactions on Computer Systems 20(4), 2002.
//
// with message authentication codes. The package orders opaque operations and knows nothing
// of files; [Service] is all that an application brings. The example is a replicated counter.
//
// # The group
//
// A [Group] names the members, their addresses and public keys, the administrator's
// public key, and the limits that decide results: it is the same at all replicas and
// clients, and every connection compares its digest. Views are numbered; the primary of
// view v is replica v mod n, and the others are its backups. Clients are enrolled by the
// administrator with ordered operations.
//
// # One request's life
//
//  1. [Client.Start] gives the operation a slot and a timestamp, authenticates the
//     request for every replica, and sends it to the primary.
//  2. The primary gathers requests into a batch, gives it the next sequence number, and
//     proposes it with PRE-PREPARE.
//  3. Each backup that can authenticate the requests and finds the primary's choice
//     reasonable says PREPARE. A replica with a proposal and 2f such votes has prepared
//     the batch, executes it tentatively, and says COMMIT [TOCS §4.3, §6.1].
//  4. Each replica sends its REPLY. The client believes a result when 2f+1 replicas stand
//     on one ground: they have prepared the batch under one number in one view, or know
//     that it has committed.
//  5. With 2f+1 COMMITs the batch has committed. Every K batches the replicas compare
//     their states with CHECKPOINT, and forget the messages before a checkpoint that 2f+1
//     of them have [TOCS §4.4].
//
// When a request waits too long the backups leave the view with VIEW-CHANGE, and the next
// primary begins its view with NEW-VIEW [TOCS §4.5]. A replica that is behind fetches
// batches, or the pages in which its state differs [TOCS §6.2]. A read takes one round
// trip: 2f+1 replicas answer from the same version of the state.
//
// # What a service must do
//
// From equal states, equal operations must leave equal states and equal replies: no
// clock, no chance, no iteration over a map, and no text of this machine's in a reply.
// The primary chooses values that replicas cannot compute alike, such as the time, and the
// backups check them ([Service.Choose], [Service.Accept]). All that the next operation can see
// lies on the pages of [State]: what else the service keeps in memory is a copy that it
// can drop. The library keeps its own records on the first [Group.ReservedPages] pages.
//
// # What a restart remembers
//
// With [DurabilityDisk] a replica's directory holds a journal of what it promised and an
// image of its pages, and a restart is no fault. With [DurabilityReplicated] it keeps two
// small files: the counter of its signatures, and the fence, which says up to which
// number and view it may have made promises. With nothing else it is silent after a
// restart until it cannot contradict them (docs/PROTOCOL.md, "Promises"). [Replace]
// writes these files anew for a replica whose disk is lost.
//
// # Recovery
//
// A start with [ReplicaConfig.Recover] is a recovery [TOCS §5.2]: the replica believes what it
// remembers within bounds that follow from the others' word, and gets new keys, and when a
// checkpoint beyond its recovery point is stable there it holds nothing that an intruder left.
// So f bounds the replicas that are faulty between two recoveries, and not those that ever are.
//
// # Goroutines and locks
//
// A replica has no loop of its own: the goroutine that reads a connection checks MACs,
// takes the replica's lock, steps the core (package internal/core, which has no clock,
// socket, disk, goroutine or chance), performs the effects in order, gives the lock up
// and writes. The list of goroutines stands at [Replica], and so does a list of the types
// that a replica is made of, each with its state. In a [Client] the caller's goroutine
// sends, and the one that reads the deciding reply calls [Call.Done].
//
// # Packages below
//
//	internal/message    the messages and their one encoding
//	internal/core       the protocol: messages and ticks in, effects out
//	internal/executor   execution by timestamp, kept replies, enrolment, versions of reads
//	internal/client     a client's rule: whom to ask and when, which replies to believe; pure, like core
//	internal/ledger     the library's pages of the state
//	internal/auth       NEW-KEY, session keys, MACs
//	internal/transport  connections, frames, bounded queues
//	internal/wire       whose connection it is, keys and their refresh, the gate; the same at clients and replicas
//	internal/fence      the file that says how far a replica may have voted
//	internal/sparing    which messages wait for the next tick
//	pbfttest            a State for the tests of programs that are replicated
//	internal/sim        the simulator: a whole group in one goroutine under one seed
//
// Comments cite rules as R-VC-17 and the like: docs/PROTOCOL.md says where each is, and
// where this program differs from the paper.
package pbft
