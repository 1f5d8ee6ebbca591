// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

type (
	slotNumber = pbft.Slot
	timestamp  = pbft.Timestamp
)

// The file, little-endian:
//
//	page 0       header   magic, version, slots, owner, CRC; outside the CRC, the boot and two times of its use
//	ringStart    ring     ringRecords answers of calls that changed something, ringRecord bytes each
//	regions      one region for each slot: the operation that is under way in it
//
// A region or an answer is valid from the moment its guard word is stored, which happens
// last, so a relay killed at any point leaves the old record or the new one, never half
// of one. The kernel that waits for the answers lives on this machine, so a record need
// only survive the process: nothing is synced before a call leaves. After a crash of the
// machine records may be torn, and no client asks for them any more. Then no answer is
// given from the file, and operations under way are sent again only so that they end.
//
//	region   0 guard u32 (0 free, 1 under way)   4 CRC u32 of the rest
//	         8 t u64   16 xid u32   20 length u32   24 address 16 bytes   40 slot u32   44 port u32   48 digest u64
//	         64 operation
//	answer   0 guard u64 (its number, from 1)   8 CRC u32 of the rest
//	         12 slot u32   16 t u64   24 xid u32   28 port u32   32 digest u64   40 when it was given u64
//	         48 address 16 bytes   64 length u32   68 accept_stat and results
//
// Version 1 had neither ports nor times nor this digest. Its answers are dropped, and the
// calls under way in it are sent again as after a crash of the machine.
const (
	journalMagic   = "BFSRELAY"
	journalVersion = 2
	pageSize       = 4096

	headerCRC   = 60 // offset of the CRC, behind the bytes that it covers
	headerBoot  = 64
	bootSize    = 36
	headerAlive = 104 // when the relay last said that it lives, u64
	headerServe = 112 // when the latest life began to serve, u64; 0 in files of earlier programs

	ringStart   = pageSize
	ringRecords = 4096
	ringRecord  = 512
	ringHead    = 68

	regions     = ringStart + ringRecords*ringRecord
	regionHead  = 64
	regionSmall = pageSize // of each region, space taken when the file is made
	maxBody     = 24 + 4*nfs3.MaxGroups + nfs3.MaxArguments
	regionSize  = (regionHead + maxBody + pageSize - 1) / pageSize * pageSize

	maxSlots = 4096
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrJournal refuses a file that is no journal of this client.
var ErrJournal = errors.New("unusable relay journal")

// bootIDFile holds the identifier of this boot of the machine.
var bootIDFile = "/proc/sys/kernel/random/boot_id"

// A Journal is the mapped file in which the relay notes its operations under way and its
// recent answers, so that kernels do not notice its restart (R-OUR-15). Its methods may
// be called from any goroutine.
type Journal struct {
	path string
	file *os.File
	torn int // records dropped because the machine had crashed

	sameBoot bool // the file is of this boot: clients of the earlier life may still be there

	life   sync.RWMutex // held for reading while mapped is touched
	mapped []byte       // nil once closed

	mu       sync.Mutex
	occupied []timestamp // by slot: the operation under way; 0 none
	space    []int       // by slot: bytes of the region the file system has given
	answers  uint64      // answers written ever

	overtaken atomic.Uint64 // operations noted in a slot before the one there was answered: a client's bug
}

// JournalOptions say which client a journal belongs to.
type JournalOptions struct {
	// Slots is the number of the client's slots, fixed at its enrolment (R-OUR-13).
	Slots int
	// Owner identifies the client: a digest over group and client.
	Owner [32]byte
}

// OpenJournal opens the journal at path, or makes one. The file is sparse: its size is about
// 1 MiB a slot, and it takes as much disk as the largest calls so far have needed. A
// directory that lives as long as the machine is up, such as one below /run, is good enough.
//
// A lost file is replaced by an empty one. A file that is damaged, cut short, or another
// client's is an error that says what to do. If the machine has been restarted since,
// damaged records are dropped instead.
func OpenJournal(path string, o JournalOptions) (*Journal, error) {
	if o.Slots < 1 || o.Slots > maxSlots {
		return nil, fmt.Errorf("relay journal %s: got %d slots, want 1 to %d", path, o.Slots, maxSlots)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("relay journal: %w", err)
	}
	j := &Journal{path: path, file: f, occupied: make([]timestamp, o.Slots), space: make([]int, o.Slots)}
	if err := j.open(o); err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}

func (j *Journal) open(o JournalOptions) error {
	if err := unix.Flock(int(j.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("relay journal %s: in use by another relay: %w", j.path, err)
	}
	info, err := j.file.Stat()
	if err != nil {
		return fmt.Errorf("relay journal: %w", err)
	}
	if !info.Mode().IsRegular() {
		return j.unusable("not a regular file")
	}
	size := int64(regions) + int64(o.Slots)*regionSize
	head := make([]byte, pageSize)
	if info.Size() > 0 {
		if _, err := j.file.ReadAt(head, 0); err != nil {
			return j.unusable("cut short")
		}
	}
	// The header is written last, so one of zeros means that the file was not completed.
	made := strings.Trim(string(head), "\x00") != ""
	if made {
		if err := j.checkHeader(head, o, info.Size(), size); err != nil {
			return err
		}
	} else if err := j.create(size); err != nil {
		return err
	}
	j.mapped, err = unix.Mmap(int(j.file.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("relay journal %s: map: %w", j.path, err)
	}
	for i := range j.space {
		j.space[i] = regionSmall
	}
	boot := bootID()
	if made {
		if err := j.readBack(head, boot); err != nil {
			return err
		}
	}
	if !made || headerVersion(head) != journalVersion {
		j.writeHeader(o)
	}
	copy(j.mapped[headerBoot:headerBoot+bootSize], boot)
	return nil
}

func headerVersion(h []byte) uint32 { return binary.LittleEndian.Uint32(h[8:]) }

// readBack checks the records that an earlier life left.
func (j *Journal) readBack(head []byte, boot string) error {
	sameBoot := string(head[headerBoot:headerBoot+bootSize]) == boot
	if headerVersion(head) != journalVersion {
		for i := range ringRecords {
			guard64(j.answerAt(i)).Store(0)
		}
	}
	if err := j.scan(sameBoot); err != nil {
		return err
	}
	j.sameBoot = sameBoot && headerVersion(head) == journalVersion
	return nil
}

// unusable makes the error about a file that cannot serve.
func (j *Journal) unusable(format string, args ...any) error {
	return fmt.Errorf("%w %s: %s; move the file away to go on without it: calls that were under way "+
		"when the relay stopped may then fail, or be done twice", ErrJournal, j.path, fmt.Sprintf(format, args...))
}

// create gives the file its size and takes the space that small calls need, so that a
// full disk shows now and not as a fault in mapped memory.
func (j *Journal) create(size int64) error {
	if err := j.file.Truncate(0); err != nil {
		return fmt.Errorf("relay journal: %w", err)
	}
	if err := j.file.Truncate(size); err != nil {
		return fmt.Errorf("relay journal: %w", err)
	}
	if err := j.take(0, regions); err != nil {
		return err
	}
	for i := range j.space {
		if err := j.take(regionAt(slotNumber(i)), regionSmall); err != nil {
			return err
		}
	}
	return nil
}

// take asks the file system for the space of [at, at+n).
func (j *Journal) take(at, n int) error {
	err := unix.Fallocate(int(j.file.Fd()), 0, int64(at), int64(n))
	if errors.Is(err, unix.EOPNOTSUPP) { // write zeros instead
		_, err = j.file.WriteAt(make([]byte, n), int64(at))
	}
	if err != nil {
		return fmt.Errorf("relay journal %s: take %d bytes of disk: %w", j.path, n, err)
	}
	return nil
}

func (j *Journal) writeHeader(o JournalOptions) {
	h := make([]byte, headerCRC+4)
	copy(h, journalMagic)
	binary.LittleEndian.PutUint32(h[8:], journalVersion)
	binary.LittleEndian.PutUint32(h[12:], uint32(o.Slots))
	copy(h[16:48], o.Owner[:])
	binary.LittleEndian.PutUint32(h[headerCRC:], crc32.Checksum(h[:headerCRC], castagnoli))
	copy(j.mapped[8:], h[8:])
	copy(j.mapped[:8], h[:8])
}

func (j *Journal) checkHeader(h []byte, o JournalOptions, got, want int64) error {
	switch {
	case string(h[:8]) != journalMagic:
		return j.unusable("not a relay journal")
	case headerVersion(h) < 1 || headerVersion(h) > journalVersion:
		return j.unusable("version %d, want 1 to %d", headerVersion(h), journalVersion)
	case binary.LittleEndian.Uint32(h[headerCRC:]) != crc32.Checksum(h[:headerCRC], castagnoli):
		return j.unusable("damaged header")
	case string(h[16:48]) != string(o.Owner[:]):
		return j.unusable("it belongs to another client or group")
	case binary.LittleEndian.Uint32(h[12:]) != uint32(o.Slots):
		return j.unusable("made for %d slots, the client has %d", binary.LittleEndian.Uint32(h[12:]), o.Slots)
	case got != want:
		return j.unusable("%d bytes long, want %d", got, want)
	}
	return nil
}

// scan checks every record that is marked valid. If the machine has not been restarted
// since, a damaged one is an error; after a crash of the machine it is dropped.
func (j *Journal) scan(sameBoot bool) error {
	if err := j.scanRegions(sameBoot); err != nil {
		return err
	}
	for i := range ringRecords {
		r := j.answerAt(i)
		if guard64(r).Load() == 0 {
			continue
		}
		if !answerValid(r) {
			if sameBoot {
				return j.unusable("damaged answer %d", i)
			}
			guard64(r).Store(0)
			j.torn++
			continue
		}
		j.answers = max(j.answers, guard64(r).Load())
		// The relay was killed between keeping the answer and freeing the slot: the
		// operation is not sent again.
		slot, t := binary.LittleEndian.Uint32(r[12:]), binary.LittleEndian.Uint64(r[16:])
		if int(slot) < len(j.occupied) && t != 0 && j.occupied[slot] == timestamp(t) {
			j.free(slotNumber(slot))
		}
	}
	return nil
}

func (j *Journal) scanRegions(sameBoot bool) error {
	for i := range j.occupied {
		r := j.region(slotNumber(i))
		if guard32(r).Load() == 0 {
			continue
		}
		if !regionValid(r, i) {
			if sameBoot {
				return j.unusable("damaged record of slot %d", i)
			}
			guard32(r).Store(0)
			j.torn++
			continue
		}
		j.occupied[i] = timestamp(binary.LittleEndian.Uint64(r[8:]))
	}
	return nil
}

func regionAt(slot slotNumber) int { return regions + int(slot)*regionSize }

func (j *Journal) region(slot slotNumber) []byte {
	return j.mapped[regionAt(slot):][:regionSize:regionSize]
}

func (j *Journal) answerAt(i int) []byte {
	return j.mapped[ringStart+i*ringRecord:][:ringRecord:ringRecord]
}

// guard32 and guard64 return the words that make a record valid. Stores before an atomic
// store are not moved behind it, so a process killed in between has not stored the guard.
// Mapped records are aligned.
func guard32(r []byte) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(unsafe.SliceData(r))) }
func guard64(r []byte) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(r))) }

