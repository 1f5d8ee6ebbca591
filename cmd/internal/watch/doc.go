// SPDX-License-Identifier: Apache-2.0

// Package watch is the watchdog of the paper [TOCS §5.1]: it runs a replica as its child,
// starts it again when it ends or hangs, judges the executable before each start, and
// recovers the replica on a schedule [TOCS §5.2].
//
// One goroutine, Run, owns the child and does everything to it in turn. Another asks the replica
// whether it lives. Recover may be called by any goroutine; it hands its wish to Run.
package watch
