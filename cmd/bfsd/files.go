// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"bfs/cmd/internal/config"
	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfsstate"
	"bfs/pkg/pbft"
)

// newFiles makes the file system of a group's member, empty. The second result frees its pages.
func newFiles(g *config.Group) (pbft.Service, func() error, error) {
	store, err := fsmerkle.New(fsmerkle.Options{Pages: fsmerkle.PageNum(g.State.Pages())})
	if err != nil {
		return nil, nil, err
	}
	c := nfsstate.Config{
		Pages:      g.State.Pages(),
		Reserved:   uint64(g.ReservedPages()),
		Inodes:     g.State.Inodes,
		Epoch:      g.Epoch,
		ClockBound: g.State.ClockBound,
		Created:    g.State.Created,
	}
	for _, e := range g.Exports {
		c.Exports = append(c.Exports, stateExport(e))
	}
	fs, err := nfsstate.New(store, c)
	if err != nil {
		store.Close()
		return nil, nil, fmt.Errorf("%s: %w", g.File, err)
	}
	return fs, store.Close, nil
}

func stateExport(e config.Export) nfsstate.Export {
	return nfsstate.Export{
		Name: e.Name(), Mode: uint32(e.Mode), UID: e.UID, GID: e.GID,
		QuotaBytes: uint64(e.Quota), QuotaInodes: e.Inodes,
	}
}
