// SPDX-License-Identifier: Apache-2.0

// Command strangers measures the service that an honest client gets while strangers
// attack its group. It runs four replicas in processes of their own, an honest client in
// this process, and an attacker in another one, which uses one core. Attacks take turns
// with no attack, and with a process that only uses a core, because the loss of a core
// alone slows the replicas of a small machine.
//
//	go run ./test/strangers -seconds 3 -rounds 5
package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"bfs/pkg/pbft"
)

func main() {
	var x experiment
	replica := flag.Int("replica", -1, "run this replica of the group in -dir (for the program's own use)")
	attack := flag.String("attack", "", "attack -targets this way (for the program's own use)")
	targets := flag.String("targets", "", "addresses, with commas between")
	flag.StringVar(&x.dir, "dir", "", "directory of the group; empty: a temporary one")
	flag.IntVar(&x.seconds, "seconds", 3, "length of one turn")
	flag.IntVar(&x.rounds, "rounds", 5, "turns of each attack")
	flag.IntVar(&x.outstanding, "outstanding", 16, "operations that the honest client has under way")
	flag.BoolVar(&x.all, "all", false, "attack all replicas, not the primary alone")
	flag.StringVar(&x.kinds, "kinds", strings.Join(kinds, ","), "attacks, with commas between")
	flag.Parse()
	var err error
	switch {
	case *replica >= 0:
		err = runReplica(x.dir, *replica)
	case *attack != "":
		err = runAttack(*attack, *targets)
	default:
		err = x.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "strangers:", err)
		os.Exit(1)
	}
}

// An experiment is one run of the program.
type experiment struct {
	dir                          string
	seconds, rounds, outstanding int
	all                          bool
	kinds                        string
	second                       ed25519.PrivateKey // of the client that connects anew in each turn
}

// A turn holds the figures of the honest client in one turn.
type turn struct {
	PerSecond float64
	Stall     time.Duration // longest time without a result
	CPU       float64       // of the primary, in cores
	Connect   time.Duration // until a client that connects anew, beside the attack, can ask
}

func (x *experiment) run() error {
	g, err := newGroup(x.dir)
	if err != nil {
		return err
	}
	defer g.stop()
	key, err := g.enrol()
	if err != nil {
		return err
	}
	client, _, err := g.connect(key)
	if err != nil {
		return err
	}
	defer client.Close()
	if x.second, err = g.enrol(); err != nil {
		return err
	}
	targets := g.group.Members[:1]
	if x.all {
		targets = g.group.Members
	}
	turns := map[string][]turn{}
	kinds := strings.Split(x.kinds, ",")
	for range x.rounds {
		for _, kind := range kinds {
			t, err := x.turn(g, client, kind, targets)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			turns[kind] = append(turns[kind], t)
		}
	}
	return report(kinds, turns)
}

// turn measures the client while one attack goes on.
func (x *experiment) turn(g *group, client *pbft.Client, kind string, targets []pbft.Member) (turn, error) {
	end, err := beginAttack(kind, targets)
	if err != nil {
		return turn{}, err
	}
	defer end()
	begun, used := time.Now(), g.primaryCPU()
	t, err := load(client, x.outstanding, time.Duration(x.seconds)*time.Second)
	t.CPU = (g.primaryCPU() - used).Seconds() / time.Since(begun).Seconds()
	if err != nil {
		return t, err
	}
	anew, took, err := g.connect(x.second)
	if err != nil {
		return t, fmt.Errorf("connect anew: %w", err)
	}
	anew.Close()
	t.Connect = took
	return t, nil
}

// load keeps operations under way for a while.
func load(client *pbft.Client, outstanding int, d time.Duration) (turn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d+time.Minute)
	defer cancel()
	ended := make(chan error, outstanding)
	begin := func() error {
		return client.Start(pbft.Call{Body: []byte("i"), Done: func(_ []byte, err error) { ended <- err }})
	}
	for range outstanding {
		if err := begin(); err != nil {
			return turn{}, err
		}
	}
	var t turn
	begun := time.Now()
	last, n := begun, 0
	for under := outstanding; under > 0; {
		select {
		case err := <-ended:
			if err != nil {
				return t, err
			}
		case <-ctx.Done():
			return t, fmt.Errorf("%d operations have no result after %v", under, time.Since(begun))
		}
		now := time.Now()
		t.Stall = max(t.Stall, now.Sub(last))
		last = now
		n++
		under--
		if now.Sub(begun) < d {
			if err := begin(); err != nil {
				return t, err
			}
			under++
		}
	}
	t.PerSecond = float64(n) / time.Since(begun).Seconds()
	return t, nil
}

// A row is one line of the report, in JSON: medians over the rounds, and the longest
// stall and connect of all.
type row struct {
	Attack    string  `json:"attack"`
	PerSecond float64 `json:"ops_per_s"`
	OfOff     float64 `json:"percent_of_unattacked"`
	OfBusy    float64 `json:"percent_of_busy_core"`
	Stall     float64 `json:"longest_stall_ms"`
	CPU       float64 `json:"primary_cores"`
	Connect   float64 `json:"longest_connect_ms"`
}

func report(kinds []string, turns map[string][]turn) error {
	out := json.NewEncoder(os.Stdout)
	for _, kind := range kinds {
		r := row{Attack: kind, PerSecond: perSecond(turns[kind]), CPU: median(turns[kind], func(t turn) float64 {
			return t.CPU
		})}
		if len(turns[off]) > 0 {
			r.OfOff = 100 * r.PerSecond / perSecond(turns[off])
		}
		if len(turns[busy]) > 0 {
			r.OfBusy = 100 * r.PerSecond / perSecond(turns[busy])
		}
		for _, t := range turns[kind] {
			r.Stall = max(r.Stall, float64(t.Stall.Microseconds())/1000)
			r.Connect = max(r.Connect, float64(t.Connect.Microseconds())/1000)
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func perSecond(turns []turn) float64 {
	return median(turns, func(t turn) float64 { return t.PerSecond })
}

func median(turns []turn, of func(turn) float64) float64 {
	var all []float64 // at least one
	for _, t := range turns {
		all = append(all, of(t))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
