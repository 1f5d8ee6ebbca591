// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"bfs/pkg/pbft"
)

// An Op is an operation of the null service, named as in the paper: "4/0" carries 4 KB
// and returns nothing [TOCS §8.2.1]. Its body is the length of the result it wants, u32,
// and padding up to its own length.
type Op struct {
	Argument, Result int // bytes
}

const opHead = 4

// ParseOp reads "a/b", in KB of 1024 bytes, up to 1 MB each.
func ParseOp(s string) (Op, error) {
	a, b, ok := strings.Cut(s, "/")
	argument, err := strconv.ParseUint(a, 10, 11)
	result, err2 := strconv.ParseUint(b, 10, 11)
	if !ok || err != nil || err2 != nil || argument > 1024 || result > 1024 {
		return Op{}, fmt.Errorf("got %q, want argument/result in KB, such as 0/0, 4/0 or 0/4, up to 1024 each", s)
	}
	return Op{int(argument) << 10, int(result) << 10}, nil
}

func (o Op) String() string { return fmt.Sprintf("%d/%d", o.Argument>>10, o.Result>>10) }

// body makes the operation's bytes.
func (o Op) body() []byte {
	b := make([]byte, max(o.Argument, opHead))
	binary.LittleEndian.PutUint32(b, uint32(o.Result))
	return b
}

// Null makes a service that does nothing out of any other, of which it keeps the memory.
func Null(s pbft.Service) pbft.Service { return null{s} }

type null struct{ pbft.Service }

// Execute returns as many zero bytes as the operation asks for. A result of no bytes is kept
// like that of a write; a long one need not be kept, because the operation can be run again.
func (null) Execute(op pbft.Operation) (reply []byte, wrote bool) {
	reply = result(op.Body)
	return reply, len(reply) == 0
}

func (null) Query(op pbft.Operation) (reply []byte, ok bool) { return result(op.Body), true }

// Cost is the length of the result.
func (null) Cost(body []byte) int { return len(result(body)) }

func (null) Choose(pbft.SeqNum) []byte { return nil }

func (null) Accept(pbft.SeqNum, []byte) bool { return true }

func result(body []byte) []byte {
	if len(body) < opHead {
		return nil
	}
	return zeros[:min(binary.LittleEndian.Uint32(body), 1<<20)]
}

var zeros [1 << 20]byte
