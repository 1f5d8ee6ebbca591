// SPDX-License-Identifier: Apache-2.0

//go:build race

package nfsstate

// raceDetector makes tests of scale smaller: it is ten times slower, and there is one
// goroutine here.
const raceDetector = true
