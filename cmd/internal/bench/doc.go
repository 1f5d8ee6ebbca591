// SPDX-License-Identifier: Apache-2.0

// Package bench measures. micro measures the protocol, with operations that do nothing,
// on replicas that are processes of their own; andrew measures a mounted file system with
// a programmer's everyday commands.
package bench
