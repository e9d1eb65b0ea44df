package box

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// maxPaged is how much text is held to be looked at.
const maxPaged = 64 << 20

// more is more and less: a page at a time on a terminal, else cat.
func more(c *call) int {
	fs := c.flags()
	_ = flag(fs, "R", "raw", "changes nothing")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	if !c.live {
		c.each(rest, func(_ string, r io.Reader) error {
			_, err := io.Copy(c.out, r)
			return err
		})
		return c.code
	}
	var text strings.Builder
	c.each(rest, func(_ string, r io.Reader) error {
		_, err := io.Copy(&text, io.LimitReader(r, maxPaged-int64(text.Len())))
		return err
	})
	tty, err := os.Open("/dev/tty")
	if err != nil {
		c.out.WriteString(text.String())
		return c.code
	}
	defer tty.Close()
	p := &pager{c: c, tty: tty}
	p.lay(text.String())
	if err := p.run(); err != nil {
		c.fail(err)
	}
	return c.code
}

// pager shows lines of a terminal's width.
type pager struct {
	c          *call
	tty        *os.File
	lines      []string
	at         int
	rows, cols int
	word       string // looked for last
}

func (p *pager) lay(text string) {
	p.cols, p.rows = 80, 24
	if w, h, err := term.GetSize(1); err == nil && w > 0 && h > 1 {
		p.cols, p.rows = w, h
	}
	for l := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		l = printable(strings.ReplaceAll(l, "\t", "        "))
		for utf8.RuneCountInString(l) > p.cols {
			r := []rune(l)
			p.lines, l = append(p.lines, string(r[:p.cols])), string(r[p.cols:])
		}
		p.lines = append(p.lines, l)
	}
}

func (p *pager) run() error {
	page := p.rows - 1
	if len(p.lines) <= page {
		p.c.printf("%s\n", strings.Join(p.lines, "\n"))
		return nil
	}
	fd := int(p.tty.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return err
	}
	defer term.Restore(fd, old)
	defer fmt.Fprint(os.Stdout, "\r\x1b[K")
	p.draw()
	key := make([]byte, 8)
	for {
		n, err := p.tty.Read(key)
		if err != nil {
			return nil
		}
		switch s := string(key[:n]); s {
		case "q", "Q", "\x03", "\x04":
			return nil
		case " ", "f", "\x06", "\x1b[6~":
			if p.at >= len(p.lines)-page {
				return nil
			}
			p.at += page
		case "b", "\x02", "\x1b[5~":
			p.at -= page
		case "\r", "j", "\x1b[B":
			p.at++
		case "k", "y", "\x1b[A":
			p.at--
		case "g", "<":
			p.at = 0
		case "G", ">":
			p.at = len(p.lines)
		case "/":
			p.word = p.prompt("/")
			p.search()
		case "n":
			p.search()
		}
		p.at = max(0, min(p.at, len(p.lines)-page))
		p.draw()
	}
}

func (p *pager) draw() {
	page := p.rows - 1
	var b strings.Builder
	b.WriteString("\x1b[H\x1b[2J")
	for _, l := range p.lines[p.at:min(p.at+page, len(p.lines))] {
		b.WriteString(l + "\r\n")
	}
	where := fmt.Sprintf("%d%%", 100*min(p.at+page, len(p.lines))/len(p.lines))
	fmt.Fprintf(os.Stdout, "%s\x1b[7m%s\x1b[0m (space, b, /, q)", b.String(), where)
}

// prompt reads a word on the last line.
func (p *pager) prompt(lead string) string {
	word := ""
	key := make([]byte, 1)
	for {
		fmt.Fprintf(os.Stdout, "\r\x1b[K%s%s", lead, printable(word))
		if n, err := p.tty.Read(key); err != nil || n == 0 {
			return word
		}
		switch key[0] {
		case '\r', '\n':
			return word
		case 0x7f, 8:
			word = word[:max(0, len(word)-1)]
		case 3, 27:
			return ""
		default:
			word += string(key)
		}
	}
}

func (p *pager) search() {
	for i := p.at + 1; i < len(p.lines) && p.word != ""; i++ {
		if strings.Contains(p.lines[i], p.word) {
			p.at = i
			return
		}
	}
}
