// SPDX-License-Identifier: Apache-2.0

package gonfs

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	nfsc "github.com/willscott/go-nfs-client/nfs"
	"github.com/willscott/go-nfs-client/nfs/rpc"

	"bfs/pkg/bfs"
	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfs3"
	"bfs/pkg/nfsstate"
	"bfs/pkg/pbft"
)

// direct is the file system without a group around it.
type direct struct {
	mu     sync.Mutex
	fs     *nfsstate.FS
	rights []byte
}

func (d *direct) Invoke(_ context.Context, body []byte, _ bool) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	reply, _ := d.fs.Execute(pbft.Operation{Client: 7, Rights: d.rights, Body: body, Choice: d.fs.Choose(0)})
	return bytes.Clone(reply), nil
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mount(t *testing.T) *bfs.FS {
	t.Helper()
	const pages = 1 << 14
	store, err := fsmerkle.New(fsmerkle.Options{Pages: pages})
	ok(t, err)
	t.Cleanup(func() { store.Close() })
	state, err := nfsstate.New(store, nfsstate.Config{Pages: pages, Reserved: 1,
		Exports: []nfsstate.Export{{Name: "export", Mode: 0o755}}})
	ok(t, err)
	rights := nfsstate.Rights{Grants: []nfsstate.Grant{{Export: 1}}}
	fsys, err := bfs.Mount(context.Background(), &direct{fs: state, rights: rights.Append(nil)},
		"/export", nfs3.Credentials{})
	ok(t, err)
	return fsys
}

// start serves fsys until the test ends, and returns where.
func start(t *testing.T, c Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, c) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// dial connects go-nfs's own client. It draws a local port blindly, and may draw one in use.
func dial(t *testing.T, address string) *nfsc.Mount {
	t.Helper()
	var err error
	for range 10 {
		var c *rpc.Client
		if c, err = rpc.DialTCP("tcp", address, false); err == nil {
			t.Cleanup(c.Close)
			return &nfsc.Mount{Client: c}
		}
	}
	t.Fatal(err)
	return nil
}

// A client that shares no code with us mounts, creates, writes, reads back, renames,
// lists and removes.
func TestClient(t *testing.T) {
	fsys := mount(t)
	address := start(t, Config{FS: fsys, Export: "/export", InsecurePorts: true})
	m := dial(t, address)
	if _, err := m.Mount("/elsewhere", rpc.AuthNull); err == nil {
		t.Error("mounted a path that is not exported")
	}
	target, err := m.Mount("/export", rpc.NewAuthUnix("here", 1000, 1000).Auth())
	ok(t, err)

	_, err = target.Mkdir("/dir", 0o700)
	ok(t, err)
	data := make([]byte, 5<<20+17)
	rand.Read(data)
	file, err := target.OpenFile("/dir/file", 0o640)
	ok(t, err)
	_, err = file.Write(data)
	ok(t, err)
	ok(t, file.Close())
	ok(t, target.Symlink("file", "/dir/link"))

	// The client's file is in the group, and the group's at the client.
	got, err := fsys.ReadFile("dir/link")
	ok(t, err)
	if !bytes.Equal(got, data) {
		t.Errorf("in the group: got %d bytes, want %d others", len(got), len(data))
	}
	if i, err := fsys.Stat("dir/file"); err != nil || i.Mode() != 0o640 {
		t.Errorf("in the group: got %v, %v", i, err)
	}
	ok(t, fsys.WriteFile("dir/ours", []byte("by the side door"), 0o644))

	open, err := target.Open("/dir/ours")
	ok(t, err)
	ok(t, target.Rename("/dir/file", "/moved"))
	ok(t, target.Rename("/dir", "/renamed"))
	text, err := io.ReadAll(open) // its handle has followed
	ok(t, err)
	if string(text) != "by the side door" {
		t.Errorf("after the rename: got %q", text)
	}
	checkRead(t, target, "/moved", data)
	checkList(t, target, "/", "moved", "renamed")
	checkList(t, target, "/renamed", "link", "ours")

	ok(t, target.Remove("/moved"))
	ok(t, target.RemoveAll("/renamed"))
	checkList(t, target, "/")
	if _, _, err := target.Lookup("/moved"); !os.IsNotExist(err) {
		t.Errorf("after removal: got %v", err)
	}
}

func checkRead(t *testing.T, target *nfsc.Target, name string, want []byte) {
	t.Helper()
	file, err := target.Open(name)
	ok(t, err)
	got, err := io.ReadAll(file)
	ok(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %d bytes, want %d others", name, len(got), len(want))
	}
}

func checkList(t *testing.T, target *nfsc.Target, dir string, want ...string) {
	t.Helper()
	list, err := target.ReadDirPlus(dir)
	ok(t, err)
	var got []string
	for _, e := range list {
		if e.Name() != "." && e.Name() != ".." {
			got = append(got, e.Name())
		}
	}
	slices.Sort(got) // the client has lost the order
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", dir, got, want)
	}
}

// A user who is not root can connect from high ports only, and is refused unless the
// configuration allows it.
func TestInsecurePort(t *testing.T) {
	address := start(t, Config{FS: mount(t), Export: "/export"})
	c, err := net.Dial("tcp", address)
	ok(t, err)
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("got %d bytes, %v, want a closed connection", n, err)
	}
}

// Handles follow renames, go stale with their file, and are forgotten longest unused first.
func TestHandles(t *testing.T) {
	h := newHandles(3)
	root, a, ab, ac := h.of(""), h.of("a"), h.of("a/b"), h.of("ac")
	at := func(name string, b handle, want string, found bool) {
		t.Helper()
		if got, ok := h.path(b[:]); got != want || ok != found {
			t.Errorf("%s: got %q, %v, want %q, %v", name, got, ok, want, found)
		}
	}
	h.moved("a", "x/y")
	at("root", root, "", true)
	at("a", a, "x/y", true)
	at("a/b", ab, "x/y/b", true)
	at("ac", ac, "ac", true)
	if h.of("x/y") != a {
		t.Error("a renamed file has another handle")
	}
	h.moved("ac", "x/y/b")
	at("replaced", ab, "", false)
	at("ac", ac, "x/y/b", true)
	h.removed("x/y/b")
	at("removed", ac, "", false)
	one := h.of("1")
	h.of("2")
	h.of("3")
	at("unused", a, "", false)
	at("in use", one, "1", true)
	other := newHandles(3).of("1")
	at("of another life", other, "", false)
	if _, ok := h.path([]byte("short")); ok {
		t.Error("a short handle was found")
	}
}
