// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/nfsstate"
	"bfs/pkg/pbft"
)

// The types that the lists print for programs: names in snake case, a client's number as
// a string, because it does not fit the numbers of many JSON readers, and times as RFC
// 3339 has them.
type (
	clientList struct {
		Clients []clientJSON `json:"clients"`
	}
	clientJSON struct {
		Name    string      `json:"name"`
		ID      string      `json:"id"` // hexadecimal
		Key     string      `json:"key"`
		State   string      `json:"state"` // enrolled or revoked
		Expires string      `json:"expires,omitempty"`
		Grants  []grantJSON `json:"grants"`
	}
	grantJSON struct {
		Export   string      `json:"export"` // its path, or its number if it is not there any more
		ReadOnly bool        `json:"read_only"`
		Squash   string      `json:"squash"`
		AnonUID  uint32      `json:"anon_uid"`
		AnonGID  uint32      `json:"anon_gid"`
		UIDMap   []rangeJSON `json:"uid_map,omitempty"`
		GIDMap   []rangeJSON `json:"gid_map,omitempty"`
	}
	rangeJSON struct {
		From  uint32 `json:"from"`
		To    uint32 `json:"to"`
		Count uint32 `json:"count"`
	}
	exportList struct {
		Exports []exportJSON `json:"exports"`
	}
	exportJSON struct {
		Path        string `json:"path"`
		ID          uint32 `json:"id"`
		UID         uint32 `json:"uid"`
		GID         uint32 `json:"gid"`
		Mode        string `json:"mode"`        // octal
		QuotaBytes  uint64 `json:"quota_bytes"` // 0 is no limit, and so below
		QuotaInodes uint64 `json:"quota_inodes"`
		UsedBytes   uint64 `json:"used_bytes"`
		UsedInodes  uint64 `json:"used_inodes"`
	}
)

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func clientsJSON(clients []pbft.Enrolment, exports []nfsstate.ExportInfo) clientList {
	list := clientList{Clients: []clientJSON{}}
	for i := range clients {
		c := &clients[i]
		x := clientJSON{Name: nameOf(c), ID: fmt.Sprintf("%016x", uint64(c.ID)), Key: keys.Public(c.Key).String(),
			State: stateOf(c), Grants: []grantJSON{}}
		r, _ := nfsstate.ParseRights(c.Rights) // unreadable rights grant nothing
		if r.Expires != 0 {
			x.Expires = time.Unix(0, int64(r.Expires)).UTC().Format(time.RFC3339)
		}
		for _, g := range r.Grants {
			x.Grants = append(x.Grants, grantJSON{Export: exportPath(g.Export, exports), ReadOnly: g.ReadOnly,
				Squash: squashNames[g.Squash], AnonUID: g.AnonUID, AnonGID: g.AnonGID, UIDMap: rangesJSON(g.UIDs),
				GIDMap: rangesJSON(g.GIDs)})
		}
		list.Clients = append(list.Clients, x)
	}
	return list
}

func rangesJSON(ranges []nfsstate.IDRange) (all []rangeJSON) {
	for _, r := range ranges {
		all = append(all, rangeJSON(r))
	}
	return all
}

func exportsJSON(exports []nfsstate.ExportInfo) exportList {
	list := exportList{Exports: []exportJSON{}}
	for _, e := range exports {
		list.Exports = append(list.Exports,
			exportJSON{Path: "/" + e.Name, ID: e.ID, UID: e.UID, GID: e.GID, Mode: config.Mode(e.Mode).String(),
				QuotaBytes: e.QuotaBytes, QuotaInodes: e.QuotaInodes, UsedBytes: e.UsedBytes, UsedInodes: e.UsedInodes})
	}
	return list
}
