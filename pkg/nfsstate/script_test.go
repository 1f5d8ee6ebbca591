// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

var rewrite = flag.Bool("rewrite", false, "write the output of the scripts in testdata into them")

// TestScripts runs the sessions in testdata. A line that begins with "$ " is a command, and
// the lines up to the next one are its output; lines with "#" are for the reader. go test
// -rewrite refreshes them, and the diff is the review. A command that succeeds without a
// result prints nothing; a refusal is its name. Paths are looked up name by name; @x is a
// handle that "hold x PATH" kept. Every call is one second later than the one before.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("%s: got\n%s", file, firstDifference(got, string(want)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d: %s\nwant: %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// A session is a script under way.
type session struct {
	*user
	held map[string]nfs3.FileHandle
	seq  fsmerkle.Seq
}

func runScript(t *testing.T, script string) string {
	fs, u := newFS(t, 2048, func(c *Config) { c.Inodes = 1024 })
	*u.clock = uint64(1_000_000_000 * time.Second)
	s := &session{user: u, held: map[string]nfs3.FileHandle{}}
	var out strings.Builder
	output := false
	for line := range strings.Lines(script) {
		command, isCommand := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		switch {
		case isCommand:
			out.WriteString(line)
			*u.clock += uint64(time.Second) - uint64(time.Millisecond)*(*u.clock/uint64(time.Millisecond)%1000)
			if text := s.run(strings.Fields(command)); text != "" {
				out.WriteString(strings.TrimRight(text, "\n") + "\n")
			}
			output = true
		case line == "\n" || line[0] == '#':
			output = false
			out.WriteString(line)
		case !output:
			t.Fatalf("line %q belongs to no command", line)
		}
	}
	if err := fs.Check(); err != nil {
		t.Error(err)
	}
	return out.String()
}

// at returns the handle of a path, and walk that of its directory with its last name. The
// session's user looks names up, so a refusal may come from there.
func (s *session) at(path string) (nfs3.FileHandle, nfs3.Status) {
	if name, ok := strings.CutPrefix(path, "@"); ok {
		return s.held[strings.TrimSuffix(name, "/")], nfs3.OK
	}
	h := s.root
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		r := s.lookup(h, name)
		if r.Status != nfs3.OK {
			return nil, r.Status
		}
		h = r.Object.FileHandle()
	}
	return h, nfs3.OK
}

func (s *session) walk(path string) (nfs3.DirOp, nfs3.Status) {
	dir, name := filepath.Split(path)
	if name == "" {
		name = "."
	}
	h, st := s.at(dir)
	return nfs3.DirOp{Dir: h, Name: []byte(strings.ReplaceAll(name, "%", "/"))}, st
}

