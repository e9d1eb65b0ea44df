package box

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

func tr(c *call) int {
	fs := c.flags()
	comp, d, s := flag(fs, "c", "complement", "all but SET1"), flag(fs, "d", "delete", "delete"), flag(fs, "s", "squeeze-repeats", "one of each in a row")
	fs.BoolVarP(comp, "Complement", "C", false, "the same as -c")
	rest, code, ok := c.parse(fs, 1, 2)
	if !ok {
		return code
	}
	from, err := trSet(rest[0])
	var to []rune
	if err == nil && len(rest) == 2 {
		to, err = trSet(rest[1])
	}
	if err == nil && len(rest) == 1 && !*d && !*s {
		err = errors.New("SET2 is missing")
	}
	if err != nil {
		return c.misuse(err)
	}
	in := map[rune]int{}
	for i, r := range slices.Backward(from) {
		in[r] = i
	}
	squeeze := to
	if len(to) == 0 || *d {
		squeeze = from
		if len(to) > 0 {
			squeeze = to
		}
	}
	reader, last := bufio.NewReader(c.in), rune(-1)
	for {
		r, size, err := reader.ReadRune()
		if err != nil {
			break
		}
		raw := r
		if r == utf8.RuneError && size == 1 {
			_ = reader.UnreadRune()
			b, _ := reader.ReadByte()
			c.out.WriteByte(b)
			continue
		}
		i, found := in[r]
		if *comp {
			i, found = len(to)-1, !found
		}
		if found && *d {
			continue
		}
		if found && len(to) > 0 && !*d {
			raw = to[max(0, min(i, len(to)-1))]
		}
		inSqueeze := slices.Contains(squeeze, raw)
		if *comp && len(to) == 0 {
			inSqueeze = found
		}
		if *s && raw == last && inSqueeze {
			continue
		}
		last = raw
		c.out.WriteRune(raw)
	}
	return 0
}

// trSet expands a-z, [:alpha:] and escapes.
func trSet(s string) ([]rune, error) {
	classes := map[string]func(rune) bool{
		"alpha": unicode.IsLetter, "digit": unicode.IsDigit, "upper": unicode.IsUpper, "lower": unicode.IsLower, "space": unicode.IsSpace,
		"alnum": func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }, "punct": func(r rune) bool { return unicode.IsPunct(r) || unicode.IsSymbol(r) },
		"blank": func(r rune) bool { return r == ' ' || r == '\t' }, "cntrl": unicode.IsControl, "print": unicode.IsPrint,
		"xdigit": func(r rune) bool { return strings.ContainsRune("0123456789abcdefABCDEF", r) },
	}
	var out []rune
	for s != "" {
		if rest, ok := strings.CutPrefix(s, "[:"); ok {
			if name, after, ok := strings.Cut(rest, ":]"); ok {
				is := classes[name]
				if is == nil {
					return nil, fmt.Errorf("unknown class %s", name)
				}
				for r := range rune(128) {
					if is(r) {
						out = append(out, r)
					}
				}
				s = after
				continue
			}
		}
		var r rune
		r, s = trRune(s)
		if len(s) > 1 && s[0] == '-' {
			var end rune
			end, s = trRune(s[1:])
			if end < r || end-r > 1<<16 {
				return nil, fmt.Errorf("%c-%c is no range", r, end)
			}
			for ; r < end; r++ {
				out = append(out, r)
			}
		}
		out = append(out, r)
	}
	return out, nil
}

func trRune(s string) (rune, string) {
	if s[0] == '\\' && len(s) > 1 {
		if i := strings.IndexByte(`abfnrtv\`, s[1]); i >= 0 {
			return rune("\a\b\f\n\r\t\v\\"[i]), s[2:]
		}
		n := 0
		for n < 3 && 1+n < len(s) && s[1+n] >= '0' && s[1+n] <= '7' {
			n++
		}
		if v, err := strconv.ParseUint(s[1:1+n], 8, 16); err == nil {
			return rune(v), s[1+n:]
		}
		s = s[1:]
	}
	r, n := utf8.DecodeRuneInString(s)
	return r, s[n:]
}
