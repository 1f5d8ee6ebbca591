// SPDX-License-Identifier: Apache-2.0

// Package linear judges what several clients of a running group saw while its replicas were killed,
// stopped and cut off: there must be one order of all calls that explains every answer, and that
// agrees with the order in which calls ended and began [TOCS §4.6].
//
//	workers ──▶ relay 0 ──▶ cables ──▶ four bfsd
//	        ──▶ relay 1 ──▶   │
//	        ──▶ pbft.Client ──┘
//
// Replicas, relays and the Go client reach replicas over cables, small TCP proxies of
// this process, one for each ordered pair. A cable can be cut, or hold back what goes one
// way. What a network drops, TCP sends again: to those at its ends a drop is silence that
// ends, and that is what a cable makes.
//
// Or each replica is on a host of its own, a network namespace, relays and clients on a fifth:
// there a host's cable is taken out, and a route that leads nowhere drops what goes one way
// (TestLinearizableOnHosts).
//
// Faults come one at a time, from a seed, and the next one waits until the group is whole
// again, so that never more than f replicas are faulty. A failure names the seed, and
// leaves the history as a page to look at in build/.
package linear