func regionValid(r []byte, slot int) bool {
	n := binary.LittleEndian.Uint32(r[20:])
	return guard32(r).Load() == 1 && n <= maxBody &&
		binary.LittleEndian.Uint32(r[40:]) == uint32(slot) &&
		binary.LittleEndian.Uint32(r[4:]) == crc32.Checksum(r[8:regionHead+n], castagnoli)
}

func answerValid(r []byte) bool {
	n := binary.LittleEndian.Uint32(r[64:])
	return n >= 4 && n <= ringRecord-ringHead &&
		binary.LittleEndian.Uint32(r[8:]) == crc32.Checksum(r[12:ringHead+n], castagnoli)
}

// begin notes that the operation of k leaves as (slot, t). The slot should be free: a
// client gives it to the next operation only after Done of the one before, because a
// relay killed between the two does not know the answer to the first.
func (j *Journal) begin(slot slotNumber, t timestamp, k *call) error {
	j.life.RLock()
	defer j.life.RUnlock()
	switch {
	case j.mapped == nil:
		return fmt.Errorf("relay journal %s: closed", j.path)
	case int(slot) >= len(j.occupied):
		return fmt.Errorf("relay journal %s: slot %d of %d", j.path, slot, len(j.occupied))
	case len(k.body) > maxBody:
		return fmt.Errorf("relay journal %s: operation of %d bytes, want <= %d", j.path, len(k.body), maxBody)
	}
	if err := j.occupy(slot, t, regionHead+len(k.body)); err != nil {
		return err
	}
	r := j.region(slot)
	guard32(r).Store(0)
	binary.LittleEndian.PutUint64(r[8:], uint64(t))
	binary.LittleEndian.PutUint32(r[16:], k.key.xid)
	binary.LittleEndian.PutUint32(r[20:], uint32(len(k.body)))
	peer := k.key.peer.Addr().As16()
	copy(r[24:40], peer[:])
	binary.LittleEndian.PutUint32(r[40:], uint32(slot))
	binary.LittleEndian.PutUint32(r[44:], uint32(k.key.peer.Port()))
	binary.LittleEndian.PutUint64(r[48:], uint64(k.key.digest))
	binary.LittleEndian.PutUint64(r[56:], 0)
	copy(r[regionHead:], k.body)
	binary.LittleEndian.PutUint32(r[4:], crc32.Checksum(r[8:regionHead+len(k.body)], castagnoli))
	guard32(r).Store(1)
	return nil
}

