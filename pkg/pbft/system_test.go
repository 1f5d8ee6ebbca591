// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/internal/message"
)

// An event is one operation on the counter as its client saw it.
type event struct {
	began, ended time.Duration
	value        uint64
	read         bool
}

// A history is what several clients saw.
type history struct {
	start  time.Time
	mu     sync.Mutex
	events []event
}

func (h *history) run(ctx context.Context, c *pbft.Client, op string, readOnly bool) error {
	e := event{began: time.Since(h.start), read: op == "r" || op == "R"}
	reply, err := c.Invoke(ctx, []byte(op), readOnly)
	if err != nil {
		return fmt.Errorf("%s: %w; the client is %+v", op, err, c.Status())
	}
	e.value = binary.BigEndian.Uint64(reply)
	e.ended = time.Since(h.start)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
	return nil
}

// check decides whether the history is that of one counter: in the order of the values,
// with a read behind the increment it saw, no call comes before another that had ended
// when it began, and every value was made once.
func (h *history) check(t testing.TB) {
	t.Helper()
	slices.SortFunc(h.events, func(a, b event) int {
		if a.value != b.value {
			return int(int64(a.value) - int64(b.value))
		}
		if a.read != b.read {
			return map[bool]int{false: -1, true: 1}[a.read]
		}
		return int(a.began - b.began)
	})
	made, latest := uint64(0), time.Duration(0)
	for _, e := range h.events {
		if !e.read {
			if made++; e.value != made {
				t.Fatalf("the %d-th increment returned %d", made, e.value)
			}
		}
		if e.value != made {
			t.Fatalf("a read returned %d, which nobody made", e.value)
		}
		if e.ended < latest {
			t.Fatalf("value %d was returned before %v, when a larger order had begun by %v", e.value, e.ended, latest)
		}
		latest = max(latest, e.began)
	}
}

// Several clients at once see one counter, while a backup stops in the middle of it.
func TestLinearizable(t *testing.T) {
	c := startCluster(t, smallLimits())
	admin := c.client(c.admin)
	h, ctx := &history{start: time.Now()}, deadline(t)
	var all sync.WaitGroup
	var done atomic.Int64
	halfway := make(chan struct{})
	const clients, ops = 4, 50
	for i := range clients {
		client := c.client(c.enrolled(admin, ""))
		for range 2 {
			all.Go(func() {
				for k := range ops {
					op := []string{"r", "R", "i"}[(k+i)%3]
					if err := h.run(ctx, client, op, op == "r" || k%2 == 0); err != nil {
						t.Error(err)
						return
					}
					if done.Add(1) == clients*ops {
						close(halfway)
					}
				}
			})
		}
	}
	select {
	case <-halfway:
		c.stop(2)
	case <-ctx.Done():
	}
	all.Wait()
	if t.Failed() {
		for _, r := range c.replicas {
			if r != nil {
				t.Logf("%+v", r.Status())
			}
		}
		return
	}
	h.check(t)
}

