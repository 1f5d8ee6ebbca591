// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"strconv"
	"time"

	"bfs/pkg/pbft/internal/wire"
)

// Status is one replica's account of itself. It has more fields than other types because
// it is one flat JSON object, whose names programs read.
type Status struct {
	Replica      ReplicaID    `json:"replica"`
	View         View         `json:"view"`
	Primary      ReplicaID    `json:"primary"`
	Active       bool         `json:"active"`
	LastExecuted SeqNum       `json:"last_executed"`
	Stable       SeqNum       `json:"stable_checkpoint"`
	Root         string       `json:"root"`                   // of the stable checkpoint, hexadecimal
	SilentUntil  SeqNum       `json:"silent_until,omitempty"` // it lost its state: votes once this is stable
	Fetching     bool         `json:"fetching"`               // replacing its state by the group's
	Recovery     Recovery     `json:"recovery"`
	Peers        []PeerStatus `json:"peers"`
	ViewChanges  int          `json:"view_changes"`        // gone through since start
	SlowPrimary  uint64       `json:"slow_primaries"`      // views since start that ended because the primary was slow
	ViewChange   Seconds      `json:"view_change_seconds"` // the last: from our VIEW-CHANGE to the next execution
	Rollbacks    int          `json:"rollbacks"`           // tentative executions that were undone, since start
	Fetched      Fetched      `json:"fetched"`
	KeyAge       Seconds      `json:"key_age_seconds"` // since this replica refreshed its session keys
	Refreshes    uint64       `json:"key_refreshes"`   // of its session keys, since start
	Executed     uint64       `json:"operations"`      // executed since start
	Queries      uint64       `json:"queries"`         // answered on the read-only path since start
	Clients      int          `json:"clients"`         // connected
	Floods       int          `json:"floods"`          // addresses whose connections are mostly dropped
	Uptime       Seconds      `json:"uptime_seconds"`
	Keeper       *SeenKeeper  `json:"keeper,omitempty"`     // nil: it has none
	OverShare    []ClientID   `json:"over_share,omitempty"` // the primary's: lately wanted more than their share
	LogBytes     int          `json:"log_bytes"`
	StateBytes   int64        `json:"state_bytes"` // of pages in use at the last checkpoint; 0: unknown
	Durability   Durability   `json:"durability"`
	Disk         *DiskStatus  `json:"disk,omitempty"` // nil unless Durability is DurabilityDisk
	Refusals     []Refusals   `json:"refusals,omitempty"`
}

// DiskStatus describes the disk of a replica in disk mode.
type DiskStatus struct {
	Full         string    `json:"full,omitempty"`          // why it stands aside: there is too little room
	JournalBytes int64     `json:"journal_bytes"`           // of the journal's files, those in reserve included
	JournalUsed  int64     `json:"journal_used_bytes"`      // of the files whose records a restart would read
	End          uint64    `json:"journal_end"`             // records that were ever appended
	Durable      uint64    `json:"journal_durable"`         // records that are certainly on the disk
	Synced       time.Time `json:"journal_synced,omitzero"` // when they were last synced; zero: not since start
	Syncs        Histogram `json:"journal_syncs"`           // how long each sync took, with its writing
	Held         int       `json:"held"`                    // messages and replies that wait for the disk
	Image        SeqNum    `json:"image_checkpoint"`        // the checkpoint that a restart begins from
	ImageBytes   int64     `json:"image_bytes"`             // of its files
	GivenUp      int       `json:"image_given_up"`          // updates of the image given up for a later one
	Free         uint64    `json:"free_bytes"`              // of the file system; 0 with Size 0: unknown
	Size         uint64    `json:"size_bytes"`
	Reserve      int64     `json:"reserve_bytes"` // kept for when the file system is full
}

// Fetched counts what was fetched of the group's state.
type Fetched struct {
	States  int     `json:"states"`       // installed since start
	Bytes   uint64  `json:"bytes"`        // of DATA since start
	Took    Seconds `json:"took_seconds"` // the last fetch, from when the need for it was seen until it was installed
	Replies uint64  `json:"answers"`      // DATA since start
}

// A Recovery is the last of a replica, or the one that is under way. It is zero if this
// process began with none.
type Recovery struct {
	Phase   string  `json:"phase,omitempty"`   // estimating, requesting or checking; "": it is over, or was none
	Point   SeqNum  `json:"point,omitempty"`   // the checkpoint that ends it must be at or above this; 0: not known yet
	Took    Seconds `json:"took_seconds"`      // so far, or in all
	Corrupt bool    `json:"corrupt,omitempty"` // something was found that is not the group's, and was replaced
	Ended   bool    `json:"ended,omitempty"`
	Parts   Parts   `json:"parts"`       // of Took
	Ago     Seconds `json:"ago_seconds"` // since it ended
}

// Parts are the parts of a recovery, those that are over [TOCS §8.2.3, Table II]. The stop of
// the process and the start of the next come before them, and are seen from outside alone.
type Parts struct {
	Load     Seconds `json:"load_seconds"`     // reading journal and image, and checking every page
	Estimate Seconds `json:"estimate_seconds"` // until H_M was known
	Request  Seconds `json:"request_seconds"`  // until the recovery request was known to have been executed
	Check    Seconds `json:"check_seconds"`    // until a checkpoint at or above the recovery point was stable here
}

