package box

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// address says on which lines a command acts.
type address struct {
	line int // 0: none
	last bool
	re   *regexp.Regexp
}

// sedCommand is one command of a script.
type sedCommand struct {
	from, to *address
	negate   bool
	name     byte
	re       *regexp.Regexp // of s
	with     string         // what s puts in, what a, i and c write
	nth      int            // which match; 0 and all: all
	all      bool
	print    bool
	pairs    map[rune]rune // of y
	inside   bool          // of a range, while it runs
}

// editing is one run of sed.
type editing struct {
	c        *call
	commands []*sedCommand
	quiet    bool
	extended bool
	number   int
}

func sed(c *call) int {
	fs := c.flags()
	x := &editing{c: c}
	fs.BoolVarP(&x.quiet, "quiet", "n", false, "print only what p prints")
	e, r := flag(fs, "E", "regexp-extended", "extended regular expressions"), flag(fs, "r", "Regexp-extended", "the same")
	scripts, files := fs.StringArrayP("expression", "e", nil, "a script"), fs.StringArrayP("file", "f", nil, "a file with a script")
	i := fs.StringP("in-place", "i", "", "change the files; with a suffix keep the old ones by it")
	fs.Lookup("in-place").NoOptDefVal = "\x00"
	args := append([]string{}, c.args...)
	for k, a := range args { // what follows -i is the suffix
		if strings.HasPrefix(a, "-i") && len(a) > 2 {
			args[k] = "--in-place=" + a[2:]
		}
	}
	c.args = args
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	x.extended = *e || *r
	for _, name := range *files {
		b, err := os.ReadFile(name)
		if err != nil {
			c.fail(err)
			return 1
		}
		*scripts = append(*scripts, string(b))
	}
	if len(*scripts) == 0 {
		if len(rest) == 0 {
			return c.misuse(errors.New("a script is missing"))
		}
		*scripts, rest = rest[:1], rest[1:]
	}
	if err := x.parse(strings.Join(*scripts, "\n")); err != nil {
		return c.misuse(err)
	}
	if *i != "" {
		for _, name := range rest {
			if err := x.inPlace(name, strings.TrimPrefix(*i, "\x00")); err != nil {
				c.fail(err)
			}
		}
		return c.code
	}
	in := c.in
	if len(rest) > 0 {
		var all []io.Reader
		c.each(rest, func(_ string, r io.Reader) error {
			b, err := io.ReadAll(r)
			if len(b) > 0 && b[len(b)-1] != '\n' && len(rest) > 1 {
				b = append(b, '\n')
			}
			all = append(all, bytes.NewReader(b))
			return err
		})
		in = io.MultiReader(all...)
	}
	if err := x.run(in, c.out); err != nil {
		c.fail(err)
	}
	return c.code
}

// inPlace changes a file by putting another in its place.
func (x *editing) inPlace(name, suffix string) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(name), ".sed*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	w := bufio.NewWriter(out)
	x.number = 0
	err = x.run(in, w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = out.Chmod(fi.Mode().Perm())
	}
	if st := statOf(fi); err == nil {
		_ = out.Chown(int(st.Uid), int(st.Gid))
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil && suffix != "" {
		err = os.Rename(name, name+suffix)
	}
	if err == nil {
		err = os.Rename(out.Name(), name)
	}
	return err
}

// parse reads a script: [ADDRESS[,ADDRESS]][!]COMMAND, separated by ; or newlines.
func (x *editing) parse(s string) error {
	for {
		s = strings.TrimLeft(s, " \t\n;")
		if s == "" {
			return nil
		}
		if s[0] == '#' {
			_, s, _ = strings.Cut(s, "\n")
			continue
		}
		cmd := &sedCommand{}
		var err error
		if cmd.from, s, err = x.address(s); err != nil {
			return err
		}
		if cmd.from != nil && strings.HasPrefix(s, ",") {
			if cmd.to, s, err = x.address(strings.TrimLeft(s[1:], " ")); err != nil {
				return err
			}
			if cmd.to == nil {
				return errors.New("an address is missing after the comma")
			}
		}
		s = strings.TrimLeft(s, " \t")
		if rest, ok := strings.CutPrefix(s, "!"); ok {
			cmd.negate, s = true, strings.TrimLeft(rest, " \t")
		}
		if s == "" {
			return errors.New("a command is missing")
		}
		if s, err = x.command(cmd, s); err != nil {
			return err
		}
		x.commands = append(x.commands, cmd)
	}
}

