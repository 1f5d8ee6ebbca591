// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// A faulty primary can make each proposal just before the view-change timer ends. It keeps its
// view, and the group has a twentieth of its speed (R-HD-5). So backups judge the primary by its
// turnaround: the time from when it has a request until its proposal of it comes back, as in
// Prime (R-HD-7).
//
// A backup must know of a request for that, but clients send only long requests to every replica.
// So a client shows a short one to the backups, once in a while. The copy for the primary does not
// say so: the primary cannot know which of its delays are seen.
//
// A correct primary is late too, for four reasons, which must not count against it:
//
//   - It has as many batches under way as it may, and the request waits for the next. So a
//     backup counts only the time in which the primary could have proposed. A faulty one could
//     always have as many under way, each with one request. So a backup counts, too, how many
//     batches that had room were proposed without the request. A correct primary proposes none
//     when it has the request, and before that no more than are on their way at once: Window.
//   - Hosts or wires are slow. Then agreement on the batch is slow, too, which the backups bring
//     about without the primary. So a turnaround is judged by the agreement on the same batch,
//     until it has prepared: both cost one or two message delays. (A COMMIT may wait for the next
//     proposal, so commits would be as late as the primary likes.)
//   - Its process waits for a processor. Where processors are scarce a backup's own ticks come late,
//     too, and it allows the primary some times as much, at most what allowed says.
//   - It holds the requests of one client back, because that has had its share or is suspected, or
//     a faulty client has sent the primary its copy later than the others. So a primary is slow
//     only if it is slow to most clients.
//
// A primary can also let one client wait, and serve the others (R-HD-6). It starves a client that
// waits long, by the same measure, and has had less than half of what the best served client had: a
// client that waits because it has had its share has had more.
//
// A backup that finds the primary slow, or that it starves a client, says so in its STATUS. When
// f+1 replicas do, one of them is correct, and all leave the view. The next primary may look alike,
// because the group is slow or because clients lie. So each such view change doubles what the next
// primary may take, for a minute or longer; and each for a client that starved doubles the time for
// which none is left for that reason. A slow group changes its view only a few times.
//
// Delays below a few milliseconds go unnoticed, or below some thirty where processors are scarce,
// as does a primary that keeps its proposals from a part of the backups, so that agreement is slow
// as well.

const (
	// givenUpTicks is when the proposal of a request is not awaited any more. If its client waits
	// for it the view-change timer runs.
	givenUpTicks = 100
	// strikesOut is in how many judgements in a row a primary must fail.
	strikesOut = 2
	// tolerantTicks is how long a backup is more tolerant after it has left a slow primary, and how
	// long it takes to be half as tolerant again.
	tolerantTicks = 6000
	// maxTolerance bounds how much more tolerant.
	maxTolerance = 64
	// fairTicks is how long no primary is left for a client that starves after one was. It doubles
	// up to maxTolerance times that.
	fairTicks = 500
)

// turnarounds judge the primary of the present view.
type turnarounds struct {
	*base
	log     *messageLog
	queue   *queue
	reports *reports

	asked    []*line        // lines with a request whose turnaround is being measured
	idle     idleTime       // of the primary, while any is
	lateness lateness       // of our own ticks
	strikes  int            // judgements in a row in which the primary failed
	isSlow   bool           // it was slow in the last of these, and not only to one client
	tolerant pause          // after a slow primary
	fair     pause          // after one that starved a client
	said     []message.View // by replica: 1 above the view whose primary it finds slow, 0 if none
	left     LeftSlow
}

// LeftSlow tells of the views that ended because replicas found the primary slow.
type LeftSlow struct {
	Times   uint64       // since this replica's start
	View    message.View // the last of them
	Own     bool         // this replica found it slow, too, and did not only follow others
	Starved bool         // it found that its primary starved a client, and was not slow to most
}

// ask begins to measure the turnaround of a request that its client sent to everyone.
func (x *turnarounds) ask(r *message.Request) {
	l := x.queue.line(r.Client)
	p := &l.pacing
	if !x.active || x.isPrimary() || x.silent() || p.timestamp != 0 || costly(r) || !l.suspect.over(x.tick) {
		return
	}
	if r.Length() > leastShare && x.queue.busy.others(r.Client, x.tick) {
		return // the primary may hold it back: see line.sharing
	}
	if len(x.asked) == 0 {
		x.idle.free = false // nobody has looked since
	}
	x.mark()
	*p = pacing{slot: r.Slot, timestamp: r.Timestamp, asked: x.tick, since: x.idle.at, idleThen: x.idle.total,
		results: p.results}
	x.asked = append(x.asked, l)
}

// mark brings the idle time up to date. It is called after every event, while any turnaround is
// measured.
func (x *turnarounds) mark() {
	x.idle.mark(x.now(), !x.log.isFull(x.cfg.Window))
}

// follow notes that an event is over.
func (x *turnarounds) follow() {
	if len(x.asked) > 0 {
		x.mark()
	}
}

func (x *turnarounds) now() time.Duration {
	if x.cfg.Now == nil {
		return time.Duration(x.tick) * Tick
	}
	return x.cfg.Now()
}

// count takes in a tick.
func (x *turnarounds) count() {
	x.lateness.tick()
	x.asked = slices.DeleteFunc(x.asked, func(l *line) bool {
		givenUp := x.tick-l.pacing.asked > givenUpTicks
		if givenUp {
			l.pacing.timestamp = 0
		}
		return givenUp
	})
}

