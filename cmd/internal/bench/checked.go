// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// newChecked is an honest client that writes and reads in turn, each lane a block of its own, and
// checks that a read returns what was acknowledged last.
func newChecked(c *pbft.Client, file nfs3.FileHandle) *honest {
	var lanes []lane
	for i := range honestOutstanding {
		lanes = append(lanes, &checked{file: file, offset: uint64(i * honestBytes), reads: true})
	}
	return startHonest(c, lanes)
}

// A checked lane writes a block of a file and reads it again, with other bytes each time.
type checked struct {
	file   nfs3.FileHandle
	offset uint64
	writes uint64 // begun
	reads  bool   // the last call was a READ
}

func (l *checked) next() pbft.Call {
	l.reads = !l.reads
	if l.reads {
		return readCall(l.file, l.offset, honestBytes)
	}
	l.writes++
	return writeCall(l.file, l.offset, l.content())
}

// content is what the last write wrote: no other write of the file has the same.
func (l *checked) content() []byte {
	one := binary.LittleEndian.AppendUint64(nil, l.writes)
	return bytes.Repeat(binary.LittleEndian.AppendUint64(one, l.offset), honestBytes/16)
}

func (l *checked) judge(reply []byte) error {
	_, results, err := nfs3.ParseReply(reply)
	if err != nil {
		return err
	}
	if !l.reads {
		r, err := nfs3.DecodeWriteResult(results)
		if err == nil && r.Count != honestBytes {
			err = fmt.Errorf("a WRITE of %d bytes wrote %d", honestBytes, r.Count)
		}
		return err
	}
	r, err := nfs3.DecodeReadResult(results)
	if err != nil {
		return err
	}
	if got := bytes.Join(r.Data, nil); !bytes.Equal(got, l.content()) {
		return fmt.Errorf("wrong answer: a READ at %d returned %d bytes, %.16x and more, want %.16x of the last "+
			"acknowledged WRITE", l.offset, len(got), got, l.content())
	}
	return nil
}
