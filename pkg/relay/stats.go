// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"math/bits"
	"sync/atomic"
	"time"

	"bfs/pkg/nfs3"
)

// latencyBuckets is the number of buckets of a latency histogram. Bucket i counts the
// calls that took less than 2^i microseconds, the last one all others.
const latencyBuckets = 26

// An outcome is how a call to a procedure ended.
type outcome uint8

const (
	answeredOK      outcome = iota // accept_stat SUCCESS
	answeredRefused                // another accept_stat
	answeredFailed                 // SYSTEM_ERR: the client could not have it done
	unanswered                     // the client closed, or the connection left
	outcomes
)

// counters hold the running counts behind Stats.
type counters struct {
	nfs   [len(nfsNames)][outcomes]atomic.Uint64
	mount [len(mountNames)][outcomes]atomic.Uint64

	accepted, refusedPort, refusedFull, evicted, slow, broken atomic.Uint64
	notCalls, rpcMismatch, authErrors, garbage                atomic.Uint64
	noProgram, noVersion, noProcedure                         atomic.Uint64
	joined, replayed, resumed, busy                           atomic.Uint64
	bytesIn, bytesOut, writes                                 atomic.Uint64

	latency    [latencyBuckets]atomic.Uint64
	latencySum atomic.Int64
}

func (c *counters) count(program, procedure uint32, o outcome) {
	if program == nfs3.ProgramMount {
		c.mount[procedure][o].Add(1)
		return
	}
	c.nfs[procedure][o].Add(1)
}

func (c *counters) took(d time.Duration) {
	i := min(bits.Len64(uint64(max(d, 0)/time.Microsecond)), latencyBuckets-1)
	c.latency[i].Add(1)
	c.latencySum.Add(int64(d))
}

// Stats are the counts of a relay since it began, for an administrator's page.
type Stats struct {
	Procedures []ProcedureStats // those that were called

	Connections int           // open now
	InFlight    int           // calls at the group now
	Oldest      time.Duration // age of the oldest of them
	Unsent      int           // bytes of replies that kernels have not taken yet

	Accepted    uint64 // connections
	RefusedPort uint64 // connections from ports >= 1024
	RefusedFull uint64 // connections beyond the limit
	Evicted     uint64 // idle connections closed to make room
	Slow        uint64 // connections closed because they did not take their replies
	Broken      uint64 // connections closed in the middle of a record, or for a wrong one

	NotCalls    uint64 // records that are not RPC calls
	RPCMismatch uint64
	AuthErrors  uint64
	Garbage     uint64 // headers, and arguments of our own procedures, that end too early or too late
	NoProgram   uint64
	NoVersion   uint64
	NoProcedure uint64

	Joined    uint64 // retransmissions of a call in flight
	Replayed  uint64 // retransmissions of a call that was done
	Resumed   uint64 // operations of an earlier life sent again
	Busy      uint64 // times the client had no room
	Overtaken uint64 // slots used again before their operation was answered: 0, or the client is wrong

	BytesIn, BytesOut, Writes uint64 // Writes are system calls

	Latency    [latencyBuckets]uint64 // calls of the group: bucket i took less than 2^i microseconds
	LatencySum time.Duration
}

// ProcedureStats counts the calls to one procedure by outcome.
type ProcedureStats struct {
	Program, Procedure uint32
	Name               string
	OK                 uint64 // accept_stat SUCCESS; the NFS status is not looked at
	Refused            uint64 // another accept_stat
	Failed             uint64 // SYSTEM_ERR
	Unanswered         uint64 // given up
}

// LatencyBound is the upper end of bucket i of Stats.Latency; the last has none.
func LatencyBound(i int) time.Duration { return time.Microsecond << i }

// Stats takes the counters as they stand.
func (s *Server) Stats() Stats {
	c := &s.counters
	st := Stats{
		InFlight: s.table.inFlight(), Unsent: int(s.unsent.Load()),
		Accepted: c.accepted.Load(), RefusedPort: c.refusedPort.Load(), RefusedFull: c.refusedFull.Load(),
		Evicted: c.evicted.Load(), Slow: c.slow.Load(), Broken: c.broken.Load(),
		NotCalls: c.notCalls.Load(), RPCMismatch: c.rpcMismatch.Load(), AuthErrors: c.authErrors.Load(),
		Garbage: c.garbage.Load(), NoProgram: c.noProgram.Load(), NoVersion: c.noVersion.Load(),
		NoProcedure: c.noProcedure.Load(), Joined: c.joined.Load(), Replayed: c.replayed.Load(),
		Resumed: c.resumed.Load(), Busy: c.busy.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(), Writes: c.writes.Load(),
		LatencySum: time.Duration(c.latencySum.Load()),
	}
	_, st.Oldest = s.Oldest()
	for i := range st.Latency {
		st.Latency[i] = c.latency[i].Load()
	}
	if s.config.Journal != nil {
		st.Overtaken = s.config.Journal.overtaken.Load()
	}
	s.mu.Lock()
	st.Connections = len(s.conns)
	s.mu.Unlock()
	for i := range c.nfs {
		st.add(nfs3.ProgramNFS, i, nfsNames[i], &c.nfs[i])
	}
	for i := range c.mount {
		st.add(nfs3.ProgramMount, i, mountNames[i], &c.mount[i])
	}
	return st
}

func (st *Stats) add(program uint32, procedure int, name string, c *[outcomes]atomic.Uint64) {
	p := ProcedureStats{
		Program: program, Procedure: uint32(procedure), Name: name,
		OK: c[answeredOK].Load(), Refused: c[answeredRefused].Load(),
		Failed: c[answeredFailed].Load(), Unanswered: c[unanswered].Load(),
	}
	if p.OK+p.Refused+p.Failed+p.Unanswered > 0 {
		st.Procedures = append(st.Procedures, p)
	}
}
