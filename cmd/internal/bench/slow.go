// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"bfs/pkg/pbft"
)

// A tracedOp is an operation as its client saw it.
type tracedOp struct {
	client       pbft.ClientID
	slot         pbft.Slot
	timestamp    pbft.Timestamp
	began, ended pbft.Stamp
}

func (o *tracedOp) took() time.Duration { return time.Duration(o.ended - o.began) }

// A recorder keeps the last operations of a load. A nil recorder keeps none.
type recorder struct {
	mu    sync.Mutex
	ops   []tracedOp
	taken int // ever
}

// maxRecorded bounds the operations that are kept.
const maxRecorded = 1 << 20

func (x *recorder) add(o tracedOp) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.taken++; len(x.ops) < maxRecorded {
		x.ops = append(x.ops, o)
	} else {
		x.ops[x.taken%maxRecorded] = o
	}
}

// within returns the operations that ended within a time.
func (x *recorder) within(from, to time.Time) (ops []tracedOp) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, o := range x.ops {
		if o.ended >= pbft.Stamp(from.UnixNano()) && o.ended <= pbft.Stamp(to.UnixNano()) {
			ops = append(ops, o)
		}
	}
	return ops
}

// The steps of an operation, in order. Each ends where the next begins, so their times add up
// to the latency. Of the messages that a step waits for only the deciding one counts: of three
// PREPAREs that are needed the third, of three replies that are needed the third.
const (
	toPrimary  = iota // the request is read at the primary
	toProposal        // its PRE-PREPARE leaves
	toBackup          // that is read at the backup whose PREPARE decides
	toReady           // which has taken it in
	toVoted           // and in disk mode made it durable: its PREPARE leaves
	toVote            // that is read at the replica whose reply decides
	toExecuted        // which executes the batch
	toReplied         // and in disk mode makes it durable: its REPLY leaves
	toDone            // the client has its result
	steps
)

var stepNames = [steps]string{
	"request: client to primary", "primary: wait for a batch", "PRE-PREPARE: primary to backup",
	"backup: lock and checks", "backup: sync", "PREPARE: backup to replica", "replica: lock, batch before",
	"replica: reply, sync", "REPLY: replica to client",
}

// A passage is the way of one operation through the group.
type passage struct {
	op       tracedOp
	took     [steps]time.Duration
	backup   pbft.ReplicaID // whose PREPARE decided
	replica  pbft.ReplicaID // whose reply decided
	spared   bool           // one of the two is a replica that others spare
	collects bool           // a collection of garbage ended meanwhile, in some process
}

// traces are the traces of a group, read together.
type traces struct {
	quorum   int
	votes    int                                 // PREPAREs that a batch needs
	batches  []map[pbft.SeqNum]*pbft.TracedBatch // by replica
	requests map[tracedKey]tracedRequest
	collects []pbft.Stamp
}

type tracedKey struct {
	client    pbft.ClientID
	slot      pbft.Slot
	timestamp pbft.Timestamp
}

type tracedRequest struct {
	*pbft.TracedRequest
	at pbft.ReplicaID
}

func newTraces(g *pbft.Group, reports []*pbft.TraceReport, collects []pbft.Stamp) *traces {
	t := &traces{quorum: g.Quorum(), votes: g.Quorum() - 1, collects: collects,
		requests: make(map[tracedKey]tracedRequest)}
	if g.Durability == pbft.DurabilityDisk {
		t.votes = g.Quorum() // the primary says PREPARE too
	}
	t.add(reports)
	return t
}

// add takes in the reports of all replicas.
func (t *traces) add(reports []*pbft.TraceReport) {
	for _, r := range reports {
		batches := make(map[pbft.SeqNum]*pbft.TracedBatch, len(r.Batches))
		for i := range r.Batches {
			batches[r.Batches[i].Seq] = &r.Batches[i]
		}
		t.batches = append(t.batches, batches)
		t.collects = append(t.collects, r.Collections...)
		for i := range r.Requests {
			q := &r.Requests[i]
			key := tracedKey{q.Client, q.Slot, q.Timestamp}
			if have, ok := t.requests[key]; !ok || q.Read < have.Read {
				t.requests[key] = tracedRequest{q, r.Self}
			}
		}
	}
	slices.Sort(t.collects)
}

