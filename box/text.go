package box

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

func textApplets() []applet {
	return []applet{
		{"cat", "[-n] [-A] [FILE...]", cat},
		{"cut", "-f LIST [-d CHAR] | -c LIST | -b LIST [FILE...]", cut},
		{"egrep", "[-i] [-v] [-r] [-n] ... PATTERN [FILE...]", grep},
		{"fgrep", "[-i] [-v] [-r] [-n] ... PATTERN [FILE...]", grep},
		{"grep", "[-i] [-v] [-r] [-n] [-E] [-F] ... PATTERN [FILE...]", grep},
		{"head", "[-n LINES] [-c BYTES] [FILE...]", head},
		{"hexdump", "[-C] [-n BYTES] [-s SKIP] [FILE...]", hexdump},
		{"less", "[FILE...]", more},
		{"md5sum", "[-c] [FILE...]", sum},
		{"more", "[FILE...]", more},
		{"od", "[-c] [-x] [-A n] [-t TYPE] [-N BYTES] [FILE...]", od},
		{"rev", "[FILE...]", rev},
		{"sed", "[-n] [-E] [-i] [-e SCRIPT] [SCRIPT] [FILE...]", sed},
		{"seq", "[-s SEPARATOR] [-w] [FIRST [STEP]] LAST", seq},
		{"sha1sum", "[-c] [FILE...]", sum},
		{"sha256sum", "[-c] [FILE...]", sum},
		{"sha512sum", "[-c] [FILE...]", sum},
		{"sort", "[-n] [-r] [-u] [-f] [-h] [-k FIELD] [-t CHAR] [FILE...]", sortLines},
		{"tac", "[FILE...]", tac},
		{"tail", "[-n LINES] [-c BYTES] [-f] [FILE...]", tail},
		{"tee", "[-a] [FILE...]", tee},
		{"tr", "[-c] [-d] [-s] SET1 [SET2]", tr},
		{"uniq", "[-c] [-d] [-u] [-i] [FILE]", uniq},
		{"wc", "[-l] [-w] [-c] [-m] [FILE...]", wc},
		{"xargs", "[-n COUNT] [-I WORD] [-0] [-r] [-t] [COMMAND...]", xargs},
		{"yes", "[WORD...]", yes},
	}
}

func cat(c *call) int {
	fs := c.flags()
	n, a := flag(fs, "n", "number", "number the lines"), flag(fs, "A", "show-all", "show what cannot be seen")
	_ = flag(fs, "u", "unbuffered", "always so")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	number := 0
	c.each(rest, func(_ string, r io.Reader) error {
		if !*n && !*a {
			c.out.Flush()
			_, err := io.Copy(c.out, r)
			return err
		}
		return lines(r, func(l string) bool {
			number++
			if *n {
				c.printf("%6d\t", number)
			}
			if *a {
				l = visible(l) + "$"
			}
			c.printf("%s\n", l)
			return true
		})
	})
	return c.code
}

// visible shows control characters as ^X and others as M-X.
func visible(s string) string {
	var b strings.Builder
	for i := range len(s) {
		ch := s[i]
		if ch >= 0x80 {
			b.WriteString("M-")
			ch -= 0x80
		}
		switch {
		case ch < 0x20:
			b.WriteByte('^')
			b.WriteByte(ch + '@')
		case ch == 0x7f:
			b.WriteString("^?")
		default:
			b.WriteByte(ch)
		}
	}
	return b.String()
}

// oldCount turns head -5 into head -n 5.
func oldCount(args []string) []string {
	if len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' && args[0][1] >= '0' && args[0][1] <= '9' {
		return append([]string{"-n", args[0][1:]}, args[1:]...)
	}
	return args
}

