// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"syscall"

	"bfs/pkg/pbft"
)

// A fault befalls one replica in a turn of a soak, after all have taken part. It is over before the
// next begins, so that never more than one replica, at most f, is faulty, away or recovering.
type fault struct {
	name  string
	away  bool // its process may end, and does not answer
	who   func(x *soaking, primary int) int
	begin func(ctx context.Context, x *soaking, i int) error
	heal  func(ctx context.Context, x *soaking, i int) error
}

// faults in their order. It is the primary that stands still, so that replicas that are never
// restarted lose their views, too.
var faults = []fault{
	{"killed", true, (*soaking).victim, kill, restart},
	{"stopped", true, (*soaking).victim, stop, restart},
	{"recovers", true, (*soaking).victim, stop, restartRecovering},
	{"still", true, thePrimary, signals(syscall.SIGSTOP), signals(syscall.SIGCONT)},
	{"offends", false, (*soaking).offender, signals(SignalOn), signals(SignalOff)},
}

// victim chooses one of the first f+1 replicas to be restarted: the primary if it is one of them,
// else one after the other. The others are never restarted, so that growth shows in them.
func (x *soaking) victim(primary int) int {
	few := pbft.GroupSize(x.N).Weak()
	if primary < few {
		return primary
	}
	x.victims++
	return x.victims % few
}

func (x *soaking) offender(int) int {
	for i := range x.N {
		if x.group.setup.Offences[i] != "" {
			return i
		}
	}
	return x.N - 1
}

// steady are the replicas that are never restarted and do not offend.
func (x *soaking) steady() (all []int) {
	for i := pbft.GroupSize(x.N).Weak(); i < x.N; i++ {
		if x.group.setup.Offences[i] == "" {
			all = append(all, i)
		}
	}
	return all
}

func thePrimary(_ *soaking, primary int) int { return primary }

func kill(_ context.Context, x *soaking, i int) error {
	x.group.replicas[i].Kill()
	return nil
}

func stop(_ context.Context, x *soaking, i int) error { return x.group.replicas[i].Stop(recoverWithin) }

func restart(_ context.Context, x *soaking, i int) error { return x.group.start(i) }

func restartRecovering(ctx context.Context, x *soaking, i int) error {
	if err := x.group.start(i, "--recover"); err != nil {
		return err
	}
	_, err := x.group.recovered(ctx, i)
	return err
}

func signals(s syscall.Signal) func(context.Context, *soaking, int) error {
	return func(_ context.Context, x *soaking, i int) error { return syscall.Kill(x.group.replicas[i].PID(), s) }
}
