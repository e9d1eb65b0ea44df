package box

import (
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/term"
)

// editor reads lines from a terminal, which is raw only meanwhile.
type editor struct {
	in   *os.File
	out  io.Writer
	keys *keyReader
	term *term.Terminal
	dir  string // for completion
	tabs int    // pressed in a row
}

// errInterrupted says that Ctrl-C was typed.
var errInterrupted = errors.New("interrupted")

func newEditor(in, out *os.File) (*editor, error) {
	if !term.IsTerminal(int(in.Fd())) {
		return nil, errors.New("the input is no terminal")
	}
	e := &editor{in: in, out: out, keys: &keyReader{r: in}}
	e.term = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{e.keys, out}, "")
	e.term.AutoCompleteCallback = e.complete
	return e, nil
}

// keyReader makes of Ctrl-C an empty line, as the terminal takes it for the end
// of the input.
type keyReader struct {
	r           io.Reader
	interrupted bool
}

func (k *keyReader) Read(p []byte) (int, error) {
	// The replacement is longer than what it replaces.
	n, err := k.r.Read(p[:max(1, len(p)/4)])
	if i := slices.Index(p[:n], 3); i >= 0 && len(p) >= 3 {
		k.interrupted = true
		n = copy(p, "\x05\x15\r") // to the end, all before it, and enter
	}
	return n, err
}

func (e *editor) readLine(prompt, dir string) (string, error) {
	fd := int(e.in.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	defer term.Restore(fd, old)
	if cols, rows, err := term.GetSize(fd); err == nil && cols > 0 {
		_ = e.term.SetSize(cols, max(rows, 1))
	}
	e.dir, e.keys.interrupted = dir, false
	e.term.SetPrompt(prompt)
	line, err := e.term.ReadLine()
	if e.keys.interrupted {
		return "", errInterrupted
	}
	if errors.Is(err, term.ErrPasteIndicator) {
		err = nil
	}
	return line, err
}

// complete completes the word before the cursor: an applet or a program, or a
// file. A second tab lists what there is.
func (e *editor) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		e.tabs = 0
		return "", 0, false
	}
	e.tabs++
	before := line[:pos]
	at := strings.LastIndexAny(before, " \t|;&<>(=") + 1
	word := before[at:]
	first := strings.TrimLeft(before[:at], " \t") == "" || strings.ContainsAny(lastByte(strings.TrimRight(before[:at], " \t")), "|;&(")
	all := e.candidates(word, first)
	if len(all) == 0 {
		return line, pos, true
	}
	common := all[0]
	for _, c := range all[1:] {
		for !strings.HasPrefix(c, common) {
			common = common[:len(common)-1]
		}
	}
	switch {
	case len(all) == 1 && !strings.HasSuffix(common, "/"):
		common += " "
	case len(all) > 1 && common == word && e.tabs > 1:
		const most = 200
		text := strings.Join(all[:min(len(all), most)], "  ")
		if len(all) > most {
			text += "  ..."
		}
		io.WriteString(e.term, printable(text)+"\n")
	}
	return before[:at] + common + line[pos:], at + len(common), true
}

func lastByte(s string) string { return s[max(0, len(s)-1):] }

func (e *editor) candidates(word string, first bool) []string {
	var all []string
	if first && !strings.Contains(word, "/") {
		for _, n := range Names() {
			if strings.HasPrefix(n, word) {
				all = append(all, n)
			}
		}
		for d := range strings.SplitSeq(os.Getenv("PATH"), ":") {
			all = append(all, filesIn(d, "", word)...)
		}
	} else {
		dir, name := path.Split(word)
		look := dir
		if !path.IsAbs(look) {
			look = path.Join(e.dir, dir)
		}
		all = filesIn(look, dir, name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// maxComplete bounds what is looked at in a directory.
const maxComplete = 10000

func filesIn(dir, lead, prefix string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	entries, _ := f.ReadDir(maxComplete)
	var out []string
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, prefix) || prefix == "" && strings.HasPrefix(name, ".") {
			continue
		}
		if printable(name) != name {
			continue // it would be echoed, and somebody else chose it
		}
		if fi, err := os.Stat(path.Join(dir, name)); err == nil && fi.IsDir() && lead+dir != "" {
			name += "/"
		}
		out = append(out, lead+name)
	}
	return out
}
