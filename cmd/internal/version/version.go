// SPDX-License-Identifier: Apache-2.0

// Package version says which program this is.
package version

import (
	"fmt"
	"runtime/debug"
	"strings"

	"bfs/pkg/pbft"
)

// commit is set by the linker: make build does.
var commit string

// Info is which program this is.
type Info struct {
	Version  string `json:"version"`  // of the module; devel if it was built from a working tree
	Commit   string `json:"commit"`   // unknown if the build did not say
	Protocol string `json:"protocol"` // major.minor; replicas and clients of one major version speak to each other
	Go       string `json:"go"`
}

// Of is this program's.
func Of() Info {
	i := Info{Version: "devel", Commit: commit, Protocol: pbft.ProtocolVersion()}
	if b, ok := debug.ReadBuildInfo(); ok {
		i.Go = b.GoVersion
		if v := b.Main.Version; v != "" && v != "(devel)" {
			i.Version = v
		}
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" && i.Commit == "" {
				i.Commit = s.Value
			}
		}
	}
	if i.Commit == "" {
		i.Commit = "unknown"
	}
	return i
}

// String is the short form, for a column of a table.
func (i Info) String() string {
	return fmt.Sprintf("%s-%.7s", strings.TrimPrefix(i.Version, "v"), i.Commit)
}
