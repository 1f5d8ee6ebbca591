// SPDX-License-Identifier: Apache-2.0

package nfs3

// Append appends the XDR of r to b.
func (r *GetattrResult) Append(b []byte) []byte {
	b = appendStatus(b, r.Status)
	if r.Status != OK {
		return b
	}
	return appendFattr(b, &r.Attr)
}

// DecodeGetattrResult reads the results of GETATTR.
func DecodeGetattrResult(b []byte) (GetattrResult, error) {
	d := reader{b: b}
	r := GetattrResult{Status: d.status()}
	if r.Status == OK {
		r.Attr = d.fattr()
	}
	return r, d.end("GETATTR results")
}

// Append appends the XDR of r to b.
func (r *SetattrResult) Append(b []byte) []byte {
	return appendWcc(appendStatus(b, r.Status), &r.Wcc)
}

// DecodeSetattrResult reads the results of SETATTR.
func DecodeSetattrResult(b []byte) (SetattrResult, error) {
	d := reader{b: b}
	r := SetattrResult{Status: d.status(), Wcc: d.wcc()}
	return r, d.end("SETATTR results")
}

// Append appends the XDR of r to b.
func (r *LookupResult) Append(b []byte) []byte {
	b = appendStatus(b, r.Status)
	if r.Status == OK {
		b = appendHandle(b, r.Object)
		b = appendPostOpAttr(b, &r.Attr)
	}
	return appendPostOpAttr(b, &r.Dir)
}

// DecodeLookupResult reads the results of LOOKUP.
func DecodeLookupResult(b []byte) (LookupResult, error) {
	d := reader{b: b}
	r := LookupResult{Status: d.status()}
	if r.Status == OK {
		r.Object, r.Attr = d.handle(), d.postOpAttr()
	}
	r.Dir = d.postOpAttr()
	return r, d.end("LOOKUP results")
}

// Append appends the XDR of r to b.
func (r *AccessResult) Append(b []byte) []byte {
	b = appendPostOpAttr(appendStatus(b, r.Status), &r.Attr)
	if r.Status != OK {
		return b
	}
	return appendU32(b, r.Access)
}

// DecodeAccessResult reads the results of ACCESS.
func DecodeAccessResult(b []byte) (AccessResult, error) {
	d := reader{b: b}
	r := AccessResult{Status: d.status(), Attr: d.postOpAttr()}
	if r.Status == OK {
		r.Access = d.u32()
	}
	return r, d.end("ACCESS results")
}

// Append appends the XDR of r to b.
func (r *ReadlinkResult) Append(b []byte) []byte {
	b = appendPostOpAttr(appendStatus(b, r.Status), &r.Attr)
	if r.Status != OK {
		return b
	}
	return appendOpaque(b, r.Path)
}

// Size returns how many bytes Append appends at most, for a caller that makes its buffer once.
func (r *ReadlinkResult) Size() int { return 4 + 4 + fattrSize + 4 + padded(len(r.Path)) }

// DecodeReadlinkResult reads the results of READLINK.
func DecodeReadlinkResult(b []byte) (ReadlinkResult, error) {
	d := reader{b: b}
	r := ReadlinkResult{Status: d.status(), Attr: d.postOpAttr()}
	if r.Status == OK {
		r.Path = d.rest()
	}
	return r, d.end("READLINK results")
}

// Append appends the XDR of r to b: the one copy of the data.
func (r *ReadResult) Append(b []byte) []byte {
	b = appendPostOpAttr(appendStatus(b, r.Status), &r.Attr)
	if r.Status != OK {
		return b
	}
	n := r.Count()
	b = appendU32(b, uint32(n))
	b = appendFlag(b, r.EOF)
	b = appendU32(b, uint32(n))
	for _, piece := range r.Data {
		b = append(b, piece...)
	}
	return appendPadding(b, n)
}

// Count is the number of bytes read.
func (r *ReadResult) Count() int {
	n := 0
	for _, piece := range r.Data {
		n += len(piece)
	}
	return n
}

// Size returns how many bytes Append appends at most, for a caller that makes its buffer once.
func (r *ReadResult) Size() int {
	return 4 + 4 + fattrSize + 4 + 4 + 4 + padded(r.Count())
}

