// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"strings"
)

// A tree is the source that andrew works on. It is the same on every machine: 20
// directories, 6 headers and 64 C files that call each other, 2 of them in each directory
// but for the first ones. Main calls the last unit, which calls the one before, and so
// on; the program ends with exit code 0 if the sum is right.
type tree struct {
	dirs  []string
	files []treeFile
}

type treeFile struct {
	name string
	text string
}

const (
	treeDirs    = 20
	treeHeaders = 6
	treeUnits   = 64
	unitDepth   = 9 // functions in a unit
)

// newTree writes the source.
func newTree() tree {
	var t tree
	for i := range treeDirs {
		t.dirs = append(t.dirs, fmt.Sprintf("part%02d", i))
	}
	for i := range treeHeaders {
		t.files = append(t.files, treeFile{t.dirs[i] + "/" + headerName(i), headerText(i)})
	}
	for i := range treeUnits {
		t.files = append(t.files, treeFile{fmt.Sprintf("%s/unit%02d.c", t.dirs[(i+treeHeaders)%treeDirs], i),
			unitText(i)})
	}
	return t
}

func (t tree) bytes() (n int) {
	for _, f := range t.files {
		n += len(f.text)
	}
	return n
}

func headerName(i int) string { return fmt.Sprintf("common%d.h", i) }

// headerText returns header i: a table of constants, and declarations of a sixth of the units.
func headerText(i int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "/* Part %d of what the units share. */\n#ifndef COMMON%d_H\n#define COMMON%d_H\n\n", i, i, i)
	for k := range 48 {
		fmt.Fprintf(&b, "#define WEIGHT_%d_%02d %5d\n", i, k, (k*k*31+i*977)%32749)
	}
	b.WriteByte('\n')
	for u := i; u < treeUnits; u += treeHeaders {
		fmt.Fprintf(&b, "unsigned long unit%02d(unsigned long seed);\n", u)
	}
	b.WriteString("\n#endif\n")
	return b.String()
}

// unitText is one C file: functions that mix a seed with constants, and one that other units call.
func unitText(i int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "/* Unit %d: nothing that anyone needs, in the amount that a compiler finds usual. */\n", i)
	for h := range treeHeaders {
		fmt.Fprintf(&b, "#include \"../part%02d/%s\"\n", h, headerName(h))
	}
	for k := range unitDepth {
		functionText(&b, i, k)
	}
	fmt.Fprintf(&b, "\nunsigned long unit%02d(unsigned long seed)\n{\n\tunsigned long sum = seed;\n\n", i)
	for k := range unitDepth {
		fmt.Fprintf(&b, "\tsum += mix%d(sum);\n", k)
	}
	if i > 0 {
		fmt.Fprintf(&b, "\treturn sum ^ unit%02d(sum >> 1);\n}\n", i-1)
	} else {
		b.WriteString("\treturn sum;\n}\n")
	}
	if i == treeUnits-1 {
		b.WriteString(mainText)
	}
	return b.String()
}

func functionText(b *strings.Builder, i, k int) {
	fmt.Fprintf(b, "\nstatic unsigned long mix%d(unsigned long seed)\n{\n\tunsigned long "+
		"table[8];\n\tunsigned long sum = %d;\n\tint j;\n\n", k, 17*i+k)
	fmt.Fprintf(b, "\tfor (j = 0; j < 8; j++)\n\t\ttable[j] = seed * %d + (unsigned long)j * WEIGHT_%d_%02d;\n",
		2*k+3, (i+k)%treeHeaders, (7*i+5*k)%48)
	for j := range 4 {
		fmt.Fprintf(b, "\tsum = (sum << %d) ^ (sum >> %d) ^ table[%d] ^ WEIGHT_%d_%02d;\n",
			j+1, 9-j, (i+k+j)%8, (i+j)%treeHeaders, (11*k+3*j+i)%48)
	}
	b.WriteString("\treturn sum;\n}\n")
}

// The same call twice gives the same, or the compiler or a file is wrong.
const mainText = `
int main(void)
{
	return unit63(42) == unit63(42) ? 0 : 1;
}
`
