// SPDX-License-Identifier: Apache-2.0

package core

// A pause grows: each occasion doubles it, between two bounds, and good behaviour lets it shrink.
// So a peer that gives occasions without end can do so ever more rarely. The zero value is over.
type pause struct {
	ticks int // how long it was at last; 0: it is forgotten
	until int // tick at which it is over
}

// begin begins the next pause, twice as long as the last, and between least and most ticks.
func (p *pause) begin(tick, least, most int) {
	p.ticks = min(max(2*p.ticks, least), most)
	p.repeat(tick)
}

// repeat begins one as long as the last.
func (p *pause) repeat(tick int) { p.until = tick + p.ticks }

func (p *pause) over(tick int) bool { return tick >= p.until }

// halve halves the pause for each time that it has been over for as long as it was.
func (p *pause) halve(tick int) {
	for good := tick - p.until; p.ticks > 0 && good >= p.ticks; {
		good -= p.ticks
		p.ticks /= 2
	}
}

// forget resets to the shortest pause if the last has been over for the given multiple of its
// length.
func (p *pause) forget(tick, times int) {
	if tick-p.until > times*p.ticks {
		p.ticks = 0
	}
}

// A limit is a rate limit, in ticks. The zero value lets something happen at once.
type limit struct{ next int } // tick at which it may happen again

func (l *limit) allows(tick int) bool { return tick >= l.next }

// restart notes that it happens now, allowed or not.
func (l *limit) restart(tick, every int) { l.next = tick + every }

// take reports whether it may happen now, once in so many ticks, and notes that it does. It may run
// ahead by burst.
func (l *limit) take(tick, every, burst int) bool {
	if l.next > tick+(burst-1)*every {
		return false
	}
	l.next = max(l.next, tick) + every
	return true
}
