// SPDX-License-Identifier: Apache-2.0

package model

import (
	"strings"

	"bfs/pkg/nfs3"
)

// Call answers a call of any program. The result is nil unless stat is Success.
func (m *Model) Call(c Caller, call *nfs3.Call) (Result, nfs3.AcceptStat) {
	switch call.Program {
	case nfs3.ProgramNFS:
		return m.nfs(c, call.Procedure, call.Args)
	case nfs3.ProgramMount:
		return m.mountProgram(c, call.Procedure, call.Args)
	}
	return nil, nfs3.ProgUnavail
}

func (m *Model) mountProgram(c Caller, procedure uint32, args []byte) (Result, nfs3.AcceptStat) {
	if procedure > nfs3.MountProcExport {
		return nil, nfs3.ProcUnavail
	}
	var r Result = void{}
	err := nfs3.DecodeVoid(args)
	switch procedure {
	case nfs3.MountProcMnt, nfs3.MountProcUmnt:
		var a nfs3.MountArgs
		if a, err = nfs3.DecodeMountArgs(args); procedure == nfs3.MountProcMnt {
			r = m.mount(c, string(a.Path))
		}
	case nfs3.MountProcDump:
		r = &nfs3.DumpResult{}
	case nfs3.MountProcExport:
		r = m.export(c)
	}
	if err != nil {
		return nil, nfs3.GarbageArgs
	}
	return r, nfs3.Success
}

// mount is MNT [RFC1813 §5.2.1]: an export's name, and names of directories below it,
// which the caller must be able to search. Slashes are as good as one.
func (m *Model) mount(c Caller, path string) *nfs3.MountResult {
	if !strings.HasPrefix(path, "/") {
		return &nfs3.MountResult{Status: nfs3.MountErrNoEnt}
	}
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	d := (*file)(nil)
	for _, x := range m.exports {
		if len(names) > 0 && x.name == names[0] {
			d = x.root
		}
	}
	if d == nil {
		return &nfs3.MountResult{Status: nfs3.MountErrNoEnt}
	}
	who, ok := c[d.handle.Export]
	if !ok {
		return &nfs3.MountResult{Status: nfs3.MountErrAcces}
	}
	for _, name := range names[1:] {
		if !d.dir() {
			return &nfs3.MountResult{Status: nfs3.MountErrNotDir}
		}
		f, s := search(who, d, []byte(name))
		if s != nfs3.OK {
			return &nfs3.MountResult{Status: nfs3.MountStatus(s)}
		}
		d = f
	}
	if !d.dir() {
		return &nfs3.MountResult{Status: nfs3.MountErrNotDir}
	}
	return &nfs3.MountResult{Handle: d.handle, Flavors: []uint32{nfs3.AuthSys}}
}

// export is EXPORT [RFC1813 §5.2.5]: the exports that the client was granted.
func (m *Model) export(c Caller) *nfs3.ExportResult {
	r := &nfs3.ExportResult{}
	for _, x := range m.exports {
		if _, ok := c[x.root.handle.Export]; ok {
			r.Exports = append(r.Exports, nfs3.Export{Dir: []byte("/" + x.name)})
		}
	}
	return r
}
