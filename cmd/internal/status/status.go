// SPDX-License-Identifier: Apache-2.0

// Package status asks every replica of a group for its account of itself, judges whether enough of
// them agree, and shows both.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"bfs/cmd/internal/admin"
	"bfs/cmd/internal/config"
	"bfs/pkg/pbft"
)

// maxAnswer bounds the bytes of one replica's answer.
const maxAnswer = 1 << 20

// A Report holds the answers of all replicas.
type Report struct {
	Group    string    `json:"group"`
	Members  int       `json:"members"`
	Quorum   int       `json:"quorum"`   // how many must agree
	Agreeing int       `json:"agreeing"` // vote, in one view, with equal roots, not far behind, and hear a quorum
	State    State     `json:"state"`
	Replicas []Replica `json:"replicas"`
}

// A State is how a group is.
type State string

// The states of a group, and the exit codes of bfsd status.
const (
	Well    State = "well"    // all agree, or enough to survive f further failures: 0
	Reserve State = "reserve" // a quorum agrees and the group works, but one more failure may stop it: 2
	Down    State = "down"    // less than a quorum agrees: 1
)

// Code is the exit code of a state.
func (s State) Code() int {
	switch s {
	case Well:
		return 0
	case Reserve:
		return 2
	}
	return 1
}

// A Replica is one row.
type Replica struct {
	Number  int                  `json:"number"`
	Address string               `json:"address"`
	Problem string               `json:"problem,omitempty"` // why it does not agree, or did not answer
	Lag     uint64               `json:"lag"`               // batches behind the number that f+1 have executed
	Status  *admin.ReplicaStatus `json:"status,omitempty"`  // nil: no answer
	Alerts  []string             `json:"alerts,omitempty"`  // of its keeper and its recoveries
}

// Ask asks all replicas at once and waits for each at most as long as ctx lasts.
func Ask(ctx context.Context, g *config.Group) *Report {
	r := &Report{Group: g.Name, Members: g.N(), Quorum: g.Quorum(), Replicas: make([]Replica, g.N())}
	client := newClient()
	var all sync.WaitGroup
	for i := range r.Replicas {
		row := &r.Replicas[i]
		row.Number, row.Address = i, g.Admin[i]
		all.Go(func() {
			s, err := ask(ctx, client, row.Address)
			if err == nil && int(s.Replica) != row.Number {
				err = fmt.Errorf("says it is replica %d", s.Replica)
			}
			if err != nil {
				row.Problem = err.Error()
				return
			}
			row.Status = s
		})
	}
	all.Wait()
	r.judge(uint64(g.Limits.CheckpointPeriod))
	r.alert()
	return r
}

