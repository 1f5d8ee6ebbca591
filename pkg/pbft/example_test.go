// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/pbfttest"
)

// counter is a service: one number on one page.
type counter struct {
	*pbfttest.Memory
	page pbft.PageNum // the first that is ours
}

func (c counter) Execute(pbft.Operation) (reply []byte, wrote bool) {
	b := c.Modify(c.page)
	binary.BigEndian.PutUint64(b, binary.BigEndian.Uint64(b)+1)
	return append([]byte(nil), b[:8]...), true
}

func (c counter) Query(pbft.Operation) (reply []byte, ok bool) {
	return append([]byte(nil), c.Page(c.page)[:8]...), true
}

func (c counter) Cost([]byte) int                 { return 0 }
func (c counter) Choose(pbft.SeqNum) []byte       { return nil }
func (c counter) Accept(pbft.SeqNum, []byte) bool { return true }
func (c counter) State() pbft.State               { return c.Memory }

// A counter on four replicas, any one of which may fail.
func Example() {
	dir, err := os.MkdirTemp("", "counter")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()

	group, keys, admin := newGroup(4)
	for i, key := range keys {
		home := filepath.Join(dir, fmt.Sprint(i))
		os.Mkdir(home, 0o700)
		replica, err := pbft.StartReplica(pbft.ReplicaConfig{
			Group: group, Self: pbft.ReplicaID(i), Key: key, Directory: home,
			Service: counter{pbfttest.NewMemory(), group.ReservedPages()},
		})
		if err != nil {
			log.Fatal(err)
		}
		defer replica.Close(ctx)
	}

	administrator, err := pbft.NewClient(pbft.ClientConfig{Group: group, Key: admin})
	if err != nil {
		log.Fatal(err)
	}
	defer administrator.Close()
	public, private, _ := ed25519.GenerateKey(nil)
	if err := administrator.Enrol(ctx, public, nil); err != nil {
		log.Fatal(err)
	}

	client, err := pbft.NewClient(pbft.ClientConfig{Group: group, Key: private})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	for range 3 {
		if _, err := client.Invoke(ctx, []byte("increment"), false); err != nil {
			log.Fatal(err)
		}
	}
	reply, err := client.Invoke(ctx, []byte("read"), true)
	fmt.Println(binary.BigEndian.Uint64(reply), err)
	// Output: 3 <nil>
}
