// SPDX-License-Identifier: Apache-2.0

package core

// A client that calls for eight operations at a time and a client that calls for one now and then
// may be served alike beside a third that takes most of the group's time: the first because it is
// slowed down, the second because it wants no more. The first always has a request that waits or is
// under way, and the second seldom. So a client that takes much is bounded by how often others want
// something, and not by what they have.

// A demand is the part of the ticks of late in which others wanted something, of wantAlways. The
// zero demand is that of others who want nothing.
type demand struct{ wanted int }

const (
	wantAlways = 1 << 16
	// demandTicks is how many ticks it takes to learn what is wanted.
	demandTicks = 16
)

func (d *demand) sample(wanted bool) {
	d.wanted -= d.wanted / demandTicks
	if wanted {
		d.wanted += wantAlways / demandTicks
	}
}

// spare is the part of n that others leave.
func (d demand) spare(n int) int { return n * max(0, wantAlways-d.wanted) / wantAlways }
