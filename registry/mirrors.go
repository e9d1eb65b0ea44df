package registry

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"tug/errs"
	"tug/spec"
)

// The mirror commands edit the registries file as a careful person would: the
// bytes of the one list, and nothing else. What comes out is parsed again, and
// not written unless it says exactly what was wanted.

// Mirror is one line of a registry's list.
type Mirror struct{ Registry, URL string }

// Mirrors lists all, by registry and in the order in which they are tried.
func Mirrors() ([]Mirror, error) {
	c, err := readConfig()
	if err != nil {
		return nil, err
	}
	var all []Mirror
	for _, host := range slices.Sorted(maps.Keys(c.Registry)) {
		for _, u := range c.Registry[host].Mirrors {
			all = append(all, Mirror{host, u})
		}
	}
	return all, nil
}

// AddMirror puts a mirror at the end of registry's list. One that is in it
// already stays where it is.
func AddMirror(registry, mirror string) error {
	host, err := registryHost(registry)
	if err != nil {
		return err
	}
	u, err := parseMirror(mirror)
	if err != nil {
		return err
	}
	if canonicalHost(u.Host) == host && strings.Trim(u.Path, "/") == "" {
		return errs.New(errs.Invalid, "%s cannot be its own mirror", host)
	}
	return editMirrors(host, adding(mirror))
}

// adding and removing say what an edit makes of a registry's list.
func adding(mirror string) func([]string) ([]string, error) {
	return func(had []string) ([]string, error) {
		if slices.Contains(had, mirror) {
			return had, nil
		}
		return append(slices.Clone(had), mirror), nil
	}
}

// RemoveMirror takes a mirror from registry's list, or all when mirror is "".
func RemoveMirror(registry, mirror string) error {
	host, err := registryHost(registry)
	if err != nil {
		return err
	}
	return editMirrors(host, removing(host, mirror))
}

func removing(host, mirror string) func([]string) ([]string, error) {
	return func(had []string) ([]string, error) {
		switch {
		case mirror == "" && len(had) > 0:
			return nil, nil
		case mirror == "":
			return nil, errs.New(errs.NotFound, "%s has no mirrors", host)
		case !slices.Contains(had, mirror):
			return nil, errs.New(errs.NotFound, "%s has no mirror %s", host, mirror).WithHint("see 'tug mirror ls'")
		}
		return slices.DeleteFunc(slices.Clone(had), func(m string) bool { return m == mirror }), nil
	}
}

func registryHost(name string) (string, error) {
	host := canonicalHost(strings.TrimSuffix(strings.TrimPrefix(name, "https://"), "/"))
	if !spec.IsDomain(host) {
		return "", errs.New(errs.Invalid, "%.80q is no registry's host name", name).WithHint("give HOST or HOST:PORT, for example docker.io")
	}
	return host, nil
}

// editMirrors replaces host's list in the registries file by what f makes of it.
func editMirrors(host string, f func([]string) ([]string, error)) error {
	path, _ := RegistriesFile()
	var own *errs.Error
	err := editFile(path, 0o644, 0o755, func(old []byte) ([]byte, error) { return edited(path, old, host, f) })
	switch {
	case err == nil || errors.As(err, &own):
		return err
	case errors.Is(err, fs.ErrPermission):
		return errs.New(errs.Denied, "edit registries file: %w", err).WithHint("run as root (sudo), or name a file of yours with TUG_REGISTRIES")
	}
	return errs.New(errs.Internal, "edit registries file: %w", err)
}

// edited is what the registries file's text old becomes.
func edited(path string, old []byte, host string, f func([]string) ([]string, error)) ([]byte, error) {
	c, err := parseConfig(path, old)
	if err != nil {
		return nil, err
	}
	had := c.Registry[host].Mirrors
	want, err := f(had)
	if err != nil || slices.Equal(had, want) {
		return old, err
	}
	text := rewriteMirrors(c, host, had, want)
	if !sameBut(c, path, text, host, want) {
		return nil, errs.New(errs.Unsupported, "%s: the mirrors of %s are written in a way that tug does not edit", path, host).
			WithHint("edit the file yourself")
	}
	return text, nil
}