// A client that connects before it is enrolled is answered by everyone as soon as it is, though
// it sends what is ordered to the primary alone: with a replica stopped it needs all others.
func TestEnrolledAfterItConnected(t *testing.T) {
	c := startCluster(t, smallLimits())
	admin := c.client(c.admin)
	public, private, _ := ed25519.GenerateKey(nil)
	client := c.client(private)
	if err := client.Ready(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if err := admin.Enrol(deadline(t), public, nil); err != nil {
		t.Fatal(err)
	}
	c.stop(3)
	eventually(t, "nobody is asked twice", func() bool {
		before := client.Status().Retries
		for range 5 {
			invoke(t, client, "p", false)
		}
		return client.Status().Retries == before
	})
}

// A replica that comes back in its directory with an empty state has forgotten its votes:
// it listens, fetches the state, and votes again when a checkpoint above all it can have
// voted for is stable. Then the group can do without another.
func TestRestartWithoutState(t *testing.T) {
	c := startCluster(t, smallLimits(), pbft.DurabilityReplicated)
	admin := c.client(c.admin)
	client := c.client(c.enrolled(admin, ""))
	for range 30 {
		invoke(t, client, "p", false)
	}
	c.stop(3)
	for range 20 {
		invoke(t, client, "p", false)
	}
	r := c.start(3)
	if r.Status().SilentUntil == 0 {
		t.Fatal("it votes, and does not know what it voted before")
	}
	looks := 0
	eventually(t, "the silence ends", func() bool {
		// Not without a pause: the log of this group is so short that a replica behind
		// could not catch up.
		if looks++; looks%16 < c.checkpointPushes() {
			invoke(t, client, "p", false)
		}
		return r.Status().SilentUntil == 0
	})
	c.agree(0, func() { invoke(t, client, "p", false) })
	c.stop(2)
	before := invoke(t, client, "i", false)
	for range 20 {
		invoke(t, client, "p", false)
	}
	if after := invoke(t, client, "r", true); after != before+20 {
		t.Fatalf("the counter is %d, want %d", after, before+20)
	}
	c.agree(0, func() { invoke(t, client, "p", false) })
}

// A backup cut off for longer than the log fetches the state while the group goes on, and
// ends with the same root.
func TestCutOffBackupCatchesUp(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain).withWires()
	for i := range c.replicas {
		c.start(i)
	}
	admin := c.client(c.admin)
	client := c.client(c.enrolled(admin, ""))
	for range 10 {
		invoke(t, client, "p", false)
	}
	c.isolate(3, true)
	eventually(t, "the group is beyond the log of 3", func() bool {
		invoke(t, client, "p", false)
		return c.replicas[0].Status().Stable > c.replicas[3].Status().LastExecuted+2*c.g.Limits.LogSize
	})
	behind := c.replicas[3].Status().LastExecuted
	c.isolate(3, false)
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 3 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := client.Invoke(deadline(t), []byte("p"), false); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	eventually(t, "3 is near the others", func() bool {
		return c.replicas[3].Status().LastExecuted > behind+2*c.g.Limits.LogSize
	})
	close(stop)
	load.Wait()
	c.agree(0, func() { invoke(t, client, "p", false) })
}

// nowhere is an address at which no process listens.
func nowhere(t testing.TB) string {
	w := newWire(t, "")
	_ = w.l.Close()
	return w.l.Addr().String()
}

func TestClientWithoutOneReplica(t *testing.T) {
	c := startCluster(t, smallLimits())
	admin := c.client(c.admin)
	parts := *c.g
	parts.Members = append([]pbft.Member(nil), c.g.Members...)
	parts.Members[3].Address = nowhere(t)
	g, err := pbft.CheckGroup(parts)
	if err != nil {
		t.Fatal(err)
	}
	client := c.client(c.enrolled(admin, ""), func(cfg *pbft.ClientConfig) { cfg.Group = g })
	if err := client.Ready(deadline(t)); err != nil {
		t.Fatal(err)
	}
	for n := range uint64(10) {
		if got := invoke(t, client, "i", false); got != n+1 {
			t.Fatalf("got %d, want %d", got, n+1)
		}
		if got := invoke(t, client, "R", true); got != n+1 {
			t.Fatalf("read %d, want %d", got, n+1)
		}
	}
}