func (x *editing) address(s string) (*address, string, error) {
	switch {
	case s == "":
	case s[0] == '$':
		return &address{last: true}, s[1:], nil
	case s[0] >= '0' && s[0] <= '9':
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		line, err := strconv.Atoi(s[:n])
		return &address{line: line}, s[n:], err
	case s[0] == '/':
		text, rest, err := delimited(s[1:], '/')
		if err != nil {
			return nil, "", err
		}
		re, err := x.compile(text, false)
		return &address{re: re}, rest, err
	}
	return nil, s, nil
}

func (x *editing) compile(text string, fold bool) (*regexp.Regexp, error) {
	kind := "basic"
	if x.extended {
		kind = "extended"
	}
	return compile([]string{text}, kind, fold, false, false)
}

// delimited returns the text up to the delimiter, which a backslash protects.
func delimited(s string, by byte) (text, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			if s[i] == 'n' {
				b.WriteString("\n")
			} else if s[i] == by {
				b.WriteByte(by)
			} else {
				b.WriteString(s[i-1 : i+1])
			}
		case s[i] == by:
			return b.String(), s[i+1:], nil
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", fmt.Errorf("a %c is missing", by)
}

func (x *editing) command(cmd *sedCommand, s string) (rest string, err error) {
	cmd.name = s[0]
	s = s[1:]
	switch cmd.name {
	case 'p', 'd', 'q', '=':
		return s, endOfCommand(s)
	case 's':
		return x.substitute(cmd, s)
	case 'y':
		return x.transliterate(cmd, s)
	case 'a', 'i', 'c':
		text, after, _ := strings.Cut(strings.TrimLeft(s, " \t"), "\n")
		if text == "\\" {
			text, after, _ = strings.Cut(after, "\n")
		}
		cmd.with = strings.TrimPrefix(text, "\\")
		return after, nil
	}
	return "", fmt.Errorf("unknown command %c", cmd.name)
}

func endOfCommand(s string) error {
	s = strings.TrimLeft(s, " \t")
	if s != "" && !strings.ContainsRune(";\n}#", rune(s[0])) {
		return fmt.Errorf("unexpected %c after a command", s[0])
	}
	return nil
}

func (x *editing) substitute(cmd *sedCommand, s string) (string, error) {
	if s == "" {
		return "", errors.New("s needs /PATTERN/TEXT/")
	}
	by := s[0]
	pattern, s, err := delimited(s[1:], by)
	if err != nil {
		return "", err
	}
	if cmd.with, s, err = delimited(s, by); err != nil {
		return "", err
	}
	fold := false
	for ; s != ""; s = s[1:] {
		switch ch := s[0]; {
		case ch == 'g':
			cmd.all = true
		case ch == 'p':
			cmd.print = true
		case ch == 'i' || ch == 'I':
			fold = true
		case ch >= '0' && ch <= '9':
			cmd.nth = cmd.nth*10 + int(ch-'0')
		default:
			cmd.re, err = x.compile(pattern, fold)
			if err == nil {
				err = endOfCommand(s)
			}
			return s, err
		}
	}
	cmd.re, err = x.compile(pattern, fold)
	return s, err
}

func (x *editing) transliterate(cmd *sedCommand, s string) (string, error) {
	if s == "" {
		return "", errors.New("y needs /FROM/TO/")
	}
	by := s[0]
	from, s, err := delimited(s[1:], by)
	if err != nil {
		return "", err
	}
	to, s, err := delimited(s, by)
	if err != nil {
		return "", err
	}
	a, b := []rune(from), []rune(to)
	if len(a) != len(b) {
		return "", errors.New("y: the two sets are not of one length")
	}
	cmd.pairs = map[rune]rune{}
	for i := range a {
		cmd.pairs[a[i]] = b[i]
	}
	return s, endOfCommand(s)
}

