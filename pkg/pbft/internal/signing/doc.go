// SPDX-License-Identifier: Apache-2.0

// Package signing keeps a replica's long-term key in another process than the replica, the keeper,
// which stands in for the secure coprocessor of the paper [TOCS §5.1].
//
// A Key holds the private key and a counter that never goes back. It signs NEW-KEYs and recovery
// requests of its own replica in its own group, each with a value of the counter that it has
// given out and that no other signature has; it refuses everything else. A Server serves a Key on
// a Unix socket to processes of chosen users, and a Client is an auth.Signer at the other end.
//
// An intruder in the replica's process can have NEW-KEYs signed while he is there. He
// cannot keep one for later, because a NEW-KEY is good on one connection only, whose name
// the receiver has chosen too. The Key's answers for hellos are bound in the same way: a
// tag to one challenge, a key to one life of the replica's process.
//
// The protocol: the client asks, the server answers, in order. Numbers are little-endian.
//
//	request  length 2 | operation 1 | body          length counts what follows it
//	answer   length 2 | status 1    | body          status 0: done; 1: refused, and the body says why
//
//	operation     body of the request                body of the answer
//	1 identify    -                                  version 1 | public key 32 | group digest 32
//	2 count       -                                  counter 8
//	3 sign        what the signature is to cover     signature 64
//	4 hello key   public key 32 | life 12            key 32
//	5 hello tag   public key 32 | challenge 32 | hello without tag 32      tag 16
//	6 recover     force 1                            what was done, as text
//	7 status      -                                  what the keeper tells of itself; its meaning is the caller's
package signing
