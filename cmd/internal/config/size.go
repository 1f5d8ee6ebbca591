// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Size is a number of bytes, written with a unit: "64GiB", "512 MiB", "4096".
type Size uint64

var sizeUnits = []struct {
	name  string
	bytes uint64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1},
}

// ParseSize reads a Size as people write it.
func ParseSize(s string) (Size, error) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64)
		if err != nil || n > math.MaxUint64/u.bytes {
			break
		}
		return Size(n * u.bytes), nil
	}
	return 0, fmt.Errorf("got %q, want a size such as 64GiB (units B, KiB, MiB, GiB, TiB)", s)
}

// UnmarshalText implements encoding.TextUnmarshaler, for TOML.
func (z *Size) UnmarshalText(text []byte) (err error) {
	*z, err = ParseSize(string(text))
	return err
}

// String writes the size in the largest unit that divides it.
func (z Size) String() string {
	for _, u := range sizeUnits {
		if uint64(z) >= u.bytes && uint64(z)%u.bytes == 0 {
			return strconv.FormatUint(uint64(z)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatUint(uint64(z), 10) + "B"
}

// Set and Type make a Size a command line flag.
func (z *Size) Set(s string) error { return z.UnmarshalText([]byte(s)) }

// Type names the flag's value in help.
func (z *Size) Type() string { return "size" }

// A Duration is a time.Duration written as "10m" or "500ms".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler, for TOML.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("got %q, want a duration such as 500ms, 30s or 10m", text)
	}
	*d = Duration(v)
	return nil
}

// String writes the duration without the zero units time.Duration adds.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// A Mode is permission bits, written in octal in quotes: "0755". A number without quotes
// is refused: TOML would take 755 for decimal.
type Mode uint32

func parseMode(text string) (Mode, error) {
	v, err := strconv.ParseUint(text, 8, 32)
	if err != nil || v > 0o7777 {
		return 0, fmt.Errorf(`got %q, want permission bits in octal, such as "0755"`, text)
	}
	return Mode(v), nil
}

// Set and Type make a Mode a command line flag.
func (m *Mode) Set(s string) (err error) {
	*m, err = parseMode(s)
	return err
}

// Type names the flag's value in help.
func (m *Mode) Type() string { return "mode" }

// String writes the bits as they are read.
func (m Mode) String() string { return fmt.Sprintf("%04o", uint32(m)) }