// PeerStatus is how one replica sees another.
type PeerStatus struct {
	Replica      ReplicaID `json:"replica"`
	Connected    bool      `json:"connected"`
	Keys         bool      `json:"keys"` // both session keys are there
	LastExecuted SeqNum    `json:"last_executed"`
	Stable       SeqNum    `json:"stable_checkpoint"`
	Recovering   bool      `json:"recovering"` // between its recovery request and recovery point

	// Its messages since this replica was started that contradict what the group did.
	WrongVotes uint64 `json:"wrong_votes"` // PREPAREs for a batch that did not commit: it or the primary lies
	WrongRoots uint64 `json:"wrong_roots"` // CHECKPOINTs of another state: it lies, or its state is false
	False      bool   `json:"false"`       // the last of its CHECKPOINTs was one of these

	Recovered Seconds `json:"recovered_ago_seconds"` // since its last recovery request; 0: none since start
}

// KeeperStatus is a keeper's report to its replica, which passes it on to operators. It bears no
// signature, so it is only as true as the replica: an intruder in the replica can say anything of
// the keeper. The group's own knowledge is in the PeerStatus of the other replicas: a recovery
// request bears the signature of the long-term key, and each replica notes when it executed one.
type KeeperStatus struct {
	Started  time.Time `json:"started"`
	Period   Seconds   `json:"recovery_period_seconds"` // T_w; 0: it recovers its replica when it is told to only
	Next     time.Time `json:"next_recovery,omitzero"`
	Last     time.Time `json:"last_recovery,omitzero"` // when it began the last; zero: none since Started
	GivenUp  int       `json:"turns_given_up"`         // in a row
	Counter  uint64    `json:"counter"`                // of signatures
	Serial   uint64    `json:"manifest_serial"`        // 0: any executable may run
	Manifest time.Time `json:"manifest_time,omitzero"` // of the file
	Checked  time.Time `json:"program_checked"`        // the executable's last check, or opening without a manifest
	Problem  string    `json:"program_problem,omitempty"`
}

// SeenKeeper is a replica's keeper as the replica sees it.
type SeenKeeper struct {
	KeeperStatus
	Answered Seconds `json:"answered_ago_seconds"` // since it answered last, or since the replica was started
	Silent   string  `json:"silent,omitempty"`     // why it did not answer when it was asked last
	Window   Seconds `json:"window_seconds"`       // T_v now: 2 T_k + time since the last recovery began; 0: unknown
	Bound    Seconds `json:"window_bound_seconds"` // T_v at most: 2 T_k + T_w + recoveryAllowance; 0: no bound
}

// Refusals counts messages refused for one reason.
type Refusals = wire.Refusals

// Seconds is a time.Duration that JSON has as a number of seconds.
type Seconds time.Duration

// Duration is s as a time.Duration.
func (s Seconds) Duration() time.Duration { return time.Duration(s) }

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', -1, 64), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(string(b), 64)
	*s = Seconds(v * float64(time.Second))
	return err
}

// syncTimes counts how long syncs of the journal took, in classes of powers of two.
type syncTimes struct {
	counts [syncClasses]uint64 // of class i: at most leastSync << i; of the last one: all that took longer
	sum    time.Duration
	last   time.Time // when one ended
}

const (
	leastSync   = 64 * time.Microsecond
	syncClasses = 17 // the last but one ends at two seconds
)

func (s *syncTimes) note(took time.Duration) {
	i := 0
	for i < syncClasses-1 && took > leastSync<<i {
		i++
	}
	s.counts[i]++
	s.sum += took
	s.last = time.Now()
}

// A Histogram counts lengths of time in classes.
type Histogram struct {
	Count   uint64   `json:"count"`
	Sum     Seconds  `json:"sum_seconds"`
	P50     Seconds  `json:"p50_seconds"` // the upper end of the class that it lies in
	P99     Seconds  `json:"p99_seconds"`
	Classes []uint64 `json:"-"` // how many there are in each class
}

// SyncClass is the upper end of class i of a Histogram; there is none of the last.
func SyncClass(i int) (end time.Duration, ok bool) { return leastSync << i, i < syncClasses-1 }

func (s *syncTimes) histogram() (h Histogram) {
	h.Sum, h.Classes = Seconds(s.sum), append(h.Classes, s.counts[:]...)
	for _, n := range s.counts {
		h.Count += n
	}
	h.P50, h.P99 = s.quantile(h.Count, 50), s.quantile(h.Count, 99)
	return h
}

// quantile is the upper end of the class in which the p-th percentile of n values is. The
// end of the last class counts as twice that of the one before.
func (s *syncTimes) quantile(n uint64, p uint64) Seconds {
	var below uint64
	for i, c := range s.counts {
		if below += c; c > 0 && below*100 >= n*p {
			return Seconds(leastSync << i)
		}
	}
	return 0
}
