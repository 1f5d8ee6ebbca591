// SPDX-License-Identifier: Apache-2.0

package bfs_test

import (
	"fmt"
	"testing"
)

// BenchmarkGroup measures the latency of a program's calls, on four replicas in this process.
func BenchmarkGroup(b *testing.B) {
	fsys := mountOn(b, newGroup(b), "/export", root)
	ok(b, fsys.WriteFile("small", make([]byte, 4<<10), 0o644))
	b.Run("stat", func(b *testing.B) {
		for b.Loop() {
			_, err := fsys.Stat("small")
			ok(b, err)
		}
	})
	b.Run("write-4KiB-file", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			ok(b, fsys.WriteFile(fmt.Sprint("f", i%1000), make([]byte, 4<<10), 0o644))
		}
	})
	for _, size := range []int{1 << 20, 16 << 20} {
		data := make([]byte, size)
		b.Run(fmt.Sprintf("write-%dMiB", size>>20), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				ok(b, fsys.WriteFile("large", data, 0o644))
			}
		})
		b.Run(fmt.Sprintf("read-%dMiB", size>>20), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				_, err := fsys.ReadFile("large")
				ok(b, err)
			}
		})
	}
}
