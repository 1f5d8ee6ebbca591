// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"net"
	"sync"
	"testing"
)

// A cable carries the connections that one principal makes to one replica.
type cable struct {
	to       string // the replica's address
	listener net.Listener
	there    gate // bytes from the dialler
	back     gate // what the replica says

	mu    sync.Mutex
	cut   bool
	ended bool
	ends  map[net.Conn]struct{}
	all   sync.WaitGroup
}

// newCable lays a cable that ends with the test.
func newCable(t testing.TB, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{to: to, listener: l, ends: make(map[net.Conn]struct{})}
	c.there.init()
	c.back.init()
	c.all.Go(c.accept)
	t.Cleanup(c.end)
	return c
}

func (c *cable) address() string { return c.listener.Addr().String() }

func (c *cable) accept() {
	for {
		near, err := c.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", c.to)
		if err != nil {
			near.Close()
			continue
		}
		if !c.plug(near, far) {
			near.Close()
			far.Close()
		}
	}
}

func (c *cable) plug(near, far net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut || c.ended {
		return false
	}
	c.ends[near], c.ends[far] = struct{}{}, struct{}{}
	c.all.Go(func() { c.carry(far, near, &c.there) })
	c.all.Go(func() { c.carry(near, far, &c.back) })
	return true
}

// carry copies one direction until either end is closed.
func (c *cable) carry(to, from net.Conn, g *gate) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		g.pass()
		if n > 0 && err == nil {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, end := range []net.Conn{to, from} {
		end.Close()
		delete(c.ends, end)
	}
}

// setCut breaks all connections and takes no further ones, or takes them again.
func (c *cable) setCut(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	if cut {
		c.unplug()
	}
}

func (c *cable) unplug() {
	for end := range c.ends {
		end.Close()
	}
}

func (c *cable) end() {
	c.listener.Close()
	c.mu.Lock()
	c.ended = true
	c.unplug()
	c.mu.Unlock()
	c.there.set(true)
	c.back.set(true)
	c.all.Wait()
}

// A gate lets bytes pass, or holds them back.
type gate struct {
	mu     sync.Mutex
	opened sync.Cond
	open   bool
}

func (g *gate) init() { g.opened.L, g.open = &g.mu, true }

func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.open {
		g.opened.Wait()
	}
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = open
	g.opened.Broadcast()
}
