// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"time"

	"bfs/cmd/internal/status"
)

// A usage holds how much a replica's process has of what it must not collect.
type usage struct {
	Resident    float64 `json:"resident_mib"`
	Descriptors float64 `json:"descriptors"`
	Goroutines  float64 `json:"goroutines"`
}

// things are the fields of a usage.
var things = []struct {
	name   string
	metric string
	unit   float64
	of     func(*usage) *float64
}{
	{"resident memory, MiB", "bfs_memory_resident_bytes", 1 << 20, func(u *usage) *float64 { return &u.Resident }},
	{"file descriptors", "process_open_fds", 1, func(u *usage) *float64 { return &u.Descriptors }},
	{"goroutines", "go_goroutines", 1, func(u *usage) *float64 { return &u.Goroutines }},
}

const answerWithin = 30 * time.Second

// usage asks a replica what it has, and how many MiB of memory it may take for its state's size.
func (g *fileGroup) usage(ctx context.Context, i int) (u usage, needed float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	m, err := status.Metrics(ctx, g.group, i)
	if err != nil {
		return u, 0, fmt.Errorf("replica %d: its metrics: %w", i, err)
	}
	for _, thing := range things {
		v, ok := m[thing.metric]
		if !ok {
			return u, 0, fmt.Errorf("replica %d: its metrics: no %s", i, thing.metric)
		}
		*thing.of(&u) = v / thing.unit
	}
	return u, m["bfs_memory_needed_bytes"] / (1 << 20), nil
}
