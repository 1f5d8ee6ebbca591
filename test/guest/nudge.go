// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"net"
	"time"
)

// nudges keep the guest's network awake. Its driver learns of a packet by a signal, and
// now and then misses a packet that comes from another CPU while the driver is about to
// sleep. The packet then waits for the next one, which TCP sends again after 200 ms. Some
// calls in a thousand took that long, whatever server answered them. A datagram every few
// milliseconds, to the broadcast address so that no host answers it, bounds the wait.
type nudges struct {
	conn net.Conn
	stop chan struct{}
	done chan struct{}
}

const nudgePeriod = 4 * time.Millisecond

// nudge begins to nudge the guest at the link's other end.
func nudge(l *link) (*nudges, error) {
	n := &nudges{stop: make(chan struct{}), done: make(chan struct{})}
	err := inNamespace(l.netns, func() (err error) {
		n.conn, err = net.Dial("udp4", net.JoinHostPort(l.broadcast, "9")) // discard
		return err
	})
	if err != nil {
		return nil, err
	}
	go n.run()
	return n, nil
}

func (n *nudges) run() {
	defer close(n.done)
	t := time.NewTicker(nudgePeriod)
	defer t.Stop()
	for {
		select {
		case <-n.stop:
			return
		case <-t.C:
			_, _ = n.conn.Write([]byte{0}) // the write fails before the guest is up and after it has gone
		}
	}
}

func (n *nudges) close() {
	close(n.stop)
	<-n.done
	n.conn.Close()
}
