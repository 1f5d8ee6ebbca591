// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package transport

import (
	"net"
	"time"
)

// setUserTimeout has no equivalent here: keep-alive and Stall must do.
func setUserTimeout(*net.TCPConn, time.Duration) {}
