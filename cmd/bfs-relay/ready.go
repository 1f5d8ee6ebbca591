// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"bfs/cmd/internal/config"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

const (
	// probeEvery is how often the relay asks the group whether it still knows the relay.
	probeEvery = 5 * time.Second
	// answersWithin is how long a call may be unanswered before the relay no longer
	// counts as ready.
	answersWithin = 10 * time.Second
)

// A caller is the part of a pbft.Client that a probe needs.
type caller interface {
	Start(pbft.Call) error
	Status() pbft.ClientStatus
}

// A probe knows whether the relay is of use: enough replicas are reached, the group knows
// the relay's key, and it answers. Kernels' calls tell that only while there are any, so
// the probe makes one of its own now and then, NFS's procedure that does nothing.
type probe struct {
	client caller
	config *config.Relay

	mu     sync.Mutex
	oldest func() (procedure string, age time.Duration) // of kernels' calls in flight; nil: not serving yet
	asked  time.Time                                    // when the call under way was made; zero: none is
	last   error                                        // how the last one ended

	unready time.Time // since when the relay is not ready, as far as was logged; zero: it is. Belongs to run
}

// serves tells the probe that the relay serves kernels from now on, and how to find their
// oldest call in flight.
func (p *probe) serves(oldest func() (string, time.Duration)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.oldest = oldest
}

// run asks until ctx is done.
func (p *probe) run(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.tell(log)
			p.ask()
		}
	}
}

// tell logs when the relay stops being ready, with the cause, and when it is ready again.
func (p *probe) tell(log *slog.Logger) {
	why := p.Ready()
	switch {
	case why != nil && p.unready.IsZero():
		p.unready = time.Now()
		log.Warn("not ready", "why", why)
	case why == nil && !p.unready.IsZero():
		log.Info("ready again", "after", time.Since(p.unready).Round(time.Second))
		p.unready = time.Time{}
	}
}

// ask makes a call unless one is under way.
func (p *probe) ask() {
	p.mu.Lock()
	if !p.asked.IsZero() {
		p.mu.Unlock()
		return
	}
	p.asked = time.Now()
	p.mu.Unlock()
	if err := p.client.Start(nullCall(p.answered)); err != nil {
		p.answered(nil, err)
	}
}

// answered is the end of a call.
func (p *probe) answered(_ []byte, err error) {
	if errors.Is(err, pbft.ErrBusy) { // kernels' calls tell
		err = nil
	}
	p.mu.Lock()
	p.asked, p.last = time.Time{}, err
	p.mu.Unlock()
}

// nullCall is NFS's procedure that does nothing, as a call of the group.
func nullCall(done func([]byte, error)) pbft.Call {
	return pbft.Call{
		Body:     nfs3.AppendCall(nil, &nfs3.Call{Program: nfs3.ProgramNFS, Cred: nfs3.Credentials{None: true}}),
		ReadOnly: true,
		Done:     done,
	}
}

// Ready returns the reason why the relay is of no use now, nil if it is of use.
func (p *probe) Ready() error {
	p.mu.Lock()
	oldest, asked, last := p.oldest, p.asked, p.last
	p.mu.Unlock()
	if why := p.unreached(); why != "" {
		return errors.New(why)
	}
	if last != nil {
		return explain(last, p.config)
	}
	if oldest == nil {
		return errors.New("starting: waits for the group's first answer")
	}
	if procedure, age := oldest(); age > answersWithin {
		return fmt.Errorf("a %s has been unanswered for %v: ask the replicas with `bfsd status`",
			procedure, age.Round(time.Second))
	}
	if age := time.Since(asked); !asked.IsZero() && age > answersWithin {
		return fmt.Errorf("the group has not answered for %v: ask the replicas with `bfsd status`",
			age.Round(time.Second))
	}
	return nil
}

// Cause returns the reason why the group does not answer, "" if it is not known here.
func (p *probe) Cause() string {
	if why := p.unreached(); why != "" {
		return why
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last != nil {
		return p.last.Error()
	}
	return ""
}

// unreached names the replicas that are not reached, if too few are.
func (p *probe) unreached() string {
	var missing []string
	connected := p.client.Status().Connected
	for i, up := range connected {
		if !up {
			missing = append(missing, fmt.Sprintf("%d (%s)", i, p.config.Group.Members[i].Address))
		}
	}
	n := len(connected) - len(missing)
	if n >= p.config.Group.Quorum() {
		return ""
	}
	return fmt.Sprintf("reaches %d of %d replicas, want %d; not reached: %s: see that bfsd runs there and "+
		"this machine may connect to it", n, len(connected), p.config.Group.Quorum(), join(missing))
}

// join puts commas between names, and replaces all beyond the first 8 by their count.
func join(names []string) string {
	const most = 8
	text := ""
	for i, name := range names {
		if i == most {
			return text + fmt.Sprintf(" and %d more", len(names)-most)
		}
		if i > 0 {
			text += ", "
		}
		text += name
	}
	return text
}
