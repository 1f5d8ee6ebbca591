//go:build !race

package blockhash

const watched = false