// pass follows an operation through the group; false: something on its way was not noted.
func (t *traces) pass(o tracedOp) (p passage, ok bool) {
	q, ok := t.requests[tracedKey{o.client, o.slot, o.timestamp}]
	if !ok {
		return p, false
	}
	p.op = o
	if p.replica, ok = t.decidingReply(q.Seq, o.ended); !ok {
		return p, false
	}
	at := t.batches[p.replica][q.Seq]
	var read pbft.Stamp
	if p.backup, read, ok = t.decidingVote(at); !ok {
		return p, false
	}
	made, vote := t.batches[q.at][q.Seq], t.batches[p.backup][q.Seq]
	if made == nil || vote == nil {
		return p, false
	}
	stamps := [steps + 1]pbft.Stamp{o.began, q.Read, made.Proposed, vote.Proposed, vote.Ready, vote.Votes[p.backup],
		read, at.Executed, at.Replied, o.ended}
	for i := range steps {
		if stamps[i] == 0 {
			return p, false
		}
		stamps[i+1] = max(stamps[i+1], stamps[i]) // what was there before it was needed took no time
		p.took[i] = time.Duration(stamps[i+1] - stamps[i])
	}
	n := len(t.batches)
	for _, i := range []pbft.ReplicaID{p.backup, p.replica} {
		p.spared = p.spared || (int(i)-int(q.at)+n)%n >= t.quorum
	}
	next, _ := slices.BinarySearch(t.collects, o.began)
	p.collects = next < len(t.collects) && t.collects[next] <= o.ended
	return p, true
}

// soon is how long a client needs at most for a reply that it waits for.
const soon = time.Millisecond

// decidingReply is the replica whose reply the client waited for: with it a quorum has replied.
// If the client had no result long after that, it waited for the last reply before it had.
func (t *traces) decidingReply(n pbft.SeqNum, ended pbft.Stamp) (pbft.ReplicaID, bool) {
	type reply struct {
		from pbft.ReplicaID
		left pbft.Stamp
	}
	var replies []reply
	for i, batches := range t.batches {
		if b := batches[n]; b != nil && b.Replied > 0 && b.Replied <= ended {
			replies = append(replies, reply{pbft.ReplicaID(i), b.Replied})
		}
	}
	if len(replies) < t.quorum {
		return 0, false
	}
	slices.SortFunc(replies, func(a, b reply) int { return cmp.Compare(a.left, b.left) })
	last := replies[t.quorum-1]
	if time.Duration(ended-last.left) > soon {
		last = replies[len(replies)-1]
	}
	return last.from, true
}

// decidingVote is the backup whose PREPARE was the last that a replica needed, and when it came
// there.
func (t *traces) decidingVote(b *pbft.TracedBatch) (from pbft.ReplicaID, read pbft.Stamp, ok bool) {
	type vote struct {
		from pbft.ReplicaID
		read pbft.Stamp
	}
	var votes []vote
	for i, at := range b.Votes {
		if at > 0 {
			votes = append(votes, vote{pbft.ReplicaID(i), at})
		}
	}
	if len(votes) < t.votes {
		return 0, 0, false
	}
	slices.SortFunc(votes, func(a, b vote) int { return cmp.Compare(a.read, b.read) })
	return votes[t.votes-1].from, votes[t.votes-1].read, true
}

// A SlowReport tells where the slowest hundredth of the operations spent its time.
type SlowReport struct {
	counts  *counts
	slowest []passage // longest first
	others  []passage // a sample
	lost    int       // of the slowest: something on their way was not noted
	least   time.Duration
}

// sampled is about how many of the other operations are followed, to compare with.
const sampled = 20000

// report reads the traces of a run.
func (t *traces) report(ops []tracedOp, c *counts) *SlowReport {
	r := &SlowReport{counts: c, least: c.quantile(0.99)}
	every := max(len(ops)/sampled, 1)
	for i, o := range ops {
		slow := o.took() >= r.least
		if !slow && i%every != 0 {
			continue
		}
		p, ok := t.pass(o)
		switch {
		case !ok && slow:
			r.lost++
		case !ok:
		case slow:
			r.slowest = append(r.slowest, p)
		default:
			r.others = append(r.others, p)
		}
	}
	slices.SortFunc(r.slowest, func(a, b passage) int { return cmp.Compare(b.op.took(), a.op.took()) })
	return r
}

