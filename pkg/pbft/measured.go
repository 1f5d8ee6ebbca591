// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"time"

	"bfs/pkg/pbft/internal/message"
)

// measured counts what a replica does, and times what clients and administrators notice.
// Status and log depend on it, and so do the sequence numbers of a service that is not
// replicated. It is under the replica's lock.
type measured struct {
	started   time.Time
	executed  uint64        // operations since start
	queries   uint64        // answered on the read-only path since start
	state     int64         // bytes of the pages in use at the last checkpoint
	left      time.Time     // when our VIEW-CHANGE was sent; zero: executing as ever
	changes   int           // views left and followed by an execution
	stall     time.Duration // from the last VIEW-CHANGE of ours to the execution that followed
	rollbacks int
	fetching  time.Time
	fetched   Fetched
}

// multicast notes that we leave a view. If we leave several in a row the first one counts.
func (x *measured) multicast(m message.Message) {
	if _, leaving := m.(*message.ViewChange); leaving && x.left.IsZero() {
		x.left = time.Now()
	}
}

// execute notes that a batch was executed: if we had left a view, the change is over.
func (x *measured) execute() {
	if !x.left.IsZero() {
		x.changes++
		x.stall, x.left = time.Since(x.left), time.Time{}
	}
}

// received counts what is fetched.
func (x *measured) received(m message.Message) {
	data, ok := m.(*message.Data)
	if !ok {
		return
	}
	x.fetched.Replies++
	for _, item := range data.Items {
		x.fetched.Bytes += uint64(len(item.Bytes)) + itemOverhead
	}
}

// itemOverhead is the number of bytes before each page or node in a DATA.
const itemOverhead = 11

// installed notes that a fetched state has become ours.
func (x *measured) installed() {
	x.fetched.States++
	x.fetched.Took = Seconds(time.Since(x.fetching))
}
