// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are searched below the range that kernels use for outgoing connections, so that no found
// port is taken before its use.
const (
	firstPort = 20000
	lastPort  = 32000
)

// FreePorts finds n consecutive ports on 127.0.0.1 on which no process listens, and
// returns the first.
func FreePorts(n int) (int, error) {
	for range 100 {
		base := firstPort + rand.IntN(lastPort-firstPort-n)
		if allFree(base, n) {
			return base, nil
		}
	}
	return 0, fmt.Errorf("no %d free ports in a row between %d and %d on 127.0.0.1", n, firstPort, lastPort)
}

func allFree(base, n int) bool {
	for port := base; port < base+n; port++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
