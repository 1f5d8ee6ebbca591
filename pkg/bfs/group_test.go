// SPDX-License-Identifier: Apache-2.0

package bfs_test

import (
	"context"
	"crypto/ed25519"
	"io"
	"log/slog"
	"net"
	"testing"

	"bfs/pkg/pbft"
)

// newGroup starts four replicas of a file system in this process, on free ports of the
// loopback, and returns a client that is enrolled with them.
func newGroup(t testing.TB) *pbft.Client {
	t.Helper()
	ctx := context.Background()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	parts := pbft.Group{Name: "test", Limits: pbft.DefaultLimits()}
	var keys []ed25519.PrivateKey
	for range 4 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ok(t, err)
		ok(t, l.Close())
		public, private, _ := ed25519.GenerateKey(nil)
		keys = append(keys, private)
		parts.Members = append(parts.Members, pbft.Member{Address: l.Addr().String(), Key: public})
	}
	administrator, admin, _ := ed25519.GenerateKey(nil)
	parts.Administrator = administrator
	group, err := pbft.CheckGroup(parts)
	ok(t, err)
	for i, key := range keys {
		replica, err := pbft.StartReplica(pbft.ReplicaConfig{
			Group: group, Self: pbft.ReplicaID(i), Key: key, Directory: t.TempDir(), Transport: pbft.TransportPlain,
			Service: newService(t, uint64(group.ReservedPages())), Logger: quiet,
		})
		ok(t, err)
		t.Cleanup(func() { replica.Close(ctx) })
	}
	client := func(key ed25519.PrivateKey) *pbft.Client {
		c, err := pbft.NewClient(pbft.ClientConfig{Group: group, Key: key,
			Transport: pbft.TransportPlain, Logger: quiet})
		ok(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	public, private, _ := ed25519.GenerateKey(nil)
	ok(t, client(admin).Enrol(ctx, public, grants(false)))
	c := client(private)
	ok(t, c.Ready(ctx))
	return c
}
