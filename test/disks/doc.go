// SPDX-License-Identifier: Apache-2.0

// Package disks tests running groups whose disks are damaged while a replica is down, or fill up:
// the group serves the right bytes throughout, and in the end every replica votes again.
package disks
