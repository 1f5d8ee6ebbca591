// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"os"
	"testing"
)

// A Monotone survives a crash between its two files, and notices every other difference.
func TestMonotone(t *testing.T) {
	paths := [2]string{t.TempDir() + "/a", t.TempDir() + "/b"}
	m, err := CreateMonotone(paths, 1)
	if err != nil {
		t.Fatal(err)
	}
	history := [][]byte{}
	for _, v := range []uint64{5, 4, 9, 100} {
		if err := m.Raise(v); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(paths[0])
		if err != nil {
			t.Fatal(err)
		}
		history = append(history, b) // 5, 5, 9, 100
	}
	put := func(file int, b []byte) {
		if err := os.WriteFile(paths[file], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		first, second int
		want          error
	}{{3, 3, nil}, {3, 2, nil}, {3, 1, ErrPutBack}, {2, 3, ErrPutBack}, {0, 3, ErrPutBack}} {
		put(0, history[c.first])
		put(1, history[c.second])
		m, err := OpenMonotone(paths)
		if !errors.Is(err, c.want) || c.want == nil && m.Value() != 100 {
			t.Errorf("%+v: got %v, %v", c, m, err)
		}
		if again, err := OpenMonotone(paths); c.want == nil && (err != nil || again.Value() != 100) {
			t.Errorf("%+v: not mended: %v", c, err)
		}
	}
	put(0, history[3])
	put(1, history[3][:7])
	if _, err := OpenMonotone(paths); !errors.Is(err, ErrPutBack) {
		t.Errorf("with a short file: got %v", err)
	}
	if err := os.Remove(paths[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenMonotone(paths); !errors.Is(err, ErrPutBack) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: got %v", err)
	}
}
