// SPDX-License-Identifier: Apache-2.0

// Command gonfs serves a directory through unmodified go-nfs: a server BFS is measured against.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	nfs "github.com/willscott/go-nfs"
	helper "github.com/willscott/go-nfs/helpers"
)

// handles is how many file handles go-nfs remembers; a file whose handle it has forgotten
// is gone for its client.
const handles = 1 << 20

func main() {
	dir := flag.String("dir", "", "directory to serve")
	port := flag.Int("port", 2049, "port to serve on, NFS and MOUNT alike")
	flag.Parse()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	anyone := helper.NewNullAuthHandler(changeable{osfs.New(*dir), *dir})
	log.Fatal(nfs.Serve(l, helper.NewCachingHandler(anyone, handles)))
}

// changeable adds to a directory what billy's own does not have and go-nfs needs for
// every mode that is not the default: billy.Change.
type changeable struct {
	billy.Filesystem
	dir string
}

func (c changeable) path(name string) string { return filepath.Join(c.dir, filepath.Join("/", name)) }

func (c changeable) Chmod(name string, mode os.FileMode) error { return os.Chmod(c.path(name), mode) }

func (c changeable) Lchown(name string, uid, gid int) error {
	return os.Lchown(c.path(name), uid, gid)
}

func (c changeable) Chown(name string, uid, gid int) error { return os.Chown(c.path(name), uid, gid) }

func (c changeable) Chtimes(name string, atime, mtime time.Time) error {
	return os.Chtimes(c.path(name), atime, mtime)
}
