// SPDX-License-Identifier: Apache-2.0

package gonfs

import (
	"context"
	"io/fs"
	"log/slog"
	"net"
	"path"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5"
	"github.com/willscott/go-nfs"

	"bfs/pkg/bfs"
)

// MaxConnections bounds the connections that are served at once; further ones are closed.
const MaxConnections = 64

// A Config configures Serve.
type Config struct {
	FS            *bfs.FS
	Export        string // the path that clients mount; "/" is the same
	InsecurePorts bool   // also take connections from ports of 1024 and above, where any local process may be
	Handles       int    // known at once; 0: DefaultHandles
	Log           *slog.Logger
}

// Serve answers NFS and MOUNT calls on l until ctx ends, and closes l.
func Serve(ctx context.Context, l net.Listener, c Config) error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	h := &handler{export: c.Export, handles: newHandles(c.Handles)}
	// Clients have their own umasks.
	h.fs = &served{Billy: c.FS.WithContext(ctx).WithUmask(0).Billy(), handles: h.handles}
	guarded := &listener{Listener: l, config: &c, open: make(map[*connection]struct{})}
	stop := context.AfterFunc(ctx, guarded.shut)
	defer stop()
	defer guarded.shut()
	err := (&nfs.Server{Handler: h, Context: ctx}).Serve(guarded)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// served is the file system; it tells handles of renames and removals.
type served struct {
	*bfs.Billy
	handles *handles
}

func (s *served) Rename(from, to string) error {
	err := s.Billy.Rename(from, to)
	if err == nil {
		s.handles.moved(path.Clean(from), path.Clean(to))
	}
	return err
}

func (s *served) Remove(name string) error {
	err := s.Billy.Remove(name)
	if err == nil {
		s.handles.removed(path.Clean(name))
	}
	return err
}

// handler implements the interface of go-nfs.
type handler struct {
	export  string
	fs      *served
	handles *handles
}

var _ nfs.Handler = (*handler)(nil)

// Mount answers MNT. AUTH_NONE is offered because it is the truth; AUTH_SYS because
// kernels insist on it.
func (h *handler) Mount(_ context.Context, _ net.Conn,
	r nfs.MountRequest) (nfs.MountStatus, billy.Filesystem, []nfs.AuthFlavor) {
	if p := path.Clean("/" + string(r.Dirpath)); p != "/" && p != path.Clean("/"+h.export) {
		return nfs.MountStatusErrNoEnt, h.fs, nil
	}
	return nfs.MountStatusOk, h.fs, []nfs.AuthFlavor{nfs.AuthFlavorUnix, nfs.AuthFlavorNull}
}

// Change lends the part of Billy that changes attributes, and no more: were it to make
// nodes, go-nfs would answer MKNOD of a character device with OK and make none.
func (h *handler) Change(billy.Filesystem) billy.Change {
	return struct{ billy.Change }{h.fs.Billy}
}

// FSStat answers FSSTAT.
func (h *handler) FSStat(_ context.Context, _ billy.Filesystem, s *nfs.FSStat) error {
	u, err := h.fs.FS().Usage()
	if err != nil {
		return err
	}
	s.TotalSize, s.FreeSize, s.AvailableSize = u.Bytes, u.FreeBytes, u.AvailableBytes
	s.TotalFiles, s.FreeFiles, s.AvailableFiles = u.Files, u.FreeFiles, u.AvailableFiles
	return nil
}

// ToHandle names a path.
func (h *handler) ToHandle(_ billy.Filesystem, elements []string) []byte {
	b := h.handles.of(path.Join(elements...))
	return b[:]
}

// FromHandle finds the path again.
func (h *handler) FromHandle(b []byte) (billy.Filesystem, []string, error) {
	p, ok := h.handles.path(b)
	if !ok {
		return nil, nil, &nfs.NFSStatusError{NFSStatus: nfs.NFSStatusStale, WrappedErr: fs.ErrNotExist}
	}
	if p == "" {
		return h.fs, []string{}, nil
	}
	return h.fs, strings.Split(p, "/"), nil
}

// InvalidateHandle does nothing: served has seen the change.
func (h *handler) InvalidateHandle(billy.Filesystem, []byte) error { return nil }

// HandleLimit bounds the number of entries that go-nfs lists at once.
func (h *handler) HandleLimit() int { return h.handles.limit }

// listener judges connections before go-nfs gets them, and closes them at the end, which
// go-nfs does not.
type listener struct {
	net.Listener
	config *Config

	mu    sync.Mutex
	ended bool
	open  map[*connection]struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		why := ""
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok && a.Port >= 1024 && !l.config.InsecurePorts {
			why = "it comes from a port of 1024 or above"
		} else if t := l.take(c); t != nil {
			return t, nil
		} else {
			why = "there are too many"
		}
		l.config.Log.Warn("connection refused", "from", c.RemoteAddr(), "why", why)
		c.Close()
	}
}

func (l *listener) take(c net.Conn) *connection {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(l.open) >= MaxConnections {
		return nil
	}
	t := &connection{Conn: c, of: l}
	l.open[t] = struct{}{}
	return t
}

func (l *listener) shut() {
	l.mu.Lock()
	l.ended = true
	var all []*connection
	for c := range l.open {
		all = append(all, c)
	}
	l.mu.Unlock()
	l.Listener.Close()
	for _, c := range all {
		c.Close()
	}
}

// A connection closes itself when it cannot be read any more.
type connection struct {
	net.Conn
	of *listener
}

func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.Close()
	}
	return n, err
}

func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
