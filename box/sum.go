package box

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
)

// sum is md5sum, sha1sum, sha256sum and sha512sum.
func sum(c *call) int {
	fs := c.flags()
	check := flag(fs, "c", "check", "compare with lists of sums")
	_, _ = flag(fs, "b", "binary", "changes nothing"), flag(fs, "t", "text", "changes nothing")
	quiet := fs.Bool("quiet", false, "with -c, say nothing about what is right")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	if *check {
		c.each(rest, func(_ string, r io.Reader) error { return c.checkSums(r, *quiet) })
		return c.code
	}
	c.each(rest, func(name string, r io.Reader) error {
		s, err := c.sumOf(r)
		if err == nil {
			c.printf("%s  %s\n", s, c.shown(name))
		}
		return err
	})
	return c.code
}

func (c *call) sumOf(r io.Reader) (string, error) {
	var h hash.Hash
	switch c.name {
	case "md5sum":
		h = md5.New()
	case "sha1sum":
		h = sha1.New()
	case "sha512sum":
		h = sha512.New()
	default:
		h = sha256.New()
	}
	_, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}

func (c *call) checkSums(r io.Reader, quiet bool) error {
	wrong := 0
	err := lines(r, func(l string) bool {
		want, name, ok := strings.Cut(l, " ")
		name = strings.TrimLeft(name, " *")
		if !ok || name == "" {
			c.failf("no line of a sum and a name: %.60s", l)
			return true
		}
		f, err := os.Open(name)
		if err == nil {
			var got string
			if got, err = c.sumOf(f); err == nil && !strings.EqualFold(got, want) {
				err = errors.New("FAILED")
			}
			f.Close()
		}
		switch {
		case err != nil && err.Error() == "FAILED":
			wrong++
			c.printf("%s: FAILED\n", c.shown(name))
		case err != nil:
			c.fail(err)
		case !quiet:
			c.printf("%s: OK\n", c.shown(name))
		}
		return true
	})
	if wrong > 0 {
		return fmt.Errorf("%d sums do not fit", wrong)
	}
	return err
}

// window is a part of the input.
func (c *call) window(rest []string, skip, most int64, f func(io.Reader) error) {
	var all []io.Reader
	for _, name := range rest {
		file, err := os.Open(name)
		if err != nil {
			c.fail(err)
			continue
		}
		defer file.Close()
		all = append(all, file)
	}
	if len(rest) == 0 {
		all = append(all, c.in)
	}
	r := io.MultiReader(all...)
	if _, err := io.CopyN(io.Discard, r, skip); err != nil && !errors.Is(err, io.EOF) {
		c.fail(err)
		return
	}
	if most >= 0 {
		r = io.LimitReader(r, most)
	}
	if err := f(r); err != nil {
		c.fail(err)
	}
}

// rows calls f for every sixteen bytes; one that is as the row before is an
// asterisk.
func (c *call) rows(r io.Reader, all bool, f func(at int64, b []byte)) (int64, error) {
	var last [16]byte
	at, repeated, first := int64(0), false, true
	for {
		var b [16]byte
		n, err := io.ReadFull(r, b[:])
		if n > 0 {
			if n == 16 && !first && b == last && !all {
				if !repeated {
					c.printf("*\n")
				}
				repeated = true
			} else {
				f(at, b[:n])
				repeated = false
			}
			last, first = b, false
			at += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return at, nil
		}
		if err != nil {
			return at, err
		}
	}
}

func hexdump(c *call) int {
	fs := c.flags()
	_, all := flag(fs, "C", "canonical", "always so"), flag(fs, "v", "no-squeezing", "show all")
	n, s := fs.StringP("length", "n", "", "how many bytes"), fs.StringP("skip", "s", "0", "how many bytes to leave out first")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	skip, most, err := skipAndLength(*s, *n)
	if err != nil {
		return c.misuse(err)
	}
	c.window(rest, skip, most, func(r io.Reader) error {
		end, err := c.rows(r, *all, func(at int64, b []byte) {
			hexes := ""
			for i, ch := range b {
				if i == 8 {
					hexes += " "
				}
				hexes += fmt.Sprintf("%02x ", ch)
			}
			c.printf("%08x  %-49s |%s|\n", at+skip, hexes, plain(b))
		})
		c.printf("%08x\n", end+skip)
		return err
	})
	return c.code
}