// AskOne asks one replica.
func AskOne(ctx context.Context, g *config.Group, i int) (*admin.ReplicaStatus, error) {
	return ask(ctx, newClient(), g.Admin[i])
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

func ask(ctx context.Context, client *http.Client, address string) (*admin.ReplicaStatus, error) {
	page, err := get(ctx, client, address, "/status")
	if err != nil {
		return nil, err
	}
	defer page.Close()
	var s admin.ReplicaStatus
	if err := json.NewDecoder(io.LimitReader(page, maxAnswer)).Decode(&s); err != nil {
		return nil, fmt.Errorf("answers no status: %w", err)
	}
	return &s, nil
}

// get opens a page of a replica's.
func get(ctx context.Context, client *http.Client, address, page string) (io.ReadCloser, error) {
	if address == "" {
		return nil, errors.New("no admin address in the group file")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+page, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, short(err)
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, fmt.Errorf("answers %s", answer.Status)
	}
	return answer.Body, nil
}

// short leaves out the URL, which the row shows already.
func short(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

// judge decides which replicas agree. They are asked one after the other while they work,
// so they may be some batches apart; but those with the same stable checkpoint must have
// the same root, which is the root of most of them.
func (r *Report) judge(period uint64) {
	views := make(map[pbft.View]int)
	var executed []uint64
	roots := make(map[pbft.SeqNum]map[string]int)
	for _, row := range r.Replicas {
		if s := row.Status; s != nil {
			executed = append(executed, uint64(s.LastExecuted))
			views[s.View]++
			if roots[s.Stable] == nil {
				roots[s.Stable] = make(map[string]int)
			}
			roots[s.Stable][s.Root]++
		}
	}
	view := mostly(views)
	best := r.front(executed)
	for i := range r.Replicas {
		row := &r.Replicas[i]
		s := row.Status
		if s == nil {
			continue
		}
		row.Lag = max(best, uint64(s.LastExecuted)) - uint64(s.LastExecuted)
		ready := admin.ReplicaReady(s.Status, r.Members)
		switch {
		case ready != nil && (s.SilentUntil > 0 || s.Recovery.Phase != "" || s.Fetching || !s.Active ||
			s.Disk != nil && s.Disk.Full != ""):
			row.Problem = ready.Error()
		case s.View != view:
			row.Problem = fmt.Sprintf("in view %d, most are in %d", s.View, view)
		case 2*roots[s.Stable][s.Root] <= answers(roots[s.Stable]):
			row.Problem = fmt.Sprintf("another root at checkpoint %d", s.Stable)
		case len(r.accusers(i)) >= pbft.GroupSize(r.Members).Weak():
			row.Problem = fmt.Sprintf("replicas %v say that its checkpoints are not the group's: "+
				"it lies, or its state is false", r.accusers(i))
		case row.Lag > period:
			row.Problem = fmt.Sprintf("%d batches behind", row.Lag)
		case ready != nil:
			row.Problem = ready.Error()
		default:
			r.Agreeing++
		}
	}
	switch {
	case r.Agreeing >= r.Members-pbft.GroupSize(r.Members).Away():
		r.State = Well
	case r.Agreeing >= r.Quorum:
		r.State = Reserve
	default:
		r.State = Down
	}
}

// front is the largest number that f+1 replicas say they have executed, so that a correct
// one has: f liars cannot make the others look late.
func (r *Report) front(executed []uint64) uint64 {
	slices.Sort(executed)
	weak := pbft.GroupSize(r.Members).Weak()
	if len(executed) < weak {
		return 0
	}
	return executed[len(executed)-weak]
}

// mostly is the view most are in, the later of two.
func mostly(count map[pbft.View]int) (view pbft.View) {
	for v, n := range count {
		if n > count[view] || n == count[view] && v > view {
			view = v
		}
	}
	return view
}

func answers(count map[string]int) (all int) {
	for _, n := range count {
		all += n
	}
	return all
}

// recovered says in a few letters when a replica's last recovery was, how long it took, and whether
// the state was corrupt.
func recovered(x pbft.Recovery) string {
	took := x.Took.Duration().Round(100 * time.Millisecond)
	switch {
	case x.Phase != "":
		return fmt.Sprintf("now, for %v", took)
	case !x.Ended:
		return "-"
	}
	s := fmt.Sprintf("%v ago, in %v", x.Ago.Duration().Round(time.Second), took)
	if x.Corrupt {
		s += ", corrupt"
	}
	return s
}

// WriteTable shows the report to people.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REPLICA\tADDRESS\tVIEW\tPRIMARY\tEXECUTED\tSTABLE\tROOT\tLAG\tKEY AGE\tRECOVERED\tVERSION\tSTATE")
	for _, row := range r.Replicas {
		s := row.Status
		if s == nil {
			fmt.Fprintf(t, "%d\t%s\t-\t-\t-\t-\t-\t-\t-\t-\t-\t%s\n",
				row.Number, row.Address, "no answer: "+row.Problem)
			continue
		}
		primary := strconv.Itoa(int(s.Primary))
		if s.Primary == s.Replica {
			primary += " (itself)"
		}
		state := row.Problem
		if state == "" {
			state = "agrees"
		}
		fmt.Fprintf(t, "%d\t%s\t%d\t%s\t%d\t%d\t%.12s\t%d\t%s\t%s\t%s\t%s\n", row.Number, row.Address, s.View, primary,
			s.LastExecuted, s.Stable, s.Root, row.Lag, s.KeyAge.Duration().Round(time.Second),
			recovered(s.Recovery), s.Program, state)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := r.writeRoom(w); err != nil {
		return err
	}
	if err := r.writeKeepers(w); err != nil {
		return err
	}
	r.writeDisputes(w)
	verdict := map[State]string{Well: "is well", Reserve: "works on its reserve, so stop no other replica",
		Down: "is DOWN"}[r.State]
	if away := r.Members - r.Agreeing; r.State == Well && away > 0 {
		verdict = fmt.Sprintf("is well without %d, and survives the failure of %d more",
			away, pbft.GroupSize(r.Members).Faulty())
	}
	_, err := fmt.Fprintf(w, "group %s %s: %d of %d agree, %d are needed\n",
		r.Group, verdict, r.Agreeing, r.Members, r.Quorum)
	return err
}

// WriteJSON shows the report to programs.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
