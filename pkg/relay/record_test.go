// SPDX-License-Identifier: Apache-2.0

package relay

import "testing"

// A record takes memory of longer ones only if that is of about its length: what it reserves is its own length.
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
