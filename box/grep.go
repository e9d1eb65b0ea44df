package box

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// grepping is one run of grep.
type grepping struct {
	c                                                  *call
	re                                                 *regexp.Regexp
	invert, count, list, listNot, number, only         bool
	quiet, silent, withName, noName, recursive, binary bool
	most, before, after                                int
	include, exclude                                   []string
	found                                              bool
}

func grep(c *call) int {
	fs := c.flags()
	g := &grepping{c: c}
	i, e, f, ext := flag(fs, "i", "ignore-case", "no difference of case"), fs.StringArrayP("regexp", "e", nil, "a pattern"), flag(fs, "F", "fixed-strings", "patterns are plain text"), flag(fs, "E", "extended-regexp", "extended regular expressions")
	w, x, file := flag(fs, "w", "word-regexp", "whole words"), flag(fs, "x", "line-regexp", "whole lines"), fs.StringP("file", "f", "", "patterns, one a line")
	_ = flag(fs, "G", "basic-regexp", "basic regular expressions, the default")
	perl := flag(fs, "P", "perl-regexp", "expressions of Go, which are like Perl's")
	r, r2 := flag(fs, "r", "recursive", "directories with all in them"), flag(fs, "R", "dereference-recursive", "the same")
	for _, o := range []struct {
		to                 *bool
		letter, long, what string
	}{
		{&g.invert, "v", "invert-match", "lines that do not match"},
		{&g.count, "c", "count", "how many lines"},
		{&g.list, "l", "files-with-matches", "names of files that match"},
		{&g.listNot, "L", "files-without-match", "names of files that do not"},
		{&g.number, "n", "line-number", "with the numbers of lines"},
		{&g.only, "o", "only-matching", "what matches alone"},
		{&g.quiet, "q", "quiet", "no output"},
		{&g.silent, "s", "no-messages", "no errors about files"},
		{&g.withName, "H", "with-filename", "with names"},
		{&g.noName, "h", "no-filename", "without names"},
		{&g.binary, "a", "text", "binary files are text"},
	} {
		fs.BoolVarP(o.to, o.long, o.letter, false, o.what)
	}
	fs.IntVarP(&g.most, "max-count", "m", 0, "no more lines than this")
	fs.IntVarP(&g.before, "before-context", "B", 0, "lines before")
	fs.IntVarP(&g.after, "after-context", "A", 0, "lines behind")
	around := fs.IntP("context", "C", 0, "lines before and behind")
	fs.StringArrayVar(&g.include, "include", nil, "with -r, only files of such names")
	fs.StringArrayVar(&g.exclude, "exclude", nil, "with -r, no files of such names")
	fs.String("color", "", "nothing is coloured")
	fs.Lookup("color").NoOptDefVal = "auto"
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	patterns := *e
	if *file != "" {
		b, err := os.ReadFile(*file)
		if err != nil {
			c.fail(err)
			return 2
		}
		patterns = append(patterns, strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")...)
	}
	if len(*e) == 0 && *file == "" {
		if len(rest) == 0 {
			return c.misuse(errors.New("a pattern is missing"))
		}
		patterns, rest = strings.Split(rest[0], "\n"), rest[1:]
	}
	kind := "basic"
	switch {
	case *f || c.name == "fgrep":
		kind = "fixed"
	case *ext || *perl || c.name == "egrep":
		kind = "extended"
	}
	var err error
	if g.re, err = compile(patterns, kind, *i, *w, *x); err != nil {
		return c.misuse(err)
	}
	if *around > 0 {
		g.before, g.after = max(g.before, *around), max(g.after, *around)
	}
	g.recursive = *r || *r2
	return g.run(rest)
}

// compile makes one expression of all patterns; the longest match counts.
func compile(patterns []string, kind string, fold, word, line bool) (*regexp.Regexp, error) {
	var all []string
	for _, p := range patterns {
		switch kind {
		case "fixed":
			p = regexp.QuoteMeta(p)
		case "basic":
			p = basicToExtended(p)
		default:
			p = posixEscapes(p)
		}
		all = append(all, "(?:"+p+")")
	}
	text := strings.Join(all, "|")
	switch {
	case line:
		text = "^(?:" + text + ")$"
	case word:
		text = `\b(?:` + text + `)\b`
	}
	if fold {
		text = "(?i)" + text
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("bad pattern: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	re.Longest()
	return re, nil
}

// posixEscapes turns \< and \> into what Go has for them.
func posixEscapes(p string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '\\' && i+1 < len(p) {
			i++
			switch p[i] {
			case '<', '>':
				b.WriteString(`\b`)
			default:
				b.WriteByte('\\')
				b.WriteByte(p[i])
			}
			continue
		}
		b.WriteByte(p[i])
	}
	return b.String()
}

// basicToExtended swaps what is special with a backslash and without.
func basicToExtended(p string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		ch := p[i]
		switch {
		case ch == '\\' && i+1 < len(p):
			i++
			if strings.IndexByte("(){}+?|", p[i]) >= 0 {
				b.WriteByte(p[i])
			} else {
				b.WriteString(posixEscapes(p[i-1 : i+1]))
			}
		case strings.IndexByte("(){}+?|", ch) >= 0:
			b.WriteByte('\\')
			b.WriteByte(ch)
		case ch == '*' && (i == 0 || i == 1 && p[0] == '^' || strings.HasSuffix(p[:i], `\(`) || strings.HasSuffix(p[:i], `\|`)):
			b.WriteString(`\*`)
		case ch == '[':
			end := bracketEnd(p, i)
			b.WriteString(strings.ReplaceAll(p[i:end], `\`, `\\`))
			i = end - 1
		default:
			b.WriteByte(ch)
		}
	}
	return b.String()
}

// bracketEnd is the position behind a [...] that begins at i.
func bracketEnd(p string, i int) int {
	j := i + 1
	if j < len(p) && p[j] == '^' {
		j++
	}
	if j < len(p) && p[j] == ']' {
		j++
	}
	for ; j < len(p); j++ {
		if strings.HasPrefix(p[j:], "[:") {
			if k := strings.Index(p[j:], ":]"); k > 0 {
				j += k + 1
				continue
			}
		}
		if p[j] == ']' {
			return j + 1
		}
	}
	return len(p)
}

func (g *grepping) run(files []string) int {
	if len(files) == 0 && g.recursive {
		files = []string{"."}
	}
	many := len(files) > 1 || g.recursive
	g.withName = (g.withName || many) && !g.noName
	failed := false
	complain := func(err error) {
		failed = true
		if !g.silent {
			fmt.Fprintf(g.c.err, "%s: %s\n", g.c.name, printable(why(err)))
		}
	}
	if len(files) == 0 {
		files = []string{"-"}
	}
	for _, name := range files {
		if fi, err := os.Stat(name); err == nil && fi.IsDir() && name != "-" {
			if !g.recursive {
				complain(fmt.Errorf("%s is a directory", name))
				continue
			}
			_ = filepath.WalkDir(name, func(p string, d fs.DirEntry, err error) error {
				if err != nil {
					complain(err)
				} else if d.Type().IsRegular() && g.wants(d.Name()) {
					if err := g.file(p); err != nil {
						complain(err)
					}
				}
				return nil
			})
			continue
		}
		if err := g.file(name); err != nil {
			complain(err)
		}
		if g.quiet && g.found {
			return 0
		}
	}
	switch {
	case failed && !(g.quiet && g.found):
		return 2
	case g.found:
		return 0
	}
	return 1
}

func (g *grepping) wants(name string) bool {
	fits := func(list []string) bool {
		for _, p := range list {
			if ok, _ := path.Match(p, name); ok {
				return true
			}
		}
		return false
	}
	return (len(g.include) == 0 || fits(g.include)) && !fits(g.exclude)
}

func (g *grepping) file(name string) error {
	r := g.c.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		r = f
	} else {
		name = "(standard input)"
	}
	head := make([]byte, 4096)
	n, err := r.Read(head) // what is there: of a pipe more may come much later
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	isBinary := !g.binary && bytes.IndexByte(head[:n], 0) >= 0
	return g.text(name, io.MultiReader(bytes.NewReader(head[:n]), r), isBinary)
}

func (g *grepping) text(name string, r io.Reader, isBinary bool) error {
	var held []string // before a match
	number, hits, behind, last := 0, 0, 0, 0
	err := lines(r, func(l string) bool {
		number++
		hit := g.re.MatchString(l) != g.invert
		switch {
		case hit:
			hits++
			g.found = g.found || !g.listNot
			if g.quiet || g.list || g.listNot || isBinary && !g.count {
				return false
			}
			if g.count {
				break
			}
			if (g.before > 0 || g.after > 0) && last > 0 && number-len(held) > last+1 {
				g.c.printf("--\n")
			}
			for i, h := range held {
				g.line(name, number-len(held)+i, h, '-')
			}
			g.match(name, number, l)
			held, behind, last = nil, g.after, number
		case behind > 0 && !g.count:
			g.line(name, number, l, '-')
			behind, last = behind-1, number
		case g.before > 0:
			if held = append(held, l); len(held) > g.before {
				held = held[1:]
			}
		}
		return g.most <= 0 || hits < g.most || behind > 0
	})
	switch {
	case g.quiet:
	case g.list && hits > 0, g.listNot && hits == 0:
		g.found = true
		g.c.printf("%s\n", g.c.shown(name))
	case g.list || g.listNot:
	case g.count:
		lead := ""
		if g.withName {
			lead = g.c.shown(name) + ":"
		}
		g.c.printf("%s%d\n", lead, hits)
	case isBinary && hits > 0:
		g.c.printf("%s: binary file matches\n", g.c.shown(name))
	}
	return err
}

func (g *grepping) match(name string, number int, l string) {
	if !g.only {
		g.line(name, number, l, ':')
		return
	}
	for _, m := range g.re.FindAllString(l, -1) {
		if m != "" {
			g.line(name, number, m, ':')
		}
	}
}

func (g *grepping) line(name string, number int, l string, mark rune) {
	if g.withName {
		g.c.printf("%s%c", g.c.shown(name), mark)
	}
	if g.number {
		g.c.printf("%d%c", number, mark)
	}
	g.c.printf("%s\n", l)
}
