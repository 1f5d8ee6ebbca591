// SPDX-License-Identifier: Apache-2.0

//go:build !race

package rawio

func beforeSilentWrite() {}

func afterSilentRead(uintptr) {}
