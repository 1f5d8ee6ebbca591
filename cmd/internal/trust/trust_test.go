// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A place is a directory of the test's own, without the shelter that directories of tests
// have from others.
type place struct {
	t   *testing.T
	dir string
}

func newPlace(t *testing.T) place {
	dir, err := os.MkdirTemp("", "trust")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := place{t, dir}
	p.must(os.Chmod(dir, 0o755))
	p.must(os.Mkdir(p.at("d"), 0o755))
	p.must(os.WriteFile(p.at("d/key"), []byte("secret"), 0o600))
	return p
}

func (p place) at(name string) string { return filepath.Join(p.dir, name) }

func (p place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// chmod sets a mode, independently of the umask.
func (p place) chmod(name string, mode fs.FileMode) { p.t.Helper(); p.must(os.Chmod(p.at(name), mode)) }

func own(r rule) rule { r.uid = os.Geteuid(); return r }

var (
	secret = own(rule{forbidden: 0o077, owned: true})
	config = own(rule{forbidden: 0o022})
)

// A file that others could read, change or replace is refused, with the command that
// corrects it; every other file is opened.
func TestWhatIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(p place)
		file string
		rule rule
		want []string // nil: it is opened
	}{
		{"a private key", func(place) {}, "d/key", secret, nil},
		{"a key that others may read", func(p place) { p.chmod("d/key", 0o640) }, "d/key", secret, []string{"0640", "chmod 600 %/d/key"}},
		{"a key that others may write", func(p place) { p.chmod("d/key", 0o602) }, "d/key", secret, []string{"0602", "chmod 600 %/d/key"}},
		{"a key that others may execute", func(p place) { p.chmod("d/key", 0o601) }, "d/key", secret, []string{"chmod 600 %/d/key"}},
		{"a readable config", func(p place) { p.chmod("d/key", 0o644) }, "d/key", config, nil},
		{"a config that a group may write", func(p place) { p.chmod("d/key", 0o664) }, "d/key", config, []string{"0664", "chmod go-w %/d/key"}},
		{"a directory that others may write", func(p place) { p.chmod("d", 0o777) }, "d/key", secret, []string{"0777", "chmod go-w %/d"}},
		{"a directory that a group may write", func(p place) { p.chmod("d", 0o775) }, "d/key", config, []string{"chmod go-w %/d"}},
		{"the directory above", func(p place) { p.chmod(".", 0o777) }, "d/key", config, []string{"chmod go-w %"}},
		{"a sticky directory", func(p place) { p.chmod("d", 0o777|fs.ModeSticky) }, "d/key", secret, nil},
		{"a directory in one that no other user may pass", func(p place) { p.chmod("d", 0o777); p.chmod(".", 0o700) }, "d/key", secret, nil},
		{"a link", func(p place) { p.must(os.Symlink("d/key", p.at("link"))) }, "link", secret, nil},
		{"a link to a readable file", func(p place) {
			p.must(os.Symlink(p.at("d/key"), p.at("link")))
			p.chmod("d/key", 0o644)
		}, "link", secret, []string{"0644"}},
		{"a link in a directory that others may write", func(p place) {
			p.must(os.Mkdir(p.at("open"), 0o755))
			p.must(os.Symlink("../d/key", p.at("open/link")))
			p.chmod("open", 0o777)
		}, "open/link", secret, []string{"chmod go-w %/open"}},
		{"a link out of such a directory to where no other user may pass", func(p place) {
			p.must(os.Mkdir(p.at("open"), 0o755))
			p.must(os.Symlink("../d/key", p.at("open/link")))
			p.chmod("open", 0o777)
			p.chmod("d", 0o700)
		}, "open/link", config, []string{"chmod go-w %/open"}},
		{"a link to a directory that others may write", func(p place) {
			p.must(os.Symlink("d", p.at("link")))
			p.chmod("d", 0o777)
		}, "link/key", secret, []string{"chmod go-w %/d"}},
		{"up from where no other user may pass", func(p place) {
			p.must(os.Mkdir(p.at("private"), 0o700))
			p.chmod("d", 0o777)
		}, "private/../d/key", secret, []string{"chmod go-w %/d"}},
		{"links in a circle", func(p place) { p.must(os.Symlink("link", p.at("link"))) }, "link", secret, []string{"too many levels"}},
		{"a pipe", func(p place) { p.must(syscall.Mkfifo(p.at("pipe"), 0o600)) }, "pipe", secret, []string{"no regular file"}},
		{"a directory", func(place) {}, "d", secret, []string{"no regular file"}},
		{"a file as a directory", func(place) {}, "d/key/x", secret, []string{"not a directory"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t)
			c.make(p)
			f, err := c.rule.open(p.dir + "/" + c.file)
			if (err == nil) != (c.want == nil) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			for _, part := range c.want {
				if part = strings.ReplaceAll(part, "%", p.dir); !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if err == nil {
				text, _ := io.ReadAll(f)
				f.Close()
				if string(text) != "secret" {
					t.Errorf("read %q", text)
				}
			}
		})
	}
}

