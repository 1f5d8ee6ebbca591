// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"bfs/pkg/pbft"
)

var (
	addressOrKey = regexp.MustCompile(`(?m)^(address|key|administrator) = "([^"]+)"`)
	creation     = regexp.MustCompile(`(?m)^created = (\S+)`)
	adminAddress = regexp.MustCompile(`(?m)^admin = "([^"]+)"`)
)

// ReadAdmins reads from a group file the addresses at which n replicas tell their status.
func ReadAdmins(file string, n int) (all []string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for _, m := range adminAddress.FindAllStringSubmatch(string(text), -1) {
		all = append(all, m[1])
	}
	if len(all) != n {
		return nil, fmt.Errorf("%s: got %d admin addresses, want %d", file, len(all), n)
	}
	return all, nil
}

// ReadGroup reads addresses, keys and the time of creation from a group file that bfsd
// init made for a state of stateSize bytes. The rest is what init writes by default.
func ReadGroup(file string, stateSize uint64) (*pbft.Group, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	raw := pbft.Group{Name: "bfs", Epoch: 1, Limits: pbft.DefaultLimits(), Durability: pbft.DurabilityDisk}
	for _, m := range addressOrKey.FindAllStringSubmatch(string(text), -1) {
		if m[1] == "address" {
			raw.Members = append(raw.Members, pbft.Member{Address: m[2]})
			continue
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m[2], "bfs-key:"))
		if err != nil {
			return nil, fmt.Errorf("%s: key %s: %w", file, m[2], err)
		}
		if m[1] == "administrator" {
			raw.Administrator = key
		} else {
			raw.Members[len(raw.Members)-1].Key = key
		}
	}
	made := creation.FindStringSubmatch(string(text))
	if made == nil {
		return nil, fmt.Errorf("%s: no line created = TIME", file)
	}
	created, err := time.Parse(time.RFC3339, made[1])
	if err != nil {
		return nil, fmt.Errorf("%s: created: %w", file, err)
	}
	raw.Service = defaultService(stateSize, created)
	return pbft.CheckGroup(raw)
}

// defaultService identifies the state and the exports that bfsd init writes, as
// docs/STATE.md says. Replicas refuse a client that computes another value.
func defaultService(stateSize uint64, created time.Time) pbft.Digest {
	b := []byte("bfs files v1")
	for _, v := range []uint64{stateSize, stateSize / pbft.PageSize, uint64(10 * time.Minute), 1,
		uint64(len("/export"))} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = append(b, "/export"...)
	for _, v := range []uint64{0o1777, 0, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(created.UnixNano()))
	return sha256.Sum256(b)
}
