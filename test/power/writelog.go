// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A writeLog is what the kernel's device mapper recorded of a disk: the writes that a flush
// covered, in an order in which they reached the disk, the flushes, and marks [Linux,
// Documentation/admin-guide/device-mapper/log-writes.rst]. The log has sectors of a size that its
// first sector names:
//
//	sector 0: magic, version, how many entries (8 bytes each), length of a sector (4 bytes)
//	then for each entry a sector: sector of the disk, number of sectors, flags, length of the text
//	(8 bytes each), and the text of a mark; then the data of a write
//
// All numbers are little-endian. A write that no flush covered is not in the log of a kernel whose
// power was cut.
type writeLog struct {
	file    io.ReaderAt
	entries []entry
}

// An entry is one write, flush or mark.
type entry struct {
	flags  uint64
	offset int64  // on the disk, in bytes
	length int64  // of the write, in bytes
	data   int64  // where the log has it
	mark   string // of a mark
}

const (
	logMagic   = 0x6a736677736872
	logVersion = 1

	flagFlush   = 1 << 0 // all writes before it in the log are durable
	flagFUA     = 1 << 1 // this write is durable
	flagDiscard = 1 << 2 // no data follows
	flagMark    = 1 << 3

	flagMetadata = 1 << 4 // the file system's own

	mostSectors = 1 << 40
)

// durable reports whether the disk has promised something with this entry: a power cut after it
// leaves all that is before it in the log.
func (e *entry) durable() bool { return e.flags&(flagFlush|flagFUA) != 0 }

// writes reports whether the entry changes the disk.
func (e *entry) writes() bool { return e.flags&(flagDiscard|flagMark) == 0 && e.length > 0 }

// metadata reports whether the file system wrote this for itself. Its first block, which has the
// super block, comes without the flag.
func (e *entry) metadata() bool { return e.flags&flagMetadata != 0 || e.offset < diskBlock }

// readWriteLog reads the entries of a log, without the data.
func readWriteLog(file io.ReaderAt) (*writeLog, error) {
	var super [28]byte
	if _, err := file.ReadAt(super[:], 0); err != nil {
		return nil, fmt.Errorf("read the log of writes: %w", err)
	}
	magic, version := binary.LittleEndian.Uint64(super[:]), binary.LittleEndian.Uint64(super[8:])
	count, sector := binary.LittleEndian.Uint64(super[16:]), int64(binary.LittleEndian.Uint32(super[24:]))
	if magic != logMagic || version != logVersion || sector < 512 || sector > 1<<16 {
		return nil, fmt.Errorf("the log of writes begins with %x: it is none of version %d", super, logVersion)
	}
	l := &writeLog{file: file}
	head := make([]byte, sector)
	at := sector
	for n := range count {
		if _, err := file.ReadAt(head, at); err != nil {
			return nil, fmt.Errorf("read entry %d of the log of writes: %w", n, err)
		}
		at += sector
		place, sectors := binary.LittleEndian.Uint64(head), binary.LittleEndian.Uint64(head[8:])
		text := binary.LittleEndian.Uint64(head[24:])
		if place > mostSectors || sectors > mostSectors || text > uint64(sector-32) {
			return nil, fmt.Errorf("entry %d of the log of writes is none: %x", n, head[:32])
		}
		e := entry{
			flags: binary.LittleEndian.Uint64(head[16:]), data: at,
			offset: int64(place) * sector, length: int64(sectors) * sector,
		}
		switch {
		case e.flags&flagMark != 0:
			e.mark, e.length = string(head[32:32+text]), 0
		case e.flags&flagDiscard == 0:
			at += e.length
		}
		l.entries = append(l.entries, e)
	}
	return l, nil
}

// read returns the data of a write.
func (l *writeLog) read(e *entry, b []byte) error {
	if _, err := l.file.ReadAt(b[:e.length], e.data); err != nil {
		return fmt.Errorf("read the log of writes: %w", err)
	}
	return nil
}
