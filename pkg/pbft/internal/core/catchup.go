package core

import "bfs/pkg/pbft/internal/message"

// A replica that stood still, was restarted or was cut off finds the group far ahead. It fetches a checkpoint (see transfer.go)
// and asks with its STATUS for what follows: the others tell it which batch was decided under each number that they have
// executed, as far back as their logs and what is past reach, and what f+1 say alike is so (R-HD-15). The batches it asks for by
// digest, many at once and each of one of those who have it. A busy group executes thousands of batches a second and has its next
// checkpoint some milliseconds later: so all this is driven by what arrives, and ticks mend only what went wrong.

// past is what was decided at and below the low water mark, the latest of it. Who has fetched a checkpoint that is not the last
// one any more when he has it finds what follows it here.
// Invariant: it holds the numbers in (low, high], entry n at n mod len(entries), and bytes of operations.
type past struct {
	low, high message.SeqNum
	entries   []pastBatch
	bytes     int
}

type pastBatch struct {
	digest message.Digest
	batch  *message.Batch
	size   int
}

// pastBytes bounds the operations that are kept beyond what the protocol needs; together with the log they keep to its bound.
const pastBytes = 16 << 20

func (p *past) entry(n message.SeqNum) *pastBatch {
	return &p.entries[uint64(n)%uint64(len(p.entries))]
}

// add takes what was decided as n. It follows what is there, or takes its place.
func (p *past) add(n message.SeqNum, b pastBatch) {
	if n != p.high+1 {
		p.drop(p.high)
		p.low, p.high = n-1, n-1
	}
	if p.high-p.low == message.SeqNum(len(p.entries)) {
		p.drop(p.low + 1)
	}
	p.high = n
	*p.entry(n) = b
	p.bytes += b.size
}

// drop forgets what is at and below n.
func (p *past) drop(n message.SeqNum) {
	for ; p.low < min(n, p.high); p.low++ {
		e := p.entry(p.low + 1)
		p.bytes -= e.size
		*e = pastBatch{}
	}
}

// fit forgets the oldest of it until the rest takes no more than so many bytes.
func (p *past) fit(bytes int) {
	for p.bytes > max(bytes, 0) {
		p.drop(p.low + 1)
	}
}

// find is a batch by its digest.
func (p *past) find(d message.Digest) *message.Batch {
	for i := range p.entries {
		if e := &p.entries[i]; e.batch != nil && e.digest == d {
			return e.batch
		}
	}
	return nil
}

// tellPast tells the sender of a STATUS what was decided beyond what it has executed and is not in our log any more.
func (c *Core) tellPast(m *message.Status) {
	p := &c.log.past
	for n := max(m.Base(), p.low) + 1; n <= min(p.high, m.Low+c.cfg.LogSize); n++ {
		c.send(m.From, &message.Decided{Seq: n, Digest: p.entry(n).digest, From: c.cfg.Self})
	}
}

// closeGap asks for what is missing below what is proposed now: a primary proposes no more than its window beyond what it has
// executed. It is a short gap, and others may need us to agree on what is above it, so we do not wait for the resend interval.
func (c *Core) closeGap() {
	if c.transfer == nil && c.active && c.seqno > c.lastExec+c.cfg.Window &&
		c.tick-c.progress >= gapTicks && c.tick-c.reportedAt >= gapTicks {
		c.sendStatus()
	}
}

const (
	gapTicks        = 2                     // what is missing may be under way for so long
	pullsPerReplica = message.MaxFetchBatch // decided batches asked of one replica at a time
	pullBytes       = 1 << 20               // fewer, if they are so long
	pullsPerTick    = servesPerTick / 2     // what is asked of it in a tick, as it counts: its ticks begin at other times than ours
	pullTicks       = 3                     // an answer may take so long before another is asked
	pullShunTicks   = 20                    // and its sender is left alone so long if others have it
	maxPulls        = 2                     // then everyone is asked
)

// A pull is the asking for the batch that was decided for a slot.
type pull struct {
	of    message.ReplicaID
	due   int // tick at which we ask somebody else; 0: nobody was asked
	tries int // that came to nothing
}

