// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bfs/pkg/pbft"
	"bfs/test/cluster"
)

// A standing is how far a replica has come: what its directory holds, or what it has promised that
// its directory holds. All numbers only grow.
type standing struct {
	View      pbft.View
	Fence     pbft.SeqNum
	Voted     pbft.SeqNum
	Committed pbft.SeqNum
	Image     pbft.SeqNum
	Records   uint64
}

func standingOf(r *pbft.DirectoryReport) standing {
	return standing{r.View, r.Fence, r.Voted, r.Committed, r.Image.Seq, r.Records}
}

// lacks says in what a directory falls short of want.
func (s standing) lacks(want standing) (short string) {
	for _, x := range []struct {
		what      string
		have, min uint64
	}{
		{"view", uint64(s.View), uint64(want.View)},
		{"fence", uint64(s.Fence), uint64(want.Fence)},
		{"last vote", uint64(s.Voted), uint64(want.Voted)},
		{"last committed batch", uint64(s.Committed), uint64(want.Committed)},
		{"image", uint64(s.Image), uint64(want.Image)},
		{"records of the journal", s.Records, want.Records},
	} {
		if x.have < x.min {
			short += fmt.Sprintf(" %s: got %d, want >= %d;", x.what, x.have, x.min)
		}
	}
	return short
}

func (s standing) and(o standing) standing {
	return standing{max(s.View, o.View), max(s.Fence, o.Fence), max(s.Voted, o.Voted),
		max(s.Committed, o.Committed), max(s.Image, o.Image), max(s.Records, o.Records)}
}

// markFormat is one word, as the text of a mark must be.
const markFormat = "promised:%d:%d:%d:%d:%d:%d"

func (s standing) mark() string {
	return fmt.Sprintf(markFormat, s.View, s.Fence, s.Voted, s.Committed, s.Image, s.Records)
}

func parseMark(mark string) (s standing, err error) {
	_, err = fmt.Sscanf(mark, markFormat, &s.View, &s.Fence, &s.Voted, &s.Committed, &s.Image, &s.Records)
	if err != nil {
		err = fmt.Errorf("mark %q: %w", mark, err)
	}
	return s, err
}

// promised asks three replicas what the first of them has promised. These three are all that run,
// and so each quorum needs the first one:
//
//	a batch that another has executed   all have voted for it
//	a checkpoint that is stable there   all have said what the state after it is
//	a view that is active there         all have left the view before
//
// The first one itself says which records and which image are durable.
func promised(ctx context.Context, own string, others []string) (s standing) {
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, address := range append([]string{own}, others...) {
		asking.Go(func() {
			x, err := cluster.Status(ctx, address)
			if err != nil {
				return
			}
			var said standing
			switch {
			case address == own && x.Disk != nil:
				said.Records, said.Image = x.Disk.Durable, x.Disk.Image
			case address != own:
				said.Voted, said.Fence, said.Committed = x.LastExecuted, x.LastExecuted, x.Stable
				if x.Active {
					said.View = x.View
				}
			}
			mu.Lock()
			defer mu.Unlock()
			s = s.and(said)
		})
	}
	asking.Wait()
	return s
}

// askEvery is the interval at which promises are noted.
const askEvery = 10 * time.Millisecond

// notePromises puts a mark into the log of writes whenever the replica has promised more. The mark
// comes after the promise, and so after the flushes on which the promise rests.
func notePromises(own string, others []string) {
	var noted standing
	for range time.Tick(askEvery) {
		s := noted.and(promised(context.Background(), own, others))
		if s == noted {
			continue
		}
		if err := deviceMessage("host", "mark "+s.mark()); err != nil {
			fmt.Println("power:", err)
		}
		noted = s
	}
}

// deviceMessage does the work of dmsetup message NAME 0 TEXT. To start a process takes longer than
// a flush [Linux, include/uapi/linux/dm-ioctl.h].
func deviceMessage(name, text string) error {
	const messageCall = 0xc138fd0e // DM_TARGET_MSG
	control, err := unix.Open("/dev/mapper/control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/mapper/control: %w", err)
	}
	defer unix.Close(control)
	type header struct {
		version         [3]uint32
		size, start     uint32
		targets         uint32
		open            int32
		flags, event, _ uint32
		device          uint64
		name            [128]byte
		uuid            [129]byte
		_               [7]byte
		sector          uint64
		text            [512]byte
	}
	h := header{version: [3]uint32{4, 0, 0}}
	h.size, h.start = uint32(unsafe.Sizeof(h)), uint32(unsafe.Offsetof(h.sector))
	copy(h.name[:len(h.name)-1], name)
	copy(h.text[:len(h.text)-1], text)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(control), messageCall, uintptr(unsafe.Pointer(&h)))
	if errno != 0 {
		return fmt.Errorf("message %q to device %s: %w", text, name, errno)
	}
	return nil
}
