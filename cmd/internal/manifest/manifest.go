// SPDX-License-Identifier: Apache-2.0

// Package manifest reads and writes the list of executables that a keeper may start, signed by the
// administrator:
//
//	bfs manifest v1
//	group 3f0c...            digest of the group file, hexadecimal
//	serial 3                 rises with each manifest of the group; a keeper takes no lower one than it has taken
//	bfsd 9a41...             SHA-256 of an executable; one line or more
//	signature c2ln...        Ed25519 by the administrator's key, base64, over all lines above
//
// An upgrade is a new manifest with both programs, then the new program on one host after
// the other.
package manifest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"bfs/cmd/internal/trust"
	"bfs/pkg/pbft"
)

// A Digest is the SHA-256 of an executable.
type Digest [sha256.Size]byte

// A Manifest says which executables may run.
type Manifest struct {
	Group   pbft.Digest
	Serial  uint64
	Allowed []Digest
}

// Bounds of a manifest.
const (
	maxFile    = 16 << 10
	maxAllowed = 64
)

const (
	firstLine = "bfs manifest v1"
	signature = "signature "
)

// Sign writes a manifest as text.
func Sign(m *Manifest, administrator ed25519.PrivateKey) ([]byte, error) {
	if len(m.Allowed) == 0 || len(m.Allowed) > maxAllowed {
		return nil, fmt.Errorf("got %d executables, want 1 to %d", len(m.Allowed), maxAllowed)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\ngroup %x\nserial %d\n", firstLine, m.Group[:], m.Serial)
	for _, d := range m.Allowed {
		fmt.Fprintf(&b, "bfsd %x\n", d)
	}
	sum := ed25519.Sign(administrator, b.Bytes())
	fmt.Fprintf(&b, "%s%s\n", signature, base64.StdEncoding.EncodeToString(sum))
	return b.Bytes(), nil
}

// Parse reads a manifest that the administrator has signed for a group.
func Parse(text []byte, administrator ed25519.PublicKey, group pbft.Digest) (*Manifest, error) {
	at := bytes.LastIndex(text, []byte("\n"+signature)) + 1
	if at == 0 {
		return nil, errors.New("it has no signature")
	}
	sum, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text[at+len(signature):])))
	if err != nil || !ed25519.Verify(administrator, text[:at], sum) {
		return nil, errors.New("the signature is not that of the administrator whom the group file names")
	}
	m, err := parseLines(strings.Split(strings.TrimSuffix(string(text[:at]), "\n"), "\n"))
	if err == nil && m.Group != group {
		return nil, errors.New("it is for another group file: sign one for this")
	}
	return m, err
}

func parseLines(lines []string) (*Manifest, error) {
	m := &Manifest{}
	for i, line := range lines {
		word, rest, _ := strings.Cut(line, " ")
		var err error
		switch {
		case i == 0:
			if line != firstLine {
				err = fmt.Errorf("want %q", firstLine)
			}
		case i == 1 && word == "group":
			err = parseHex(m.Group[:], rest)
		case i == 2 && word == "serial":
			m.Serial, err = strconv.ParseUint(rest, 10, 64)
		case i > 2 && word == "bfsd" && i < 3+maxAllowed:
			var d Digest
			err = parseHex(d[:], rest)
			m.Allowed = append(m.Allowed, d)
		default:
			err = errors.New("want group, serial, then one bfsd or more")
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	if len(m.Allowed) == 0 {
		return nil, errors.New("it allows no executable")
	}
	return m, nil
}

func parseHex(into []byte, text string) error {
	b, err := hex.DecodeString(text)
	if err == nil && len(b) != len(into) {
		err = fmt.Errorf("got %d bytes, want %d", len(b), len(into))
	}
	copy(into, b)
	return err
}

// Read reads a manifest's file, which others may not change.
func Read(file string, administrator ed25519.PublicKey, group pbft.Digest) (*Manifest, error) {
	f, err := trust.OpenConfig(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("longer than %d bytes", maxFile)
	}
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", file, err)
	}
	m, err := Parse(text, administrator, group)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", file, err)
	}
	return m, nil
}

// Of returns the digest of a file's contents.
func Of(f io.Reader) (d Digest, err error) {
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return d, err
	}
	h.Sum(d[:0])
	return d, nil
}

// OfFile is the digest of the file at path.
func OfFile(path string) (Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return Digest{}, err
	}
	defer f.Close()
	return Of(f)
}

// Allows reports whether an executable with this digest may run.
func (m *Manifest) Allows(d Digest) bool {
	for _, x := range m.Allowed {
		if x == d {
			return true
		}
	}
	return false
}
