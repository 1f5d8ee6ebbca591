// SPDX-License-Identifier: Apache-2.0

// Package relay lets a kernel's NFS client use a replicated file system. It is an ONC RPC server
// that turns each NFSv3 or MOUNT call into one operation of a group and copies the agreed result
// back. It never reads the arguments of an NFS call, which only the replicas interpret.
//
// # One call's way
//
//	kernel ── TCP ──▶ recordReader   whole records, their length checked before memory is given
//	                  parseHeader    program, procedure, credentials; a malformed call is answered here
//	                  table          joins a retransmission to its call in flight, or answers it again
//	                  Group.Start    on the goroutine that reads the connection: no hop
//	                  Journal        told slot and timestamp before a call that writes leaves
//	                      ⋮
//	kernel ◀── TCP ── outbox         appended and written on the goroutine that runs Done
//
// # What a caller does
//
//	warnings := relay.Harden()                  // memory locked, never waiting for its own write-back
//	journal, err := relay.OpenJournal(path, …)  // nil is allowed: a restart is then visible
//	server, err := relay.New(relay.Config{Group: client, Journal: journal, …})
//	err = server.Resume()                       // sends calls of an earlier life again; before any other call
//	err = server.Serve(listener)                // until Shutdown
//	err = server.Shutdown(ctx)                  // lets calls in flight finish while ctx lasts
//	client.Close(); journal.Close()             // in this order: Done may run until Close returns
//
// # Goroutines
//
// Serve accepts. One goroutine watches for calls that stay unanswered. Each connection
// has two: one reads records and starts calls, the other writes the replies that could
// not be written at once, so that a kernel which does not read delays only itself.
// Everything else runs on the client's goroutines, which never wait here.
//
// # Trust
//
// AUTH_SYS is a claim. Any process of this machine that may use a port below 1024 can make it,
// so other ports are refused unless Config.InsecurePorts is set; with it, any local process
// can act as any user that the client's rights in the group allow. The replicas squash and
// limit what this relay may claim at all; nothing the relay does or forgets can exceed that.
//
// # Bounds
//
// Connections, calls in flight per connection and in all, the bytes of both, unsent replies,
// remembered replies, mounts and journal are each bounded by a field of Limits or a constant. At a
// bound the relay stops reading, which a kernel understands as a slow server; only a peer
// that does not take its replies, or does not finish its records, is disconnected.
//
// Keys used in comments: RFC5531 is ONC RPC, RFC4506 XDR, RFC1813 NFSv3 with MOUNT in its appendix
// I; R-OUR-n are this project's own rules, which docs/PROTOCOL.md lists.
package relay