// plain shows bytes as characters, a dot for what is none.
func plain(b []byte) string {
	out := make([]byte, len(b))
	for i, ch := range b {
		if out[i] = ch; ch < 0x20 || ch >= 0x7f {
			out[i] = '.'
		}
	}
	return string(out)
}

func skipAndLength(s, n string) (skip, most int64, err error) {
	if skip, err = strconv.ParseInt(s, 0, 64); err != nil {
		return 0, 0, fmt.Errorf("%q is no number of bytes", s)
	}
	most = -1
	if n != "" {
		if most, err = strconv.ParseInt(n, 0, 64); err != nil {
			return 0, 0, fmt.Errorf("%q is no number of bytes", n)
		}
	}
	return skip, most, nil
}

func od(c *call) int {
	fs := c.flags()
	chars, x, all := flag(fs, "c", "characters", "characters"), flag(fs, "x", "hex", "hexadecimal, two bytes each"), flag(fs, "v", "all", "show all")
	a, t := fs.StringP("address", "A", "o", "base of positions: o, d, x or n for none"), fs.StringP("type", "t", "", "x1, x2, o1, o2, d1, u1 or c")
	n, s := fs.StringP("read-bytes", "N", "", "how many bytes"), fs.StringP("skip", "j", "0", "how many bytes to leave out first")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	format := *t
	switch {
	case format != "":
	case *chars:
		format = "c"
	case *x:
		format = "x2"
	default:
		format = "o2"
	}
	unit := map[string]func([]byte) string{
		"x1": each1(" %02x"), "o1": each1(" %03o"), "u1": each1(" %3d"), "d1": func(b []byte) string { return fmt.Sprintf(" %4d", int8(b[0])) },
		"x2": each2(" %04x"), "o2": each2(" %06o"), "c": odChar,
	}[format]
	address := map[string]string{"o": "%07o", "d": "%07d", "x": "%06x", "n": ""}
	if _, ok := address[*a]; !ok || unit == nil {
		return c.misuse(errors.New("unknown -A or -t"))
	}
	skip, most, err := skipAndLength(*s, *n)
	if err != nil {
		return c.misuse(err)
	}
	where := func(at int64) string {
		if *a == "n" {
			return ""
		}
		return fmt.Sprintf(address[*a], at)
	}
	step := 1
	if strings.HasSuffix(format, "2") {
		step = 2
	}
	c.window(rest, skip, most, func(r io.Reader) error {
		end, err := c.rows(r, *all, func(at int64, b []byte) {
			line := where(at + skip)
			for i := 0; i < len(b); i += step {
				line += unit(b[i:min(i+step, len(b))])
			}
			c.printf("%s\n", line)
		})
		if *a != "n" {
			c.printf("%s\n", where(end+skip))
		}
		return err
	})
	return c.code
}

func each1(format string) func([]byte) string {
	return func(b []byte) string { return fmt.Sprintf(format, b[0]) }
}

func each2(format string) func([]byte) string {
	return func(b []byte) string {
		n := int(b[0])
		if len(b) > 1 {
			n |= int(b[1]) << 8
		}
		return fmt.Sprintf(format, n)
	}
}

func odChar(b []byte) string {
	if i := strings.IndexByte("\x00\a\b\t\n\v\f\r", b[0]); i >= 0 {
		return fmt.Sprintf("  \\%c", "0abtnvfr"[i])
	}
	if b[0] < 0x20 || b[0] >= 0x7f {
		return fmt.Sprintf(" %03o", b[0])
	}
	return fmt.Sprintf("   %c", b[0])
}