// run edits line by line, one ahead, to know the last.
func (x *editing) run(r io.Reader, w *bufio.Writer) error {
	in := bufio.NewReaderSize(r, 64<<10)
	next, err := in.ReadString('\n')
	for next != "" || err == nil {
		line := next
		if err == nil {
			next, err = in.ReadString('\n')
		} else {
			next = ""
		}
		last := next == "" && err != nil
		if len(line) > maxLine {
			return fmt.Errorf("a line has more than %d bytes", maxLine)
		}
		text, newline := strings.CutSuffix(line, "\n")
		x.number++
		end := "\n"
		if !newline {
			end = ""
		}
		if x.line(text, end, last, w) {
			break
		}
		if x.c.live && w == x.c.out {
			w.Flush()
		}
		if last {
			break
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// line edits one line and reports whether it was the last to be looked at.
func (x *editing) line(text, end string, last bool, w *bufio.Writer) (quit bool) {
	behind := ""
	print := func() { w.WriteString(text + end) }
	for _, cmd := range x.commands {
		if cmd.applies(x.number, last, text) == cmd.negate {
			continue
		}
		switch cmd.name {
		case 'd':
			w.WriteString(behind)
			return false
		case 'p':
			print()
		case '=':
			fmt.Fprintf(w, "%d\n", x.number)
		case 'q':
			if !x.quiet {
				print()
			}
			w.WriteString(behind)
			return true
		case 'i':
			w.WriteString(cmd.with + "\n")
		case 'a':
			behind += cmd.with + "\n"
		case 'c':
			w.WriteString(cmd.with + "\n")
			return false
		case 'y':
			text = strings.Map(func(r rune) rune {
				if to, ok := cmd.pairs[r]; ok {
					return to
				}
				return r
			}, text)
		case 's':
			done := false
			if text, done = cmd.replace(text); done && cmd.print {
				print()
			}
		}
	}
	if !x.quiet {
		print()
	}
	w.WriteString(behind)
	return false
}

func (c *sedCommand) applies(number int, last bool, text string) bool {
	switch {
	case c.from == nil:
		return true
	case c.to == nil:
		return c.from.is(number, last, text)
	case c.inside:
		c.inside = !(c.to.is(number, last, text) || c.to.line > 0 && number >= c.to.line)
		return c.inside || c.to.line == 0 || number <= c.to.line
	case c.from.is(number, last, text):
		c.inside = !(c.to.line > 0 && c.to.line <= number)
		return true
	}
	return false
}

func (a *address) is(number int, last bool, text string) bool {
	return a.line > 0 && a.line == number || a.last && last || a.re != nil && a.re.MatchString(text)
}

// replace does s: the nth match, all from it on with g, or the first.
func (c *sedCommand) replace(text string) (string, bool) {
	var b strings.Builder
	at, done := 0, false
	for n, m := range c.re.FindAllStringSubmatchIndex(text, -1) {
		if n+1 < max(c.nth, 1) {
			continue
		}
		b.WriteString(text[at:m[0]])
		c.expand(&b, text, m)
		at, done = m[1], true
		if !c.all {
			break
		}
	}
	b.WriteString(text[at:])
	return b.String(), done
}

// expand writes the new text: & is the match, \1 a part of it.
func (c *sedCommand) expand(b *strings.Builder, text string, m []int) {
	group := func(n int) {
		if 2*n+1 < len(m) && m[2*n] >= 0 {
			b.WriteString(text[m[2*n]:m[2*n+1]])
		}
	}
	for i := 0; i < len(c.with); i++ {
		ch := c.with[i]
		switch {
		case ch == '&':
			group(0)
		case ch == '\\' && i+1 < len(c.with):
			i++
			switch ch = c.with[i]; {
			case ch >= '0' && ch <= '9':
				group(int(ch - '0'))
			case ch == 't':
				b.WriteByte('\t')
			default:
				b.WriteByte(ch)
			}
		default:
			b.WriteByte(ch)
		}
	}
}
