// SPDX-License-Identifier: Apache-2.0

package client

// A stream is the client's calls of one kind: ordered ones, ordered ones with long operations, or
// reads. The group serves the
// calls of a stream about in the order in which they were sent. That tells a call that is
// lost, or whose primary has stopped, from one whose turn is yet to come.
//
// The retransmission timer is one for the whole stream, and every result starts it anew,
// as TCP's does with every acknowledgement [RFC6298 §5]. A batch has room for some of a
// client's calls, so the calls behind those wait for several round trips; but a result
// comes in each. So the timeout need not grow with the number of calls under way.
type stream struct {
	trip   roundTrip
	since  Time // when a call had its result last, or the timer expired
	newest Time // when the latest sent of the calls that have their results was sent
	timed  Time // when trip had its last sample
	losing bool // only calls that were sent again have had results lately: the others may be lost
	unfair Time // for so long a call may be overtaken by later ones without being late
}

func (s *stream) init(unfair, first, most Time) {
	s.trip = roundTrip{first: first, least: minRepeat, most: most}
	s.since, s.newest, s.timed, s.unfair = never, never, never, unfair
}

// answered learns from a call that has its result. Repeated: a replica was sent it more
// than once, so the answer may be to either. Widened: it was sent to some replicas first
// and to the others later, so that it took longer than an answer does; but each answer is
// to the one request that its replica had, and shows that the group answers such.
//
// One call is timed in each round trip. The calls of a batch all take about as long. To
// count each of them would make an estimate of that one batch, with too little variation
// [RFC7323 App. G].
func (s *stream) answered(now, sent Time, repeated, widened bool) {
	s.since, s.newest = now, max(s.newest, sent)
	if s.losing = repeated; repeated {
		return
	}
	if s.trip.answered(); sent >= s.timed && !widened {
		s.trip.sample(now - sent)
		s.timed = now
	}
}

// silence is the time at which a call that was sent once is late, if no result comes before.
func (s *stream) silence(sent, behind Time) Time {
	return max(sent, s.since) + s.trip.timeout() + behind
}

// overtaken returns the time at which a call is late because later calls have their
// results; ok says that they have. A correct primary lets a costly request wait while
// others are served. A faulty primary may serve others to starve the call. No primary
// stands before a read: some replica has not answered it that has answered later ones,
// or they went to others.
func (s *stream) overtaken(sent, behind Time) (at Time, ok bool) {
	return sent + max(s.trip.timeout(), s.unfair) + behind, s.newest > sent
}

// late returns the time at which a call is late if no result comes before.
func (s *stream) late(sent, behind Time) Time {
	at := s.silence(sent, behind)
	if early, ok := s.overtaken(sent, behind); ok {
		at = min(at, early)
	}
	return at
}

// expire notes that the timer has expired.
func (s *stream) expire(now Time) {
	s.since = now
	s.trip.expire()
}
