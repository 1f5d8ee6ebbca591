// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// A Wanted export is one that a client is to be granted.
type Wanted struct {
	Export
	Create bool // make it; otherwise it must be there, and its name alone counts
}

// AdmitCall returns the operation, for pbft.Client.Admit, that creates the exports marked
// for creation and enrols a client, or does neither. The grants of rights name the
// exports by their place in wanted, from 1 on; the replicas put the exports' numbers
// there. Its reply is for ParseAdmit.
//
//	count u32, as many of: create u32, name as opaque<64>, mode, uid, gid u32, quota bytes, quota inodes u64
//	rights as opaque<1024>
//	→ status u32, place of the export that it is about u32 (0: none)
func AdmitCall(wanted []Wanted, rights *Rights) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(wanted)))
	for i := range wanted {
		w := &wanted[i]
		create := uint32(0)
		if w.Create {
			create = 1
		}
		b = binary.BigEndian.AppendUint32(b, create)
		b = appendProperties(appendOpaque(b, []byte(w.Name)), &w.Export)
	}
	return adminCall(AdminAdmit, appendOpaque(b, rights.Append(nil)))
}

// ParseAdmit reads the reply to AdmitCall. A refusal names the export that it is about.
func ParseAdmit(reply []byte, wanted []Wanted) error {
	r, err := adminResults(reply)
	if err != nil {
		return err
	}
	st, place := nfs3.Status(r.u32()), int(r.u32())
	if err := r.end(); err != nil {
		return err
	}
	switch {
	case st == nfs3.OK:
		return nil
	case place >= 1 && place <= len(wanted):
		return fmt.Errorf("export /%s: %w", wanted[place-1].Name, st)
	}
	return st
}

// Admit runs AdmitCall's operation: see pbft.Admitter. Nothing is made unless everything can be.
func (fs *FS) Admit(op pbft.Operation) (rights, reply []byte) {
	call, err := nfs3.ParseCall(op.Body)
	if err != nil || call.Program != nfs3.ProgramAdmin || call.Procedure != AdminAdmit {
		return nil, refuse(nfs3.GarbageArgs)
	}
	wanted, r, err := parseAdmit(call.Args)
	if err != nil {
		return nil, refuse(nfs3.GarbageArgs)
	}
	clock := fs.clock(op.Choice)
	le.PutUint64(fs.modify(fs.at.super)[superClock:], clock)
	place, st := fs.mayAdmit(wanted)
	if st == nfs3.OK {
		rights = fs.admit(timeOf(clock), wanted, &r)
	}
	reply = binary.BigEndian.AppendUint32(fs.begin(smallReply), uint32(st))
	return rights, binary.BigEndian.AppendUint32(reply, uint32(place))
}

func parseAdmit(args []byte) (wanted []Wanted, r Rights, err error) {
	in := adminReader{b: args}
	count := in.u32()
	if count > MaxGrants {
		return nil, r, errAdmin
	}
	for range count {
		create := in.u32()
		wanted = append(wanted, Wanted{Create: create == 1, Export: in.properties(string(in.name()))})
		if create > 1 {
			return nil, r, errAdmin
		}
	}
	encoded := in.take(int(min(in.u32(), MaxRights+1)))
	in.take(-len(encoded) & 3)
	if err := in.end(); err != nil {
		return nil, r, err
	}
	if r, err = ParseRights(encoded); err != nil {
		return nil, r, err
	}
	for _, g := range r.Grants {
		if g.Export > count {
			return nil, r, errAdmin
		}
	}
	return wanted, r, nil
}

// mayAdmit returns the status that refuses the wanted exports, and the place of the
// export that it is about; OK if all can be found or made.
func (fs *FS) mayAdmit(wanted []Wanted) (place int, st nfs3.Status) {
	made := uint32(0)
	for i := range wanted {
		w := &wanted[i]
		st := nfs3.OK
		switch {
		case slices.ContainsFunc(wanted[:i], func(v Wanted) bool { return v.Name == w.Name }):
			st = nfs3.ErrInval
		case w.Create:
			st = fs.mayAddExport(&w.Export)
			made++
		case fs.exportNamed([]byte(w.Name)) == 0:
			st = nfs3.ErrNoEnt
		}
		if st != nfs3.OK {
			return i + 1, st
		}
	}
	if uint64(made) > fs.freeInodes() || fs.counter(superExports)+made > maxExports {
		return 0, nfs3.ErrNoSpc
	}
	return 0, nfs3.OK
}

// admit makes the exports, and the rights with their numbers. Requires that mayAdmit found nothing.
func (fs *FS) admit(now nfs3.Time3, wanted []Wanted, r *Rights) []byte {
	ids := make([]exportID, len(wanted))
	for i := range wanted {
		st := nfs3.OK
		if ids[i] = fs.exportNamed([]byte(wanted[i].Name)); ids[i] == 0 {
			ids[i], st = fs.addExport(now, &wanted[i].Export)
		}
		invariant(st == nfs3.OK, "export was not made though it could be")
	}
	for i := range r.Grants {
		r.Grants[i].Export = uint32(ids[r.Grants[i].Export-1])
	}
	slices.SortFunc(r.Grants, func(a, b Grant) int { return cmp.Compare(a.Export, b.Export) })
	return r.Append(nil)
}
