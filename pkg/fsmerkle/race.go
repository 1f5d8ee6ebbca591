// SPDX-License-Identifier: Apache-2.0

//go:build race

package fsmerkle

// distrustful: block digests that pages are put with are computed anew. The build for the race detector is the one that tests use
// and nobody waits for.
const distrustful = true
