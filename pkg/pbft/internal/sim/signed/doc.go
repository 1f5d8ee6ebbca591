// SPDX-License-Identifier: Apache-2.0

// Package signed is PBFT as it was first published, with signatures [OSDI99 §4]: a small
// reference for the protocol with MACs in bfs/pkg/pbft, to be run beside it on the same
// schedule. It wants to be plain, not fast.
//
// A signature is modelled by provenance: a [Signed] value tells who made it, and only the holder
// of a [Key] can make one. Whoever has such a value can show it to others, and so certificates
// travel: a VIEW-CHANGE carries the proof of its checkpoint and of all that prepared, a NEW-VIEW
// is a function of the VIEW-CHANGEs in it, and 2f+1 signed COMMITs convince a replica that was
// away. Of the MAC protocol's Q, acknowledgements and conditions A and B nothing is needed.
//
// A [Replica] is pure like the core it is compared to. Its caller does this:
//
//	r := signed.New(cfg, keys[i])
//	for {
//		r.Step(message) or r.Tick()
//		for _, e := range r.Effects() { send, multicast, or execute what e says }
//	}
//
// Differences from the paper, none of which concerns agreement: batches travel beside
// certificates, so that none has to be fetched; COMMITs carry digests, so that 2f+1 of
// them prove a decision by themselves; a replica keeps all its decisions and brings others
// up to date with them, there is no state transfer; requests are taken as their clients'.
//
// [OSDI99] M. Castro, B. Liskov: Practical Byzantine Fault Tolerance. OSDI 1999.
package signed