// proposed notes a proposal of the primary.
func (x *turnarounds) proposed(p *message.PrePrepare) {
	if len(x.asked) == 0 {
		return
	}
	x.mark()
	size := 0
	for _, r := range p.Batch.Requests {
		size += weight(r.Cost, r.Length())
		l := x.queue.find(r.Client)
		if l == nil || l.pacing.timestamp == 0 || l.pacing.batch > 0 || l.pacing.slot != r.Slot {
			continue
		}
		switch asked := l.pacing.timestamp; {
		case asked == r.Timestamp:
			l.pacing.wasProposed(p.Seq, &x.idle)
		case asked < r.Timestamp:
			x.drop(l)
		}
	}
	// A null batch serves nobody else. Many are proposed at once, by a primary that has no request.
	if p.Digest != message.NullDigest && size < leastShare && 2*len(p.Batch.Requests) <= x.cfg.Batch.Count {
		x.pass()
	}
}

// pass notes that a batch was proposed without the requests that wait, and had room for each of
// them: every client may have leastShare of a batch.
func (x *turnarounds) pass() {
	for _, l := range x.asked {
		if l.pacing.batch == 0 {
			l.pacing.passed++
		}
	}
}

// agreed notes that a batch has prepared, or was decided without that. It does not await the
// commit: a COMMIT may wait for the next proposal, and then the primary would be judged by itself.
func (x *turnarounds) agreed(n message.SeqNum) {
	for i := 0; i < len(x.asked); i++ {
		l := x.asked[i]
		p := &l.pacing
		if p.batch != n {
			continue
		}
		x.mark()
		p.add(x.tick, x.idle.at)
		x.drop(l)
		i--
	}
}

// drop ends the measurement that is under way for a client.
func (x *turnarounds) drop(l *line) {
	l.pacing.timestamp = 0
	x.asked = slices.DeleteFunc(x.asked, func(other *line) bool { return other == l })
}

// tolerance is by how much more than at first the primary may take.
func (x *turnarounds) tolerance() int {
	return min(max(1, 2*x.tolerant.ticks/tolerantTicks), maxTolerance)
}

// allowed is what the primary may take. After a slow one it is as much as on the busiest host, and
// more: the group may be slow, and should find that out in few view changes.
func (x *turnarounds) allowed() yardstick {
	times, slack := x.tolerance(), x.lateness.allowed()
	if times > 1 {
		slack = mostAllowed * time.Duration(times)
	}
	return yardstick{x.tick, slack, paceFactor * times, int(x.cfg.Window) * times, x.idle}
}

// judge judges the primary. It is called before each STATUS, which then says the result.
func (x *turnarounds) judge() {
	x.tolerant.halve(x.tick)
	x.fair.halve(x.tick)
	slow, starved := x.verdict()
	for _, l := range x.queue.order {
		l.had -= l.had / 4
	}
	x.isSlow = slow
	if x.strikes++; !slow && !starved {
		x.strikes = 0
	}
	x.reports.slowPrimary = x.strikes >= strikesOut
}

// verdict reports whether the primary is slow, and whether it starves a client.
func (x *turnarounds) verdict() (slow, starved bool) {
	if !x.active || x.isPrimary() || x.silent() {
		return false, false
	}
	x.follow()
	known, tooSlow, most := 0, 0, 0
	allowed := x.allowed()
	for _, l := range x.queue.order {
		if isSlow, isKnown := l.pacing.slow(&allowed); isKnown {
			known++
			if isSlow {
				tooSlow++
			}
		}
		most = max(most, l.had)
	}
	allowed.slack, allowed.factor = starvedSlack, paceFactor
	for _, l := range x.queue.order {
		starved = starved || x.fair.over(x.tick) && 2*l.had < most && l.suspect.over(x.tick) &&
			l.pacing.starves(&allowed)
	}
	return 2*tooSlow > known, starved
}

// hear notes whether a replica finds the primary of our view slow.
func (x *turnarounds) hear(m *message.Status) {
	x.said[m.From] = 0
	if m.Active && m.SlowPrimary {
		x.said[m.From] = m.View + 1
	}
}

// forget forgets what these replicas have said.
func (x *turnarounds) forget(these replicas) {
	for i := range x.said {
		if these.has(message.ReplicaID(i)) {
			x.said[i] = 0
		}
	}
}

// tooSlow reports whether f+1 replicas find the primary slow.
func (x *turnarounds) tooSlow() bool {
	n := 0
	if x.reports.slowPrimary {
		n++
	}
	for i, v := range x.said {
		if v == x.view+1 && message.ReplicaID(i) != x.cfg.Self {
			n++
		}
	}
	return x.active && n >= x.weak()
}

// leave forgets the turnarounds of a primary whose view is over.
func (x *turnarounds) leave() {
	own := x.reports.slowPrimary
	if own || x.tooSlow() {
		x.left = LeftSlow{x.left.Times + 1, x.view, own, own && !x.isSlow}
	}
	switch {
	case own && x.isSlow:
		x.tolerant.begin(x.tick, tolerantTicks, tolerantTicks*maxTolerance/2)
	case own:
		x.fair.begin(x.tick, fairTicks, fairTicks*maxTolerance)
	}
	x.strikes, x.isSlow, x.reports.slowPrimary = 0, false, false
	for _, l := range x.queue.order {
		l.pacing = pacing{}
	}
	clear(x.asked)
	x.asked = x.asked[:0]
}
