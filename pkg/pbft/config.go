// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/lies"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/trace"
	"bfs/pkg/pbft/internal/wire"
)

// Transport is how principals reach each other.
type Transport string

// The transports.
const (
	TransportTLS   Transport = "tls"   // TLS 1.3, the certificate vouched for in NEW-KEY
	TransportPlain Transport = "plain" // for benchmarks and private wires; MACs protect integrity all the same
)

// A ReplicaConfig is what one replica needs.
type ReplicaConfig struct {
	Group     *Group
	Self      ReplicaID
	Key       ed25519.PrivateKey // the long-term key whose public half the group file names; nil if there is a Keeper
	Keeper    string             // the socket of the process that holds the key instead; empty: there is none
	Directory string             // where the journal lives, and the signature counter unless the keeper has it
	Listen    string             // host:port; empty: the member's address in the group file
	Transport Transport
	Service   Service
	Logger    *slog.Logger
	Window    int           // batches proposed and not yet executed, at most; 0: DefaultWindow
	Delay     time.Duration // artificial one-way delay of what is sent, for measurements
	Trace     *Trace        // notes when batches pass the steps of the protocol, for measurements; nil: nothing does
	KeyPeriod time.Duration // session keys are refreshed so often; 0: DefaultKeyPeriod. Replicas may differ in it

	// SpendReserve makes this replica use the reserve on its disk (R-OUR-7). If the disks
	// of more than f hosts are full, and no room can be made on them, the replicas with
	// this setting order calls again for a while, such as those that remove files.
	SpendReserve bool

	Without []Optimisation // turned off, to measure what they bring; the replicas of a group may differ in it

	// Recover: this start is a recovery [TOCS §5.2]. The replica does not trust what it
	// reads in its directory until the group has confirmed it, and the others give it and
	// one another new keys. See MustRecover.
	Recover bool

	owner auth.Signer // in tests: instead of Key and Keeper
}

// A replica notes these for measurements: see ReplicaConfig.Trace.
type (
	Trace         = trace.Trace
	TraceReport   = trace.Report
	TracedBatch   = trace.Batch
	TracedRequest = trace.Request
	Stamp         = trace.Stamp
)

// NewTrace returns an empty trace for one replica of a group.
func NewTrace(g *Group, self ReplicaID) *Trace { return trace.New(self, g.N()) }

// ReadTrace reads what Trace.Write has written.
func ReadTrace(from io.Reader) (*TraceReport, error) { return trace.Read(from) }

// Collections are the times at which the last collections of garbage of this process ended.
func Collections() []Stamp { return trace.Collections() }

// An Optimisation is one of the paper's [TOCS §6.1], or Sparing.
type Optimisation string

// The optimisations that can be turned off. Reads in one round trip are the client's
// choice; Separate is that of both ends.
const (
	Tentative     Optimisation = "tentative"      // execute what has prepared, before it has committed
	Piggyback     Optimisation = "piggyback"      // COMMITs that nobody waits for ride on other messages
	DigestReplies Optimisation = "digest-replies" // one replica sends a long result, the others its digest
	Batching      Optimisation = "batching"       // many requests under one number
	Sparing       Optimisation = "sparing"        // f replicas get messages later, many at a time
	Separate      Optimisation = "separate"       // clients send long operations to all; proposals hold digests
)

// Optimisations lists them.
func Optimisations() []Optimisation {
	return []Optimisation{Tentative, Piggyback, DigestReplies, Batching, Sparing, Separate}
}

func (cfg *ReplicaConfig) has(o Optimisation) bool { return !slices.Contains(cfg.Without, o) }

// DefaultWindow is the number of batches a primary has under way at most: with one batch
// under way others gather behind it and share its cost [TOCS §6.1].
const DefaultWindow = 2

// A ClientConfig is what one client needs.
type ClientConfig struct {
	Group     *Group
	Key       ed25519.PrivateKey // enrolled in the group, or the administrator's
	Transport Transport
	Logger    *slog.Logger
	Queue     int           // calls that may wait for a slot; 0: 4096
	Delay     time.Duration // as in ReplicaConfig
	KeyPeriod time.Duration // as in ReplicaConfig

	Without []Optimisation // turned off; only Separate concerns a client

	signer auth.Signer // instead of Key: that of a replica whose key is at its keeper
}

// Bounds of KeyPeriod in the files of replicas and clients, and the default. A period
// must be long beside the delay of three messages, for each refresh loses what is under
// way [TOCS §5.2.4]. The longer it is, the longer stolen keys are of use.
const (
	DefaultKeyPeriod  = 60 * time.Second
	ShortestKeyPeriod = time.Second
	LongestKeyPeriod  = time.Hour
)

// longestPostponed is how long after the last refresh there is another one, though nothing was
// executed since.
const longestPostponed = time.Minute

// keyPeriod is the period for which a configuration asks.
func keyPeriod(d time.Duration) time.Duration {
	if d <= 0 {
		return DefaultKeyPeriod
	}
	return d
}

// newEndpoint makes the endpoint of a replica or client.
func newEndpoint(g *Group, self message.Principal, signer auth.Signer, t Transport, delay time.Duration,
	log *slog.Logger) (*wire.Endpoint, error) {
	var late func() time.Duration
	if liar := lies.Installed(); liar != nil {
		late = func() time.Duration { return delay + liar.Late() }
	} else if delay > 0 {
		late = func() time.Duration { return delay }
	}
	if t != TransportPlain && t != TransportTLS && t != "" {
		return nil, fmt.Errorf("transport %q: want %q or %q", t, TransportTLS, TransportPlain)
	}
	return wire.NewEndpoint(wire.Config{Self: self, Signer: signer, Group: g.Digest(), Limits: g.wire(),
		MaxFrame: g.maxFrame(),
		MaxConns: g.maxConns(),
		Plain:    t == TransportPlain, Delay: late, Log: log})
}
