package layer

import (
	"bytes"
	"strconv"
	"strings"

	"tug/errs"
)

const blockSize = 512

// Type flags of tar members (POSIX.1-2001 pax, "ustar Interchange Format", and
// GNU tar's own).
const (
	typeReg       = '0'
	typeRegOld    = 0
	typeLink      = '1'
	typeSymlink   = '2'
	typeChar      = '3'
	typeBlock     = '4'
	typeDir       = '5'
	typeFifo      = '6'
	typeCont      = '7'
	typePax       = 'x'
	typePaxGlobal = 'g'
	typeGNUName   = 'L'
	typeGNULink   = 'K'
	typeGNUSparse = 'S'
)

type format int

const (
	formatV7 format = iota
	formatUSTAR
	formatGNU
	formatSTAR
)

// header is one 512-byte block: names and numbers at fixed places.
type header []byte

func (h header) format() format {
	switch {
	case string(h[257:265]) == "ustar  \x00":
		return formatGNU
	case string(h[257:263]) == "ustar\x00":
		if string(h[508:512]) == "tar\x00" {
			return formatSTAR
		}
		return formatUSTAR
	}
	return formatV7
}

// sumOK compares the checksum, which old writers made of signed bytes.
func (h header) sumOK() bool {
	want, ok := octal(h[148:156])
	if !ok {
		return false
	}
	var unsigned, signed int64
	for i, c := range h[:blockSize] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// text is a field up to its first NUL.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// octal reads a field of octal digits within blanks and NULs; an empty one is 0.
func octal(b []byte) (int64, bool) {
	b = bytes.Trim(b, " \x00")
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '7' || n > 1<<60-1 {
			return 0, false
		}
		n = n<<3 | int64(c-'0')
	}
	return n, true
}

// number reads an octal field or, when the first byte's top bit is set, GNU's
// big-endian two's complement of the remaining bits.
func number(b []byte) (int64, bool) {
	if len(b) == 0 || b[0]&0x80 == 0 {
		return octal(b)
	}
	var flip byte
	if b[0]&0x40 != 0 {
		flip = 0xff
	}
	var n uint64
	for i, c := range b {
		c ^= flip
		if i == 0 {
			c &= 0x7f
		}
		if n>>56 != 0 {
			return 0, false
		}
		n = n<<8 | uint64(c)
	}
	if n>>63 != 0 {
		return 0, false
	}
	if flip != 0 {
		return ^int64(n), true
	}
	return int64(n), true
}

// fields fills e from the header's fixed fields. Name first, for messages.
func (h header) fields(e *entry) error {
	f := h.format()
	e.name, e.link, e.typ = text(h[0:100]), text(h[157:257]), h[156]
	if p := h.prefix(f); p != "" {
		e.name = p + "/" + e.name
	}
	var mode, major, minor int64
	for _, n := range []struct {
		what string
		b    []byte
		to   *int64
	}{
		{"mode", h[100:108], &mode},
		{"user id", h[108:116], &e.uid},
		{"group id", h[116:124], &e.gid},
		{"size", h[124:136], &e.size},
		{"modification time", h[136:148], &e.mtime},
		{"device number", h[329:337], &major},
		{"device number", h[337:345], &minor},
	} {
		if f == formatV7 && n.what == "device number" {
			continue
		}
		v, ok := number(n.b)
		if !ok {
			return badEntry(e.name, "its %s is not a number", n.what)
		}
		*n.to = v
	}
	e.mode = uint16(mode & 0o7777)
	e.major, e.minor = major, minor
	return nil
}

// prefix is the first part of a long name, where the format has one.
func (h header) prefix(f format) string {
	switch f {
	case formatUSTAR:
		return text(h[345:500])
	case formatSTAR:
		return text(h[345:476])
	case formatGNU:
		// GNU keeps times there. Go before 1.8 wrote a name prefix into
		// headers that said GNU; archive/tar tells them apart like this.
		_, ok1 := number(h[345:357])
		_, ok2 := number(h[357:369])
		if p := text(h[345:500]); (!ok1 || !ok2) && isASCII(p) {
			return p
		}
	}
	return ""
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func badEntry(name, format string, args ...any) *errs.Error {
	return errs.New(errs.Invalid, "tar entry %s: "+format, append([]any{quote(name)}, args...)...)
}

// quote makes a name from an archive fit for a message.
func quote(name string) string {
	const most = 200
	if len(name) > most {
		name = name[:most] + "..."
	}
	return strconv.Quote(strings.ToValidUTF8(name, "\uFFFD"))
}
