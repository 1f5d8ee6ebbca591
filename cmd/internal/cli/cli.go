// SPDX-License-Identifier: Apache-2.0

// Package cli holds the parts that all commands share: ending on a signal, logging,
// printing errors, announcing that they are ready.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/config"
)

// Ready is the line that a server prints on its standard output when it listens and
// everything behind it runs. The process that started it waits for this line.
const Ready = "ready"

// An Exit is the error of a command that has already reported its failure; only the exit
// code is left to set.
type Exit int

func (Exit) Error() string { return "" }

// A Coded is an error that ends the process with a code of its own.
type Coded struct {
	error
	Code int
}

// NewCoded is err, with a code.
func NewCoded(err error, code int) error { return &Coded{err, code} }

func (c *Coded) Unwrap() error { return c.error }

// Main runs a command line until it is done or SIGINT or SIGTERM comes, and returns the exit code.
func Main(root *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once, should the orderly end hang.
	context.AfterFunc(ctx, stop)

	root.SilenceErrors = true
	root.SilenceUsage = true
	root.CompletionOptions.HiddenDefaultCmd = true
	if err := root.ExecuteContext(ctx); err != nil {
		var code Exit
		if errors.As(err, &code) {
			return int(code)
		}
		fmt.Fprintf(root.ErrOrStderr(), "%s: %v\n", root.Name(), err)
		var coded *Coded
		if errors.As(err, &coded) {
			return coded.Code
		}
		return 1
	}
	return 0
}

// Logger makes the process's logger. Logs go to standard error: standard output is for results.
func Logger(w io.Writer, l config.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: l.Level}
	if l.JSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// SayReady prints the ready line.
func SayReady() { fmt.Fprintln(os.Stdout, Ready) }

// Group is a cobra command that only holds others.
func Group(c *cobra.Command, children ...*cobra.Command) *cobra.Command {
	c.AddCommand(children...)
	c.Args = cobra.NoArgs
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return c
}
