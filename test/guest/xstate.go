// SPDX-License-Identifier: Apache-2.0

package guest

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// User-mode Linux 6.1 keeps the extended registers of its processes in 2696 bytes. On a
// processor with AMX they take 11 KiB. It can read the beginning of them, but the host
// does not let it write back less than all: its first process dies, and it panics. So on
// such a processor a library that is loaded before its C library adds the rest.
// [linux: arch/x86/um/os-Linux/registers.c, arch/x86/kernel/fpu/regset.c]
//
//go:embed registers/xstate.c
var xstate string

// largeRegisters reports whether the processor's registers are too large for the guest's
// kernel. (A variable for the tests of this package.)
var largeRegisters = func() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && strings.Contains(string(b), " amx_tile")
}

// withLargeRegisters returns what stands before the kernel's command on such a processor.
func (g *Guest) withLargeRegisters() ([]string, error) {
	if !largeRegisters() {
		return nil, nil
	}
	source, library := filepath.Join(g.dir, "xstate.c"), filepath.Join(g.dir, "xstate.so")
	if err := os.WriteFile(source, []byte(xstate), 0o600); err != nil {
		return nil, err
	}
	out, err := exec.Command("gcc", "-O2", "-shared", "-fPIC", "-o", library, source).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("guest: gcc, which this processor's extended registers make necessary: %w: %s", err, out)
	}
	return []string{"env", "LD_PRELOAD=" + library}, nil
}
