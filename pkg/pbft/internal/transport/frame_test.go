// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// split cuts a whole stream at once: the slow obvious twin of splitter.
func split(stream []byte, maxFrame int) (frames [][]byte, rest int, bad bool) {
	for len(stream) >= headerSize {
		n := uint64(binary.LittleEndian.Uint32(stream))
		if n > uint64(maxFrame) {
			return frames, len(stream), true
		}
		if uint64(len(stream)-headerSize) < n {
			break
		}
		frames = append(frames, stream[headerSize:headerSize+n])
		stream = stream[headerSize+n:]
	}
	return frames, len(stream), false
}

// A stream is cut the same way whatever pieces it comes in; frames longer than Keep stay as they
// were handed over.
func FuzzSplitter(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0, 'x', 2, 0}, uint16(3), uint16(10))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, uint16(1), uint16(0xffff))
	long := binary.LittleEndian.AppendUint32(nil, Keep+1)
	long = append(append(long, make([]byte, Keep+1)...), 1, 0, 0, 0, 7)
	f.Add(long, uint16(100), uint16(2*Keep))
	f.Add(bytes.Repeat(binary.LittleEndian.AppendUint32(nil, 0), 3000), uint16(5000), uint16(0))
	f.Fuzz(func(t *testing.T, stream []byte, step, maxFrame uint16) {
		want, rest, bad := split(stream, int(maxFrame))
		s := newSplitter(int(maxFrame), 4*minReadBuffer)
		var got, kept [][]byte
		var failed error
		for in := stream; len(in) > 0 && failed == nil; {
			space := s.space()
			if len(space) == 0 {
				t.Fatal("no space")
			}
			n := copy(space[:min(len(space), 1+int(step))], in)
			s.filled(n)
			in = in[n:]
			for {
				var frames [][]byte
				frames, failed = s.next()
				if len(frames) > maxFrames {
					t.Fatalf("got %d frames at one time", len(frames))
				}
				if len(frames) == 0 {
					break
				}
				for _, f := range frames {
					got = append(got, bytes.Clone(f))
					if len(f) > Keep {
						kept = append(kept, f)
					}
				}
			}
		}
		if (failed != nil) != bad {
			t.Fatalf("got %v, want an error: %v", failed, bad)
		}
		if len(got) != len(want) {
			t.Fatalf("got %d frames, want %d", len(got), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d differs", i)
			}
			if len(want[i]) > Keep {
				if !bytes.Equal(kept[0], want[i]) {
					t.Fatalf("frame %d changed after it was handed over", i)
				}
				kept = kept[1:]
			}
		}
		if !bad && s.partial() != (rest > 0) {
			t.Fatalf("partial: got %v with %d bytes left", s.partial(), rest)
		}
		if len(s.buf) > 4*minReadBuffer {
			t.Fatalf("buffer grew to %d", len(s.buf))
		}
	})
}

// The bytes that go into a queue come out in order, whatever the pieces.
func FuzzQueue(f *testing.F) {
	f.Add([]byte{1, 200, 3, 255, 255, 255}, uint32(5))
	f.Add([]byte{255, 254}, uint32(chunkSize))
	f.Fuzz(func(t *testing.T, sizes []byte, step uint32) {
		var q queue
		var model []byte
		take := int(step%(3*chunkSize)) + 1
		for i, size := range sizes[:min(len(sizes), 64)] {
			p := bytes.Repeat([]byte{byte(i)}, int(size)*300)
			if size%3 == 0 {
				var header [headerSize]byte
				binary.LittleEndian.PutUint32(header[:], uint32(len(p)+1))
				shared, _ := Share(bytes.Clone(p))
				q.appendFrame(len(p)+1, shared, [][]byte{{byte(i)}})
				shared.Release()
				model = append(append(append(model, header[:]...), p...), byte(i))
			} else {
				q.append(p)
				model = append(model, p...)
			}
			got := bytes.Join(q.slices(make([][]byte, 0, 8), take), nil)
			if !bytes.HasPrefix(model, got) || len(got) > take || len(got) == 0 && len(model) > 0 {
				t.Fatalf("got %d bytes that differ", len(got))
			}
			q.consume(len(got))
			model = model[len(got):]
			if q.bytes() != len(model) || (len(model) == 0) != (len(q.chunks) == 0) {
				t.Fatalf("got %d bytes in %d chunks, want %d bytes", q.bytes(), len(q.chunks), len(model))
			}
		}
	})
}

// A frame that several queues share is used again when the last of them has sent it and
// its maker is done with it, and not before.
func TestSharedIsReleasedOnce(t *testing.T) {
	shared, other := Share([]byte("shared"))
	if len(other) != 0 {
		t.Fatalf("got %d bytes in place of what is shared, want none", len(other))
	}
	var a, b, dropped queue
	for _, q := range []*queue{&a, &b, &dropped} {
		q.appendFrame(7, shared, [][]byte{{'!'}})
	}
	holders := func(want int32) {
		t.Helper()
		if got := shared.holders.Load(); got != want {
			t.Fatalf("got %d holders, want %d", got, want)
		}
	}
	holders(4)
	a.consume(headerSize + 3)
	holders(4) // the rest of it waits yet
	a.consume(3)
	holders(3)
	dropped.drop()
	holders(3) // a write may be reading it
	a.consume(1)
	shared.Release()
	holders(2)
	if got := string(bytes.Join(b.slices(make([][]byte, 0, 8), 100), nil)[headerSize:]); got != "shared!" {
		t.Fatalf("got %q", got)
	}
	b.consume(b.bytes())
	holders(1) // the one that was dropped: it is the collector's
}

// Recycled memory serves only frames of about its length, so that a short frame that is
// kept holds no more than twice its own.
func TestRecycledFrames(t *testing.T) {
	for range 100 {
		Recycle(make([]byte, 20*Keep))
		for _, n := range []int{Keep + 1, 9 * Keep, 10 * Keep, 20 * Keep, 21 * Keep} {
			s := newSplitter(64*Keep, 4*minReadBuffer)
			stream := append(binary.LittleEndian.AppendUint32(nil, uint32(n)), bytes.Repeat([]byte{7}, n)...)
			var frame []byte
			for frame == nil {
				k := copy(s.space(), stream)
				s.filled(k)
				stream = stream[k:]
				frames, err := s.next()
				if err != nil {
					t.Fatal(err)
				}
				if len(frames) > 0 {
					frame = frames[0]
				}
			}
			if !bytes.Equal(frame, bytes.Repeat([]byte{7}, n)) {
				t.Fatalf("a frame of %d bytes did not come as it was sent", n)
			}
			if cap(frame) > 2*n {
				t.Fatalf("a frame of %d bytes holds %d", n, cap(frame))
			}
		}
	}
	lent := make([]byte, Keep)
	Recycle(lent)
	if again := takeLarge(Keep); &again[0] == &lent[0] {
		t.Fatal("a lent frame was taken back")
	}
}