// DecodeReadResult reads the results of READ.
func DecodeReadResult(b []byte) (ReadResult, error) {
	d := reader{b: b}
	r := ReadResult{Status: d.status(), Attr: d.postOpAttr()}
	if r.Status == OK {
		count := d.u32()
		r.EOF = d.flag()
		data := d.rest()
		if uint64(count) != uint64(len(data)) {
			d.fail()
		}
		if len(data) > 0 {
			r.Data = [][]byte{data}
		}
	}
	return r, d.end("READ results")
}

// Append appends the XDR of r to b.
func (r *WriteResult) Append(b []byte) []byte {
	b = appendWcc(appendStatus(b, r.Status), &r.Wcc)
	if r.Status != OK {
		return b
	}
	b = appendU32(b, r.Count)
	b = appendU32(b, uint32(r.Committed))
	return append(b, r.Verifier[:]...)
}

// DecodeWriteResult reads the results of WRITE.
func DecodeWriteResult(b []byte) (WriteResult, error) {
	d := reader{b: b}
	r := WriteResult{Status: d.status(), Wcc: d.wcc()}
	if r.Status == OK {
		r.Count = d.u32()
		r.Committed = StableHow(d.enum(uint32(Unstable), uint32(FileSync)))
		r.Verifier = d.verifier()
	}
	return r, d.end("WRITE results")
}

// Append appends the XDR of r to b.
func (r *CreateResult) Append(b []byte) []byte {
	b = appendStatus(b, r.Status)
	if r.Status == OK {
		b = appendPostOpFH(b, r.Object)
		b = appendPostOpAttr(b, &r.Attr)
	}
	return appendWcc(b, &r.Dir)
}

// DecodeCreateResult reads the results of CREATE, MKDIR, SYMLINK and MKNOD.
func DecodeCreateResult(b []byte) (CreateResult, error) {
	d := reader{b: b}
	r := CreateResult{Status: d.status()}
	if r.Status == OK {
		r.Object, r.Attr = d.postOpFH(), d.postOpAttr()
	}
	r.Dir = d.wcc()
	return r, d.end("results of a creator")
}

// DecodeMkdirResult reads the results of MKDIR.
func DecodeMkdirResult(b []byte) (MkdirResult, error) { return DecodeCreateResult(b) }

// DecodeSymlinkResult reads the results of SYMLINK.
func DecodeSymlinkResult(b []byte) (SymlinkResult, error) { return DecodeCreateResult(b) }

// DecodeMknodResult reads the results of MKNOD.
func DecodeMknodResult(b []byte) (MknodResult, error) { return DecodeCreateResult(b) }

// Append appends the XDR of r to b.
func (r *RemoveResult) Append(b []byte) []byte {
	return appendWcc(appendStatus(b, r.Status), &r.Dir)
}

// DecodeRemoveResult reads the results of REMOVE and RMDIR.
func DecodeRemoveResult(b []byte) (RemoveResult, error) {
	d := reader{b: b}
	r := RemoveResult{Status: d.status(), Dir: d.wcc()}
	return r, d.end("REMOVE results")
}

// DecodeRmdirResult reads the results of RMDIR.
func DecodeRmdirResult(b []byte) (RmdirResult, error) { return DecodeRemoveResult(b) }

// Append appends the XDR of r to b.
func (r *RenameResult) Append(b []byte) []byte {
	return appendWcc(appendWcc(appendStatus(b, r.Status), &r.From), &r.To)
}

// DecodeRenameResult reads the results of RENAME.
func DecodeRenameResult(b []byte) (RenameResult, error) {
	d := reader{b: b}
	r := RenameResult{Status: d.status(), From: d.wcc(), To: d.wcc()}
	return r, d.end("RENAME results")
}

// Append appends the XDR of r to b.
func (r *LinkResult) Append(b []byte) []byte {
	return appendWcc(appendPostOpAttr(appendStatus(b, r.Status), &r.Attr), &r.Dir)
}

// DecodeLinkResult reads the results of LINK.
func DecodeLinkResult(b []byte) (LinkResult, error) {
	d := reader{b: b}
	r := LinkResult{Status: d.status(), Attr: d.postOpAttr(), Dir: d.wcc()}
	return r, d.end("LINK results")
}

