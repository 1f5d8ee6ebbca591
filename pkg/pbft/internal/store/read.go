// SPDX-License-Identifier: Apache-2.0

package store

import "bfs/pkg/pbft/internal/message"

// Read reads and decodes a whole journal. It returns how many records the journal has had, the
// messages of those that it still has, and what is wrong with it. It is not opened for writing:
// o.Disk may be one that drops what is written.
func Read(o Options) (records uint64, all []message.Message, err error) {
	s, all, err := open[struct{}](o)
	if err != nil {
		return 0, nil, err
	}
	return uint64(s.Position()), all, s.Close()
}
