// SPDX-License-Identifier: Apache-2.0

package client

import "bfs/pkg/pbft/internal/message"

// An Operation is one wish of the application's.
type Operation struct {
	Body     []byte         // not changed until the call is over
	Digest   message.Digest // OperationDigest of Body
	ReadOnly bool           // a hint: try the path of one round trip first [TOCS §6.1]
}

// A call is one operation on its way to a result. It may be sent under several timestamps: each is
// a try, and replies to different tries are never counted together.
type call struct {
	operation Operation
	request   message.Request // the present try
	tally     Tally           // of the replies to it
	asked     uint32          // bit i: the request was sent to replica i
	sent      Time            // for the first time
	due       Time            // when it is sent again; unset: at its first try, when its stream calls it late
	tries     int             // how often it was sent again
	repeated  bool            // a replica was sent it more than once, by this life or another, for whatever reason
	widened   bool            // it was sent to some replicas first, and later to the others
	agreed    Time            // when 2f+1 had executed it alike, with the result or a proof missing; never: not so
	parted    bool            // 2f+1 gave one answer on different grounds, and it was sent again soon
	resumed   bool            // an earlier life of the client sent the request
	keep      bool            // the result of an earlier try was not kept
	stale     bool            // a MAC of the request is under a key that its replica has replaced
	apart     bool            // every replica was sent the operation, for the primary to name it by its digest
	had       uint32          // bit i: replica i was sent the operation
	brief     uint32          // bit i: since then, replica i was sent the request without it
}

// begin makes k the call of an operation. The memory of the one before it is used again.
func (k *call) begin(s message.Slot, op Operation) {
	k.operation = op
	k.request.Slot = s
	k.resumed, k.keep = false, false
}

// prepare begins a try under a timestamp.
func (k *call) prepare(id message.ClientID, t message.Timestamp, readOnly bool) {
	k.request = message.Request{
		Client: id, Slot: k.request.Slot, Timestamp: t, ReadOnly: readOnly, Keep: k.keep, Auth: k.request.Auth,
	}
	k.request.SetOperation(k.operation.Body, k.operation.Digest)
	k.tries, k.repeated, k.widened, k.agreed, k.parted, k.stale = 0, false, false, never, false, false
	k.apart, k.had, k.brief = false, 0, 0
}

// shorten returns those of the replicas in to that are sent the request without its operation,
// because they were sent the operation before, and notes them. Most often they have it and wait for
// the group: to take it in again would cost them as much as to execute it.
func (k *call) shorten(to uint32, again bool) uint32 {
	q := &k.request
	if !again || q.ReadOnly || q.Client.Signs() || q.Length() <= message.ShortOperation {
		return 0
	}
	k.brief |= k.had & to
	return k.had & to
}

// forget releases the operation and the result, and keeps the memory of the tally and the
// authenticator.
func (k *call) forget() {
	tags := k.request.Auth.Tags
	k.operation = Operation{}
	k.request = message.Request{Auth: message.Authenticator{Tags: tags[:0]}}
	k.tally.forget()
}
