//go:build !race

package fsmerkle

const distrustful = false
