// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// A Verb is a kind of effect.
type Verb uint8

// The verbs of effects: everything that a replica can be told to do. The list of effects is a program: it is performed top to
// bottom, and later effects rely on earlier ones.
const (
	Send      Verb = iota + 1 // Message to replica To, under the newest keys
	Multicast                 // Message to all other replicas
	Choose                    // ask the service for its choice for Seq, and answer with Core.Chosen
	Accept                    // ask the service about the choice of Proposal, and answer with Core.Accepted
	Execute                   // run Batch as number Seq, keep the replies in the state, and send them on the ground of Standing unless Mute
	Confirm                   // the batch executed tentatively as Seq has committed
	Rollback                  // make the state that of checkpoint Seq again
	Repeat                    // run Batch as number Seq once more, after a Rollback: its replies were sent
	Query                     // answer Request from the present state, read-only, on the ground that Core.Ground gives for its version
	Freeze                    // keep the state as checkpoint Seq, and answer with Core.Frozen when its root is known
	Discard                   // forget the checkpoints below Seq: it is stable now
	Note                      // append Records to the journal, if there is one; nothing waits for them
	Persist                   // append Records to the journal: promises below wait until they, and all that was noted before, are durable
	Fence                     // make it durable that we may have made promises up to Seq and View; later effects wait for it
	Speak                     // the silence is over: clients are answered from now on
	Fetch                     // open an install session for checkpoint Seq with root Digest, and answer with Core.Fetching
	Serve                     // answer the FETCH in Message to replica To
	Install                   // the session has all it wants: commit it, and answer with Core.Installed
	Renew                     // begin the journal anew with Records. Its old records stay until Renewed
	Renewed                   // append the last Records and make all durable. Of the records before Renew only batches up to Seq are still needed
	Hush                      // this replica has become silent: no client is answered until Speak
	Refresh                   // give replica To a new key for its messages to us: the old one may be stolen. Then call Core.RefreshedFor
	Sign                      // sign a recovery request with bound Seq, and answer with Core.Signed
	Distrust                  // make it durable that nothing on the disk may be believed, and that we may have made promises up to Seq and View; then stop
	Healed                    // our recovery is over: see Core.Recovery. The fence is to say Seq and View, and nothing else that it said
	Stop                      // this replica is wrong, or must not go on: Reason says why
)

// An Effect is one instruction to the replica around the core.
type Effect struct {
	Verb     Verb
	To       message.ReplicaID
	Seq      message.SeqNum
	View     message.View
	Message  message.Message
	Records  []message.Message
	Proposal *message.PrePrepare
	Batch    *message.Batch
	Standing Standing
	Mute     bool // this replica is silent: no reply leaves
	Request  *message.Request
	Digest   message.Digest
	Reason   string
}

// A Standing is the ground on which replies are sent: see message.Reply.
type Standing struct {
	View      message.View
	Seq       message.SeqNum // in which the batch is prepared here, in View; 0 if it need not be
	Tentative bool           // it is not known to have committed
}

// IsPromise reports whether a message waits for the journal: others may count it after its sender
// has forgotten it (R-OUR-21), or its contents follow from such a message. In disk mode a
// PRE-PREPARE does not, for the primary votes for it with a PREPARE (R-OUR-2).
func IsPromise(m message.Message) bool {
	switch m.(type) {
	case *message.Prepare, *message.Commit, *message.Checkpoint, *message.ViewChange, *message.NewView, *message.Decided, *message.Reply,
		*message.Recovered:
		return true
	}
	return false
}
