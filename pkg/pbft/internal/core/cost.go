// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// Some operations are a hundred bytes to send and milliseconds to run: an ordered READ of a
// mebibyte, a listing, a long path. Every request has a cost that its bytes alone decide, in bytes
// copied, which is the same at all replicas. A request whose cost is above its length and what any
// operation costs is costly. It waits in a queue apart, so that no common request waits for it.
// While another client is served all costly requests together have costPerTick, and their clients
// are served in turn, each for a share by cost.
//
// Neither the allowance of a tick nor the set of busy clients decides a result, so replicas need
// not agree on them.

const (
	// commonCost is what running any operation may cost beside its length: decoding it, a
	// look-up, a page of result and the attributes around it.
	commonCost = 4<<10 + 512
	// costPerTick is what costly requests have of a tick (10 ms) while other clients are
	// served: about a tenth of it, at 1.6 GB/s.
	costPerTick = 512 << 10
	// costTurn is a client's turn among those that wait for costly requests.
	costTurn = 256 << 10
	// lineCost bounds the costly requests of one client that wait, in sum.
	lineCost = 64 << 20
	// busyTicks is how long a client counts as being served after one of its requests was executed.
	busyTicks = 10
	// busyRead is the cost up to which an unordered read makes its client count as being served.
	// Longer reads compete among themselves only.
	busyRead = 16 << 10
	// costlyTicks is how much longer than for others a replica waits for a costly request
	// before it leaves the view: four clients that each have lineCost before it are no
	// fault of the primary.
	costlyTicks = 4 * lineCost / costPerTick
)

// extra is what a request costs above its length and what any costs; not positive if it
// is not costly.
func extra(r *message.Request) int { return r.Cost - r.Length() - commonCost }

func costly(r *message.Request) bool { return extra(r) > 0 }

// weight is a request's part of a batch: what it costs, as bytes copied, and what any
// operation costs.
func weight(cost, length int) int { return max(cost, length) + commonCost }

// busy remembers the last two clients that were served.
type busy struct {
	last, other     message.ClientID
	lastAt, otherAt int // ticks; 0: never
}

func (b *busy) note(client message.ClientID, tick int) {
	if client != b.last {
		b.other, b.otherAt, b.last = b.last, b.lastAt, client
	}
	b.lastAt = tick
}

// others reports whether another client was served in the last busyTicks.
func (b *busy) others(client message.ClientID, tick int) bool {
	return b.othersWithin(client, tick, busyTicks)
}

func (b *busy) othersWithin(client message.ClientID, tick, ticks int) bool {
	at := b.othersAt(client)
	return at > 0 && tick-at < ticks
}

// othersAt is the tick at which another client was served last, 0 if none was.
func (b *busy) othersAt(client message.ClientID) int {
	if b.last == client {
		return b.otherAt
	}
	return b.lastAt
}
