// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package rawio

// Silent calls are ordinary ones here, because nothing else has been measured.
var Silent = Ordinary
