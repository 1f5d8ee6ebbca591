// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"net"
	"os"
	"strconv"
	"time"
)

// notify tells systemd this service's state, if systemd started it and asked for that
// (sd_notify(3)).
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return // systemd will notice
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}

// watchdogPeriod is how often systemd wants to hear that this process turns, halved for safety; 0:
// never (sd_watchdog_enabled(3)).
func watchdogPeriod() time.Duration {
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || us <= 0 {
		return 0
	}
	return time.Duration(us) * time.Microsecond / 2
}
