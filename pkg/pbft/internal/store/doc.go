// SPDX-License-Identifier: Apache-2.0

// Package store is a replica's memory on disk: which of its messages are records of the journal,
// and which messages wait for which record. The replica and the simulator run the same store.
//
// A record is a message of the protocol, or several that belong together, so that a replica
// remembers exactly what it said:
//
//	PRE-PREPARE           a proposal that was accepted here, with its batch: the tuple of Q for its view
//	COMMIT                the proposal for the number prepared here in the present view: the tuple of P
//	DECIDED               the batch of that digest committed under the number, and was executed here
//	BATCH, DECIDED        the same, of a batch that no earlier record for the number holds
//	VIEW-CHANGE           our own: the present view is left
//	VIEW-CHANGEs, NEW-VIEW  the NEW-VIEW of the view, and what it was made of
//	STATUS                the view is active; or it was reached in a life that is forgotten
//	CHECKPOINT            it is stable
//
// What a replica says to others may be a promise (R-OUR-21). It leaves when all records are durable
// that were appended with Persist before it was said. A record that was appended with Note is
// durable with the next of these at the latest, and nothing waits for it.
package store
