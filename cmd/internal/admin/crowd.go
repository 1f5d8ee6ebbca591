// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net"
	"net/http"
	"sync"
)

// maxConnections bounds the connections that are open at once.
const maxConnections = 64

// A crowd is the set of connections of a Server, at most limit of them. A new connection
// never waits. At the limit the connection that has been idle longest is closed: it has
// sent nothing, or has had its answer. If none is idle, the one that has been busy
// longest is closed, because a page is made in milliseconds. So a peer that holds
// connections open keeps no other from an answer.
type crowd struct {
	limit int

	mu      sync.Mutex
	clock   uint64
	members map[net.Conn]*member
}

// A member is one connection's place.
type member struct {
	busy  bool   // bytes of a request have come, and its answer is not given
	since uint64 // the crowd's clock when that began
}

func newCrowd(limit int) *crowd { return &crowd{limit: limit, members: make(map[net.Conn]*member)} }

// changed is an http.Server's ConnState.
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	switch state {
	case http.StateNew:
		if len(c.members) >= c.limit {
			c.shed()
		}
		c.members[conn] = &member{since: c.clock}
	case http.StateActive, http.StateIdle:
		if m := c.members[conn]; m != nil {
			*m = member{busy: state == http.StateActive, since: c.clock}
		}
	case http.StateHijacked, http.StateClosed:
		delete(c.members, conn)
	}
}

// shed closes the connection that has the least claim to stay.
func (c *crowd) shed() {
	var least net.Conn
	var its *member
	for conn, m := range c.members {
		if its == nil || !m.busy && its.busy || m.busy == its.busy && m.since < its.since {
			least, its = conn, m
		}
	}
	delete(c.members, least)
	least.Close()
}
