// SPDX-License-Identifier: Apache-2.0

// Package guest runs a script under a Linux kernel of its own, with NFSv3 servers of this
// machine mounted by that kernel's NFS client. Most machines that build software (containers,
// small virtual machines) have no NFS client in their kernel, or may not load it; a user-mode
// Linux kernel from Debian's user-mode-linux package is an ordinary program, and has one.
//
// The guest's root directory is this machine's, read-only below a throw-away overlay, so
// that whatever is installed or built here runs there. Writing outside the mounts and
// $GUEST_OUT leaves no trace. Its 127.0.0.1 is this machine's unless Options.OwnLoopback
// says otherwise, so servers that listen on the loopback are within reach.
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
// It talks to the test through two small protocols. On its output, one line says what
// became of a check:
//
//	begin NAME
//	ok NAME
//	FAIL NAME: why
//	skip NAME: why it cannot be done on this machine
//
// and `ask WORDS` sends a question to Options.Answer and waits for the answer; that is how a script
// has a replica killed while it writes, without anybody having to guess when.
//
// A guest whose whole work is a Go program can do without shell and overlay, and boots
// for a quarter of the processor time (bare.go).
//
// What a guest costs: one CPU, a boot of one to two seconds, about 18 us a system call and 10 to 15
// ms to start a process, so heavy work belongs in one process (perl or C), not in a shell loop.
package guest
