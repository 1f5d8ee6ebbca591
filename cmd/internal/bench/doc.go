// SPDX-License-Identifier: Apache-2.0

// Package bench measures: micro the protocol, with operations that do nothing on replicas that are processes of
// their own; andrew a mounted file system, with what programmers do all day.
package bench