// median is that of a step.
func median(all []passage, step int) time.Duration {
	d := make([]time.Duration, len(all))
	for i := range all {
		d[i] = all[i].took[step]
	}
	return middle(d)
}

// middle is the median of figures, 0 of none.
func middle[T cmp.Ordered](figures []T) (m T) {
	if len(figures) == 0 {
		return m
	}
	return slices.Sorted(slices.Values(figures))[len(figures)/2]
}

// usual is what each step takes in other operations.
func (r *SlowReport) usual() (usual [steps]time.Duration) {
	for i := range steps {
		usual[i] = median(r.others, i)
	}
	return usual
}

// part is how many of some passages are such, in per cent.
func part(all []passage, such func(*passage) bool) float64 {
	n := 0
	for i := range all {
		if such(&all[i]) {
			n++
		}
	}
	return 100 * float64(n) / float64(max(len(all), 1))
}

// cause is the step that took longest beyond what it usually takes.
func (p *passage) cause(usual *[steps]time.Duration) (worst int) {
	for i := range steps {
		if p.took[i]-usual[i] > p.took[worst]-usual[worst] {
			worst = i
		}
	}
	return worst
}

// longest is how many of the slowest operations are shown step by step.
const longest = 5

// WriteTable shows the report to people.
func (r *SlowReport) WriteTable(w io.Writer) error {
	if err := r.counts.writeBars(w); err != nil {
		return err
	}
	usual := r.usual()
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\nslowest hundredth: %d operations of %v and more; %d more were not followed\n\n",
		len(r.slowest), r.least.Round(time.Microsecond), r.lost)
	fmt.Fprintln(t, "STEP\tCAUSE OF %\tTOOK THEN, us\tMEDIAN OF SLOW, us\tOF OTHERS, us\t")
	for i, name := range stepNames {
		var caused []passage
		for _, p := range r.slowest {
			if p.cause(&usual) == i {
				caused = append(caused, p)
			}
		}
		fmt.Fprintf(t, "%s\t%.1f\t%.0f\t%.0f\t%.0f\t\n", name,
			100*float64(len(caused))/float64(max(len(r.slowest), 1)), micros(median(caused, i)),
			micros(median(r.slowest, i)), micros(usual[i]))
	}
	fmt.Fprintln(t)
	for _, x := range []struct {
		what string
		such func(*passage) bool
	}{
		{"waited for a spared replica", func(p *passage) bool { return p.spared }},
		{"a collection of garbage ended meanwhile", func(p *passage) bool { return p.collects }},
	} {
		fmt.Fprintf(t, "%s\t%.1f %% of slow\t%.1f %% of others\t\n", x.what, part(r.slowest, x.such),
			part(r.others, x.such))
	}
	fmt.Fprint(t, "\nlongest, us, step by step\tbackup\treplica\t\n")
	for _, p := range r.slowest[:min(longest, len(r.slowest))] {
		fmt.Fprintf(t, "%.0f =", micros(p.op.took()))
		for i := range steps {
			fmt.Fprintf(t, " %.0f", micros(p.took[i]))
		}
		fmt.Fprintf(t, "\t%d\t%d\t\n", p.backup, p.replica)
	}
	return t.Flush()
}

// writeBars draws the durations, a line for each doubling.
func (c *counts) writeBars(w io.Writer) error {
	const width = 50
	var lines [maxExponent + 1]uint64
	most, first, last := uint64(1), len(lines), 0
	for i, n := range c {
		if n == 0 {
			continue
		}
		at := max(i>>subBits+subBits-1, 0)
		lines[at] += n
		most, first, last = max(most, lines[at]), min(first, at), max(last, at)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for i := first; i <= last; i++ {
		fmt.Fprintf(t, "below %v\t%d\t  %s\n", (time.Duration(2) << i).Round(time.Microsecond), lines[i],
			strings.Repeat("#", int((lines[i]*width+most-1)/most)))
	}
	return t.Flush()
}

// readTraces reads the files that the replicas have written at their end.
func readTraces(files []string) (reports []*pbft.TraceReport, err error) {
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		r, err := pbft.ReadTrace(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		reports = append(reports, r)
	}
	return reports, nil
}
