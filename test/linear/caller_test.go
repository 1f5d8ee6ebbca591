// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// A caller makes one NFS or MOUNT call at a time. After an error it is unknown whether the call was
// done.
type caller interface {
	call(ctx context.Context, program, procedure uint32, args []byte) (results []byte, err error)
	close()
}

// A goCaller makes its calls through a pbft.Client, as a Go program does.
type goCaller struct{ client *pbft.Client }

func (c goCaller) close() {}

func (c goCaller) call(ctx context.Context, program, procedure uint32, args []byte) ([]byte, error) {
	body := nfs3.AppendCall(nil, &nfs3.Call{Program: program, Procedure: procedure, Args: args})
	reply, err := c.client.Invoke(ctx, body, nfs3.ReadOnly(program, procedure))
	if err != nil {
		return nil, err
	}
	stat, results, err := nfs3.ParseReply(reply)
	if err == nil && stat != nfs3.Success {
		err = fmt.Errorf("accept status %d", stat)
	}
	return results, err
}

// An rpcCaller does as a kernel does: when its connection breaks it makes another one,
// from the same port, and sends the same call again, with the same xid. A call from
// another port would be another process's call to the relay.
type rpcCaller struct {
	address string
	xid     uint32
	conn    net.Conn
	from    net.Addr // of the first connection, and all others
}

// close resets the connection, so that its port can be used again at once.
func (c *rpcCaller) close() {
	if c.conn != nil {
		_ = c.conn.(*net.TCPConn).SetLinger(0)
		c.conn.Close()
		c.conn = nil
	}
}

func (c *rpcCaller) call(ctx context.Context, program, procedure uint32, args []byte) ([]byte, error) {
	c.xid++
	message := c.record(program, procedure, args)
	for {
		reply, err := c.try(ctx, message)
		if err == nil {
			return c.results(reply)
		}
		c.close()
		if ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// try sends the call and reads replies until the reply to this call comes.
func (c *rpcCaller) try(ctx context.Context, message []byte) ([]byte, error) {
	if c.conn == nil {
		if err := c.dial(ctx); err != nil {
			return nil, err
		}
	}
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n>>31 == 0 || n&^(1<<31) > 2<<20 {
		return nil, fmt.Errorf("got a record mark of %#x", n)
	}
	reply := make([]byte, n&^(1<<31))
	_, err := io.ReadFull(conn, reply)
	return reply, err
}

// reuseAddress lets a socket have a port that another has just had.
func reuseAddress(_, _ string, raw syscall.RawConn) error {
	var refused error
	err := raw.Control(func(fd uintptr) {
		refused = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	})
	return errors.Join(err, refused)
}

// dial tries until there is a connection, because a relay may be starting.
func (c *rpcCaller) dial(ctx context.Context) error {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	dialer := net.Dialer{LocalAddr: c.from, Control: reuseAddress}
	for {
		conn, err := dialer.DialContext(ctx, "tcp", c.address)
		if err == nil {
			c.conn, c.from = conn, conn.LocalAddr()
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// record returns a call with AUTH_SYS credentials of root, in one fragment [RFC5531 §9, §11].
func (c *rpcCaller) record(program, procedure uint32, args []byte) []byte {
	b := make([]byte, 4, 128+len(args))
	for _, v := range []uint32{
		c.xid, 0, 2, program, nfs3.Version, procedure, // CALL, RPC version 2
		1, 20, 0, 0, 0, 0, 0, // AUTH_SYS: stamp, a machine name of no bytes, uid, gid, no groups
		0, 0, // AUTH_NONE
	} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = append(b, args...)
	binary.BigEndian.PutUint32(b, 1<<31|uint32(len(b)-4))
	return b
}

// results returns the bytes that follow the head of an accepted, successful reply, whose
// verifier is empty.
func (c *rpcCaller) results(reply []byte) ([]byte, error) {
	want := [6]uint32{c.xid, 1} // REPLY, MSG_ACCEPTED, AUTH_NONE of no bytes, SUCCESS
	for i, w := range want {
		if len(reply) < 4*len(want) || binary.BigEndian.Uint32(reply[4*i:]) != w {
			return nil, fmt.Errorf("xid %d: got a reply that begins with %x", c.xid, reply[:min(24, len(reply))])
		}
	}
	return reply[4*len(want):], nil
}

// mount asks for the root of /export.
func mount(t testing.TB, c caller) nfs3.FileHandle {
	t.Helper()
	args := nfs3.MountArgs{Path: []byte("/export")}
	results, err := c.call(t.Context(), nfs3.ProgramMount, nfs3.MountProcMnt, args.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	r, err := nfs3.DecodeMountResult(results)
	if err != nil || r.Status != nfs3.MountOK {
		t.Fatalf("mount: status %d, %v", r.Status, err)
	}
	return r.Handle.Append(nil)
}