// sameBut reports whether text says what c says, with want as host's mirrors.
func sameBut(c *config, path string, text []byte, host string, want []string) bool {
	n, err := parseConfig(path, text)
	if err != nil || n.Certs != c.Certs || !slices.Equal(n.networks, c.networks) || !slices.Equal(n.Registry[host].Mirrors, want) {
		return false
	}
	same := func(a, b registryKeys) bool {
		return a.CA == b.CA && a.Cert == b.Cert && a.Key == b.Key && (a.Insecure == nil) == (b.Insecure == nil) &&
			(a.Insecure == nil || *a.Insecure == *b.Insecure)
	}
	for _, h := range slices.Concat(slices.Collect(maps.Keys(c.Registry)), slices.Collect(maps.Keys(n.Registry))) {
		a, b := c.Registry[h], n.Registry[h]
		if !same(a, b) || h != host && !slices.Equal(a.Mirrors, b.Mirrors) {
			return false
		}
	}
	return true
}

// rewriteMirrors returns c's text with want in place of had. When it cannot,
// what it returns is not what was wanted, which the caller finds out.
func rewriteMirrors(c *config, host string, had, want []string) []byte {
	table, list := -1, -1
	for _, k := range tomlKeys(c.text) {
		if len(k.path) < 2 || k.path[0] != "registry" || canonicalHost(k.path[1]) != host {
			continue
		}
		switch {
		case len(k.path) == 2 && k.table:
			table = k.offset
		case len(k.path) == 3 && k.path[2] == "mirrors":
			list = k.offset
		}
	}
	switch {
	case list >= 0 && len(want) == 0:
		if text := editList(c.text, list, had, want); isCommented(text, list) {
			return text
		}
		return cutKey(c.text, list, table)
	case list >= 0:
		return editList(c.text, list, had, want)
	case table >= 0:
		end := lineEnd(c.text, table)
		return insert(c.text, end, "mirrors = "+tomlList(want)+"\n")
	}
	text := c.text
	switch {
	case len(text) == 0:
	case text[len(text)-1] != '\n':
		text = append(slices.Clone(text), "\n\n"...)
	default:
		text = append(slices.Clone(text), '\n')
	}
	return append(slices.Clone(text), "[registry."+strconv.Quote(host)+"]\nmirrors = "+tomlList(want)+"\n"...)
}

