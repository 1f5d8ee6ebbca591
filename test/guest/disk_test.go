// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A killed guest loses data that its file system had in memory alone, and keeps synced data. Tests
// of a power loss rely on this.
func TestKilledGuestLosesWhatItDidNotSync(t *testing.T) {
	if os.Getenv("BFS_KERNEL") == "" {
		t.Skip("NOT RUN: set BFS_KERNEL=1 (or `make kernel-test`) to boot guest kernels")
	}
	if err := Available(); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("NOT RUN: needs mkfs.ext4 (Debian package e2fsprogs)")
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", disk, "32M").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	var g *Guest
	booted := make(chan struct{})
	g, err := Start(t.Context(), Options{
		Disks: []string{disk}, MemoryMB: 256, OwnLoopback: true, NoNFS: true,
		Command: `mkdir /mnt/disk && mount -t ext4 -o commit=300 /dev/ubda /mnt/disk || exit 1
			echo 0 >/proc/sys/vm/dirty_writeback_centisecs
			cd /mnt/disk && echo one >synced && sync -f . && echo two >unsynced
			. "$GUEST_LIB" && ask cut the power`,
		Answer: func(string) (string, error) {
			<-booted
			g.Kill()
			return "", nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	close(booted)
	if _, err := g.Wait(); err == nil {
		t.Fatal("a killed guest ended by itself")
	}
	r := Run(t, Options{
		Disks: []string{disk}, MemoryMB: 256, OwnLoopback: true, NoNFS: true,
		Command: `mkdir /mnt/disk && mount -t ext4 /dev/ubda /mnt/disk && cd /mnt/disk && echo $(cat *) in $(ls)`,
	})
	if !strings.Contains(r.Output, "one in lost+found synced\n") {
		t.Errorf("after the power cut the disk has\n%s", r.Output)
	}
}
