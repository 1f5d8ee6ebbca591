// SPDX-License-Identifier: Apache-2.0

package lies

import (
	"reflect"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// Each offence has a habit, and is correct while it is off, as is a process without a Teller.
func TestOffences(t *testing.T) {
	tellers := []*Teller{nil}
	for _, o := range Offences() {
		found, err := Find(o.Name)
		if err != nil || found.Name != o.Name || o.About == "" || o.By == "" {
			t.Errorf("%+v: got %+v, %v", o, found, err)
		}
		x := o.Teller()
		if reflect.ValueOf(x.habits).IsZero() {
			t.Errorf("%s has no habit", o.Name)
		}
		tellers = append(tellers, x)
	}
	for _, x := range tellers {
		q, m := &message.Request{Client: 9}, &message.Prepare{Seq: 1}
		trailer := []byte{1, 2}
		x.Spoil(message.Principal{}, trailer)
		changes := x.Message(m) != m || x.Ask(q) != nil || string(x.Result(trailer)) != "\x01\x02" || trailer[1] != 2
		waits := x.Late()+x.Dawdle() != 0 || x.Hold() != nil
		if changes || waits || x.Withholds(message.Principal{}, m) || x.Flood(Standing{}, 1) != nil {
			t.Errorf("%+v misbehaves while it is off", x)
		}
	}
	if _, err := Find("no such"); err == nil {
		t.Error("found an offence that is not there")
	}
}

// A flood makes each of its messages up anew, and each can be encoded.
func TestFloods(t *testing.T) {
	at := Standing{Self: 3, View: 2, Executed: 40, Stable: message.Checkpoint{Seq: 32}, Window: 256}
	lim := message.Limits{Replicas: 4, Operation: 1 << 20, WindowLength: 256}
	for _, o := range Offences() {
		x := o.Teller()
		x.Switch(true)
		if !x.Floods() {
			continue
		}
		if hold := x.Hold(); hold != nil {
			hold(&message.Request{Client: 9, Timestamp: 7}, nil)
		}
		for n := range uint64(4) {
			m := x.Flood(at, n)
			if m == nil {
				t.Fatalf("%s says nothing", o.Name)
			}
			if _, err := message.Decode(m.AppendBody([]byte{byte(m.Type())}), &lim); err != nil {
				t.Errorf("%s: %v", o.Name, err)
			}
		}
	}
}