func number(text string) uint64 {
	n, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func quiet(st nfs3.Status) string {
	if st == nfs3.OK {
		return ""
	}
	return st.String()
}

// run does one command.
func (s *session) run(words []string) string {
	command, args := words[0], words[1:]
	if f, ok := commands[command]; ok {
		return f(s, args)
	}
	s.t.Fatalf("no command %q", command)
	return ""
}

var commands = map[string]func(s *session, args []string) string{}

// withPath makes a command whose first argument is a path, withName one whose first
// argument is a name.
func withPath(f func(s *session, h nfs3.FileHandle, args []string) string) func(*session, []string) string {
	return func(s *session, args []string) string {
		h, st := s.at(args[0])
		if st != nfs3.OK {
			return st.String()
		}
		return f(s, h, args[1:])
	}
}

func withName(f func(s *session, at nfs3.DirOp, args []string) nfs3.Status) func(*session, []string) string {
	return func(s *session, args []string) string {
		at, st := s.walk(args[0])
		if st == nfs3.OK {
			st = f(s, at, args[1:])
		}
		return quiet(st)
	}
}

func init() {
	commands["su"] = (*session).su
	commands["client"] = (*session).become
	commands["hold"] = func(s *session, args []string) string {
		h, st := s.at(args[1])
		s.held[args[0]] = h
		return quiet(st)
	}
	commands["create"] = withName((*session).makeFile)
	commands["mkdir"] = withName(func(s *session, at nfs3.DirOp, args []string) nfs3.Status {
		a := nfs3.MkdirArgs{Where: at, Attr: attributes(args)}
		return s.status(nfs3.ProcMkdir, a.Append(nil))
	})
	commands["mknod"] = withName(func(s *session, at nfs3.DirOp, args []string) nfs3.Status {
		types := map[string]nfs3.FileType{"file": nfs3.TypeReg, "blk": nfs3.TypeBlk, "chr": nfs3.TypeChr,
			"sock": nfs3.TypeSock, "fifo": nfs3.TypeFifo}
		a := nfs3.MknodArgs{Where: at, Type: types[args[0]], Attr: attributes(args[1:])}
		return s.status(nfs3.ProcMknod, a.Append(nil))
	})
	commands["symlink"] = withName(func(s *session, at nfs3.DirOp, args []string) nfs3.Status {
		a := nfs3.SymlinkArgs{Where: at, Path: []byte(repeated(args))}
		return s.status(nfs3.ProcSymlink, a.Append(nil))
	})
}

func init() {
	commands["rm"] = withName(func(s *session, at nfs3.DirOp, _ []string) nfs3.Status {
		return s.remove(at.Dir, string(at.Name))
	})
	commands["rmdir"] = withName(func(s *session, at nfs3.DirOp, _ []string) nfs3.Status {
		return s.rmdir(at.Dir, string(at.Name))
	})
	commands["mv"] = withName(func(s *session, from nfs3.DirOp, args []string) nfs3.Status {
		to, st := s.walk(args[0])
		if st != nfs3.OK {
			return st
		}
		return s.rename(from.Dir, string(from.Name), to.Dir, string(to.Name))
	})
	commands["ln"] = withPath(func(s *session, h nfs3.FileHandle, args []string) string {
		to, st := s.walk(args[0])
		if st == nfs3.OK {
			a := nfs3.LinkArgs{File: h, Link: to}
			st = s.status(nfs3.ProcLink, a.Append(nil))
		}
		return quiet(st)
	})
	commands["set"] = withPath(func(s *session, h nfs3.FileHandle, args []string) string {
		return quiet(s.setattr(h, attributes(args)).Status)
	})
	commands["write"] = withPath(func(s *session, h nfs3.FileHandle, args []string) string {
		return quiet(s.write(h, number(args[0]), []byte(repeated(args[1:]))).Status)
	})
	commands["read"] = withPath(func(s *session, h nfs3.FileHandle, args []string) string {
		r, data := s.read(h, number(args[0]), uint32(number(args[1])))
		if r.Status != nfs3.OK {
			return r.Status.String()
		}
		return fmt.Sprintf("%s eof=%v", brief(data), r.EOF)
	})
	commands["readlink"] = withPath(func(s *session, h nfs3.FileHandle, _ []string) string {
		a := nfs3.ReadlinkArgs{Symlink: h}
		r, err := nfs3.DecodeReadlinkResult(s.call(nfs3.ProgramNFS, nfs3.ProcReadlink, a.Append(nil)))
		if r := must(s.t, r, err); r.Status != nfs3.OK {
			return r.Status.String()
		}
		return brief(r.Path)
	})
	commands["stat"] = withPath((*session).stat)
	commands["ls"] = withPath((*session).ls)
}

func init() {
	commands["access"] = withPath(func(s *session, h nfs3.FileHandle, _ []string) string {
		a := nfs3.AccessArgs{Object: h, Access: nfs3.AccessAll}
		r, err := nfs3.DecodeAccessResult(s.call(nfs3.ProgramNFS, nfs3.ProcAccess, a.Append(nil)))
		if r := must(s.t, r, err); r.Status != nfs3.OK {
			return r.Status.String()
		}
		var can []string
		for i, name := range []string{"read", "lookup", "modify", "extend", "delete", "execute"} {
			if r.Access&(1<<i) != 0 {
				can = append(can, name)
			}
		}
		return strings.Join(can, " ")
	})
	commands["df"] = func(s *session, _ []string) string {
		r := s.fsstat()
		return fmt.Sprintf("pages %d free %d, files %d free %d",
			r.Tbytes/pageSize, r.Fbytes/pageSize, r.Tfiles, r.Ffiles)
	}
	commands["mount"] = func(s *session, args []string) string {
		h := s.mount(args[0])
		if h == nil {
			return "refused"
		}
		s.root = h
		return ""
	}
	commands["export"] = (*session).export
	commands["fsck"] = func(s *session, _ []string) string {
		if err := s.fs.Check(); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("in order, %d pages wait to be freed", s.fs.counter(superOrphanPages))
	}
	commands["root"] = func(s *session, _ []string) string {
		s.seq++
		return digest(s.t, s.fs, s.seq).String()
	}
}

// status is the status that any procedure's results begin with.
func (s *session) status(proc uint32, args []byte) nfs3.Status {
	b := s.call(nfs3.ProgramNFS, proc, args)
	return nfs3.Status(b[0])<<24 | nfs3.Status(b[1])<<16 | nfs3.Status(b[2])<<8 | nfs3.Status(b[3])
}

// su UID GID GROUP...
func (s *session) su(args []string) string {
	var ids []uint32
	for _, a := range args {
		ids = append(ids, uint32(number(a)))
	}
	s.cred = nfs3.Credentials{UID: ids[0], GID: ids[1], Groups: ids[2:]}
	return ""
}

// client NUMBER EXPORT[:ro][:root_squash][:all_squash]... [expires=SECONDS from the beginning]
func (s *session) become(args []string) string {
	r := Rights{}
	for _, a := range args[1:] {
		if in, ok := strings.CutPrefix(a, "expires="); ok {
			r.Expires = (1_000_000_000 + number(in)) * uint64(time.Second)
			continue
		}
		words := strings.Split(a, ":")
		g := Grant{Export: uint32(number(words[0])), AnonUID: Nobody, AnonGID: Nobody}
		for _, w := range words[1:] {
			switch w {
			case "ro":
				g.ReadOnly = true
			case "root_squash":
				g.Squash = SquashRoot
			case "all_squash":
				g.Squash = SquashAll
			}
		}
		r.Grants = append(r.Grants, g)
	}
	s.client, s.rights = pbft.ClientID(number(args[0])), r.Append(nil)
	return ""
}

// attributes reads mode=0644 uid=1 gid=1 size=10 mtime=SECONDS.
func attributes(args []string) (a nfs3.Sattr3) {
	for _, arg := range args {
		name, text, _ := strings.Cut(arg, "=")
		switch name {
		case "mode":
			a.SetMode, a.Mode = true, uint32(number(text))
		case "uid":
			a.SetUID, a.UID = true, uint32(number(text))
		case "gid":
			a.SetGID, a.GID = true, uint32(number(text))
		case "size":
			a.SetSize, a.Size = true, number(text)
		case "mtime":
			a.Mtime = nfs3.SetTime{How: nfs3.SetToClientTime, Time: nfs3.Time3{Seconds: uint32(number(text))}}
		}
	}
	return a
}

// create PATH [unchecked|exclusive=VERIFIER] [attributes]
func (s *session) makeFile(at nfs3.DirOp, args []string) nfs3.Status {
	a := nfs3.CreateArgs{Where: at, Mode: nfs3.Guarded, Attr: attributes(args)}
	for _, arg := range args {
		if arg == "unchecked" {
			a.Mode = nfs3.Unchecked
		}
		if v, ok := strings.CutPrefix(arg, "exclusive="); ok {
			a.Mode, a.Attr = nfs3.Exclusive, nfs3.Sattr3{}
			copy(a.Verifier[:], v)
		}
	}
	return s.status(nfs3.ProcCreate, a.Append(nil))
}

// repeated is TEXT or TEXT x COUNT.
func repeated(args []string) string {
	if len(args) == 3 && args[1] == "x" {
		return strings.Repeat(args[0], int(number(args[2])))
	}
	return strings.Join(args, " ")
}

// brief shows bytes as text, runs of one byte by their length.
func brief(b []byte) string {
	var parts []string
	for len(b) > 0 {
		n := len(b) - len(bytes.TrimLeft(b, string(b[:1])))
		if n > 8 {
			parts = append(parts, fmt.Sprintf("%d x %q", n, b[0]))
			b = b[n:]
			continue
		}
		n = 1
		for n < len(b) && !(n+8 < len(b) && bytes.Count(b[n:n+9], b[n:n+1]) == 9) {
			n++
		}
		parts = append(parts, fmt.Sprintf("%q", b[:n]))
		b = b[n:]
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

var kinds = map[nfs3.FileType]string{
	nfs3.TypeReg: "file", nfs3.TypeDir: "directory", nfs3.TypeBlk: "block device", nfs3.TypeChr: "character device",
	nfs3.TypeLnk: "symlink", nfs3.TypeSock: "socket", nfs3.TypeFifo: "pipe",
}

func (s *session) stat(h nfs3.FileHandle, _ []string) string {
	r := s.getattr(h)
	if r.Status != nfs3.OK {
		return r.Status.String()
	}
	a := r.Attr
	return fmt.Sprintf("%s %d:%d mode %04o links %d owner %d:%d size %d used %d mtime %s ctime %s",
		kinds[a.Type], a.FSID, a.FileID, a.Mode,
		a.Nlink, a.UID, a.GID, a.Size, a.Used, since(a.Mtime), since(a.Ctime))
}

func since(t nfs3.Time3) string {
	return strconv.FormatInt(int64(t.Seconds)-1_000_000_000, 10) + "s"
}

// ls PATH [COOKIE [COUNT]]
func (s *session) ls(h nfs3.FileHandle, args []string) string {
	a := nfs3.ReaddirArgs{Dir: h, Count: 4096}
	if len(args) > 0 {
		a.Cookie = number(args[0])
	}
	if len(args) > 1 {
		a.Count = uint32(number(args[1]))
	}
	r, err := nfs3.DecodeReaddirResult(s.call(nfs3.ProgramNFS, nfs3.ProcReaddir, a.Append(nil)))
	if r := must(s.t, r, err); r.Status != nfs3.OK {
		return r.Status.String()
	}
	var names []string
	for _, e := range r.Entries {
		names = append(names, fmt.Sprintf("%d:%s", e.Cookie, e.Name))
	}
	return fmt.Sprintf("%s eof=%v", strings.Join(names, " "), r.EOF)
}

// export add NAME [BYTES INODES] | export quota NUMBER BYTES INODES | export root NUMBER
// MODE UID GID | export remove NUMBER | export admit NAME... | export list, by the
// administrator. Admit makes the exports whose name ends in '+'.
func (s *session) export(args []string) string {
	var body []byte
	switch args[0] {
	case "add":
		x := Export{Name: args[1], Mode: 0o777}
		if len(args) > 2 {
			x.QuotaBytes, x.QuotaInodes = number(args[2]), number(args[3])
		}
		body = ExportAddCall(&x)
	case "quota":
		bytes, inodes := number(args[2]), number(args[3])
		body = ExportSetCall(uint32(number(args[1])), &Change{QuotaBytes: &bytes, QuotaInodes: &inodes})
	case "root":
		mode, err := strconv.ParseUint(args[2], 8, 32)
		must(s.t, mode, err)
		m, uid, gid := uint32(mode), uint32(number(args[3])), uint32(number(args[4]))
		body = ExportSetCall(uint32(number(args[1])), &Change{Mode: &m, UID: &uid, GID: &gid})
	case "remove":
		body = ExportRemoveCall(uint32(number(args[1])))
	case "admit":
		return s.admit(args[1:])
	default:
		body = ExportListCall()
	}
	reply, _ := s.fs.Execute(pbft.Operation{Client: pbft.Administrator, Body: body, Choice: nil})
	var err error
	switch args[0] {
	case "add":
		var id uint32
		if id, err = ParseExportAdd(reply); err == nil {
			return fmt.Sprintf("export %d", id)
		}
	case "quota", "root", "remove":
		err = ParseAdminStatus(reply)
	default:
		list, err := ParseExportList(reply)
		text := ""
		for _, x := range must(s.t, list, err) {
			text += fmt.Sprintf("%d %s %04o %d:%d quota %d/%d used %d/%d\n",
				x.ID, x.Name, x.Mode, x.UID, x.GID, x.QuotaBytes, x.QuotaInodes, x.UsedBytes, x.UsedInodes)
		}
		return text
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// admit enrols a client that wants these exports, last first, and shows what it is granted.
func (s *session) admit(names []string) string {
	var wanted []Wanted
	r := Rights{Name: "client"}
	for i, name := range names {
		bare, create := strings.CutSuffix(name, "+")
		wanted = append(wanted, Wanted{Export: Export{Name: bare, Mode: 0o1777, UID: 7}, Create: create})
		r.Grants = append(r.Grants, Grant{Export: uint32(i + 1), AnonUID: uint32(i)})
	}
	encoded, reply := s.fs.Admit(pbft.Operation{Client: pbft.Administrator, Body: AdmitCall(wanted, &r)})
	if err := ParseAdmit(reply, wanted); err != nil {
		if encoded != nil {
			s.t.Errorf("admit %v: refused, with rights %x", names, encoded)
		}
		return err.Error()
	}
	r, err := ParseRights(encoded)
	text := must(s.t, r, err).Name
	for _, g := range r.Grants {
		text += fmt.Sprintf(" %d(anon %d)", g.Export, g.AnonUID)
	}
	return text
}
