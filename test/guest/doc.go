// SPDX-License-Identifier: Apache-2.0

// Package guest runs a script under a Linux kernel of its own, with NFSv3 servers of this
// machine mounted by that kernel's NFS client. Most machines that build software (containers,
// small virtual machines) have no NFS client in their kernel, or may not load it; a user-mode
// Linux kernel from Debian's user-mode-linux package is an ordinary program, and has one.
//
// The guest's root directory is this machine's, read-only below a throw-away overlay, so
// that all programs of this machine run there. Writing outside the mounts and $GUEST_OUT
// leaves no trace. Its 127.0.0.1 is this machine's unless Options.OwnLoopback says
// otherwise, so servers that listen on the loopback are within reach.
//
// A script finds:
//
//	$NFS, $NFS1, ...   the mount points, in the order of Options.Mounts
//	$GUEST_OUT         a directory of this machine, writable
//	$GUEST_LIB         shell functions to source: check, ask, as (lib.sh)
//	$GUEST_HOST        the address of this machine as the guest sees it
//	$GUEST_PATIENCE    how many times slower than a quiet machine this one is, rounded up; limits are multiplied by it
//	$TMPDIR            a tmpfs
//
// A script talks to the test through two small protocols. One line of its output tells
// the result of a check:
//
//	begin NAME
//	ok NAME
//	FAIL NAME: why
//	skip NAME: why it cannot be done on this machine
//
// The command `ask WORDS` sends a question to Options.Answer and waits for the answer. In this
// way a script asks the test to kill a replica, for example, at an exact moment of its writes.
//
// A guest that runs only a Go program needs neither shell nor overlay, and boots for a
// quarter of the processor time (bare.go).
//
// A guest costs one CPU, one to two seconds for its boot, about 18 us for each system
// call, and 10 to 15 ms for the start of each process. So heavy work belongs in one
// process (perl or C), not in a shell loop.
package guest
