// SPDX-License-Identifier: Apache-2.0

package message

import (
	"bytes"
	"testing"
)

// A message that may be signed is decoded as it was made, and one byte more, less or
// changed in the tag or type is refused.
func TestParseSigned(t *testing.T) {
	k := newGenerator(1).newKey()
	covered := k.AppendCovered(nil)
	s, err := ParseSigned(covered)
	if err != nil || s.NewKey == nil || s.Group != k.Group || s.From != k.From || s.Counter != k.Counter {
		t.Errorf("NEW-KEY: got %+v, %v", s, err)
	}
	recovery := Recovery{2, 3, 4}.AppendCovered(nil, Digest{1})
	s, err = ParseSigned(recovery)
	if err != nil || s.Recovery == nil || s.Group != (Digest{1}) || s.From != (Principal{Replica: 2}) ||
		s.Counter != 3 || s.Recovery.Bound != 4 {
		t.Errorf("recovery request: got %+v, %v", s, err)
	}
	for _, good := range [][]byte{covered, recovery} {
		for _, bad := range [][]byte{nil, good[1:], good[:len(good)-1], append(bytes.Clone(good), 0),
			append([]byte{good[0] ^ 1}, good[1:]...), append(bytes.Clone(good), make([]byte, MaxSigned)...)} {
			if s, err := ParseSigned(bad); err == nil {
				t.Errorf("%x: taken for %+v", bad, s)
			}
		}
	}
	if digest := AdministratorDigest(Digest{}, &Request{}); len(digest) > 0 {
		if _, err := ParseSigned(digest[:]); err == nil {
			t.Error("what an administrator signs was taken")
		}
	}
}

// The bytes can be made again from whatever was decoded of them: no two meanings for one signature.
func FuzzParseSigned(f *testing.F) {
	f.Add(newGenerator(1).newKey().AppendCovered(nil))
	f.Add(Recovery{2, 3, 4}.AppendCovered(nil, Digest{1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSigned(b)
		if err != nil {
			return
		}
		var again []byte
		if s.NewKey != nil {
			again = s.NewKey.AppendCovered(nil)
		} else {
			again = s.Recovery.AppendCovered(nil, s.Group)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x means %+v, which is written %x", b, s, again)
		}
	})
}