func tomlList(all []string) string {
	quoted := make([]string, len(all))
	for i, s := range all {
		quoted[i] = strconv.Quote(s) // URLs that parseMirror took need no more
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func insert(text []byte, at int, s string) []byte {
	if at == len(text) && at > 0 && text[at-1] != '\n' {
		s = "\n" + s
	}
	return slices.Concat(text[:at], []byte(s), text[at:])
}

// lineStart and lineEnd are where the line around offset begins, and where the
// one after it does.
func lineStart(text []byte, offset int) int { return bytes.LastIndexByte(text[:offset], '\n') + 1 }

func lineEnd(text []byte, offset int) int {
	if i := bytes.IndexByte(text[offset:], '\n'); i >= 0 {
		return offset + i + 1
	}
	return len(text)
}

// isCommented reports whether there are comments in the list at offset, or
// behind it.
func isCommented(text []byte, offset int) bool {
	l, ok := scanList(text, offset)
	return ok && (l.comments || bytes.IndexByte(text[l.end:lineEnd(text, l.end)], '#') >= 0)
}

// cutKey removes the list at offset with its lines, and its table's header when
// nothing else is in the table and no comment behind the header.
func cutKey(text []byte, offset, table int) []byte {
	l, ok := scanList(text, offset)
	if !ok {
		return text
	}
	from, to := lineStart(text, offset), lineEnd(text, l.end)
	if table >= 0 && len(bytes.TrimSpace(text[lineEnd(text, table):from])) == 0 && startsTable(text[to:]) &&
		bytes.IndexByte(text[table:lineEnd(text, table)], '#') < 0 {
		from = lineStart(text, table)
		for from > 0 && lineStart(text, from-1) == from-1 { // the blank line before it
			from--
		}
	}
	return slices.Concat(text[:from], text[to:])
}

// startsTable reports whether text ends or goes on with another table, and
// nothing but blanks before.
func startsTable(text []byte) bool {
	text = bytes.TrimSpace(text)
	return len(text) == 0 || text[0] == '['
}

// A listSpan is where a list of strings lies in a text.
type listSpan struct {
	items    [][2]int // with their quotes
	end      int      // of the closing bracket
	comments bool     // there are some in it
}

// scanList finds the list that is the value of the key at offset.
func scanList(text []byte, offset int) (l listSpan, ok bool) {
	i := offset
	for i < len(text) && text[i] != '[' {
		if text[i] == '\n' {
			return l, false
		}
		i++
	}
	for i++; i < len(text); i++ {
		switch text[i] {
		case ']':
			l.end = i
			return l, true
		case '#':
			l.comments = true
			i = lineEnd(text, i) - 1
		case '"', '\'':
			n := stringEnd(text, i)
			if n < 0 {
				return l, false
			}
			l.items = append(l.items, [2]int{i, n})
			i = n - 1
		}
	}
	return l, false
}

// stringEnd is the end of the one-line string that begins at i; -1: there is
// none.
func stringEnd(text []byte, i int) int {
	quote := text[i]
	for j := i + 1; j < len(text) && text[j] != '\n'; j++ {
		switch {
		case text[j] == quote:
			return j + 1
		case text[j] == '\\' && quote == '"':
			j++
		}
	}
	return -1
}

// editList adds what is new in want behind the list's last item, and removes
// what is not in want any more.
func editList(text []byte, offset int, had, want []string) []byte {
	l, ok := scanList(text, offset)
	if !ok || len(l.items) != len(had) {
		return text
	}
	var added string
	for _, w := range want {
		if !slices.Contains(had, w) {
			added += ", " + strconv.Quote(w)
		}
	}
	if added != "" {
		if len(l.items) == 0 {
			return insert(text, l.end, strings.TrimPrefix(added, ", "))
		}
		last := l.items[len(l.items)-1]
		if start := lineStart(text, last[0]); len(bytes.TrimSpace(text[start:last[0]])) == 0 {
			// One item a line: the new one gets its own, too. The comma may be
			// there already.
			indent, rest := string(text[start:last[0]]), text[last[1]:l.end]
			comma := ","
			if c := bytes.TrimLeft(rest, " \t\r\n"); len(c) > 0 && c[0] == ',' {
				comma = ""
			}
			at := lineEnd(text, last[1])
			if at > l.end {
				return insert(text, last[1], added)
			}
			text = insert(text, at, indent+strings.TrimPrefix(added, ", ")+",\n")
			return insert(text, last[1], comma)
		}
		return insert(text, last[1], added)
	}
	for i := len(had) - 1; i >= 0; i-- {
		if !slices.Contains(want, had[i]) {
			text = cutItem(text, l.items[i])
		}
	}
	return text
}

// cutItem removes an item with its comma, and with its line when it has one
// for itself.
func cutItem(text []byte, item [2]int) []byte {
	from, to := item[0], item[1]
	start, end := lineStart(text, from), lineEnd(text, to)
	after := bytes.TrimLeft(text[to:end], " \t")
	hadComma := len(after) > 0 && after[0] == ','
	if hadComma {
		to = end - len(after) + 1
		after = bytes.TrimLeft(after[1:], " \t")
	}
	alone := len(after) == 0 || after[0] == '\n' || after[0] == '\r' || after[0] == '#'
	if alone && len(bytes.TrimSpace(text[start:from])) == 0 {
		return slices.Concat(text[:start], text[end:])
	}
	if hadComma {
		return slices.Concat(text[:from], bytes.TrimLeft(text[to:], " \t"))
	}
	// The last of a line: the comma before it goes.
	before := bytes.TrimRight(text[:from], " \t")
	before = bytes.TrimRight(bytes.TrimSuffix(before, []byte(",")), " \t")
	return slices.Concat(before, text[to:])
}
