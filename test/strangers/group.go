// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/pbfttest"
)

// replicas is the number of replicas.
const replicas = 4

// A group is four replicas in processes of their own.
type group struct {
	group     *pbft.Group
	admin     ed25519.PrivateKey
	dir       string
	temporary bool
	processes []*exec.Cmd
}

// file is the contents of the file that the processes of the group share.
type file struct {
	Addresses []string             `json:"addresses"`
	Keys      []ed25519.PrivateKey `json:"keys"`
	Admin     ed25519.PrivateKey   `json:"admin"`
}

const fileName = "group.json"

func (f *file) group() (*pbft.Group, error) {
	parts := pbft.Group{Name: "strangers", Limits: pbft.DefaultLimits(),
		Administrator: f.Admin.Public().(ed25519.PublicKey)}
	for i, k := range f.Keys {
		parts.Members = append(parts.Members, pbft.Member{Address: f.Addresses[i], Key: k.Public().(ed25519.PublicKey)})
	}
	return pbft.CheckGroup(parts)
}

func makeFile() (f file, err error) {
	for range replicas {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return f, err
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return f, err
		}
		defer l.Close() // all are open until each has a port of its own
		f.Keys, f.Addresses = append(f.Keys, key), append(f.Addresses, l.Addr().String())
	}
	_, f.Admin, err = ed25519.GenerateKey(nil)
	return f, err
}

// newGroup starts the replicas.
func newGroup(dir string) (g *group, err error) {
	g = &group{dir: dir, temporary: dir == ""}
	if g.temporary {
		if g.dir, err = os.MkdirTemp("", "strangers"); err != nil {
			return nil, err
		}
	}
	f, err := makeFile()
	if err != nil {
		return nil, err
	}
	if g.group, err = f.group(); err != nil {
		return nil, err
	}
	g.admin = f.Admin
	b, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(g.dir, fileName), b, 0o600); err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for i := range replicas {
		cmd := exec.Command(program, "-dir", g.dir, "-replica", strconv.Itoa(i))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			g.stop()
			return nil, err
		}
		g.processes = append(g.processes, cmd)
	}
	return g, nil
}

// primaryCPU returns the processor time that the primary's process has used so far. Linux
// counts it in hundredths of a second.
func (g *group) primaryCPU() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.processes[0].Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // user and system time
		n, _ := strconv.ParseInt(f, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

func (g *group) stop() {
	for _, p := range g.processes {
		_ = p.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range g.processes {
		_ = p.Wait()
	}
	if g.temporary {
		_ = os.RemoveAll(g.dir)
	}
}

// enrol makes a client's key and enrols it.
func (g *group) enrol() (ed25519.PrivateKey, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	admin, err := pbft.NewClient(pbft.ClientConfig{Group: g.group, Key: g.admin})
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	if err := admin.Enrol(ctx, public, nil); err != nil {
		return nil, fmt.Errorf("enrol the honest client: %w", err)
	}
	return key, nil
}

// connect connects a client, and returns the time until the client could make calls.
func (g *group) connect(key ed25519.PrivateKey) (*pbft.Client, time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	begun := time.Now()
	client, err := pbft.NewClient(pbft.ClientConfig{Group: g.group, Key: key})
	if err != nil {
		return nil, 0, err
	}
	if err := client.Ready(ctx); err != nil {
		client.Close()
		return nil, 0, err
	}
	return client, time.Since(begun), nil
}

// runReplica runs one replica in this process, until it is told to stop.
func runReplica(dir string, i int) error {
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		return err
	}
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	g, err := f.group()
	if err != nil {
		return err
	}
	own := filepath.Join(dir, strconv.Itoa(i))
	if err := os.MkdirAll(own, 0o700); err != nil {
		return err
	}
	r, err := pbft.StartReplica(pbft.ReplicaConfig{Group: g, Self: pbft.ReplicaID(i), Key: f.Keys[i], Directory: own,
		Service: counter{pbfttest.NewMemory(), g.ReservedPages()}})
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	select {
	case <-stop:
		return r.Close(context.Background())
	case <-r.Done():
		return r.Err()
	}
}

// A counter is the service: each operation adds one.
type counter struct {
	*pbfttest.Memory
	page pbft.PageNum
}

func (s counter) Execute(pbft.Operation) ([]byte, bool) {
	b := s.Modify(s.page)
	n := binary.BigEndian.Uint64(b) + 1
	binary.BigEndian.PutUint64(b, n)
	return binary.BigEndian.AppendUint64(nil, n), true
}

func (s counter) Cost([]byte) int                     { return 0 }
func (s counter) Query(pbft.Operation) ([]byte, bool) { return nil, false }
func (s counter) Choose(pbft.SeqNum) []byte           { return nil }
func (s counter) Accept(pbft.SeqNum, []byte) bool     { return true }
func (s counter) State() pbft.State                   { return s.Memory }
