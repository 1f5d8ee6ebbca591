//go:build !linux

package rawio

func holdAcks(uintptr) {}