// occupy claims the slot, and disk space for a record of n bytes.
func (j *Journal) occupy(slot slotNumber, t timestamp, n int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if old := j.occupied[slot]; old != 0 && old != t {
		j.overtaken.Add(1)
	}
	if n > j.space[slot] {
		n = min(regionSize, (n+n/2+pageSize-1)/pageSize*pageSize) // room to grow, so that this is rare
		if err := j.take(regionAt(slot), n); err != nil {
			return err
		}
		j.space[slot] = n
	}
	j.occupied[slot] = t
	return nil
}

// finish notes that k has its answer, keeps the answer if it fits, and only then frees the
// slot. A relay killed in between sends the operation once more in its next life and gets the
// same answer. A nil reply is not kept. It returns the answer's number, 0 if none was kept.
func (j *Journal) finish(k *call, reply []byte, at instant) (note uint64) {
	j.life.RLock()
	defer j.life.RUnlock()
	if j.mapped == nil {
		return 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(reply) >= 4 && len(reply) <= ringRecord-ringHead {
		j.keep(k, reply, at)
		note = j.answers
	}
	if j.occupied[k.slot] == k.t {
		j.free(k.slot)
	}
	return note
}

// forget drops the answer of that number, if it is still there.
func (j *Journal) forget(note uint64) {
	j.life.RLock()
	defer j.life.RUnlock()
	if j.mapped == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	guard64(j.answerAt(int((note-1)%ringRecords))).CompareAndSwap(note, 0)
}

// alive notes the time at which the relay lives. A client may ask the relay's next life
// for answers that it had not taken at that time.
func (j *Journal) alive(at instant) {
	j.life.RLock()
	defer j.life.RUnlock()
	if j.mapped != nil {
		guard64(j.mapped[headerAlive:]).Store(uint64(at))
	}
}

// serves notes the time from which clients of earlier lives can come back.
func (j *Journal) serves(at instant) {
	j.life.RLock()
	defer j.life.RUnlock()
	if j.mapped != nil {
		guard64(j.mapped[headerServe:]).Store(uint64(at))
	}
}

func (j *Journal) free(slot slotNumber) {
	guard32(j.region(slot)).Store(0)
	j.occupied[slot] = 0
}

func (j *Journal) keep(k *call, reply []byte, at instant) {
	r := j.answerAt(int(j.answers % ringRecords))
	guard64(r).Store(0)
	binary.LittleEndian.PutUint32(r[12:], uint32(k.slot))
	binary.LittleEndian.PutUint64(r[16:], uint64(k.t))
	binary.LittleEndian.PutUint32(r[24:], k.key.xid)
	binary.LittleEndian.PutUint32(r[28:], uint32(k.key.peer.Port()))
	binary.LittleEndian.PutUint64(r[32:], uint64(k.key.digest))
	binary.LittleEndian.PutUint64(r[40:], uint64(at))
	peer := k.key.peer.Addr().As16()
	copy(r[48:64], peer[:])
	binary.LittleEndian.PutUint32(r[64:], uint32(len(reply)))
	copy(r[ringHead:], reply)
	binary.LittleEndian.PutUint32(r[8:], crc32.Checksum(r[12:ringHead+len(reply)], castagnoli))
	j.answers++
	guard64(r).Store(j.answers)
}

// underway returns the operations of an earlier life that have no answer. After a crash of
// the machine their clients can no longer be told apart, so they get no address: such an
// operation is sent again so that it ends, and no call is taken for its retransmission.
func (j *Journal) underway() []*call {
	j.life.RLock()
	defer j.life.RUnlock()
	var calls []*call
	for i, t := range j.occupied {
		if t == 0 {
			continue
		}
		r := j.region(slotNumber(i))
		n := binary.LittleEndian.Uint32(r[20:])
		k := &call{
			key: key{
				xid: binary.LittleEndian.Uint32(r[16:]), peer: peerOf(r[24:40], r[44:]),
				digest: digest(binary.LittleEndian.Uint64(r[48:])),
			},
			body:      append([]byte(nil), r[regionHead:regionHead+n]...),
			journaled: true, slot: slotNumber(i), t: t,
		}
		if !j.sameBoot {
			k.key.peer = netip.AddrPort{}
		}
		calls = append(calls, k)
	}
	return calls
}

// answered returns the answers of earlier lives, oldest first, and drops those that no client
// can ask for any more: when the last life ended they were older than limit, and it had served
// for longer than that. A client that could not reach a life that ended before may still be
// away.
func (j *Journal) answered(limit time.Duration) []*answered {
	j.life.RLock()
	defer j.life.RUnlock()
	if !j.sameBoot {
		return nil
	}
	death := instant(guard64(j.mapped[headerAlive:]).Load())
	served := instant(guard64(j.mapped[headerServe:]).Load())
	var list []*answered
	for i := range ringRecords {
		r := j.answerAt(int((j.answers + uint64(i)) % ringRecords))
		switch a := answerFrom(r); {
		case a == nil:
		case max(a.at, served).within(limit, death):
			list = append(list, a)
		default:
			guard64(r).Store(0)
		}
	}
	return list
}

// answerFrom reads the answer in r; nil if there is none.
func answerFrom(r []byte) *answered {
	note := guard64(r).Load()
	if note == 0 {
		return nil
	}
	n := binary.LittleEndian.Uint32(r[64:])
	return &answered{
		key: key{
			xid: binary.LittleEndian.Uint32(r[24:]), peer: peerOf(r[48:64], r[28:]),
			digest: digest(binary.LittleEndian.Uint64(r[32:])),
		},
		at: instant(binary.LittleEndian.Uint64(r[40:])), note: note,
		reply: append([]byte(nil), r[ringHead:ringHead+n]...),
	}
}

// peerOf reads an address of 16 bytes and a port.
func peerOf(address, port []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(address)).Unmap(), uint16(binary.LittleEndian.Uint32(port)))
}

// Torn counts the records dropped at opening because the machine had crashed while they
// were written.
func (j *Journal) Torn() int { return j.torn }

// Sync writes the file to its disk.
func (j *Journal) Sync() error {
	j.life.RLock()
	defer j.life.RUnlock()
	if j.mapped == nil {
		return nil
	}
	if err := unix.Msync(j.mapped, unix.MS_SYNC); err != nil {
		return fmt.Errorf("relay journal %s: sync: %w", j.path, err)
	}
	return nil
}

// Close unmaps the file. Operations under way stay noted in it.
func (j *Journal) Close() error {
	j.life.Lock()
	defer j.life.Unlock()
	if j.mapped != nil {
		if err := unix.Munmap(j.mapped); err != nil {
			return fmt.Errorf("relay journal %s: unmap: %w", j.path, err)
		}
		j.mapped = nil
	}
	if err := j.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("relay journal: %w", err)
	}
	return nil
}

// bootID returns the identifier of this boot of the machine. If it is unknown, every boot
// counts as a new one.
func bootID() string {
	b, err := os.ReadFile(bootIDFile)
	if err != nil || len(b) < bootSize {
		return ""
	}
	return string(b[:bootSize])
}
