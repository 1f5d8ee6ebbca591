// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"fmt"
	"time"
)

// handOverLook is how often HandOver looks whether the next view has begun.
const handOverLook = 2 * time.Millisecond

// HandOver is called before a replica is stopped. If it is the primary it leaves its view, so that the others begin the next
// one at once and not when their timers run out (R-VT-5), and HandOver returns when that view has begun here, or with an
// error when ctx is done. A backup, or a replica that votes for nothing, has nothing to hand over.
func (r *Replica) HandOver(ctx context.Context) error {
	old, leads := r.leaveView()
	if !leads {
		return nil
	}
	look := time.NewTicker(handOverLook)
	defer look.Stop()
	for {
		if view, active := r.presentView(); active && view > old {
			return nil
		}
		select {
		case <-look.C:
		case <-r.stop:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("hand over view %d: the others have not begun the next view: %w", old, ctx.Err())
		}
	}
}

// leaveView has a primary leave its view, and reports which it was.
func (r *Replica) leaveView() (old View, leads bool) {
	if r.core == nil {
		return 0, false
	}
	r.enter()
	defer r.leave()
	old, active := r.core.View()
	if !active || r.stopping || r.aside() || r.core.SilentUntil() > 0 || old.Primary(r.group.N()) != r.cfg.Self {
		return old, false
	}
	r.events.handsOver = true
	r.core.StepDown()
	return old, true
}

func (r *Replica) presentView() (View, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.core.View()
}

// liveWithin is how long the loop may stand still before Live calls for help: longer than any work under the lock takes.
const liveWithin = 30 * time.Second

// Live says why the replica must be started anew: it has stopped, or its loop stands still. A view change, a lost peer or
// a missing quorum is no such reason.
func (r *Replica) Live() error {
	select {
	case <-r.done:
		return fmt.Errorf("the replica has stopped")
	default:
	}
	if still := time.Since(time.Unix(0, r.turned.Load())); still > liveWithin {
		return fmt.Errorf("the loop has not turned for %v", still.Round(time.Second))
	}
	return nil
}
