// SPDX-License-Identifier: Apache-2.0

package transport

import "time"

// maxMarks bounds a delay line; flushes beyond it leave together with the last.
const maxMarks = 4096

// A delayLine releases flushed bytes after a delay, in order. All methods require c.mu of the
// connection it delays.
type delayLine struct {
	marks []mark
	timer *time.Timer
}

// A mark says that the queue may be written up to end at due.
type mark struct {
	end uint64
	due time.Time
}

func (d *delayLine) add(c *Conn, end uint64, due time.Time) {
	if n := len(d.marks); n >= maxMarks {
		d.marks[n-1] = mark{end, due}
		return
	}
	d.marks = append(d.marks, mark{end, due})
	if len(d.marks) == 1 {
		d.wait(c)
	}
}

// wait sets the timer for the first mark.
func (d *delayLine) wait(c *Conn) {
	pause := time.Until(d.marks[0].due)
	if d.timer == nil {
		d.timer = time.AfterFunc(pause, c.delayOver)
		return
	}
	d.timer.Reset(pause)
}

func (d *delayLine) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.marks = nil
}

// delayOver releases all that is due and writes it.
func (c *Conn) delayOver() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	d := &c.late
	now := time.Now()
	n := 0
	for n < len(d.marks) && !d.marks[n].due.After(now) {
		c.released = d.marks[n].end
		n++
	}
	d.marks = append(d.marks[:0], d.marks[n:]...)
	if len(d.marks) > 0 {
		d.wait(c)
	}
	c.writeReleased()
}
