// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bfs/test/cluster"
)

// A damage is a line of `bfsd bench attack --json`.
type damage struct {
	Name    string  `json:"attack"`
	By      string  `json:"by"`
	Percent float64 `json:"percent"`
	P99     float64 `json:"p99_ms"`
	CalmP99 float64 `json:"calm_p99_ms"`
	Stall   float64 `json:"longest_stall_ms"`
	Calm    float64 `json:"calm_stall_ms"`
	Views   int     `json:"views"`
	CalmV   int     `json:"calm_views"`
	Left    float64 `json:"left_after_s"`
}

// attackCommand measures an honest client beside each attack, or beside those named, keeps
// attack.jsonl, draws attack.svg and prints a table for docs/EVALUATION.md.
func attackCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench attack", flag.ContinueOnError)
	rounds := f.Int("rounds", 3, "times that each attack is off and on. 0: table and drawing of what is there")
	phase := f.Duration("phase", 1500*time.Millisecond, "how long each time")
	settle := f.Duration("settle", 0, "wait so long before a phase is counted (default an eighth of it)")
	durability := f.String("durability", "replicated", "disk or replicated")
	dir := f.String("dir", "docs/plots", "where attack.jsonl and attack.svg are written")
	if err := f.Parse(args); err != nil {
		return err
	}
	file := filepath.Join(*dir, "attack.jsonl")
	if *rounds > 0 {
		bin, err := cluster.Binaries()
		if err != nil {
			return err
		}
		c := exec.CommandContext(ctx, filepath.Join(bin, "bfsd"), append([]string{"bench", "attack", "--json",
			"--rounds", strconv.Itoa(*rounds), "--phase", phase.String(), "--settle", settle.String(),
			"--durability", *durability}, f.Args()...)...)
		var out bytes.Buffer
		c.Stdout, c.Stderr = io.MultiWriter(&out, os.Stdout), os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("bfsd bench attack: %w", err)
		}
		lines := out.Bytes()
		if f.NArg() > 0 {
			if lines, err = replaceLines(file, lines); err != nil {
				return err
			}
		}
		if err := os.WriteFile(file, lines, 0o644); err != nil {
			return err
		}
	}
	all, err := readJSONLines[damage](file)
	if err != nil {
		return err
	}
	var drawing bytes.Buffer
	drawDamages(&drawing, all)
	return errors.Join(damageTable(os.Stdout, all),
		os.WriteFile(filepath.Join(*dir, "attack.svg"), drawing.Bytes(), 0o644))
}

// replaceLines returns the lines of a file with those of the same attacks replaced by others. An
// attack that the file has no line of comes last.
func replaceLines(file string, others []byte) ([]byte, error) {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	lines := strings.Fields(string(old)) // a line of JSON has no space in it
	for _, line := range strings.Fields(string(others)) {
		name, _, _ := strings.Cut(line, ",") // the first field of the object
		same := func(old string) bool { return strings.HasPrefix(old, name+",") }
		if at := slices.IndexFunc(lines, same); at >= 0 {
			lines[at] = line
		} else {
			lines = append(lines, line)
		}
	}
	return []byte(strings.Join(lines, "\n") + "\n"), nil
}

func damageTable(w io.Writer, all []damage) error {
	t := table(w)
	fmt.Fprintln(t, "| attack\t| %\t| p99, ms (without)\t| longest stall, ms (without)\t| views (without)\t| "+
		"left after, s\t|")
	fmt.Fprintln(t, strings.Repeat("|---\t", 6)+"|")
	for _, d := range all {
		fmt.Fprintf(t, "| `%s`\t| %.0f\t| %.1f (%.1f)\t| %.0f (%.0f)\t| %d (%d)\t| %s\t|\n", d.Name, d.Percent, d.P99,
			d.CalmP99, d.Stall, d.Calm, d.Views, d.CalmV, orDash(d.Left, "%.1f"))
	}
	return t.Flush()
}

// The drawing: a bar for each attack, and a line at what is left at least.
const (
	barStep, barHeight = 17, 12
	barLeft, barScale  = 180, 5 // pixels, and for each per cent
	leastLeft          = 60     // per cent
)

var barColours = map[string]string{"client": "#4878a8", "replica": "#a86848", "primary": "#a8485c",
	"stranger": "#689058", "nobody": "#909090"}

func drawDamages(w io.Writer, all []damage) {
	height := len(all)*barStep + 50
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" `+
		`font-size="11">`+"\n", barLeft+110*barScale, height)
	fmt.Fprintf(w, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	fmt.Fprintf(w, `<text x="8" y="16" font-size="13">An honest client's operations beside each attack, in per cent `+
		`of those without</text>`+"\n")
	for i, d := range all {
		y := 28 + i*barStep
		fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", barLeft-6, y+barHeight-2, d.Name)
		fmt.Fprintf(w, `<rect x="%d" y="%d" width="%.0f" height="%d" fill="%s"/>`+"\n", barLeft, y,
			min(d.Percent, 105)*barScale, barHeight, barColours[d.By])
		end := barLeft + min(d.Percent, 105)*barScale
		fmt.Fprintf(w, `<text x="%.0f" y="%d">%.0f</text>`+"\n", end+4, y+barHeight-2, d.Percent)
	}
	x := barLeft + leastLeft*barScale
	fmt.Fprintf(w, `<line x1="%d" y1="24" x2="%d" y2="%d" stroke="black" stroke-dasharray="4 3"/>`+"\n", x, x,
		height-18)
	at := barLeft
	for _, by := range []string{"client", "replica", "primary", "stranger", "nobody"} {
		fmt.Fprintf(w, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", at,
			height-14, barColours[by], at+14, height-5, by)
		at += 90
	}
	fmt.Fprintln(w, `</svg>`)
}