func TestEnrolment(t *testing.T) {
	c := startCluster(t, smallLimits())
	ctx := deadline(t)
	admin := c.client(c.admin)
	public, private, _ := ed25519.GenerateKey(nil)
	stranger := c.client(private)
	for _, readOnly := range []bool{false, true} {
		if _, err := stranger.Invoke(ctx, []byte("r"), readOnly); !errors.Is(err, pbft.ErrNotEnrolled) {
			t.Fatalf("a stranger: %v", err)
		}
	}
	if err := stranger.Enrol(ctx, public, nil); err == nil {
		t.Fatal("a stranger enrols itself")
	}
	if err := admin.Enrol(ctx, public, []byte("first")); err != nil {
		t.Fatal(err)
	}
	rights := func() string {
		b, err := stranger.Invoke(ctx, []byte("w"), true)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := rights(); got != "first" {
		t.Fatalf("rights %q", got)
	}
	// A body too long for strangers: enrolled, it is taken on a connection that was there before.
	if _, err := stranger.Invoke(ctx, append([]byte("i"), make([]byte, 8000)...), false); err != nil {
		t.Fatal(err)
	}
	if err := admin.Revoke(ctx, public); err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Invoke(ctx, []byte("i"), false); !errors.Is(err, pbft.ErrNotEnrolled) {
		t.Fatalf("a revoked client: %v", err)
	}
	if err := admin.Enrol(ctx, public, []byte("second")); err != nil {
		t.Fatal(err)
	}
	if got := rights(); got != "second" {
		t.Fatalf("rights %q", got)
	}
	all, err := admin.Enrolments(ctx)
	if err != nil || len(all) != 1 || !all[0].Key.Equal(public) || string(all[0].Rights) != "second" || all[0].Revoked {
		t.Fatalf("the table is %v, %v", all, err)
	}
}

func TestAdministratorErrors(t *testing.T) {
	c := startCluster(t, smallLimits())
	ctx := deadline(t)
	admin := c.client(c.admin)
	public, _, _ := ed25519.GenerateKey(nil)
	for what, err := range map[string]error{
		"a short key":      admin.Enrol(ctx, public[:31], nil),
		"too long rights":  admin.Enrol(ctx, public, make([]byte, c.g.Limits.Rights+1)),
		"nobody to revoke": admin.Revoke(ctx, public),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	for i := range c.g.Limits.Clients {
		key, _, _ := ed25519.GenerateKey(nil)
		if err := admin.Enrol(ctx, key, make([]byte, c.g.Limits.Rights)); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
	}
	if err := admin.Enrol(ctx, public, nil); err == nil {
		t.Error("one more than the table holds")
	}
	if all, err := admin.Enrolments(ctx); err != nil || len(all) != c.g.Limits.Clients {
		t.Errorf("listed %d, %v", len(all), err)
	}
	if n := invoke(t, admin, "i", false); n != 1 {
		t.Errorf("the administrator's own operation: %d", n)
	}
}

// sent is what a client noted before its operation left.
type sent struct {
	slot pbft.Slot
	t    pbft.Timestamp
}

func invokeNoting(t testing.TB, c *pbft.Client, op string) (s sent, reply []byte) {
	t.Helper()
	s, reply, err := tryNoting(c, op)
	if err != nil {
		t.Fatal(err)
	}
	return s, reply
}

func tryNoting(c *pbft.Client, op string) (s sent, reply []byte, err error) {
	done := make(chan error, 1)
	err = c.Start(pbft.Call{Body: []byte(op),
		Sending: func(slot pbft.Slot, at pbft.Timestamp) error { s = sent{slot, at}; return nil },
		Done:    func(r []byte, err error) { reply = r; done <- err }})
	if err == nil {
		err = <-done
	}
	return s, reply, err
}

func resume(t testing.TB, c *pbft.Client, s sent, op string) ([]byte, error) {
	type result struct {
		reply []byte
		err   error
	}
	done := make(chan result, 1)
	if err := c.Resume(s.slot, s.t, pbft.Call{Body: []byte(op), Done: func(r []byte, err error) {
		done <- result{r, err}
	}}); err != nil {
		return nil, err
	}
	select {
	case r := <-done:
		return r.reply, r.err
	case <-deadline(t).Done():
		return nil, errors.New("no result")
	}
}

// A client that restarts sends again what it may have sent: exactly once, whatever became of it.
func TestResume(t *testing.T) {
	c := startCluster(t, smallLimits())
	admin := c.client(c.admin)
	key := c.enrolled(admin, "")
	first := c.client(key)
	kept, reply := invokeNoting(t, first, "i")
	_ = first.Close()

	second := c.client(key)
	if got, err := resume(t, second, kept, "i"); err != nil || string(got) != string(reply) {
		t.Fatalf("the result kept: %x, %v, want %x", got, err, reply)
	}
	lost, _, err := tryNoting(second, "l")
	if err != nil && !errors.Is(err, pbft.ErrResultLost) { // on a busy machine a retry may find it lost already
		t.Fatal(err)
	}
	_ = second.Close()

	third := c.client(key)
	if _, err := resume(t, third, lost, "l"); !errors.Is(err, pbft.ErrResultLost) {
		t.Fatalf("a result too long to keep: %v", err)
	}
	read, _ := invokeNoting(t, third, "r")
	_ = third.Close()

	fourth := c.client(key)
	if got, err := resume(t, fourth, read, "r"); err != nil || binary.BigEndian.Uint64(got) != 2 {
		t.Fatalf("a read is asked again: %x, %v", got, err)
	}
	if err := fourth.Resume(pbft.Slot(c.g.Limits.Slots), 1, pbft.Call{}); err == nil {
		t.Error("a slot that is not there")
	}
	if err := fourth.Resume(1, 1, pbft.Call{Body: make([]byte, c.g.Limits.Operation+1)}); err == nil {
		t.Error("a body that is too long")
	}
	_ = fourth.Close()

	fifth := c.client(key)
	if _, err := resume(t, fifth, sent{read.slot, read.t - 1}, "i"); !errors.Is(err, pbft.ErrResultLost) {
		t.Fatalf("a request overtaken by another: %v", err)
	}
	// The clock went back: of a slot the group knows a later timestamp than a new
	// client's clock gives, and tells it before the first call.
	future := sent{0, pbft.Timestamp(time.Now().Add(time.Hour).UnixNano())}
	if _, err := resume(t, fifth, future, "i"); err != nil {
		t.Fatal(err)
	}
	_ = fifth.Close()
	sixth := c.client(key)
	if n := invoke(t, sixth, "i", false); n != 4 {
		t.Fatalf("the counter is %d, want 4", n)
	}
}

// The administrator's operations for the service resume as they were sent.
func TestResumeOfTheAdministrator(t *testing.T) {
	c := startCluster(t, smallLimits())
	first := c.client(c.admin)
	s, reply := invokeNoting(t, first, "i")
	_ = first.Close()
	if got, err := resume(t, c.client(c.admin), s, "i"); err != nil || string(got) != string(reply) {
		t.Fatalf("got %x, %v, want %x", got, err, reply)
	}
}

// An operation that only claims to be read-only is ordered, and runs once.
func TestReadOnlyFallsBack(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	for n := range uint64(20) {
		if got := invoke(t, client, "i", true); got != n+1 {
			t.Fatalf("got %d, want %d", got, n+1)
		}
	}
	if s := client.Status(); s.Fallbacks != 20 {
		t.Errorf("%d operations were ordered after all, want 20", s.Fallbacks)
	}
}

func TestBusyAndClose(t *testing.T) {
	g, _, admin := newGroupWith(4, smallLimits(), pbft.DurabilityReplicated) // no replica runs
	client, err := pbft.NewClient(pbft.ClientConfig{Group: g, Key: admin, Queue: 3})
	if err != nil {
		t.Fatal(err)
	}
	var ended atomic.Int64
	call := pbft.Call{Body: []byte("i"), Done: func(_ []byte, err error) {
		if !errors.Is(err, pbft.ErrClosed) {
			t.Errorf("ended with %v", err)
		}
		ended.Add(1)
	}}
	taken := g.Limits.Slots + 3
	for i := range taken {
		if err := client.Start(call); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if err := client.Start(call); !errors.Is(err, pbft.ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	// No request is sent before the group has said where the client's timestamps begin.
	if s := client.Status(); s.Outstanding != 0 || s.Queued != taken {
		t.Errorf("status %+v", s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := client.Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Ready: %v", err)
	}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { _ = client.Close() })
	}
	both.Wait()
	eventually(t, "all calls end", func() bool { return ended.Load() == int64(taken) })
	if err := client.Start(call); !errors.Is(err, pbft.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := client.Ready(context.Background()); !errors.Is(err, pbft.ErrClosed) {
		t.Errorf("Ready after Close: %v", err)
	}
}

// An error of Sending fails its call alone, and gives the slot back.
func TestSendingFails(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	full := errors.New("disk full")
	invoke(t, client, "r", true) // before a first answer calls wait, and learn of errors by Done
	for range 3 * c.g.Limits.Slots {
		err := client.Start(pbft.Call{Body: []byte("i"), Sending: func(pbft.Slot, pbft.Timestamp) error {
			return full
		}})
		if !errors.Is(err, full) {
			t.Fatal(err)
		}
	}
	if n := invoke(t, client, "i", false); n != 1 {
		t.Fatalf("the counter is %d, want 1", n)
	}
}

// On a wire slower than the first timeout the client learns to wait: or it would send
// every request again.
func TestSlowWireIsLearnt(t *testing.T) {
	const delay = 20 * time.Millisecond
	g, keys, admin := newGroupWith(4, smallLimits(), pbft.DurabilityReplicated)
	for i, key := range keys {
		r, err := pbft.StartReplica(pbft.ReplicaConfig{Group: g, Self: pbft.ReplicaID(i), Key: key,
			Directory: t.TempDir(), Service: newTally(g), Transport: pbft.TransportPlain, Delay: delay})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close(context.Background())
	}
	client, err := pbft.NewClient(pbft.ClientConfig{Group: g, Key: admin, Transport: pbft.TransportPlain, Delay: delay})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Ready(deadline(t)); err != nil {
		t.Fatal(err)
	}
	const ops = 30
	done := uint64(0)
	// A busy machine makes the wire slower still at times, and there is something to learn again.
	eventually(t, "of 30 operations at most half are sent again", func() bool {
		had := client.Status().Retries
		for range ops {
			done++
			if got := invoke(t, client, "i", false); got != done {
				t.Fatalf("got %d, want %d", got, done)
			}
		}
		return client.Status().Retries-had <= ops/2
	})
}

// The administrator's signature is right at the first try: it was made before the request
// said that it has one, so that every operation waited for the client's timer.
func TestAdministratorsFirstTry(t *testing.T) {
	c := startCluster(t, smallLimits())
	admin := c.client(c.admin)
	if err := admin.Ready(deadline(t)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		invoke(t, admin, "i", false)
	}
	for _, r := range c.replicas {
		if n := refusals(r, "bad MAC"); n > 0 {
			t.Errorf("replica %d refused %d requests", r.Status().Replica, n)
		}
	}
}

func refusals(r *pbft.Replica, reason string) uint64 {
	for _, x := range r.Status().Refusals {
		if x.Reason == reason {
			return x.Count
		}
	}
	return 0
}

// A request runs once: the core is told which of a batch did not, and calls no answer
// tentative that was given before.
func TestRequestsRunOnce(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	execute, err := pbft.Executes(c.g, newTally(c.g))
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range []struct {
		client pbft.ClientID
		time   message.Timestamp
		ran    bool
	}{
		{pbft.Administrator, 5, true}, {pbft.Administrator, 5, false}, {pbft.Administrator, 4, false},
		{pbft.Administrator + 1, 9, false}, {pbft.Administrator, 6, true}, {pbft.Administrator, 6, false},
	} {
		if ran := execute(&message.Request{Client: x.client, Timestamp: x.time, Op: []byte{0, 'i'}}); ran != x.ran {
			t.Errorf("request %d ran: %v, want %v", i, ran, x.ran)
		}
	}
}
