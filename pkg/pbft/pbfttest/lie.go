// SPDX-License-Identifier: Apache-2.0

package pbfttest

import "bfs/pkg/pbft/internal/lies"

// Lie makes each replica that this process starts from now on lie to the others and to clients,
// for good: it votes for batches that nobody proposed, sends checkpoints of states that no
// replica has, and changes results, all with the right MACs. told counts the lies of each kind.
//
// Lie is for demonstrations and tests of a whole group that survives one liar. A process
// that serves files never calls it.
func Lie() (told func() (votes, checkpoints, results uint64)) {
	b := &lies.Byzantine{}
	lies.Install(b)
	return func() (uint64, uint64, uint64) { return b.Votes.Load(), b.Checkpoints.Load(), b.Results.Load() }
}
