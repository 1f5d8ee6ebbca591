// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/probe"
	"bfs/cmd/internal/status"
	"bfs/pkg/pbft"
)

// liar is the number of the replica that lies: a backup.
func (d *demo) liar() int { return d.n - 1 }

// A deception is the demo's work with a file while a replica lies.
type deception struct {
	*demo
	client *probe.Client
	rounds int
}

// lieAndRead shows that a replica's lies make no difference, and that the others notice
// which replica lies.
func (d *demo) lieAndRead(ctx context.Context) error {
	return d.mounted(ctx, func(ctx context.Context, c *probe.Client) error {
		x := &deception{demo: d, client: c}
		fmt.Fprintf(d.out, "\nreplica %d lies: its votes, its checkpoints and its results are false, and "+
			"have the right MACs (%s counts them)\n", d.liar(),
			d.path(filepath.Join("log", fmt.Sprintf("replica%d.log", d.liar()))))
		if err := x.untilNamed(ctx); err != nil {
			return err
		}
		fmt.Fprintln(d.out)
		if err := d.status(ctx); err != nil {
			return err
		}
		return x.whatToDo()
	})
}

// round writes the file anew, and reads it back.
func (x *deception) round(ctx context.Context) error {
	x.rounds++
	text := bytes.Repeat(fmt.Appendf(nil, "this is what was written in round %d\n", x.rounds), 100)
	file, err := x.client.Write(ctx, "demo.txt", text)
	if err != nil {
		return err
	}
	got, err := x.client.Read(ctx, file)
	if err == nil && !bytes.Equal(got, text) {
		err = fmt.Errorf("round %d: read %d bytes back that are not what was written", x.rounds, len(got))
	}
	return err
}

// progressEvery is how often the demo says how far it is.
const progressEvery = time.Second

// untilNamed goes on until f+1 others count wrong votes and wrong checkpoints of the
// liar, and the relay wrong results.
func (x *deception) untilNamed(ctx context.Context) error {
	for said := time.Now(); ; {
		if err := x.round(ctx); err != nil {
			return err
		}
		if time.Since(said) < progressEvery {
			continue
		}
		said = time.Now()
		by, votes, roots, err := x.counted(ctx)
		if err != nil {
			return err
		}
		results, err := x.wrongReplies(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(x.out, "%s/demo.txt was written and read %d times, and was always right; of replica %d "+
			"the others count %d wrong votes and %d wrong checkpoints, and the relay %d wrong results\n", demoExport,
			x.rounds, x.liar(), votes, roots, results)
		if by >= x.group.F()+1 && results > 0 {
			return nil
		}
	}
}

// counted returns the other replicas' counts of the liar's messages, and the number of
// replicas that count both wrong votes and wrong checkpoints.
func (x *deception) counted(ctx context.Context) (by int, votes, roots uint64, err error) {
	for i := range x.n {
		if i == x.liar() {
			continue
		}
		s, err := status.AskOne(ctx, x.group, i)
		if err != nil {
			return 0, 0, 0, fmt.Errorf("replica %d: %w", i, err)
		}
		for _, p := range s.Peers {
			switch {
			case int(p.Replica) == x.liar():
				votes, roots = votes+p.WrongVotes, roots+p.WrongRoots
				if p.WrongVotes > 0 && p.WrongRoots > 0 {
					by++
				}
			case p.WrongVotes+p.WrongRoots > 0:
				return 0, 0, 0, fmt.Errorf("replica %d says that replica %d lies, which does not: %+v", i, p.Replica, p)
			}
		}
	}
	return by, votes, roots, nil
}

// wrongReplies is how many wrong results of the liar the relay counts.
func (x *deception) wrongReplies(ctx context.Context) (uint64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+x.relay.AdminListen+"/status", nil)
	if err != nil {
		return 0, err
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	var s struct{ Client pbft.ClientStatus }
	if err := json.NewDecoder(answer.Body).Decode(&s); err != nil {
		return 0, fmt.Errorf("the relay's status: %w", err)
	}
	for i, n := range s.Client.WrongReplies {
		if n > 0 && i != x.liar() {
			return 0, fmt.Errorf("the relay says that replica %d lies, which does not", i)
		}
	}
	if len(s.Client.WrongReplies) != x.n {
		return 0, errors.New("the relay's status does not tell the wrong replies of each replica: are " +
			"bfsd and bfs-relay of one build?")
	}
	return s.Client.WrongReplies[x.liar()], nil
}

// whatToDo says where to look, and how the liar is healed.
func (x *deception) whatToDo() error {
	file := filepath.Join(bundle.HostDir(x.path("group"), x.liar()), bundle.ReplicaFile)
	_, err := fmt.Fprintf(x.out, "\nIt goes on lying. Use the files meanwhile, and look at what the others "+
		"count:\n\n  bfsd status --group %s\n  curl -s http://%s/metrics | grep wrong\n  curl -s "+
		"http://%s/metrics | grep wrong\n\nIts keeper ends that at the replica's next turn, or now:\n\n  "+
		"bfsd recover %d --config %s\n", x.group.File, x.group.Admin[0], x.relay.AdminListen, x.liar(), file)
	return err
}

// watchLiar says when the liar has recovered.
func (d *demo) watchLiar(ctx context.Context) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		s, err := status.AskOne(ctx, d.group, d.liar())
		if err == nil && s.Recovery.Ended {
			fmt.Fprintf(d.out, "replica %d has recovered, in %v, and lies no more\n",
				d.liar(), s.Recovery.Took.Duration().Round(time.Millisecond))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
