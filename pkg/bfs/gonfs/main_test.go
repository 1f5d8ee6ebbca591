// SPDX-License-Identifier: Apache-2.0

package gonfs

import (
	"testing"

	"go.uber.org/goleak"
)

// No test leaves a goroutine behind, except one that go-nfs's client never ends.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/willscott/go-nfs-client/nfs.(*Target).cleanupCache"))
}
