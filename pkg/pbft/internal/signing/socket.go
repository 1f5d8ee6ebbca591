// SPDX-License-Identifier: Apache-2.0

package signing

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// noDeadline is the time that takes a connection's deadline away.
var noDeadline time.Time

// maxSocketPath is how long a Unix socket's path may be on Linux, in bytes.
const maxSocketPath = 107

// shorten returns a name for path that a socket's address has room for. It is good until
// done is called.
func shorten(path string) (short string, done func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	short = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	return short, func() { _ = dir.Close() }, nil
}
