// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"fmt"

	"bfs/pkg/pbft/internal/message"
)

// ProtocolVersion is the version of the wire protocol, major.minor. Replicas and clients
// of one major version speak to each other.
func ProtocolVersion() string {
	return fmt.Sprintf("%d.%d", message.VersionMajor, message.VersionMinor)
}
