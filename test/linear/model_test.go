// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"

	"bfs/pkg/nfs3"
)

// names is the number of names that a directory of the test may have.
const names = 4

// An identity tells files apart. It is a handle's bytes, or, if the answer to the file's creation
// was lost, a word of our own until a LOOKUP finds the handle.
type identity string

// String returns the inode and its generation, or the word of our own.
func (f identity) String() string {
	if h, ok := nfs3.FileHandle(f).Parse(); ok {
		return fmt.Sprintf("%d.%d", h.Inode, h.Generation)
	}
	return string(f)
}

// An entry is the file of one name. A file with two links is in two entries.
type entry struct {
	file identity // "": no such name
	data string
}

// A directory is the model's state. It is comparable, as porcupine requires.
type directory [names]entry

type verb int

const (
	lookup verb = iota
	create
	write
	read
	getattr
	truncate
	remove
	rename
	link
	list
	verbs int = iota
)

var verbNames = [...]string{"lookup", "create", "write", "read", "getattr", "truncate", "remove",
	"rename", "link", "list"}

// A question is one call: the fields that its verb needs.
type question struct {
	serial   int // no two calls of a history have the same
	place    int // the directory, by which histories are judged
	verb     verb
	name, to int
	file     identity
	offset   int
	size     int
	data     string
	mode     nfs3.CreateMode
	empty    bool // of an UNCHECKED create: and set the size to 0
}

// An answer is a call's result. Fields that a call does not return are zero.
type answer struct {
	unknown bool // nothing came back: it may have been done, now or any time later
	status  nfs3.Status
	file    identity
	data    string
	size    int // of the file afterwards
	links   int
	before  int // size before, as wcc_data has it
	entries [names]listed
}

type listed struct {
	file  identity
	size  int
	links int
}

// model is one directory with its files, which serves one call after the other as RFC 1813 says.
var model = porcupine.Model{
	Init: func() any { return directory{} },
	Step: func(state, input, output any) (bool, any) {
		d, in, out := state.(directory), input.(question), output.(answer)
		if out.unknown {
			d.apply(in, identity(fmt.Sprintf("?%d", in.serial)))
			return true, d
		}
		d = d.bind(in, out)
		want := d.apply(in, out.file)
		return want == out, d
	},
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%v -> %v", input.(question), output.(answer))
	},
	DescribeState: func(state any) string { return fmt.Sprint(state.(directory)) },
}

// bind gives each file whose handle was unknown the identity that this answer shows.
func (d directory) bind(in question, out answer) directory {
	switch in.verb {
	case lookup, create:
		d = d.bindOne(in.name, out.file)
	case list:
		for i, e := range out.entries {
			d = d.bindOne(i, e.file)
		}
	}
	return d
}

func (d directory) bindOne(name int, seen identity) directory {
	old := d[name].file
	if seen == "" || !strings.HasPrefix(string(old), "?") || d.links(seen) > 0 {
		return d
	}
	for i := range d {
		if d[i].file == old {
			d[i].file = seen
		}
	}
	return d
}

func (d *directory) links(f identity) (n int) {
	for _, e := range d {
		if f != "" && e.file == f {
			n++
		}
	}
	return n
}

func (d *directory) find(f identity) (data string, ok bool) {
	for _, e := range d {
		if f != "" && e.file == f {
			return e.data, true
		}
	}
	return "", false
}

func (d *directory) store(f identity, data string) {
	for i := range d {
		if d[i].file == f {
			d[i].data = data
		}
	}
}

// told returns the fields that every answer about a file has.
func (d *directory) told(f identity) answer {
	data, _ := d.find(f)
	return answer{size: len(data), links: d.links(f)}
}

