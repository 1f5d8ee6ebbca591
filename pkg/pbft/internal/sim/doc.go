// SPDX-License-Identifier: Apache-2.0

// Package sim runs a whole group in one goroutine under one seed: replicas, clients,
// clock, network, crashes and liars.
//
// A seed draws a [Schedule]: a configuration and a list of faults. A run steps the
// replicas' real cores, executors and ledgers and the clients' real rule, and performs
// their effects in an order that the seed decides. A judge checks the world after every
// event, and ends the run with an error at the first wrong batch, vote, reply or root. A
// failed run names the command that repeats it.
package sim
