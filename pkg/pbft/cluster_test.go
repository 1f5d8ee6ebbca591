package pbft_test

import (
	"crypto/ed25519"
	"log"
	"net"

	"bfs/pkg/pbft"
)

// newGroup makes a group of n replicas on free ports of the loopback.
func newGroup(n int) (g *pbft.Group, keys []ed25519.PrivateKey, admin ed25519.PrivateKey) {
	parts := pbft.Group{Name: "test", Limits: pbft.DefaultLimits()}
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		defer l.Close()
		public, private, _ := ed25519.GenerateKey(nil)
		keys = append(keys, private)
		parts.Members = append(parts.Members, pbft.Member{Address: l.Addr().String(), Key: public})
	}
	parts.Administrator, admin, _ = ed25519.GenerateKey(nil)
	g, err := pbft.CheckGroup(parts)
	if err != nil {
		log.Fatal(err)
	}
	return g, keys, admin
}
