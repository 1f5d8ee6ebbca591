// SPDX-License-Identifier: Apache-2.0

// Package config reads the configuration files of bfsd and bfs-relay.
//
// There are three, all TOML: the group file, which members and clients share; one replica's,
// which its keeper reads too; one relay's. Unknown keys are errors, and every error names the
// file, the line and the key it is about, also when a value is well formed and still cannot be:
//
//	group.toml:9: durability: got "disc", want "disk" or "replicated"
//
// A file goes through three steps. load decodes it and remembers on which line each key stands;
// the kind's own check method judges the values; the result (a *Group, a *Replica, a *Keeper, a
// *Relay) is valid and holds absolute paths, so that its users need not check again.
package config
