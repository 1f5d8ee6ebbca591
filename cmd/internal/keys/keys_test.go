// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func testKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

func TestPrivateKeysComeBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "k")
	if err := WritePrivate(file, testKey()); err != nil {
		t.Fatal(err)
	}
	got, err := ReadPrivate(file)
	if err != nil || !got.Equal(testKey()) {
		t.Fatalf("got %v, %v", got, err)
	}
	public, err := ReadPublic(file)
	if err != nil || !public.Equal(Of(testKey())) {
		t.Fatalf("public half: got %v, %v", public, err)
	}
	if err := WritePrivate(file, testKey()); err == nil {
		t.Error("a key file was overwritten")
	}
}

func TestKeysThatOthersMayUseAreRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o644, 0o640, 0o620, 0o604, 0o601} {
		file := filepath.Join(t.TempDir(), "k")
		if err := WritePrivate(file, testKey()); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPrivate(file); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: got %v, want a refusal", mode, err)
		}
	}
}

func TestSealedKeysWantTheirPassphrase(t *testing.T) {
	file := filepath.Join(t.TempDir(), "k")
	phrase := []byte("correct horse")
	const cheap = 4 // the real cost would take seconds under the race detector
	if err := sealAt(file, testKey(), phrase, cheap); err != nil {
		t.Fatal(err)
	}
	got, err := ReadSealed(file, phrase)
	if err != nil || !got.Equal(testKey()) {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err := ReadPrivate(file); err == nil || !strings.Contains(err.Error(), "--passphrase-file") {
		t.Errorf("without a passphrase: got %v", err)
	}
	_, err = ReadSealed(file, []byte("wrong horse"))
	if err == nil || !strings.Contains(err.Error(), "wrong passphrase") {
		t.Errorf("with another passphrase: got %v", err)
	}
	if err := sealAt(file+"2", testKey(), []byte("short"), cheap); err == nil {
		t.Error("a passphrase of 5 bytes was accepted")
	}
}

// Changes that a thief, or a slip of the editor, may make to a sealed file.
func TestChangedSealedKeysAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "k")
	phrase := []byte("correct horse")
	if err := sealAt(file, testKey(), phrase, 4); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := Public(Of(ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", 32))))).String()
	for name, change := range map[string][2]string{
		"cost beyond bounds": {"Cost: 4", "Cost: 40"},
		"no cost":            {"Cost: 4", "Cost: x"},
		"other derivation":   {"Kdf: scrypt", "Kdf: plain"},
		"other public half":  {Public(Of(testKey())).String(), other},
		"short salt":         {"Salt: ", "Salt: AAAA"},
		"another block":      {sealedBlock, "RSA PRIVATE KEY"},
	} {
		text := strings.ReplaceAll(string(whole), change[0], change[1])
		if text == string(whole) {
			t.Fatalf("%s: nothing changed", name)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSealed(file, phrase); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParsePublic(t *testing.T) {
	word := Public(Of(testKey())).String()
	for _, s := range []string{word, strings.TrimPrefix(word, publicPrefix), " " + word + "\n"} {
		if key, err := ParsePublic(s); err != nil || !key.Equal(Of(testKey())) {
			t.Errorf("%q: got %v, %v", s, key, err)
		}
	}
	for _, s := range []string{"", "bfs-key:", "bfs-key:AAAA", "hello", word + word} {
		if key, err := ParsePublic(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, key)
		}
	}
}

func TestReadPassphrase(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p")
	if err := os.WriteFile(file, []byte("one two three\r\nrest\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := ReadPassphrase(file); err != nil || string(p) != "one two three" {
		t.Errorf("got %q, %v", p, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPassphrase(file); err == nil {
		t.Error("a passphrase that others can read was accepted")
	}
}
