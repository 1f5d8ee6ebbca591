// SPDX-License-Identifier: Apache-2.0

package lies

import (
	"crypto/rand"

	"bfs/pkg/pbft/internal/message"
)

func floods(say func(at Standing, n uint64) message.Message) func() Habits {
	return func() Habits { return Habits{Flood: say} }
}

func madeUp() (d message.Digest) {
	rand.Read(d[:])
	return d
}

// status says that all since the stable checkpoint is lacking, so that the others send it again.
func status(at Standing, _ uint64) message.Message {
	return &message.Status{View: at.View, Active: true, Low: at.Stable.Seq, LastExecuted: at.Stable.Seq}
}

func fetch(at Standing, n uint64) message.Message {
	m := &message.Fetch{Seq: at.Stable.Seq, Tag: uint32(n)}
	for i := range uint64(message.MaxFetch) {
		m.Nodes = append(m.Nodes, message.NodeID{Index: i})
	}
	return m
}

// viewChange is for a view that nobody else wants, and holds as much as one may.
func viewChange(at Standing, n uint64) message.Message {
	m := &message.ViewChange{View: at.View + 2 + message.View(n), Low: at.Stable.Seq, From: at.Self,
		Checkpoints: []message.CheckpointID{{Seq: at.Stable.Seq, Digest: at.Stable.Digest}}}
	for k := range at.Window {
		p := message.Prepared{Seq: at.Stable.Seq + 1 + message.SeqNum(k), Digest: madeUp(), View: at.View}
		m.P, m.Q = append(m.P, p), append(m.Q, p)
	}
	return m
}

func decided(at Standing, n uint64) message.Message {
	return &message.Decided{Seq: at.Executed + 1 + message.SeqNum(n%64), Digest: madeUp()}
}

// checkpoint is old in one half, and has a root of which nobody else knows in the other.
func checkpoint(at Standing, n uint64) message.Message {
	if n%2 == 0 {
		return &message.Checkpoint{Seq: at.Stable.Seq - min(at.Stable.Seq, message.SeqNum(n%1024)), Digest: madeUp(),
			Stable: true}
	}
	return &message.Checkpoint{Seq: at.Executed + message.SeqNum(n%256), Digest: madeUp()}
}

// forwards are words for requests that nobody made, and such requests, in the name of a client that
// has asked this replica for something.
func forwards() Habits {
	var client message.ClientID
	var latest message.Timestamp
	return Habits{
		Hold: func(q *message.Request, _ func()) bool {
			if !q.Client.Signs() {
				client, latest = q.Client, q.Timestamp
			}
			return false
		},
		Flood: func(at Standing, n uint64) message.Message {
			if client == 0 {
				return nil
			}
			slot, t := message.Slot(n/2%256), latest+message.Timestamp(n)
			if n%2 == 0 {
				return &message.Forward{Client: client, Slot: slot, Timestamp: t, Digest: madeUp()}
			}
			tags := make([]byte, 4*message.MACSize)
			return &message.Request{Client: client, Slot: slot, Timestamp: t, Replier: at.Self, Op: tags,
				Auth: message.Authenticator{Nonce: n, Tags: tags}}
		},
	}
}
