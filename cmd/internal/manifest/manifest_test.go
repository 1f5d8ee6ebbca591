// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bfs/pkg/pbft"
)

var (
	key   = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	owner = key.Public().(ed25519.PublicKey)
	group = pbft.Digest{4}
)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func signed(t testing.TB) []byte {
	t.Helper()
	text, err := Sign(&Manifest{Group: group, Serial: 7, Allowed: []Digest{{1}, {2}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestManifest(t *testing.T) {
	text := signed(t)
	file := filepath.Join(t.TempDir(), "manifest")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := Read(file, owner, group)
	if err != nil {
		t.Fatal(err)
	}
	if m.Serial != 7 || !m.Allows(Digest{1}) || !m.Allows(Digest{2}) || m.Allows(Digest{3}) {
		t.Errorf("got %+v", m)
	}
	_, err = Parse(text, owner, pbft.Digest{5})
	if err == nil || !strings.Contains(err.Error(), "another group file") {
		t.Errorf("for another group: got %v", err)
	}
	for i := range text {
		changed := bytes.Clone(text)
		changed[i] ^= 1
		if m, err := Parse(changed, owner, group); err == nil && i < len(text)-1 { // the last byte is a newline
			t.Errorf("byte %d may be changed: %+v", i, m)
		}
	}
}

// A text that the administrator signs by mistake must be well formed too.
func TestSignedNonsense(t *testing.T) {
	for want, lines := range map[string]string{
		"line 1":               "bfs manifest v2\n",
		"line 2":               firstLine + "\nserial 1\n",
		"line 3":               firstLine + "\ngroup " + strings.Repeat("00", 32) + "\nserial -1\n",
		"line 4":               firstLine + "\ngroup " + strings.Repeat("00", 32) + "\nserial 1\nbfsd 00\n",
		"allows no executable": firstLine + "\ngroup " + strings.Repeat("00", 32) + "\nserial 1\n",
		"line 68: want group, s": firstLine + "\ngroup " + strings.Repeat("00", 32) + "\nserial 1\n" +
			strings.Repeat("bfsd "+strings.Repeat("11", 32)+"\n", 65),
	} {
		text := []byte(lines)
		text = append(text, signature+b64(ed25519.Sign(key, text))+"\n"...)
		if _, err := Parse(text, owner, group); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := Parse([]byte("hello\n"), owner, group); err == nil {
		t.Error("no signature")
	}
	if _, err := Sign(&Manifest{}, key); err == nil {
		t.Error("a manifest without executables")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(signed(f))
	f.Fuzz(func(t *testing.T, lines []byte) {
		text := append(bytes.Clone(lines), "\n"...)
		text = append(text, signature+b64(ed25519.Sign(key, text))+"\n"...)
		if m, err := Parse(text, owner, group); (m == nil) == (err == nil) {
			t.Errorf("got %v, %v", m, err)
		}
	})
}