// apply does one call and returns the only right answer to it. If the call makes a file,
// made is its identity.
func (d *directory) apply(in question, made identity) answer {
	switch in.verb {
	case lookup:
		return d.lookup(in)
	case create:
		return d.create(in, made)
	case remove:
		if d[in.name].file == "" {
			return answer{status: nfs3.ErrNoEnt}
		}
		d[in.name] = entry{}
		return answer{}
	case rename:
		return d.rename(in)
	case list:
		return d.list()
	}
	return d.applyToFile(in)
}

func (d *directory) lookup(in question) answer {
	f := d[in.name].file
	if f == "" {
		return answer{status: nfs3.ErrNoEnt}
	}
	a := d.told(f)
	a.file = f
	return a
}

// create [RFC1813 §3.3.8]: no two calls of a history use the same verifier, so an
// EXCLUSIVE create never finds a file with its own verifier.
func (d *directory) create(in question, made identity) answer {
	e := &d[in.name]
	switch {
	case e.file == "":
		*e = entry{file: made}
	case in.mode != nfs3.Unchecked:
		return answer{status: nfs3.ErrExist}
	case in.empty:
		d.store(e.file, "")
	}
	a := d.told(e.file)
	a.file = e.file
	return a
}

// rename of a file over itself changes nothing [RFC1813 §3.3.14].
func (d *directory) rename(in question) answer {
	from := d[in.name]
	if from.file == "" {
		return answer{status: nfs3.ErrNoEnt}
	}
	if from.file != d[in.to].file {
		d[in.to], d[in.name] = from, entry{}
	}
	return answer{}
}

func (d *directory) list() (a answer) {
	for i, e := range d {
		if e.file != "" {
			a.entries[i] = listed{e.file, len(e.data), d.links(e.file)}
		}
	}
	return a
}

// applyToFile does a call that names a file by its handle. A file without links does not
// exist any more.
func (d *directory) applyToFile(in question) answer {
	data, ok := d.find(in.file)
	if !ok {
		return answer{status: nfs3.ErrStale}
	}
	before := 0
	result := ""
	switch in.verb {
	case write:
		before = len(data)
		d.store(in.file, splice(data, in.offset, in.data))
	case truncate:
		before = len(data)
		d.store(in.file, splice(data, in.size, "")[:in.size])
	case link:
		if d[in.to].file != "" {
			a := d.told(in.file)
			a.status = nfs3.ErrExist
			return a
		}
		d[in.to] = entry{in.file, data}
	case read:
		result = data
	}
	a := d.told(in.file)
	a.before, a.data = before, result
	return a
}

// splice writes piece over data at an offset; a hole reads as zeros.
func splice(data string, offset int, piece string) string {
	if len(data) < offset {
		data += strings.Repeat("\x00", offset-len(data))
	}
	end := min(offset+len(piece), len(data))
	return data[:offset] + piece + data[end:]
}

// String returns the call as the page of a history shows it.
func (in question) String() string {
	s := fmt.Sprintf("%d: %s", in.serial, verbNames[in.verb])
	switch in.verb {
	case lookup, remove:
		return fmt.Sprintf("%s %d", s, in.name)
	case create:
		return fmt.Sprintf("%s %d mode %d empty %t", s, in.name, in.mode, in.empty)
	case rename:
		return fmt.Sprintf("%s %d to %d", s, in.name, in.to)
	case link:
		return fmt.Sprintf("%s %s to %d", s, in.file, in.to)
	case write:
		return fmt.Sprintf("%s %s at %d %q", s, in.file, in.offset, in.data)
	case truncate:
		return fmt.Sprintf("%s %s to %d", s, in.file, in.size)
	case list:
		return s
	}
	return fmt.Sprintf("%s %s", s, in.file)
}

func (a answer) String() string {
	if a.unknown {
		return "?"
	}
	s := a.status.String()
	if a.entries != [names]listed{} {
		return fmt.Sprintf("%s %v", s, a.entries)
	}
	return fmt.Sprintf("%s %s %q size %d links %d before %d", s, a.file, a.data, a.size, a.links, a.before)
}
