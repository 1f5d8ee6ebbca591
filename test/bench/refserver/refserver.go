// SPDX-License-Identifier: Apache-2.0

// Package refserver runs the NFSv3 servers that BFS is measured against, each as one
// process of this machine. (The guest kernel's own server is not here: it runs inside the
// guest, see ../nfsd.sh.)
package refserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A Server is a running reference server.
type Server struct {
	Kind      string
	Port      int
	MountPort int
	Export    string
	Squashed  string      // the same, with root squashed; only ganesha has one
	cmds      []*exec.Cmd // in the order they were started
	dir       string
}

// Kinds are the servers there are, with what each is.
var Kinds = []struct{ Name, About string }{
	{"ganesha-vfs", "NFS-Ganesha passing a directory through"},
	{"ganesha-mem", "NFS-Ganesha keeping everything in memory"},
	{"go-nfs", "go-nfs passing a directory through"},
}

// Start runs a server of a kind over dir (unused by ganesha-mem). wrap is put before its
// command, for example {"taskset", "-c", "1"}. It returns when the server answers.
func Start(ctx context.Context, kind, dir string, wrap ...string) (*Server, error) {
	s := &Server{Kind: kind, Export: "/export", Squashed: "/squashed"}
	var err error
	if s.dir, err = os.MkdirTemp("", "bfs-refserver-"); err != nil {
		return nil, err
	}
	if s.Port, err = freePort(); err == nil {
		s.MountPort, err = freePort()
	}
	if err == nil {
		switch kind {
		case "ganesha-vfs":
			err = s.ganesha(ctx, wrap, dir, "Name = VFS;")
		case "ganesha-mem":
			err = s.ganesha(ctx, wrap, "/export", "Name = MEM;")
		case "go-nfs":
			err = s.goNFS(ctx, wrap, dir)
		default:
			err = fmt.Errorf("refserver: no kind %q", kind)
		}
	}
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// PIDs are the server's processes.
func (s *Server) PIDs() []int {
	var pids []int
	for _, c := range s.cmds {
		pids = append(pids, c.Process.Pid)
	}
	return pids
}

// Stop ends the server and removes what it left.
func (s *Server) Stop() {
	for i := len(s.cmds) - 1; i >= 0; i-- {
		_ = s.cmds[i].Process.Kill()
		_ = s.cmds[i].Wait()
	}
	_ = os.RemoveAll(s.dir)
}

// memInodeSize is how much of a file ganesha's memory back end keeps: by default nothing, so
// that a read returns filler. It costs that much for every file, so it fits small files only.
const memInodeSize = 128 << 10

func (s *Server) ganesha(ctx context.Context, wrap []string, path, fsal string) error {
	if err := s.rpcbind(ctx); err != nil {
		return err
	}
	for _, dir := range []string{"/run/ganesha", "/var/lib/nfs/ganesha"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	conf := fmt.Sprintf(`
NFS_CORE_PARAM {
  Protocols = 3; NFS_Port = %d; MNT_Port = %d; NLM_Port = 0;
  Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
  Allow_Set_Io_Flusher_Fail = true; mount_path_pseudo = true;
}
MEM { Inode_Size = %d; }
EXPORT_DEFAULTS {
  Access_Type = RW; Squash = No_Root_Squash; SecType = sys;
  Protocols = 3; Transports = TCP; PrivilegedPort = false;
}
EXPORT { Export_Id = 1; Path = "%s"; Pseudo = "%s"; MaxRead = 1048576; MaxWrite = 1048576; FSAL { %s } }
EXPORT {
  Export_Id = 2; Path = "%s"; Pseudo = "%s";
  Squash = Root_Squash; Anonymous_uid = 65534; Anonymous_gid = 65534; FSAL { %s }
}
LOG { Default_Log_Level = EVENT; }
`, s.Port, s.MountPort, memInodeSize, path, s.Export, fsal, path, s.Squashed, fsal)
	file := filepath.Join(s.dir, "conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return err
	}
	log := filepath.Join(s.dir, "log")
	return s.start(ctx, log, append(wrap, "ganesha.nfsd", "-F", "-f", file,
		"-p", filepath.Join(s.dir, "pid"), "-L", log))
}

// rpcbind runs the port mapper that ganesha registers with, unless there is one.
func (s *Server) rpcbind(ctx context.Context) error {
	if c, err := net.Dial("tcp", "127.0.0.1:111"); err == nil {
		return c.Close()
	}
	if err := os.MkdirAll("/run/rpcbind", 0o755); err != nil {
		return err
	}
	return s.launch(ctx, []string{"rpcbind", "-f", "-w"}, 111)
}

func (s *Server) goNFS(ctx context.Context, wrap []string, dir string) error {
	binary := filepath.Join(s.dir, "gonfs")
	if out, err := exec.Command("go", "build", "-o", binary, "bfs/test/bench/gonfs").CombinedOutput(); err != nil {
		return fmt.Errorf("refserver: build go-nfs: %w: %s", err, out)
	}
	s.MountPort = s.Port
	return s.start(ctx, "", append(wrap, binary, "-dir", dir, "-port", fmt.Sprint(s.Port)))
}

func (s *Server) start(ctx context.Context, log string, command []string) error {
	if err := s.launch(ctx, command, s.Port, s.MountPort); err != nil {
		text, _ := os.ReadFile(log)
		return fmt.Errorf("%w\n%s", err, text)
	}
	return nil
}

// launch starts a command and waits until it listens on every port, or ends.
func (s *Server) launch(ctx context.Context, command []string, ports ...int) error {
	c := exec.Command(command[0], command[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var errs strings.Builder
	c.Stderr = &errs
	if err := c.Start(); err != nil {
		return fmt.Errorf("refserver: %w (see `make bench-deps`)", err)
	}
	s.cmds = append(s.cmds, c)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, p := range ports {
		for {
			if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p)); err == nil {
				conn.Close()
				break
			}
			if exited(c.Process.Pid) {
				return fmt.Errorf("refserver: %s ended before it answered: %s", command[0], errs.String())
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("refserver: %s does not answer on port %d: %w", command[0], p, ctx.Err())
			case <-tick.C:
			}
		}
	}
	return nil
}

// exited tells whether a child has ended, without collecting it.
func exited(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
