// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"bfs/pkg/pbft"
)

// position is a group that stands at one checkpoint.
type position struct {
	pbft.Certified
	asked func()
}

func (p position) Stable(context.Context) (pbft.Certified, pbft.SeqNum, error) {
	if p.asked != nil {
		p.asked()
	}
	return p.Certified, p.Seq, nil
}

func testGroup(t *testing.T, epoch uint64) *pbft.Group {
	t.Helper()
	parts := pbft.Group{Name: "test", Epoch: epoch, Limits: pbft.DefaultLimits()}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	parts.Members, parts.Administrator = []pbft.Member{{Address: "127.0.0.1:1", Key: key}}, key
	g, err := pbft.CheckGroup(parts)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A relay refuses a group that is behind a checkpoint it has seen certified, or that has
// another root for it; only the administrator can begin a new epoch.
func TestAnchor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "anchor")
	open := func(epoch uint64) *Anchor {
		a, err := OpenAnchor(path, testGroup(t, epoch), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	seen := pbft.Certified{Seq: 256, Root: pbft.Digest{1}}
	a := open(0)
	a.last = seen
	if err := a.write(); err != nil {
		t.Fatal(err)
	}
	later := pbft.Certified{Seq: 384, Root: pbft.Digest{2}}
	for _, c := range []struct {
		name  string
		epoch uint64
		at    pbft.Certified
		want  error
	}{
		{"where it was", 0, seen, nil},
		{"further", 0, later, nil},
		{"another root", 0, pbft.Certified{Seq: 256, Root: pbft.Digest{9}}, ErrRolledBack},
		{"behind", 0, pbft.Certified{Seq: 128, Root: pbft.Digest{3}}, ErrRolledBack},
		{"begun anew by the administrator", 1, pbft.Certified{}, nil},
	} {
		ctx, stop := context.WithCancel(t.Context())
		asked := func() {}
		if c.at.Seq < seen.Seq {
			asked = stop // once is patience enough here
		}
		if err := open(c.epoch).Check(ctx, position{c.at, asked}); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		stop()
	}
}
