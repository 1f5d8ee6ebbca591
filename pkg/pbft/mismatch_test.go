// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"bfs/pkg/pbft"
)

// A lockedLog is a log that many goroutines write and a test reads.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// has reports whether one line has all these parts.
func (l *lockedLog) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// logged starts a replica of a cluster with a log.
func (c *cluster) logged(i int, change ...func(*pbft.ReplicaConfig)) *lockedLog {
	l := new(lockedLog)
	c.start(i, append(change, func(cfg *pbft.ReplicaConfig) { cfg.Logger = slog.New(slog.NewTextHandler(l, nil)) })...)
	return l
}

func wantLine(t *testing.T, l *lockedLog, parts ...string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("want a line with %q; the log is\n%s", parts, l)
		}
	}()
	eventually(t, "a line of the log", func() bool { return l.has(parts...) })
}

// A host with another transport than the others is told of on both sides, by name.
func TestTransportsDiffer(t *testing.T) {
	c := startCluster(t, smallLimits())
	c.stop(0)
	c.stop(3)
	tls := c.logged(0, func(cfg *pbft.ReplicaConfig) { cfg.Transport = pbft.TransportTLS })
	plain := c.logged(3, func(cfg *pbft.ReplicaConfig) { cfg.Transport = pbft.TransportPlain })
	wantLine(t, tls, "does not speak our transport", "peer=3", "ours=tls")
	wantLine(t, plain, "does not speak our transport", "members=", "ours=plain")
}

// A host with another group file is told of by name, with both digests.
func TestGroupFilesDiffer(t *testing.T) {
	c := startCluster(t, smallLimits(), pbft.DurabilityReplicated)
	c.stop(0)
	c.stop(3)
	parts := *c.g
	parts.Limits.BatchCount++
	other, err := pbft.CheckGroup(parts)
	if err != nil {
		t.Fatal(err)
	}
	ours := c.logged(0)
	c.logged(3, func(cfg *pbft.ReplicaConfig) { cfg.Group = other })
	wantLine(t, ours, "NEW-KEY refused", "replica=3", "group file differs", "ours="+c.g.Digest().String(),
		"theirs="+other.Digest().String())
}

// A view change, a peer that is lost and one that is back have one line each, and a
// replica that is stopped says nothing of its peers.
func TestEventsAreLogged(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	c.stop(2)
	log := c.logged(2)
	eventually(t, "replica 2 votes again", func() bool {
		count(t, client, 1)
		return c.replicas[2].Status().SilentUntil == 0
	})
	wantLine(t, log, "replica connected", "peer=0")
	c.stop(0)
	wantLine(t, log, "replica lost", "peer=0", "cause=")
	count(t, client, 1)
	wantLine(t, log, "view change", "from=0", "to=1", "primary=1", "cause=", "took=")
	c.start(0)
	wantLine(t, log, "replica back", "peer=0", "after=")
	c.stop(2)
	if strings.Count(log.String(), "replica lost") != 1 {
		t.Errorf("a replica that is stopped tells of its peers:\n%s", log)
	}
}
