// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"bfs/pkg/pbft"
)

// originFile is the table of an epoch that begins with a backup. `bfsd restore group` writes it.
type originFile struct {
	First      string `toml:"first"`
	Checkpoint uint64 `toml:"checkpoint"`
	Root       string `toml:"root"`
	Signature  string `toml:"signature"`
}

func (f originFile) check(s *source) (o pbft.Origin, err error) {
	if !s.has("origin") {
		return o, nil
	}
	o.Seq = pbft.SeqNum(f.Checkpoint)
	if f.Checkpoint == 0 || f.Checkpoint > 1<<62 {
		return o, s.errorAt("origin.checkpoint", "got %d, want the number of a checkpoint, above 0", f.Checkpoint)
	}
	if o.Root, err = ParseRoot(f.Root); err != nil {
		return o, s.errorAt("origin.root", "%v", err)
	}
	if o.First, err = ParseRoot(f.First); err != nil {
		return o, s.errorAt("origin.first", "got %q, want the digest of the first epoch's group file", f.First)
	}
	return o, nil
}

// verify checks the administrator's signature, which is over all that the members must agree on.
func (f originFile) verify(s *source, g *pbft.Group) error {
	if g.Origin == (pbft.Origin{}) {
		return nil
	}
	signature, err := base64.StdEncoding.DecodeString(f.Signature)
	if err != nil || len(signature) != ed25519.SignatureSize {
		return s.errorAt("origin.signature", "want base64 of %d bytes, as bfsd restore group writes it",
			ed25519.SignatureSize)
	}
	if !ed25519.Verify(g.Administrator, g.OriginCovered(), signature) {
		return s.errorAt("origin.signature",
			"is not the administrator's for this file: nothing but addresses may be changed by hand in the "+
				"file of an epoch that begins with a backup; make it anew with bfsd restore group")
	}
	return nil
}

// ParseRoot reads the root of a checkpoint.
func ParseRoot(text string) (d pbft.Digest, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(d) {
		return d, fmt.Errorf("got %q, want the root of a checkpoint, %d hexadecimal digits", text, 2*len(d))
	}
	copy(d[:], b)
	return d, nil
}
