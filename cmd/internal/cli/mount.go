// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// MountCommand returns the command by which a kernel mounts a relay that listens at listen. None
// of its options can be left out: OPERATING.md says what each is for. More options may follow.
func MountCommand(listen, export, dir string, more ...string) ([]string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, err
	}
	options := fmt.Sprintf("vers=3,proto=tcp,mountproto=tcp,nolock,port=%s,mountport=%s", port, port)
	options = strings.Join(append([]string{options}, more...), ",")
	return []string{"mount", "-t", "nfs", "-o", options, host + ":" + export, dir}, nil
}

// ListURL returns the URL for libnfs's programs, such as nfs-ls, which need no root.
func ListURL(listen, export string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("nfs://%s%s?version=3&nfsport=%s&mountport=%s", host, export, port, port), nil
}

// HaveMountNFS says whether the kernel's mount has its NFS part. It stands where users'
// PATH often does not lead.
func HaveMountNFS() bool {
	if _, err := exec.LookPath("mount.nfs"); err == nil {
		return true
	}
	for _, dir := range []string{"/sbin", "/usr/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, "mount.nfs")); err == nil {
			return true
		}
	}
	return false
}
