// SPDX-License-Identifier: Apache-2.0

//go:build !amd64 || purego

package blockhash

import "testing"

func checkDigest(*testing.T, []byte, Digest) {}
