//go:build !amd64 || purego

package blockhash

import "testing"

func checkDigest(*testing.T, []byte, Digest) {}