// pullBodies asks for the batches that f+1 say were decided and that are not here, the first of them first. It is done once
// for each event, for all that it brought.
func (c *Core) pullBodies() {
	if !c.pulling {
		return
	}
	c.pulling = false
	if c.log.told <= c.lastExec {
		c.pullSize = c.cfg.BatchBytes // nobody knows yet how long the next will be
		return                        // mostly
	}
	under, cost := c.pullsUnderWay(), serveCost(c.pullSize)
	asks := make([][]message.Digest, len(c.peers))
	for n := max(c.log.low, c.lastExec) + 1; n <= min(c.log.told, c.log.high); n++ {
		s := c.log.slot(n)
		d, decided := s.decided.with(c.weak())
		if !decided || s.isCommitted || s.pull.due > 0 {
			continue
		}
		if b := c.body(d); b != nil { // it has come as something else
			c.commit(s, b, d)
			continue
		}
		if s.pull.tries >= maxPulls {
			continue // fetchBodies asks everyone
		}
		to, ok := c.bearer(s, d, under)
		if !ok {
			break
		}
		s.pull.of, s.pull.due = to, c.tick+pullTicks
		under[to]++
		c.peers[to].pulled += cost
		asks[to] = append(asks[to], d)
	}
	for to, d := range asks {
		if len(d) > 0 {
			c.send(message.ReplicaID(to), &message.FetchBatch{Digests: d, From: c.cfg.Self})
		}
	}
}

// pullsAtOnce is how many batches one replica is asked for at a time: as many as it can send us while we wait, if they are as long
// as the last.
func (c *Core) pullsAtOnce() int { return max(1, min(pullsPerReplica, pullBytes/max(c.pullSize, 1))) }

// pullsUnderWay counts what each replica was asked for and has not brought. One that has brought less than half counts as fully
// employed, so that not each batch that comes has us ask for a single one.
func (c *Core) pullsUnderWay() []int {
	under := make([]int, len(c.peers))
	for n := max(c.log.low, c.lastExec) + 1; n <= min(c.log.told, c.log.high); n++ {
		if s := c.log.slot(n); s.pull.due > 0 && !s.isCommitted {
			under[s.pull.of]++
		}
	}
	most := c.pullsAtOnce()
	for i, n := range under {
		if n > most/2 {
			under[i] = most
		}
	}
	return under
}

// bearer is a replica to ask for what was decided for a slot: one that says so, and has answered lately if there is such.
func (c *Core) bearer(s *slot, d message.Digest, under []int) (message.ReplicaID, bool) {
	most, cost := c.pullsAtOnce(), serveCost(c.pullSize)
	first := int(s.seq)/most + s.pull.tries
	for _, shunned := range []bool{false, true} {
		some := false
		for k := range c.peers {
			i := message.ReplicaID((first + k) % len(c.peers))
			if !s.decided.has(i) || s.decided.digests[i] != d || (c.peers[i].shunned > c.tick) != shunned {
				continue
			}
			if p := c.peers[i].pulled; under[i] < most && (p == 0 || p+cost <= pullsPerTick) { // a batch may be longer than a share
				return i, true
			}
			some = true
		}
		if some {
			break // it will have time
		}
	}
	return 0, false
}

// tickPulls turns away from those who were asked for batches and bring none, and goes on with those who had their share of a tick.
func (c *Core) tickPulls() {
	for i := range c.peers {
		if p := &c.peers[i]; p.pulled > 0 {
			p.pulled = 0
			c.pulling = true
		}
	}
	for n := max(c.log.low, c.lastExec) + 1; n <= min(c.log.told, c.log.high); n++ {
		if s := c.log.slot(n); s.pull.due > 0 && !s.isCommitted && c.tick >= s.pull.due {
			c.peers[s.pull.of].shunned = max(c.peers[s.pull.of].shunned, c.tick+pullShunTicks)
			s.pull.due = 0
			s.pull.tries++
			c.pulling = true
		}
	}
}

// pulled reports whether a batch is one that we asked for because it was decided.
func (c *Core) pulled(m *message.BatchBody) (some bool) {
	for n := max(c.log.low, c.lastExec) + 1; n <= min(c.log.told, c.log.high); n++ {
		s := c.log.slot(n)
		if s.isCommitted || s.pull.due == 0 && s.pull.tries == 0 {
			continue
		}
		if d, ok := s.decided.with(c.weak()); ok && d == m.Digest {
			some = true
		}
	}
	if some {
		c.pulling = true
		c.pullSize = max(m.Batch.Bytes(), c.pullSize/2)
	}
	return some
}
