// SPDX-License-Identifier: Apache-2.0

package message

import (
	"bytes"
	"testing"
)

// A recovery request is what it was when it comes out at the other end, and nothing else is one.
func TestRecoveryRequests(t *testing.T) {
	x := Recovery{Replica: 3, Counter: 17, Bound: 384}
	q := x.Request(bytes.Repeat([]byte{1}, SignatureSize))
	m, err := Decode(encode(q), &limits)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := RecoveryOf(m.(*Request)); !ok || got != x {
		t.Errorf("got %+v, %t, want %+v", got, ok, x)
	}
	for what, alter := range map[string]func(*Request){
		"of a client":       func(q *Request) { q.Client = 9 },
		"of another slot":   func(q *Request) { q.Slot = 1 },
		"that only reads":   func(q *Request) { q.ReadOnly = true },
		"too long":          func(q *Request) { q.Op = make([]byte, 9) },
		"without a counter": func(q *Request) { q.Timestamp = 0 },
	} {
		other := *q
		alter(&other)
		if _, ok := RecoveryOf(&other); ok {
			t.Errorf("a request %s is taken for a recovery request", what)
		}
	}
	group := Digest{1}
	other := x
	other.Bound++
	if bytes.Equal(x.AppendCovered(nil, group), other.AppendCovered(nil, group)) ||
		bytes.Equal(x.AppendCovered(nil, group), x.AppendCovered(nil, Digest{2})) {
		t.Error("the signature does not cover the bound and the group")
	}
}
