// SPDX-License-Identifier: Apache-2.0

package relay

import "testing"

// A record uses the memory of a longer one again only if that is of about its length,
// because it reserves its own length only.
func TestRecordsTakeNoMoreRoomThanTheyNeed(t *testing.T) {
	for range 100 {
		recycleRecord(make([]byte, maxRecord))
		if b := takeRecord(smallRecord + 1); cap(b) > 2*longStep {
			t.Fatalf("a record of %d bytes has room for %d", smallRecord+1, cap(b))
		}
		if b := takeRecord(maxRecord); cap(b) < maxRecord {
			t.Fatalf("a record of %d bytes has room for %d", maxRecord, cap(b))
		}
	}
}
