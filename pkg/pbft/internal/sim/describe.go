// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"strings"

	"bfs/pkg/pbft/internal/message"
)

// describe writes a message for readers of a schedule.
func describe(m message.Message) string {
	switch m := m.(type) {
	case *message.Request:
		stub := ""
		if m.IsStub() {
			stub = " without its operation"
		}
		return fmt.Sprintf("REQUEST %v.%d t%d %v%s", m.Client, m.Slot, m.Timestamp, m.Digest(), stub)
	case *message.Reply:
		a := m.Answers[0] // here there is one in each
		return fmt.Sprintf("REPLY v%d n%d tentative %v slot %d t%d outcome %d, %d bytes %.16x",
			m.View, m.Seq, m.Tentative, a.Slot, a.Timestamp, a.Outcome, a.Length, a.Result)
	case *message.PrePrepare:
		return fmt.Sprintf("PRE-PREPARE v%d n%d %v %s COMMITs %v",
			m.View, m.Seq, m.Digest, describeBatch(&m.Batch), m.Commits)
	case *message.Prepare:
		return fmt.Sprintf("PREPARE v%d n%d %v COMMITs %v", m.View, m.Seq, m.Digest, m.Commits)
	case *message.Commit:
		return fmt.Sprintf("COMMIT v%d n%d", m.View, m.Seq)
	case *message.Checkpoint:
		return fmt.Sprintf("CHECKPOINT n%d %v stable %v", m.Seq, m.Digest, m.Stable)
	case *message.Status:
		return fmt.Sprintf("STATUS v%d active %v h%d executed %d prepared %x committed %x has %b NEW-VIEW %v",
			m.View, m.Active, m.Low, m.LastExecuted, []byte(m.Prepared), []byte(m.Committed),
			m.ViewChanges, m.HasNewView)
	case *message.ViewChange:
		return fmt.Sprintf("VIEW-CHANGE v%d of %d: h%d C%v P%v Q%v", m.View, m.From, m.Low, m.Checkpoints, m.P, m.Q)
	case *message.ViewChangeAck:
		return fmt.Sprintf("VIEW-CHANGE-ACK v%d of %d %v", m.View, m.Of, m.Digest)
	case *message.NewView:
		return fmt.Sprintf("NEW-VIEW v%d V%v n%d X%v", m.View, m.V, m.Checkpoint.Seq, m.Chosen)
	case *message.Forward:
		return fmt.Sprintf("FORWARD %v.%d t%d %v", m.Client, m.Slot, m.Timestamp, m.Digest)
	case *message.FetchBatch:
		return fmt.Sprintf("FETCH-BATCH %v", m.Digests)
	case *message.BatchBody:
		return fmt.Sprintf("BATCH %v", m.Digest)
	case *message.QueryStable:
		return "QUERY-STABLE"
	case *message.ReplyStable:
		return fmt.Sprintf("REPLY-STABLE c n%d p n%d v%d", m.Taken, m.Prepared, m.View)
	case *message.Recovered:
		return fmt.Sprintf("RECOVERED n%d v%d t%d", m.Seq, m.View, m.Timestamp)
	case *message.Decided:
		return fmt.Sprintf("DECIDED n%d %v", m.Seq, m.Digest)
	case *message.Fetch:
		return fmt.Sprintf("FETCH n%d, %d nodes", m.Seq, len(m.Nodes))
	case *message.Data:
		return fmt.Sprintf("DATA n%d, %d nodes, gone %v", m.Seq, len(m.Items), m.Gone)
	}
	return m.Type().String()
}

func describeBatch(b *message.Batch) string {
	var all []string
	for _, q := range b.Requests {
		text := fmt.Sprintf("%v.%d t%d", q.Client, q.Slot, q.Timestamp)
		if q.IsStub() {
			text = "without " + text
		}
		all = append(all, text)
	}
	return "[" + strings.Join(all, ", ") + "]"
}
