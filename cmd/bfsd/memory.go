// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"bfs/cmd/internal/admin"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/procs"
	"bfs/pkg/pbft"
)

// neededMemory returns the number of bytes of memory that a replica takes at most when its state
// has grown to its size: the state and what belongs to it (bfsd bench memory: 1.03 bytes a byte),
// the pages that checkpoints keep, and the heap.
func neededMemory(g *config.Group, clients int) uint64 {
	size := uint64(g.State.Size)
	return size + size/16 + g.CheckpointMemory(size) + heapMemory(g, clients)
}

// heapMemory returns how large the heap of a replica may be. The collector is told so: garbage
// takes what is left of it.
func heapMemory(g *config.Group, clients int) (sum uint64) {
	for _, u := range g.Memory(clients) {
		sum += u.Bytes
	}
	return sum
}

// memory returns an operator's view of a replica's memory, with so many clients enrolled, nil where
// the system does not tell it.
func memory(g *config.Group, clients int) *admin.Memory {
	have, err := procs.Memory()
	if err != nil {
		return nil
	}
	used, err := procs.Resident(os.Getpid())
	if err != nil {
		return nil
	}
	return &admin.Memory{Limit: have, Resident: used, Needed: neededMemory(g, clients),
		StateSize: uint64(g.State.Size)}
}

// warnMemory warns when the state can grow beyond this machine's memory: it lies in
// memory, and the kernel would end the process, on all hosts at about the same time.
func warnMemory(log *slog.Logger, g *config.Group, clients int) {
	m := memory(g, clients)
	if m == nil || m.Needed <= m.Limit {
		return
	}
	log.Warn("the state may outgrow this machine's memory: when it does the process is killed, and most "+
		"likely on the other hosts as well. Add memory, or set quotas (bfsd export set)", "state.size",
		g.State.Size.String(), "needs", config.Size(m.Needed).String(), "memory", config.Size(m.Limit).String())
}

// warnDisk warns when the state can grow beyond the file system that its image is in.
func warnDisk(log *slog.Logger, g *config.Group, d *pbft.DiskStatus, directory string) {
	if d == nil || d.Size == 0 {
		return
	}
	if needs := uint64(g.State.Size) + uint64(g.State.Size)/4 + 256<<20; needs > d.Size {
		log.Warn("the state may outgrow the file system of this replica's directory: when it is full the "+
			"replica stands aside, and most likely those on the other hosts as well. Use a larger one, or "+
			"set quotas (bfsd export set)", "directory", directory, "state.size", g.State.Size.String(), "needs",
			config.Size(needs).String(), "has", config.Size(d.Size).String())
	}
}

// memoryLook is how often a replica looks at its memory.
const memoryLook = 10 * time.Second

// watchMemory has the collector keep the heap within its bound, which rises with the clients that
// are enrolled, and warns when a replica's memory fills, until ctx ends.
func watchMemory(ctx context.Context, log *slog.Logger, g *config.Group, enrolled func() int) {
	look := time.NewTicker(memoryLook)
	defer look.Stop()
	var level fullness
	for {
		clients := enrolled()
		procs.LimitHeap(heapMemory(g, clients))
		if m := memory(g, clients); m != nil && level.rises(m.Resident, m.Limit) {
			log.Error("this replica's memory fills: when it is full the process is killed, and most likely "+
				"on the other hosts as well. Add memory, remove files, or set quotas (bfsd export set)", "percent",
				int(level), "resident", config.Size(m.Resident).String(), "memory", config.Size(m.Limit).String(),
				"state.size", g.State.Size.String())
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// A fullness is the highest warning percentage that memory has passed; 0 is none.
type fullness int

// fullnessLevels are the percentages at which a replica warns.
var fullnessLevels = []fullness{70, 80, 90, 95}

// fullnessSlack is by how much memory must fall below a level before it is warned of again.
const fullnessSlack = 5

// rises notes how much memory is in use, and reports whether a level is passed that was not before.
func (l *fullness) rises(used, limit uint64) bool {
	percent := fullness(float64(used) * 100 / float64(limit))
	now := fullness(0)
	for _, x := range fullnessLevels {
		if percent >= x || *l >= x && percent >= x-fullnessSlack {
			now = x
		}
	}
	up := now > *l
	*l = now
	return up
}