// count is a number with an optional unit.
func count(s string) (int64, error) {
	unit := int64(1)
	t := s
	if t != "" {
		if u, ok := map[byte]int64{'b': 512, 'k': 1 << 10, 'K': 1 << 10, 'M': 1 << 20, 'm': 1 << 20, 'G': 1 << 30}[t[len(t)-1]]; ok {
			unit, t = u, t[:len(t)-1]
		}
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n > math.MaxInt64/unit || n < math.MinInt64/unit {
		return 0, fmt.Errorf("%q is no number", s)
	}
	return n * unit, nil
}

// heading names a file among several.
func (c *call) heading(name string, first *bool) {
	if !*first {
		c.printf("\n")
	}
	*first = false
	if name == "-" {
		name = "standard input"
	}
	c.printf("==> %s <==\n", c.shown(name))
}

func head(c *call) int {
	c.args = oldCount(c.args)
	fs := c.flags()
	n, b := fs.StringP("lines", "n", "10", "how many lines; -N: all but the last N"), fs.StringP("bytes", "c", "", "how many bytes")
	q, v := flag(fs, "q", "quiet", "no names"), flag(fs, "v", "verbose", "always names")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	bytesWanted := *b != ""
	limit, err := count(*n)
	if bytesWanted {
		limit, err = count(*b)
	}
	if err != nil {
		return c.misuse(err)
	}
	first := true
	c.each(rest, func(name string, r io.Reader) error {
		if *v || len(rest) > 1 && !*q {
			c.heading(name, &first)
		}
		switch {
		case bytesWanted:
			_, err := io.CopyN(c.out, r, max(limit, 0))
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		case limit < 0:
			return allBut(c, r, int(-limit))
		case limit == 0:
			return nil
		}
		left := limit
		return lines(r, func(l string) bool {
			c.printf("%s\n", l)
			left--
			return left > 0
		})
	})
	return c.code
}

func allBut(c *call, r io.Reader, n int) error {
	var held []string
	return lines(r, func(l string) bool {
		held = append(held, l)
		if len(held) > n {
			c.printf("%s\n", held[0])
			held = held[1:]
		}
		return true
	})
}

func tail(c *call) int {
	c.args = oldCount(c.args)
	fs := c.flags()
	n, b := fs.StringP("lines", "n", "10", "how many lines; +N: from line N on"), fs.StringP("bytes", "c", "", "how many bytes; +N: from byte N on")
	f, f2 := flag(fs, "f", "follow", "wait for more"), flag(fs, "F", "retry", "wait for more, also in a new file of that name")
	q, v := flag(fs, "q", "quiet", "no names"), flag(fs, "v", "verbose", "always names")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	value, byBytes := *n, *b != ""
	if byBytes {
		value = *b
	}
	limit, err := count(strings.TrimLeft(value, "+-"))
	if err != nil {
		return c.misuse(err)
	}
	t := &tailing{c: c, limit: int(limit), from: strings.HasPrefix(value, "+"), bytes: byBytes}
	first := true
	c.each(rest, func(name string, r io.Reader) error {
		if *v || len(rest) > 1 && !*q {
			c.heading(name, &first)
		}
		if err := t.end(r); err != nil {
			return err
		}
		if file, ok := r.(*os.File); ok && len(rest) == 1 && (*f || *f2) {
			return t.follow(name, file, *f2)
		}
		return nil
	})
	return c.code
}

type tailing struct {
	c           *call
	limit       int
	from, bytes bool
}

func (t *tailing) end(r io.Reader) error {
	cut := false
	f, ok := r.(*os.File)
	if ok && !t.from {
		// Not more of a large file than is needed, as far as it can be told.
		if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
			span := int64(t.limit)
			if !t.bytes {
				span = int64(min(t.limit, 1<<40))*4096 + 1<<20
			}
			if cut = fi.Size() > span; cut {
				if _, err := f.Seek(-span, io.SeekEnd); err != nil {
					return err
				}
			}
		}
	}
	switch {
	case t.bytes && t.from:
		_, err := io.CopyN(io.Discard, r, int64(max(t.limit-1, 0)))
		if err == nil {
			_, err = io.Copy(t.c.out, r)
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	case t.bytes:
		b, err := io.ReadAll(r)
		t.c.out.Write(b[max(0, len(b)-t.limit):])
		return err
	}
	held, number, err := t.last(r)
	if err == nil && cut && number <= t.limit { // long lines: the first one may be a part
		if _, err = f.Seek(0, io.SeekStart); err == nil {
			held, _, err = t.last(f)
		}
	}
	for _, l := range held {
		t.c.printf("%s\n", l)
	}
	return err
}

// last returns the last lines of how many, or writes those from one on.
func (t *tailing) last(r io.Reader) (held []string, number int, err error) {
	err = lines(r, func(l string) bool {
		if number++; t.from {
			if number >= t.limit {
				t.c.printf("%s\n", l)
			}
			return true
		}
		if held = append(held, l); len(held) > t.limit {
			held = held[1:]
		}
		return true
	})
	return held, number, err
}

// follow goes on reading; a file that gets shorter is read from its start, and
// with again one that takes its name is, too.
func (t *tailing) follow(name string, f *os.File, again bool) error {
	for {
		if _, err := io.Copy(t.c.out, f); err != nil {
			return err
		}
		if err := t.c.out.Flush(); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		if at, err := f.Seek(0, io.SeekCurrent); err == nil && fi.Mode().IsRegular() && fi.Size() < at {
			_, _ = f.Seek(0, io.SeekStart)
		}
		if now, err := os.Stat(name); again && err == nil && !os.SameFile(fi, now) {
			if next, err := os.Open(name); err == nil {
				f.Close()
				f = next
			}
		}
	}
}

func wc(c *call) int {
	fs := c.flags()
	l, w, b, m := flag(fs, "l", "lines", "lines"), flag(fs, "w", "words", "words"), flag(fs, "c", "bytes", "bytes"), flag(fs, "m", "chars", "characters")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	if !*l && !*w && !*b && !*m {
		*l, *w, *b = true, true, true
	}
	var total [4]int64
	print := func(n [4]int64, name string) {
		line := ""
		for i, on := range []bool{*l, *w, *m, *b} {
			if on {
				line += fmt.Sprintf(" %7d", n[i])
			}
		}
		if strings.Count(line, " ") > 0 && len(rest) < 2 && strings.Count(strings.Join(strings.Fields(line), " "), " ") == 0 {
			line = strings.TrimSpace(line)
		}
		c.printf("%s\n", strings.TrimRight(line+" "+name, " "))
	}
	c.each(rest, func(name string, r io.Reader) error {
		n, err := tallyText(r)
		for i := range n {
			total[i] += n[i]
		}
		if len(rest) == 0 {
			name = ""
		}
		print(n, c.shown(name))
		return err
	})
	if len(rest) > 1 {
		print(total, "total")
	}
	return c.code
}

// tallyText counts lines, words, characters and bytes.
func tallyText(r io.Reader) (n [4]int64, err error) {
	buf := make([]byte, 64<<10)
	inWord := false
	for {
		k, err := r.Read(buf)
		for _, ch := range buf[:k] {
			if ch == '\n' {
				n[0]++
			}
			space := ch == ' ' || ch >= '\t' && ch <= '\r'
			if inWord && space || !inWord && !space {
				inWord = !space
				if inWord {
					n[1]++
				}
			}
			if utf8.RuneStart(ch) {
				n[2]++
			}
		}
		n[3] += int64(k)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func uniq(c *call) int {
	fs := c.flags()
	counts, d, u, i := flag(fs, "c", "count", "how often"), flag(fs, "d", "repeated", "only what is there more than once"), flag(fs, "u", "unique", "only what is there once"), flag(fs, "i", "ignore-case", "no difference of case")
	rest, code, ok := c.parse(fs, 0, 1)
	if !ok {
		return code
	}
	last, n := "", 0
	flush := func() {
		if n == 0 || *d && n == 1 || *u && n > 1 {
			return
		}
		if *counts {
			c.printf("%7d ", n)
		}
		c.printf("%s\n", last)
	}
	c.each(rest, func(_ string, r io.Reader) error {
		return lines(r, func(l string) bool {
			if n > 0 && (l == last || *i && strings.EqualFold(l, last)) {
				n++
				return true
			}
			flush()
			last, n = l, 1
			return true
		})
	})
	flush()
	return c.code
}

// ranges parses 1,3-5,7-.
func ranges(s string) ([][2]int, error) {
	var out [][2]int
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		switch {
		case !isRange:
			b, err2 = a, err1
		case from == "" && to != "":
			a, err1 = 1, nil
		case to == "" && from != "":
			b, err2 = math.MaxInt, nil
		}
		if err1 != nil || err2 != nil || a < 1 || b < a {
			return nil, fmt.Errorf("%q is no list of fields", s)
		}
		out = append(out, [2]int{a, b})
	}
	return out, nil
}

func inRanges(list [][2]int, n int) bool {
	return slices.ContainsFunc(list, func(r [2]int) bool { return n >= r[0] && n <= r[1] })
}

func cut(c *call) int {
	fs := c.flags()
	f, ch, b := fs.StringP("fields", "f", "", "fields"), fs.StringP("characters", "c", "", "characters"), fs.StringP("bytes", "b", "", "bytes")
	d, o := fs.StringP("delimiter", "d", "\t", "between fields"), fs.String("output-delimiter", "", "between fields that are written")
	s := flag(fs, "s", "only-delimited", "no lines without fields")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	if *f == "" && *ch == "" && *b == "" {
		return c.misuse(errors.New("give -f, -c or -b"))
	}
	list, err := ranges(*f + *ch + *b)
	if err == nil && utf8.RuneCountInString(*d) != 1 {
		err = errors.New("the delimiter must be one character")
	}
	if err != nil {
		return c.misuse(err)
	}
	between := *o
	if !fs.Changed("output-delimiter") {
		between = *d
	}
	c.each(rest, func(_ string, r io.Reader) error {
		return lines(r, func(l string) bool {
			var parts []string
			switch {
			case *b != "":
				for i := range len(l) {
					if inRanges(list, i+1) {
						parts = append(parts, l[i:i+1])
					}
				}
				between = ""
			case *ch != "":
				for i, r := range []rune(l) {
					if inRanges(list, i+1) {
						parts = append(parts, string(r))
					}
				}
				between = ""
			case !strings.Contains(l, *d):
				if *s {
					return true
				}
				parts = []string{l}
			default:
				for i, p := range strings.Split(l, *d) {
					if inRanges(list, i+1) {
						parts = append(parts, p)
					}
				}
			}
			c.printf("%s\n", strings.Join(parts, between))
			return true
		})
	})
	return c.code
}

func tee(c *call) int {
	fs := c.flags()
	a := flag(fs, "a", "append", "write behind what is there")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if *a {
		flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	}
	out := []io.Writer{flushing{c.out}}
	for _, name := range rest {
		f, err := os.OpenFile(name, flags, 0o666)
		if err != nil {
			c.fail(err)
			continue
		}
		defer f.Close()
		out = append(out, f)
	}
	if _, err := io.Copy(io.MultiWriter(out...), c.in); err != nil {
		c.fail(err)
	}
	return c.code
}

// flushing is a writer that keeps nothing back.
type flushing struct{ *bufio.Writer }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.Flush()
	}
	return n, err
}

