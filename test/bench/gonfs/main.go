// Command gonfs serves a directory through unmodified go-nfs: a server BFS is measured against.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"

	"github.com/go-git/go-billy/v5/osfs"
	nfs "github.com/willscott/go-nfs"
	helper "github.com/willscott/go-nfs/helpers"
)

// handles is how many file handles go-nfs remembers; a file whose handle it has forgotten is gone for its client.
const handles = 1 << 20

func main() {
	dir := flag.String("dir", "", "directory to serve")
	port := flag.Int("port", 2049, "port to serve on, NFS and MOUNT alike")
	flag.Parse()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	anyone := helper.NewNullAuthHandler(osfs.New(*dir))
	log.Fatal(nfs.Serve(l, helper.NewCachingHandler(anyone, handles)))
}
