// SPDX-License-Identifier: Apache-2.0

package journal

// A demand says how many segments were in use at once lately: in the present period and the one
// before. A period is rounds turns for each file that there is.
//
// Files beyond that and the spare ones are removed. A new file costs as much as a file full of
// records, since all of it is written and synced. So a file is removed only when the journal has
// gone round without it. As many files as there are may be removed in a period, so to make them
// all again adds at most one part in rounds to what the journal writes. A ring that fills and
// empties always shows its greatest use in a period, however slowly the image follows: use rises
// by at most one segment a turn, and there is a file for each.
type demand struct {
	turns  int // of this period
	most   int // in use in this period
	before int // in use in the period before; every file that Open found
}

// rounds is how often a period would use each file.
const rounds = 2

// turned notes that a segment has begun, and that so many are in use with it.
func (d *demand) turned(inUse, files int) {
	d.most = max(d.most, inUse)
	if d.turns++; d.turns >= rounds*files {
		*d = demand{most: inUse, before: d.most}
	}
}

func (d *demand) lately() int { return max(d.most, d.before) }
