// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package transport

import (
	"errors"
	"net"
)

// attach has no equivalent here: connections of a flood are closed when they are accepted.
func (*sieve) attach(*net.TCPListener) error { return errors.ErrUnsupported }

func detach(socket) {}
