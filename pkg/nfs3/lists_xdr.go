// SPDX-License-Identifier: Apache-2.0

package nfs3

// The results that are lists: directories, exports, mounts. XDR writes a list as a flag
// before each element and a last flag that says no [RFC4506 §4.19].

// Append appends the XDR of r to b.
func (r *ReaddirResult) Append(b []byte) []byte {
	b = appendPostOpAttr(appendStatus(b, r.Status), &r.Dir)
	if r.Status != OK {
		return b
	}
	b = append(b, r.Verifier[:]...)
	for i := range r.Entries {
		e := &r.Entries[i]
		b = appendFlag(b, true)
		b = appendU64(b, e.FileID)
		b = appendOpaque(b, e.Name)
		b = appendU64(b, e.Cookie)
	}
	b = appendFlag(b, false)
	return appendFlag(b, r.EOF)
}

// Size returns how many bytes Append appends at most, for a caller that makes its buffer once.
func (r *ReaddirResult) Size() int {
	n := 4 + ListingSize(true)
	for i := range r.Entries {
		n += EntrySize(len(r.Entries[i].Name))
	}
	return n
}

// DecodeReaddirResult reads the results of READDIR.
func DecodeReaddirResult(b []byte) (ReaddirResult, error) {
	d := reader{b: b}
	r := ReaddirResult{Status: d.status(), Dir: d.postOpAttr()}
	if r.Status == OK {
		r.Verifier = d.verifier()
		for d.flag() {
			r.Entries = append(r.Entries, Entry{FileID: d.u64(), Name: d.rest(), Cookie: d.u64()})
		}
		r.EOF = d.flag()
	}
	return r, d.end("READDIR results")
}

// Append appends the XDR of r to b.
func (r *ReaddirplusResult) Append(b []byte) []byte {
	b = appendPostOpAttr(appendStatus(b, r.Status), &r.Dir)
	if r.Status != OK {
		return b
	}
	b = append(b, r.Verifier[:]...)
	for i := range r.Entries {
		e := &r.Entries[i]
		b = appendFlag(b, true)
		b = appendU64(b, e.FileID)
		b = appendOpaque(b, e.Name)
		b = appendU64(b, e.Cookie)
		b = appendPostOpAttr(b, &e.Attr)
		b = appendPostOpFH(b, e.Handle)
	}
	b = appendFlag(b, false)
	return appendFlag(b, r.EOF)
}

// Size returns how many bytes Append appends at most, for a caller that makes its buffer once.
func (r *ReaddirplusResult) Size() int {
	n := 4 + ListingSize(true)
	for i := range r.Entries {
		n += EntryPlusSize(len(r.Entries[i].Name))
	}
	return n
}

// DecodeReaddirplusResult reads the results of READDIRPLUS.
func DecodeReaddirplusResult(b []byte) (ReaddirplusResult, error) {
	d := reader{b: b}
	r := ReaddirplusResult{Status: d.status(), Dir: d.postOpAttr()}
	if r.Status == OK {
		r.Verifier = d.verifier()
		for d.flag() {
			r.Entries = append(r.Entries, EntryPlus{
				FileID: d.u64(), Name: d.rest(), Cookie: d.u64(),
				Attr: d.postOpAttr(), Handle: d.postOpFH(),
			})
		}
		r.EOF = d.flag()
	}
	return r, d.end("READDIRPLUS results")
}

// Append appends the XDR of r to b.
func (r *MountResult) Append(b []byte) []byte {
	b = appendU32(b, uint32(r.Status))
	if r.Status != MountOK {
		return b
	}
	b = appendHandle(b, r.Handle)
	b = appendU32(b, uint32(len(r.Flavors)))
	for _, f := range r.Flavors {
		b = appendU32(b, f)
	}
	return b
}

// DecodeMountResult reads the results of MNT.
func DecodeMountResult(b []byte) (MountResult, error) {
	d := reader{b: b}
	r := MountResult{Status: MountStatus(d.u32())}
	if r.Status == MountOK {
		r.Handle = d.handle()
		n := d.u32()
		if uint64(n)*unit != uint64(len(d.b)) { // they are all that is left
			d.fail()
			n = 0
		}
		for range n {
			r.Flavors = append(r.Flavors, d.u32())
		}
	}
	return r, d.end("MNT results")
}

// Append appends the XDR of r to b.
func (r *DumpResult) Append(b []byte) []byte {
	for _, m := range r.Mounts {
		b = appendFlag(b, true)
		b = appendOpaque(appendOpaque(b, m.Host), m.Dir)
	}
	return appendFlag(b, false)
}

// DecodeDumpResult reads the results of DUMP.
func DecodeDumpResult(b []byte) (DumpResult, error) {
	d := reader{b: b}
	var r DumpResult
	for d.flag() {
		r.Mounts = append(r.Mounts, Mount{Host: d.opaque(MaxMountName), Dir: d.opaque(MaxMountPath)})
	}
	return r, d.end("DUMP results")
}

// Append appends the XDR of r to b.
func (r *ExportResult) Append(b []byte) []byte {
	for _, e := range r.Exports {
		b = appendFlag(b, true)
		b = appendOpaque(b, e.Dir)
		for _, g := range e.Groups {
			b = appendFlag(b, true)
			b = appendOpaque(b, g)
		}
		b = appendFlag(b, false)
	}
	return appendFlag(b, false)
}

// DecodeExportResult reads the results of EXPORT.
func DecodeExportResult(b []byte) (ExportResult, error) {
	d := reader{b: b}
	var r ExportResult
	for d.flag() {
		e := Export{Dir: d.opaque(MaxMountPath)}
		for d.flag() {
			e.Groups = append(e.Groups, d.opaque(MaxMountName))
		}
		r.Exports = append(r.Exports, e)
	}
	return r, d.end("EXPORT results")
}
