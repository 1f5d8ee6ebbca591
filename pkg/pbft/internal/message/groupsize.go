// SPDX-License-Identifier: Apache-2.0

package message

// A GroupSize is the number of replicas of a group, the paper's |R|. It alone decides how
// many of them may be faulty and how many equal statements prove what. The paper has 3f+1
// replicas; any larger group works by the same rules with a quorum of ⌈(n+f+1)/2⌉
// (R-MOD-2). docs/decisions/0011-any-n.md derives each count of the protocol from these.
//
//	n                     4  5  6  7  8  9  10
//	Faulty, f             1  1  1  2  2  2   3
//	Quorum, q             3  4  4  5  6  6   7
//	Away, k = n - f - q   0  0  1  0  0  1   0
type GroupSize int

// Faulty is f, the most replicas that may be faulty in any way at once: n >= 3f+1 [TOCS §2].
func (n GroupSize) Faulty() int { return (int(n) - 1) / 3 }

// Quorum is q: any two quorums share f+1 replicas, so a correct one [TOCS §4.1]. The n-f
// correct replicas are a quorum.
func (n GroupSize) Quorum() int { return (int(n)+n.Faulty())/2 + 1 }

// Weak is f+1: one of so many replicas is correct [TOCS §4.1].
func (n GroupSize) Weak() int { return n.Faulty() + 1 }

// Away is k, how many correct replicas the group can do without while f others are
// faulty: n-f-k are still a quorum.
func (n GroupSize) Away() int { return int(n) - n.Faulty() - n.Quorum() }

// Acks is how many replicas other than a VIEW-CHANGE's sender and the new primary must hold the
// VIEW-CHANGE before the new primary may use it. With those two they are a quorum, so f of them
// can vouch for it to a replica that lacks it. Groups of fewer than four replicas need none.
func (n GroupSize) Acks() int { return max(n.Quorum()-2, 0) }
