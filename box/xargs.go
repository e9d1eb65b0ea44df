package box

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// xargs makes commands of its input.
func xargs(c *call) int {
	fs := c.flags()
	fs.SetInterspersed(false)
	n, word := fs.IntP("max-args", "n", 0, "how many words for one command"), fs.StringP("replace", "I", "", "one command a line, which takes this word's place")
	zero, r, t := flag(fs, "0", "null", "words end in NUL"), flag(fs, "r", "no-run-if-empty", "nothing for nothing"), flag(fs, "t", "verbose", "say what is run")
	_, delim := fs.IntP("max-procs", "P", 1, "one after the other all the same"), fs.StringP("delimiter", "d", "", "what words end in")
	perLine := fs.IntP("max-lines", "L", 0, "how many lines for one command")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	if len(rest) == 0 {
		rest = []string{"echo"}
	}
	b, err := io.ReadAll(c.in)
	if err != nil {
		c.fail(err)
		return 1
	}
	var words []string
	switch {
	case *zero:
		words = strings.FieldsFunc(string(b), func(r rune) bool { return r == 0 })
	case *delim != "":
		sep, _ := trRune(*delim)
		words = strings.Split(strings.TrimSuffix(string(b), string(sep)), string(sep))
	case *word != "" || *perLine > 0:
		words = strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
	default:
		if words, err = quotedWords(string(b)); err != nil {
			c.fail(err)
			return 1
		}
	}
	if len(words) == 0 && (*r || *word != "") {
		return 0
	}
	size := *n
	if size <= 0 {
		size = 5000
	}
	if *word != "" {
		size = 1
	} else if *perLine > 0 {
		size = *perLine
	}
	for first := true; first || len(words) > 0; first = false {
		part := words[:min(size, len(words))]
		words = words[len(part):]
		args := append(append([]string{}, rest...), part...)
		if *word != "" {
			args = nil
			for _, w := range rest {
				args = append(args, strings.ReplaceAll(w, *word, strings.TrimSpace(part[0])))
			}
		} else if *perLine > 0 {
			args = append(append([]string{}, rest...), strings.Fields(strings.Join(part, " "))...)
		}
		if *t {
			fmt.Fprintln(c.err, printable(strings.Join(args, " ")))
		}
		switch code := c.command(args, os.Environ(), strings.NewReader("")); {
		case code == exitNotFound || code == exitCannotExec:
			return code
		case code != 0:
			c.code = 123
		}
	}
	return c.code
}

// quotedWords splits at blanks outside of quotes.
func quotedWords(s string) (out []string, err error) {
	var word []byte
	quote, has := byte(0), false
	for i := 0; i < len(s); i++ {
		ch := s[i]
		switch {
		case quote != 0 && ch == quote:
			quote = 0
		case quote != 0:
			word = append(word, ch)
		case ch == '\'' || ch == '"':
			quote, has = ch, true
		case ch == '\\' && i+1 < len(s):
			i++
			word, has = append(word, s[i]), true
		case bytes.IndexByte([]byte(" \t\n"), ch) >= 0:
			if has {
				out = append(out, string(word))
			}
			word, has = nil, false
		default:
			word, has = append(word, ch), true
		}
	}
	if has {
		out = append(out, string(word))
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c is missing", quote)
	}
	return out, nil
}
