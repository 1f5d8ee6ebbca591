//go:build !race

package nfsstate

const raceDetector = false
