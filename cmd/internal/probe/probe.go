// SPDX-License-Identifier: Apache-2.0

// Package probe is the smallest NFSv3 client that can write a file and read it back
// through a relay. The demonstration uses it where no kernel may mount.
package probe

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"bfs/pkg/nfs3"
)

// maxRecord bounds the length in bytes of one record from the server.
const maxRecord = 2 << 20

// A Client has mounted one export. One goroutine at a time calls its methods.
type Client struct {
	conn net.Conn
	read *bufio.Reader
	xid  uint32
	root nfs3.FileHandle
}

// Mount connects to a server that serves MOUNT and NFS on one port, and mounts path.
func Mount(ctx context.Context, address, path string) (*Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, read: bufio.NewReader(conn)}
	args := nfs3.MountArgs{Path: []byte(path)}
	results, err := c.call(ctx, nfs3.ProgramMount, nfs3.MountProcMnt, args.Append(nil))
	if err == nil {
		err = c.mounted(results)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("mount %s: %w", path, err)
	}
	return c, nil
}

func (c *Client) mounted(results []byte) error {
	r, err := nfs3.DecodeMountResult(results)
	if err != nil {
		return err
	}
	if r.Status != nfs3.MountOK {
		return fmt.Errorf("refused with status %d", r.Status)
	}
	c.root = r.Handle.Append(nil)
	return nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Write makes a file in the root of the export and writes data to it, at most a transfer's length.
func (c *Client) Write(ctx context.Context, name string, data []byte) (nfs3.FileHandle, error) {
	create := nfs3.CreateArgs{
		Where: nfs3.DirOp{Dir: c.root, Name: []byte(name)}, Mode: nfs3.Unchecked,
		Attr: nfs3.Sattr3{SetMode: true, Mode: 0o644, SetSize: true},
	}
	results, err := c.call(ctx, nfs3.ProgramNFS, nfs3.ProcCreate, create.Append(nil))
	if err != nil {
		return nil, err
	}
	made, err := nfs3.DecodeCreateResult(results)
	if err == nil && made.Status != nfs3.OK {
		err = made.Status
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	file := nfs3.FileHandle(made.Object.Handle.Append(nil))
	if err := c.WriteAt(ctx, file, 0, data); err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	return file, nil
}

// WriteAt writes data into a file that is there, at most a transfer's length.
func (c *Client) WriteAt(ctx context.Context, file nfs3.FileHandle, offset uint64, data []byte) error {
	write := nfs3.WriteArgs{File: file, Offset: offset, Stable: nfs3.FileSync, Data: data}
	results, err := c.call(ctx, nfs3.ProgramNFS, nfs3.ProcWrite, write.Append(nil))
	if err != nil {
		return err
	}
	written, err := nfs3.DecodeWriteResult(results)
	switch {
	case err != nil:
	case written.Status != nfs3.OK:
		err = written.Status
	case int(written.Count) != len(data):
		err = fmt.Errorf("got %d bytes written, want %d", written.Count, len(data))
	}
	return err
}

// Read reads at most a transfer's length from the beginning of a file.
func (c *Client) Read(ctx context.Context, file nfs3.FileHandle) ([]byte, error) {
	args := nfs3.ReadArgs{File: file, Count: 1 << 16}
	results, err := c.call(ctx, nfs3.ProgramNFS, nfs3.ProcRead, args.Append(nil))
	if err != nil {
		return nil, err
	}
	r, err := nfs3.DecodeReadResult(results)
	if err == nil && r.Status != nfs3.OK {
		err = r.Status
	}
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	var all []byte
	for _, piece := range r.Data {
		all = append(all, piece...)
	}
	return all, nil
}

// call sends one RPC and waits for its reply [RFC5531 §9, §11].
func (c *Client) call(ctx context.Context, program, procedure uint32, args []byte) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	c.xid++
	if _, err := c.conn.Write(record(c.xid, program, procedure, args)); err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	reply, err := c.receive()
	if err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	return accepted(reply, c.xid)
}

// record is a call with AUTH_SYS credentials of root, in one fragment.
func record(xid, program, procedure uint32, args []byte) []byte {
	const (
		call, rpcVersion = 0, 2
		authNone         = 0
		authSys          = 1
	)
	b := make([]byte, 4, 128+len(args))
	u := func(values ...uint32) {
		for _, v := range values {
			b = binary.BigEndian.AppendUint32(b, v)
		}
	}
	u(xid, call, rpcVersion, program, nfs3.Version, procedure)
	u(authSys, 20, 0, 0, 0, 0, 0) // stamp, machine name of no bytes, uid 0, gid 0, no groups
	u(authNone, 0)
	b = append(b, args...)
	binary.BigEndian.PutUint32(b, 1<<31|uint32(len(b)-4))
	return b
}

// receive reads the fragments of one record.
func (c *Client) receive() (all []byte, err error) {
	for last := false; !last; {
		var head [4]byte
		if _, err := io.ReadFull(c.read, head[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(head[:])
		last, n = n>>31 == 1, n&^(1<<31)
		if n > maxRecord || len(all)+int(n) > maxRecord {
			return nil, fmt.Errorf("got a reply of more than %d bytes", maxRecord)
		}
		piece := make([]byte, n)
		if _, err := io.ReadFull(c.read, piece); err != nil {
			return nil, err
		}
		all = append(all, piece...)
	}
	return all, nil
}

// accepted returns the results behind an accepted, successful reply's head.
func accepted(b []byte, xid uint32) ([]byte, error) {
	word := func(i int) uint32 { return binary.BigEndian.Uint32(b[4*i:]) }
	const reply, msgAccepted, success = 1, 0, 0
	if len(b) < 24 || word(0) != xid || word(1) != reply {
		return nil, errors.New("got bytes that are no reply to this call")
	}
	if word(2) != msgAccepted {
		return nil, errors.New("call denied")
	}
	verifier := int(word(4))
	if verifier > 400 || verifier%4 != 0 || len(b) < 24+verifier {
		return nil, errors.New("got a malformed reply")
	}
	if stat := binary.BigEndian.Uint32(b[20+verifier:]); stat != success {
		return nil, fmt.Errorf("call refused with accept status %d", stat)
	}
	return b[24+verifier:], nil
}
