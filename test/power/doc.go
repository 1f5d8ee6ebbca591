// SPDX-License-Identifier: Apache-2.0

// Package power cuts the power of all replicas in one instant and judges what their disks hold.
//
// A process that is killed leaves the kernel's page cache behind, and so loses nothing that it wrote. Here
// each replica runs under a kernel of its own (package guest), with its state directory on an ext4 file
// system on a disk of its own. Killing the kernel loses what ext4 was not told to keep. A client on this
// machine logs every operation that was acknowledged; after all replicas have booted again from their disks,
// the group must have exactly what the log says.
package power
