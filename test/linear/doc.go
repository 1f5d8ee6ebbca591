// SPDX-License-Identifier: Apache-2.0

// Package linear judges the answers that several clients of a running group got while its
// replicas were killed, stopped and cut off: there must be one order of all calls that explains
// every answer, and that agrees with the order in which calls ended and began [TOCS §4.6].
//
//	workers ──▶ relay 0 ──▶ cables ──▶ four bfsd
//	        ──▶ relay 1 ──▶   │
//	        ──▶ pbft.Client ──┘
//
// Replicas, relays and the Go client reach replicas over cables, small TCP proxies of this
// process, one for each ordered pair. A cable can be cut, or hold back the bytes of one
// direction. That is how a network that drops packets looks to the ends of a TCP connection:
// no bytes come for a while, and then all do, because TCP sends dropped packets again.
//
// In TestLinearizableOnHosts each replica is on a host of its own, a network namespace,
// and relays and clients are on a fifth. There a host is cut off by its cable, and a
// route that leads nowhere drops the packets of one direction.
//
// Faults come one at a time, from a seed, and the next one waits until the group is whole
// again, so that never more than f replicas are faulty. A failure names the seed, and
// leaves the history as a page to look at in build/.
package linear