// To a process of another user, the files of this test belong to another user. Files of
// root are accepted for every user.
func TestOwners(t *testing.T) {
	p := newPlace(t)
	other := secret
	if os.Geteuid() == 0 {
		p.must(os.Chown(p.at("d/key"), 4711, 4711))
	} else {
		other.uid++
	}
	if _, err := other.open(p.at("d/key")); err == nil || !strings.Contains(err.Error(), "chown") {
		t.Errorf("a key of another user: got %v", err)
	}
	if os.Geteuid() != 0 {
		return
	}
	other.uid = 4711
	f, err := other.open(p.at("d/key"))
	if err != nil {
		t.Fatalf("one's own key in root's directory: %v", err)
	}
	f.Close()
	p.must(os.Chown(p.at("d"), 4712, 4712))
	for _, r := range []rule{other, secret} {
		_, err := r.open(p.at("d/key"))
		if err == nil || !strings.Contains(err.Error(), p.at("d")+": belongs to user 4712") {
			t.Errorf("in another user's directory: got %v", err)
		}
	}
	p.must(os.Lchown(p.at("d"), 0, 0))
	p.must(os.Symlink("d/key", p.at("link")))
	p.must(os.Lchown(p.at("link"), 4712, 4712))
	if _, err := other.open(p.at("link")); err == nil || !strings.Contains(err.Error(), "chown -h 4711 "+p.at("link")) {
		t.Errorf("by another user's link: got %v", err)
	}
}

func TestMissingFile(t *testing.T) {
	p := newPlace(t)
	for _, name := range []string{p.at("none"), p.at("none/key")} {
		_, err := OpenSecret(name)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "open "+name) {
			t.Errorf("got %v", err)
		}
	}
}

// A shell's <(...) gives a descriptor's name.
func TestGivenDescriptor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.WriteString("phrase\n")
	w.Close()
	f, err := OpenSecret("/dev/fd/" + strconv.Itoa(int(r.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := io.ReadAll(f); string(text) != "phrase\n" {
		t.Errorf("got %q, %v", text, err)
	}
}

// A file that a process with more rights obeys may be read by all, and changed by its owner alone,
// who is root or the process's user.
func TestOpenOwned(t *testing.T) {
	p := newPlace(t)
	open := func(r rule) error {
		f, err := r.open(p.at("d/key"))
		if err == nil {
			f.Close()
		}
		return err
	}
	obeyed := own(rule{forbidden: 0o022, owned: true})
	p.chmod("d/key", 0o644)
	if err := open(obeyed); err != nil {
		t.Errorf("readable by all: %v", err)
	}
	p.chmod("d/key", 0o664)
	if err := open(obeyed); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("writable by others: got %v", err)
	}
	if os.Geteuid() == 0 { // root can give files away
		p.chmod("d/key", 0o644)
		p.must(os.Chown(p.at("d/key"), 12345, 12345))
		if err := open(obeyed); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Errorf("of another user: got %v", err)
		}
	}
}
