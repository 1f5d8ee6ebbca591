// SPDX-License-Identifier: Apache-2.0

// Package nfs3 is the codec of NFSv3 and of its MOUNT protocol: typed arguments and
// results, and their XDR. It knows no file system, so servers, relays and clients share it.
//
// A server decodes arguments and appends results to its reply:
//
//	a, err := nfs3.DecodeReadArgs(call.Args) // an error is GARBAGE_ARGS
//	r := nfs3.ReadResult{Status: nfs3.OK, Data: pages}
//	reply = r.Append(reply)
//
// A client does the opposite with ReadArgs.Append and DecodeReadResult. Between the two
// the call travels as a Call, and its results behind an AcceptStat.
//
// The duties of the caller: a decoded value aliases the bytes it came from, and is valid
// only as long as they are; a value returned with an error means nothing; a result holds
// no more than a reply may carry.
//
// The promises of a decoder: it reads all bytes or refuses; booleans, unions and enums
// have the values of the RFC; it allocates nothing for arguments, and for results no more
// than a small multiple of the bytes received; it never panics. Padding is ignored,
// because some clients send stale bytes of their buffers there. So arguments have several
// encodings, all of one length; this package pads with zeros.
//
// Keys of citations: [RFC1813] NFS Version 3 Protocol Specification; [RFC4506] XDR; [RFC5531] RPC.
package nfs3
