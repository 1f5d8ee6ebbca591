// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestFileSignerNeverGoesBack(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	path := filepath.Join(t.TempDir(), "counter")
	last := uint64(0)
	for life := range 20 {
		s, err := NewFileSigner(key, path)
		if err != nil {
			t.Fatal(err)
		}
		for range life * life * 3 { // the process dies here, without a word
			n, err := s.Count()
			if err != nil {
				t.Fatal(err)
			}
			if n <= last {
				t.Fatalf("life %d: %d after %d", life, n, last)
			}
			last = n
		}
	}
}

func TestSignersCountForManyAtOnce(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	file, err := NewFileSigner(key, filepath.Join(t.TempDir(), "counter"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Signer{file, NewMemorySigner(key)} {
		var mu sync.Mutex
		var all sync.WaitGroup
		seen := map[uint64]bool{}
		for range 8 {
			all.Go(func() {
				for range 100 {
					n, err := s.Count()
					mu.Lock()
					if err != nil || seen[n] || n == 0 {
						t.Errorf("%T: %d, %v", s, n, err)
					}
					seen[n] = true
					mu.Unlock()
				}
			})
		}
		all.Wait()
	}
}

func TestFileSignerErrors(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	path := filepath.Join(t.TempDir(), "counter")
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewFileSigner(key, path); err == nil || !strings.Contains(err.Error(), "got 5 bytes, want 8") {
		t.Errorf("a damaged file: %v", err)
	}
	s, err := NewFileSigner(key, filepath.Join(t.TempDir(), "gone", "counter"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a failure must not be taken for a written block
		if n, err := s.Count(); err == nil {
			t.Errorf("counted %d without a file", n)
		}
	}
}
