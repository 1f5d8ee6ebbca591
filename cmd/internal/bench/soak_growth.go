// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Growth is how much more of something a replica had in the end that was never restarted.
type Growth struct {
	Replica int     `json:"replica"`
	Of      string  `json:"of"`
	By      float64 `json:"by"`
	Noise   float64 `json:"noise"`
}

// Growth is judged of a soak of so many whole rounds that took at least so long. In a shorter one
// resident memory still follows the collector, which takes it and gives it back over minutes.
const (
	growRounds = 12
	growWithin = 30 * time.Minute
)

// grew says how much figures rose over their last half, and how much of that is noise by what the
// first half shows. A figure is the least that a process had in one round, since what it had more
// was given back.
//
// It rose if its last third of that half is above the first third: by as much as the least figure
// of the one is above the greatest of the other. What grows without end never falls, so noise is
// the deepest fall in the first half, or a sixteenth of its greatest figure if that is more.
func grew(figures []float64) (by, noise float64) {
	half := len(figures) / 2
	before, after := figures[:half], figures[half:]
	third := len(after) / 3
	by = slices.Min(after[len(after)-third:]) - slices.Max(after[:third])
	highest := 0.0
	for _, v := range before {
		highest = max(highest, v)
		noise = max(noise, highest-v)
	}
	return by, max(noise, highest/16)
}

// soaked is the result, after the turns.
func (x *soaking) soaked() (r Soaked) {
	if x.group == nil {
		return r
	}
	half := len(x.rates) / 2
	r.First, r.Last = middle(x.rates[:half]), middle(x.rates[half:])
	for _, i := range x.steady() {
		r.Rounds = len(x.figures[i])
		if r.Rounds < growRounds || x.took < growWithin {
			continue
		}
		for _, thing := range things {
			var figures []float64
			for _, u := range x.figures[i] {
				figures = append(figures, *thing.of(&u))
			}
			by, noise := grew(figures)
			r.Growths = append(r.Growths, Growth{i, thing.name, by, noise})
		}
	}
	return r
}

// judge is an error for each growth that is more than noise.
func (x *soaking) judge() (err error) {
	for _, g := range x.soaked().Growths {
		if g.By > g.Noise {
			err = errors.Join(err, fmt.Errorf("replica %d: %s grew by %.1f over the last half of %d rounds, want at "+
				"most %.1f, the noise of the first half", g.Replica, g.Of, g.By, x.soaked().Rounds, g.Noise))
		}
	}
	return err
}
