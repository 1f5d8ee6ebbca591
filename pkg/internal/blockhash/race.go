// SPDX-License-Identifier: Apache-2.0

//go:build race

package blockhash

// watched: the race detector must see that a block is read, which it does not where
// assembly reads it.
const watched = true
