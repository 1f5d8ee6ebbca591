// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"time"

	"bfs/pkg/nfs3"
)

const (
	// beat is the period of the checks below.
	beat = time.Second
	// overdue is the age at which an unanswered call is worth a line in the log.
	overdue = time.Minute
	// silentFor is the time without such a check after which the relay no longer counts as alive.
	silentFor = 10 * time.Second
	// advisePeriod is how long one kind of advice is not repeated.
	advisePeriod = 10 * time.Minute
)

// watch runs the checks of lookAfter until stop.
func (s *Server) watch() {
	defer s.wg.Done()
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			s.lookAfter(s.table.now())
		}
	}
}

// lookAfter notes that the relay lives, and logs when calls become overdue and when none
// is any more.
func (s *Server) lookAfter(at instant) {
	if s.config.Journal != nil {
		s.config.Journal.alive(at)
	}
	s.watchCalls(at)
	s.beaten.Store(int64(at))
}

// watchCalls logs one line when calls become overdue, with the cause, and one when none
// is overdue any more.
func (s *Server) watchCalls(at instant) {
	late := s.table.late(at, overdue)
	switch {
	case late.calls > 0 && s.stalled == 0:
		s.stalled = max(late.began, 1)
		s.log.Warn("calls are unanswered for a minute; the programs that made them wait", "calls", late.calls,
			"oldest", late.name, "cause", s.cause())
	case late.calls == 0 && s.stalled != 0:
		s.log.Info("calls are answered again", "after", time.Duration(at-s.stalled).Round(time.Second))
		s.stalled = 0
	}
}

// cause returns the reason why the group does not answer, as far as Config.Cause knows it.
func (s *Server) cause() string {
	if s.config.Cause != nil {
		if why := s.config.Cause(); why != "" {
			return why
		}
	}
	return "unknown here: ask the replicas with `bfsd status`"
}

// A lateness says how many calls in flight are overdue, and which is the oldest and when it began.
type lateness struct {
	calls int
	name  string
	began instant
}

// late finds the calls in flight that began more than d before at.
func (t *table) late(at instant, d time.Duration) (l lateness) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := t.oldest; k != nil && !k.began.within(d, at); k = k.newer {
		if l.calls == 0 {
			l.name, l.began = procedureName(k.program, k.procedure), k.began
		}
		l.calls++
	}
	return l
}

func procedureName(program, procedure uint32) string {
	if program == nfs3.ProgramMount {
		return mountNames[procedure]
	}
	return nfsNames[procedure]
}

// Oldest names the procedure of the oldest call in flight and says how long that call has
// been unanswered; "" and 0 if none is in flight.
func (s *Server) Oldest() (procedure string, age time.Duration) {
	at := s.table.now()
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	k := s.table.oldest
	if k == nil {
		return "", 0
	}
	return procedureName(k.program, k.procedure), time.Duration(max(at-k.began, 0))
}

// Alive reports whether the periodic checks of a relay that serves still run. The error
// says for how long they have not.
func (s *Server) Alive() error {
	last := instant(s.beaten.Load())
	if idle := time.Duration(s.table.now() - last); last != 0 && idle > silentFor {
		return fmt.Errorf("the relay has not looked after its calls for %v: it hangs, or the machine is overloaded",
			idle.Round(time.Second))
	}
	return nil
}

// advise logs a message at most once in ten minutes for each value of what, so that peers
// cannot flood the log.
func (s *Server) advise(what, message string, args ...any) {
	at := s.table.now()
	s.adviceMu.Lock()
	last, said := s.advised[what]
	again := said && last.within(advisePeriod, at)
	if !again {
		s.advised[what] = at
	}
	s.adviceMu.Unlock()
	if !again {
		s.log.Warn(message, args...)
	}
}
