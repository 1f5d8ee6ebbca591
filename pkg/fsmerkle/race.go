// SPDX-License-Identifier: Apache-2.0

//go:build race

package fsmerkle

// distrustful makes Put compute the block digests of pages anew. Only the build for the
// race detector, which tests use, can afford that.
const distrustful = true
