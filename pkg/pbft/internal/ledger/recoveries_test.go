// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// onePage is a memory of which page 0 is looked at.
type onePage []byte

func (m onePage) Page(message.PageNum) []byte   { return m }
func (m onePage) Modify(message.PageNum) []byte { return m }

// A new epoch's page 0 knows of no recovery, and otherwise what the old one knew.
func TestRenewForgetsRecoveries(t *testing.T) {
	page := bytes.Repeat([]byte{7}, recoveriesAt)
	page = append(page, make([]byte, pageSize-recoveriesAt)...)
	if Renew(page) {
		t.Error("there was nothing to forget")
	}
	want := bytes.Clone(page)
	l := &Ledger{memory: onePage(page)}
	l.Recover(0, Recovery{5, 6, 7})
	l.Recover(message.MaxReplicas-1, Recovery{8, 9, 10})
	if !Renew(page) || !bytes.Equal(page, want) {
		t.Errorf("got %x", page[:recoveriesAt+message.MaxReplicas*recoverySize])
	}
}
