package box

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// sortKey is one -k; numbers count from 1, 0 is the end of the line.
type sortKey struct {
	from, to       int
	fromChar       int
	numeric, human bool
	reverse, fold  bool
	blanks         bool
}

// sorting is one run of sort.
type sorting struct {
	keys    []sortKey
	sep     string
	whole   sortKey // how lines compare without keys
	unique  bool
	stable  bool
	reverse bool
}

func sortLines(c *call) int {
	fs := c.flags()
	s := &sorting{}
	n, h, f, b := flag(fs, "n", "numeric-sort", "by numbers"), flag(fs, "h", "human-numeric-sort", "by sizes such as 2K and 1G"), flag(fs, "f", "ignore-case", "no difference of case"), flag(fs, "b", "ignore-leading-blanks", "without blanks in front")
	r, u, st := flag(fs, "r", "reverse", "the other way round"), flag(fs, "u", "unique", "one of each"), flag(fs, "s", "stable", "keep the order of what is the same")
	check := flag(fs, "c", "check", "say whether it is sorted")
	keys, sep, out := fs.StringArrayP("key", "k", nil, "FIELD[.CHAR][nrfhb][,FIELD]"), fs.StringP("field-separator", "t", "", "between fields"), fs.StringP("output", "o", "", "write to a file")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	s.whole = sortKey{from: 1, numeric: *n, human: *h, fold: *f, blanks: *b}
	s.sep, s.unique, s.reverse, s.stable = *sep, *u, *r, *st
	for _, k := range *keys {
		key, err := parseKey(k, s.whole)
		if err != nil {
			return c.misuse(err)
		}
		s.keys = append(s.keys, key)
	}
	var all []string
	c.each(rest, func(_ string, r io.Reader) error {
		return lines(r, func(l string) bool { all = append(all, l); return true })
	})
	if *check {
		for i := 1; i < len(all); i++ {
			if o := s.compare(all[i-1], all[i]); o > 0 || s.unique && o == 0 {
				c.failf("line %d is not in order: %s", i+1, all[i])
				return 1
			}
		}
		return c.code
	}
	slices.SortStableFunc(all, s.compare)
	if s.unique {
		all = slices.CompactFunc(all, func(a, b string) bool { return s.byKeys(a, b) == 0 })
	}
	text := strings.Join(all, "\n")
	if len(all) > 0 {
		text += "\n"
	}
	if *out == "" {
		c.out.WriteString(text)
	} else if err := os.WriteFile(*out, []byte(text), 0o666); err != nil {
		c.fail(err)
	}
	return c.code
}

func parseKey(s string, base sortKey) (sortKey, error) {
	k := base
	k.from, k.to, k.fromChar = 0, 0, 1
	own := false
	for i, part := range strings.SplitN(s, ",", 2) {
		digits := len(part) - len(strings.TrimLeft(part, "0123456789"))
		n, err := strconv.Atoi(part[:digits])
		if err != nil {
			return k, fmt.Errorf("-k %s: no field", s)
		}
		part = part[digits:]
		if rest, ok := strings.CutPrefix(part, "."); ok {
			digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
			if at, err := strconv.Atoi(rest[:digits]); err == nil && i == 0 {
				k.fromChar = max(at, 1)
			}
			part = rest[digits:]
		}
		if i == 0 {
			k.from = n
		} else {
			k.to = n
		}
		for _, l := range part {
			if !own {
				k.numeric, k.human, k.fold, own = false, false, false, true
			}
			switch l {
			case 'n':
				k.numeric = true
			case 'h':
				k.human = true
			case 'r':
				k.reverse = true
			case 'f':
				k.fold = true
			case 'b':
				k.blanks = true
			default:
				return k, fmt.Errorf("-k %s: unknown letter %c", s, l)
			}
		}
	}
	if k.from < 1 {
		return k, fmt.Errorf("-k %s: fields count from 1", s)
	}
	return k, nil
}

func (s *sorting) compare(a, b string) int {
	o := s.byKeys(a, b)
	if o == 0 && !s.stable && !s.unique {
		if o = cmp.Compare(a, b); s.reverse {
			o = -o
		}
	}
	return o
}

func (s *sorting) byKeys(a, b string) int {
	keys := s.keys
	if len(keys) == 0 {
		keys = []sortKey{s.whole}
	}
	for _, k := range keys {
		x, y := a, b
		if len(s.keys) > 0 {
			x, y = s.field(a, &k), s.field(b, &k)
		}
		o := k.compare(x, y)
		if k.reverse != s.reverse {
			o = -o
		}
		if o != 0 {
			return o
		}
	}
	return 0
}

// field cuts a key out of a line.
func (s *sorting) field(l string, k *sortKey) string {
	var parts []string
	join := s.sep
	if s.sep == "" {
		parts, join = strings.Fields(l), " "
	} else {
		parts = strings.Split(l, s.sep)
	}
	to := k.to
	if to == 0 || to > len(parts) {
		to = len(parts)
	}
	if k.from > to {
		return ""
	}
	out := strings.Join(parts[k.from-1:to], join)
	return out[min(k.fromChar-1, len(out)):]
}

func (k *sortKey) compare(a, b string) int {
	if k.blanks {
		a, b = strings.TrimLeft(a, " \t"), strings.TrimLeft(b, " \t")
	}
	switch {
	case k.human:
		return cmp.Compare(leadingNumber(a, true), leadingNumber(b, true))
	case k.numeric:
		return cmp.Compare(leadingNumber(a, false), leadingNumber(b, false))
	case k.fold:
		a, b = strings.ToUpper(a), strings.ToUpper(b)
	}
	return cmp.Compare(a, b)
}

// leadingNumber is the number that a text begins with, or 0.
func leadingNumber(s string, human bool) float64 {
	s = strings.TrimLeft(s, " \t")
	n := 0
	if strings.HasPrefix(s, "-") {
		n = 1
	}
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.') {
		n++
	}
	f, _ := strconv.ParseFloat(s[:n], 64)
	if human && n < len(s) {
		for range strings.IndexByte("KMGTPE", s[n]&^0x20) + 1 {
			f *= 1024
		}
	}
	return f
}
