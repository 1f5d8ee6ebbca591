// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"time"

	"bfs/pkg/pbft/internal/message"
)

// measured is how long that took which clients and administrators notice. Nothing depends on it.
type measured struct {
	left      time.Time     // when our VIEW-CHANGE was sent; zero: executing as ever
	changes   int           // views left and followed by an execution
	stall     time.Duration // from the last VIEW-CHANGE of ours to the execution that followed
	rollbacks int
	fetching  time.Time
	fetched   Fetched
}

// multicast notes that we leave a view; of several in a row the first counts.
func (x *measured) multicast(m message.Message) {
	if _, leaving := m.(*message.ViewChange); leaving && x.left.IsZero() {
		x.left = time.Now()
	}
}

func (x *measured) execute() {
	if !x.left.IsZero() {
		x.changes++
		x.stall, x.left = time.Since(x.left), time.Time{}
	}
}

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

// itemOverhead is what stands before each page or node in a DATA.
const itemOverhead = 11

func (x *measured) installed() {
	x.fetched.States++
	x.fetched.Took = Seconds(time.Since(x.fetching))
}
