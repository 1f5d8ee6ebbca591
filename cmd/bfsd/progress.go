// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// progress shows on a terminal how far a command has come.
type progress struct {
	to   io.Writer // nil: no progress is shown
	verb string
	last uint64 // percent
	some bool
}

// newProgress is one that is shown if standard error is a terminal.
func newProgress(c *cobra.Command, verb string) *progress {
	p := &progress{verb: verb}
	if f, ok := c.ErrOrStderr().(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.to = f
		}
	}
	return p
}

// show writes the line anew when the percentage has changed.
func (p *progress) show(done, whole uint64) {
	percent := done * 100 / max(whole, 1)
	if p.to == nil || p.some && percent == p.last {
		return
	}
	p.last, p.some = percent, true
	fmt.Fprintf(p.to, "\r%s: %d%%", p.verb, percent)
}

// end takes the line away.
func (p *progress) end() {
	if p.some {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}