// Append appends the XDR of r to b.
func (r *FsstatResult) Append(b []byte) []byte {
	b = appendPostOpAttr(appendStatus(b, r.Status), &r.Attr)
	if r.Status != OK {
		return b
	}
	for _, v := range [...]uint64{r.Tbytes, r.Fbytes, r.Abytes, r.Tfiles, r.Ffiles, r.Afiles} {
		b = appendU64(b, v)
	}
	return appendU32(b, r.Invarsec)
}

// DecodeFsstatResult reads the results of FSSTAT.
func DecodeFsstatResult(b []byte) (FsstatResult, error) {
	d := reader{b: b}
	r := FsstatResult{Status: d.status(), Attr: d.postOpAttr()}
	if r.Status == OK {
		r.Tbytes, r.Fbytes, r.Abytes = d.u64(), d.u64(), d.u64()
		r.Tfiles, r.Ffiles, r.Afiles = d.u64(), d.u64(), d.u64()
		r.Invarsec = d.u32()
	}
	return r, d.end("FSSTAT results")
}

// Append appends the XDR of r to b.
func (r *FsinfoResult) Append(b []byte) []byte {
	b = appendPostOpAttr(appendStatus(b, r.Status), &r.Attr)
	if r.Status != OK {
		return b
	}
	for _, v := range [...]uint32{r.Rtmax, r.Rtpref, r.Rtmult, r.Wtmax, r.Wtpref, r.Wtmult, r.Dtpref} {
		b = appendU32(b, v)
	}
	b = appendU64(b, r.MaxFileSize)
	b = appendTime(b, r.TimeDelta)
	return appendU32(b, r.Properties)
}

// DecodeFsinfoResult reads the results of FSINFO.
func DecodeFsinfoResult(b []byte) (FsinfoResult, error) {
	d := reader{b: b}
	r := FsinfoResult{Status: d.status(), Attr: d.postOpAttr()}
	if r.Status == OK {
		r.Rtmax, r.Rtpref, r.Rtmult = d.u32(), d.u32(), d.u32()
		r.Wtmax, r.Wtpref, r.Wtmult = d.u32(), d.u32(), d.u32()
		r.Dtpref = d.u32()
		r.MaxFileSize = d.u64()
		r.TimeDelta = d.time()
		r.Properties = d.u32()
	}
	return r, d.end("FSINFO results")
}

// Append appends the XDR of r to b.
func (r *PathconfResult) Append(b []byte) []byte {
	b = appendPostOpAttr(appendStatus(b, r.Status), &r.Attr)
	if r.Status != OK {
		return b
	}
	b = appendU32(b, r.Linkmax)
	b = appendU32(b, r.NameMax)
	b = appendFlag(b, r.NoTrunc)
	b = appendFlag(b, r.ChownRestricted)
	b = appendFlag(b, r.CaseInsensitive)
	return appendFlag(b, r.CasePreserving)
}

// DecodePathconfResult reads the results of PATHCONF.
func DecodePathconfResult(b []byte) (PathconfResult, error) {
	d := reader{b: b}
	r := PathconfResult{Status: d.status(), Attr: d.postOpAttr()}
	if r.Status == OK {
		r.Linkmax, r.NameMax = d.u32(), d.u32()
		r.NoTrunc, r.ChownRestricted = d.flag(), d.flag()
		r.CaseInsensitive, r.CasePreserving = d.flag(), d.flag()
	}
	return r, d.end("PATHCONF results")
}

// Append appends the XDR of r to b.
func (r *CommitResult) Append(b []byte) []byte {
	b = appendWcc(appendStatus(b, r.Status), &r.Wcc)
	if r.Status != OK {
		return b
	}
	return append(b, r.Verifier[:]...)
}

// DecodeCommitResult reads the results of COMMIT.
func DecodeCommitResult(b []byte) (CommitResult, error) {
	d := reader{b: b}
	r := CommitResult{Status: d.status(), Wcc: d.wcc()}
	if r.Status == OK {
		r.Verifier = d.verifier()
	}
	return r, d.end("COMMIT results")
}
