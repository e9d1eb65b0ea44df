package image

import (
	"errors"
	"fmt"
	"strings"
)

// splitWords splits a line at blanks outside of quotes; quotes and backslashes
// stay. There is at least one field in a line that is not empty.
func splitWords(s string) ([]string, error) {
	var out []string
	start, quote := -1, byte(0)
	for i := 0; i < len(s); i++ {
		ch := s[i]
		switch {
		case ch == '\\' && quote != '\'':
			if start < 0 {
				start = i
			}
			i++
		case quote != 0:
			if ch == quote {
				quote = 0
			}
		case ch == ' ' || ch == '\t':
			if start >= 0 {
				out = append(out, s[start:i])
				start = -1
			}
			continue
		case ch == '"' || ch == '\'':
			quote = ch
		}
		if start < 0 {
			start = i
		}
	}
	if quote != 0 {
		return nil, errors.New("unexpected end of statement while looking for matching quote")
	}
	if start >= 0 {
		out = append(out, s[start:])
	}
	return out, nil
}

// expand takes quotes away and puts variables' values in, as Docker does:
// $NAME, ${NAME}, ${NAME:-word}, ${NAME:+word}; none within single quotes.
func expand(s string, env []string) (string, error) {
	var out strings.Builder
	quote := byte(0)
	for i := 0; i < len(s); {
		ch := s[i]
		switch {
		case quote == '\'' && ch != '\'':
			out.WriteByte(ch)
		case ch == '\\' && i+1 < len(s):
			i++
			if quote == '"' && !strings.ContainsRune(`"$\`, rune(s[i])) {
				out.WriteByte('\\')
			}
			out.WriteByte(s[i])
		case ch == quote && quote != 0:
			quote = 0
		case quote == 0 && (ch == '"' || ch == '\''):
			quote = ch
		case ch == '$':
			value, n, err := variable(s[i:], env)
			if err != nil {
				return "", err
			}
			out.WriteString(value)
			i += n
			continue
		default:
			out.WriteByte(ch)
		}
		i++
	}
	if quote != 0 {
		return "", errors.New("unexpected end of statement while looking for matching quote")
	}
	return out.String(), nil
}

// variable returns the value of the variable that s begins with, and how long
// its name in s is.
func variable(s string, env []string) (value string, n int, err error) {
	if !strings.HasPrefix(s, "${") {
		end := 1
		for end < len(s) && isVariable(s[1:end+1]) {
			end++
		}
		if end == 1 {
			return "$", 1, nil
		}
		value, _ := lookup(env, s[1:end])
		return value, end, nil
	}
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return "", 0, fmt.Errorf("missing } in %.100q", s)
	}
	name, word, op := s[2:end], "", ""
	if i := strings.IndexByte(name, ':'); i >= 0 {
		op, word, name = name[i:min(i+2, len(name))], name[min(i+2, len(name)):], name[:i]
	}
	value, _ = lookup(env, name)
	switch {
	case !isVariable(name):
		return "", 0, fmt.Errorf("bad variable name %.100q", name)
	case op == ":-" && value == "":
		value, err = expand(word, env)
	case op == ":+" && value != "":
		value, err = expand(word, env)
	case op != "" && op != ":-" && op != ":+":
		err = fmt.Errorf("unsupported modifier (%.10s) in substitution", op)
	}
	return value, end + 1, err
}

func isVariable(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9' || i == 0) {
			return false
		}
	}
	return s != ""
}

func lookup(env []string, name string) (string, bool) {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v, true
		}
	}
	return "", false
}
