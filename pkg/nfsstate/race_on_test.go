//go:build race

package nfsstate

// raceDetector makes tests of scale smaller: it is ten times slower, and there is one goroutine here.
const raceDetector = true