func (f flushing) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{f}, r)
}

func seq(c *call) int {
	// Negative numbers are no flags.
	var numbers, flags []string
	for i := 0; i < len(c.args); i++ {
		if _, err := strconv.ParseFloat(c.args[i], 64); err == nil {
			numbers = append(numbers, c.args[i])
		} else if flags = append(flags, c.args[i]); (c.args[i] == "-s") && i+1 < len(c.args) {
			i++
			flags = append(flags, c.args[i])
		}
	}
	c.args = flags
	fs := c.flags()
	s, w := fs.StringP("separator", "s", "\n", "between numbers"), flag(fs, "w", "equal-width", "with zeros, so that all are as wide")
	rest, code, ok := c.parse(fs, 0, 0)
	if !ok {
		return code
	}
	if len(rest) > 0 || len(numbers) < 1 || len(numbers) > 3 {
		return c.misuse(errors.New("give one to three numbers"))
	}
	values := []float64{1, 1, 0}
	digits, width := 0, 0
	for i, n := range numbers {
		f, _ := strconv.ParseFloat(n, 64)
		values[map[int][]int{1: {2}, 2: {0, 2}, 3: {0, 1, 2}}[len(numbers)][i]] = f
		if _, frac, ok := strings.Cut(n, "."); ok {
			digits = max(digits, len(frac))
		}
		width = max(width, len(n))
	}
	if values[1] == 0 {
		return c.misuse(errors.New("the step must not be 0"))
	}
	if !*w {
		width = 0
	}
	steps := (values[2] - values[0]) / values[1]
	for i := 0.0; i <= steps+1e-9; i++ {
		if i > 0 {
			c.printf("%s", *s)
		}
		if _, err := fmt.Fprintf(c.out, "%0*.*f", width, digits, values[0]+i*values[1]); err != nil {
			return 1
		}
	}
	if steps >= 0 {
		c.printf("\n")
	}
	return 0
}

func yes(c *call) int {
	line := "y"
	if len(c.args) > 0 {
		line = strings.Join(c.args, " ")
	}
	for {
		if _, err := c.out.WriteString(line + "\n"); err != nil {
			return 1
		}
	}
}

func rev(c *call) int {
	rest, code, ok := c.parse(c.flags(), 0, -1)
	if !ok {
		return code
	}
	c.each(rest, func(_ string, r io.Reader) error {
		return lines(r, func(l string) bool {
			runes := []rune(l)
			slices.Reverse(runes)
			c.printf("%s\n", string(runes))
			return true
		})
	})
	return c.code
}

func tac(c *call) int {
	rest, code, ok := c.parse(c.flags(), 0, -1)
	if !ok {
		return code
	}
	c.each(rest, func(_ string, r io.Reader) error {
		var all []string
		err := lines(r, func(l string) bool { all = append(all, l); return true })
		for i := len(all) - 1; i >= 0; i-- {
			c.printf("%s\n", all[i])
		}
		return err
	})
	return c.code
}
