package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// visit is one file that find looks at.
type visit struct {
	path  string
	fi    os.FileInfo
	depth int
	prune bool
}

// test is one part of find's expression.
type test func(v *visit) bool

// finding is one run of find.
type finding struct {
	c                  *call
	args               []string
	minDepth, maxDepth int
	xdev, follow, acts bool // acts: something else than printing is asked for
	depth              bool // what is in a directory before it
	batches            []*batch
	code               int
}

// batch collects the names of -exec ... {} +.
type batch struct {
	command []string
	names   []string
}

// maxBatch is how many names one command gets.
const maxBatch = 1000

func findFiles(c *call) int {
	f := &finding{c: c, args: c.args, maxDepth: 1 << 30}
	var paths []string
	for len(f.args) > 0 && !strings.HasPrefix(f.args[0], "-") && f.args[0] != "(" && f.args[0] != "!" {
		paths, f.args = append(paths, f.args[0]), f.args[1:]
	}
	if len(paths) == 0 {
		paths = []string{"."}
	}
	if len(f.args) > 0 && f.args[0] == "--help" {
		c.help(c.flags())
		return 0
	}
	t, err := f.or()
	if err == nil && len(f.args) > 0 {
		err = fmt.Errorf("unexpected %s", f.args[0])
	}
	if err != nil {
		return c.misuse(err)
	}
	if !f.acts {
		inner := t
		t = func(v *visit) bool { return inner(v) && f.print(v, "\n") }
	}
	for _, p := range paths {
		f.walk(p, t)
	}
	for _, b := range f.batches {
		f.flush(b)
	}
	return max(c.code, f.code)
}

func (f *finding) walk(top string, t test) {
	fi, err := os.Lstat(top)
	if err != nil {
		f.c.fail(err)
		return
	}
	var dev uint64
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		dev = uint64(st.Dev)
	}
	f.visit(&visit{path: top, fi: fi}, dev, t)
}

func (f *finding) visit(v *visit, dev uint64, t test) {
	if f.follow && v.fi.Mode()&os.ModeSymlink != 0 {
		if fi, err := os.Stat(v.path); err == nil {
			v.fi = fi
		}
	}
	if !f.depth && v.depth >= f.minDepth {
		t(v)
	}
	if st, ok := v.fi.Sys().(*syscall.Stat_t); v.fi.IsDir() && !v.prune && v.depth < f.maxDepth && !(f.xdev && ok && uint64(st.Dev) != dev) && v.depth < 4096 {
		entries, err := os.ReadDir(v.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.c.fail(err)
		}
		for _, e := range entries {
			p := v.path + "/" + e.Name()
			if strings.HasSuffix(v.path, "/") {
				p = v.path + e.Name()
			}
			fi, err := os.Lstat(p)
			if err != nil {
				if !errors.Is(err, fs.ErrNotExist) {
					f.c.fail(err)
				}
				continue
			}
			f.visit(&visit{path: p, fi: fi, depth: v.depth + 1}, dev, t)
		}
	}
	if f.depth && v.depth >= f.minDepth {
		t(v)
	}
}

func (f *finding) print(v *visit, end string) bool {
	name := v.path
	if end == "\n" {
		name = f.c.shown(name)
	}
	f.c.printf("%s%s", name, end)
	return true
}

// or parses EXPR -o EXPR; and, EXPR EXPR.
func (f *finding) or() (test, error) {
	t, err := f.and()
	for err == nil && len(f.args) > 0 && (f.args[0] == "-o" || f.args[0] == "-or") {
		f.args = f.args[1:]
		var u test
		if u, err = f.and(); err == nil {
			left := t
			t = func(v *visit) bool { return left(v) || u(v) }
		}
	}
	return t, err
}

func (f *finding) and() (test, error) {
	t := test(func(*visit) bool { return true })
	for len(f.args) > 0 && f.args[0] != "-o" && f.args[0] != "-or" && f.args[0] != ")" {
		if f.args[0] == "-a" || f.args[0] == "-and" {
			f.args = f.args[1:]
			continue
		}
		u, err := f.not()
		if err != nil {
			return nil, err
		}
		left := t
		t = func(v *visit) bool { return left(v) && u(v) }
	}
	return t, nil
}

func (f *finding) not() (test, error) {
	if len(f.args) == 0 {
		return nil, errors.New("the expression ends too early")
	}
	switch f.args[0] {
	case "!", "-not":
		f.args = f.args[1:]
		t, err := f.not()
		return func(v *visit) bool { return !t(v) }, err
	case "(":
		f.args = f.args[1:]
		t, err := f.or()
		if err == nil && (len(f.args) == 0 || f.args[0] != ")") {
			err = errors.New("a ) is missing")
		}
		if err != nil {
			return nil, err
		}
		f.args = f.args[1:]
		return t, nil
	}
	word := f.args[0]
	f.args = f.args[1:]
	if t, ok := f.plain(word); ok {
		return t, nil
	}
	if word == "-exec" || word == "-ok" {
		return f.exec(word == "-ok")
	}
	if len(f.args) == 0 {
		return nil, fmt.Errorf("unknown or incomplete: %s", word)
	}
	value := f.args[0]
	f.args = f.args[1:]
	return f.withValue(word, value)
}

// plain are the tests and actions without a value.
func (f *finding) plain(word string) (test, bool) {
	yes := func(*visit) bool { return true }
	switch word {
	case "-print":
		f.acts = true
		return func(v *visit) bool { return f.print(v, "\n") }, true
	case "-print0":
		f.acts = true
		return func(v *visit) bool { return f.print(v, "\x00") }, true
	case "-ls":
		f.acts = true
		return func(v *visit) bool {
			l := &listing{c: f.c, long: true, names: newNames(), now: time.Now()}
			if e, err := l.look(v.path, v.path); err == nil {
				l.print([]listed{e}, false)
			}
			return true
		}, true
	case "-delete":
		f.acts, f.depth = true, true
		return func(v *visit) bool {
			if v.path == "." {
				return true // what is meant is all in it
			}
			err := os.Remove(v.path)
			if err != nil {
				f.c.fail(err)
			}
			return err == nil
		}, true
	case "-prune":
		return func(v *visit) bool { v.prune = true; return true }, true
	case "-depth":
		f.depth = true
		return yes, true
	case "-xdev", "-mount":
		f.xdev = true
		return yes, true
	case "-follow", "-L":
		f.follow = true
		return yes, true
	case "-empty":
		return func(v *visit) bool {
			if v.fi.IsDir() {
				entries, err := os.ReadDir(v.path)
				return err == nil && len(entries) == 0
			}
			return v.fi.Mode().IsRegular() && v.fi.Size() == 0
		}, true
	case "-true":
		return yes, true
	case "-false":
		return func(*visit) bool { return false }, true
	case "-executable":
		return func(v *visit) bool { return v.fi.Mode()&0o111 != 0 }, true
	}
	return nil, false
}

// withValue are the tests with one.
func (f *finding) withValue(word, value string) (test, error) {
	switch word {
	case "-name", "-iname", "-path", "-ipath", "-wholename":
		return globTest(word, value)
	case "-maxdepth", "-mindepth":
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s %s: no number", word, value)
		}
		if word == "-maxdepth" {
			f.maxDepth = n
		} else {
			f.minDepth = n
		}
		return func(*visit) bool { return true }, nil
	case "-type":
		return typeTest(value)
	case "-size":
		return sizeTest(value)
	case "-mtime", "-mmin":
		unit := 24 * time.Hour
		if word == "-mmin" {
			unit = time.Minute
		}
		now := time.Now()
		return numberTest(value, func(v *visit) int64 { return int64(now.Sub(v.fi.ModTime()) / unit) })
	case "-links":
		return numberTest(value, func(v *visit) int64 { return int64(statOf(v.fi).Nlink) })
	case "-inum":
		return numberTest(value, func(v *visit) int64 { return int64(statOf(v.fi).Ino) })
	case "-newer":
		fi, err := os.Stat(value)
		if err != nil {
			return nil, errors.New(why(err))
		}
		return func(v *visit) bool { return v.fi.ModTime().After(fi.ModTime()) }, nil
	case "-user", "-group":
		return ownerTest(word, value)
	case "-perm":
		return permTest(value)
	}
	return nil, fmt.Errorf("unknown test %s", word)
}

func statOf(fi os.FileInfo) *syscall.Stat_t {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st
	}
	return &syscall.Stat_t{}
}

func globTest(word, pattern string) (test, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("%s %s: %w", word, pattern, err)
	}
	fold := word[1] == 'i'
	if fold {
		pattern = strings.ToLower(pattern)
	}
	whole := strings.HasSuffix(word, "path") || word == "-wholename"
	return func(v *visit) bool {
		s := filepath.Base(v.path)
		p := pattern
		if whole {
			// A * matches slashes here.
			s, p = strings.ReplaceAll(v.path, "/", "\x01"), strings.ReplaceAll(pattern, "/", "\x01")
		}
		if fold {
			s = strings.ToLower(s)
		}
		ok, _ := path.Match(p, s)
		return ok
	}, nil
}

func typeTest(letters string) (test, error) {
	var kinds []uint32
	for l := range strings.SplitSeq(letters, ",") {
		kind := map[string]uint32{
			"f": syscall.S_IFREG, "d": syscall.S_IFDIR, "l": syscall.S_IFLNK, "c": syscall.S_IFCHR, "b": syscall.S_IFBLK, "p": syscall.S_IFIFO, "s": syscall.S_IFSOCK,
		}[l]
		if kind == 0 {
			return nil, fmt.Errorf("-type %s: want f, d, l, c, b, p or s", letters)
		}
		kinds = append(kinds, kind)
	}
	return func(v *visit) bool {
		for _, k := range kinds {
			if statOf(v.fi).Mode&syscall.S_IFMT == k {
				return true
			}
		}
		return false
	}, nil
}

// numberTest compares with N, +N (more) or -N (less).
func numberTest(value string, get func(*visit) int64) (test, error) {
	n, err := strconv.ParseInt(strings.TrimLeft(value, "+-"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%s is no number", value)
	}
	return func(v *visit) bool {
		got := get(v)
		switch value[0] {
		case '+':
			return got > n
		case '-':
			return got < n
		}
		return got == n
	}, nil
}

// sizeTest compares sizes, rounded up to the unit: c, k, M, G, or 512 bytes.
func sizeTest(value string) (test, error) {
	unit := int64(512)
	if value != "" {
		if u, ok := map[byte]int64{'c': 1, 'b': 512, 'k': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}[value[len(value)-1]]; ok {
			unit, value = u, value[:len(value)-1]
		}
	}
	return numberTest(value, func(v *visit) int64 { return (v.fi.Size() + unit - 1) / unit })
}

func ownerTest(word, name string) (test, error) {
	if word == "-group" {
		name = ":" + name
	}
	uid, gid, err := owner(name)
	return func(v *visit) bool {
		st := statOf(v.fi)
		return (uid < 0 || int(st.Uid) == uid) && (gid < 0 || int(st.Gid) == gid)
	}, err
}

// permTest is MODE, -MODE (all of these bits) or /MODE (any).
func permTest(value string) (test, error) {
	mark := value[:min(1, len(value))]
	want, err := newMode(0, strings.TrimLeft(value, "-/"), false, 0)
	return func(v *visit) bool {
		m := unixMode(v.fi)
		switch mark {
		case "-":
			return m&want == want
		case "/":
			return m&want != 0
		}
		return m == want
	}, err
}

// exec is -exec COMMAND ... ; or +.
func (f *finding) exec(asking bool) (test, error) {
	f.acts = true
	for i, a := range f.args {
		switch {
		case a == ";" && i > 0:
			command := f.args[:i]
			f.args = f.args[i+1:]
			return func(v *visit) bool {
				words := make([]string, len(command))
				for j, w := range command {
					words[j] = strings.ReplaceAll(w, "{}", v.path)
				}
				if asking && !ask(f.c, strings.Join(words, " ")+"?") {
					return false
				}
				return f.c.command(words, os.Environ(), strings.NewReader("")) == 0
			}, nil
		case a == "+" && i > 1 && f.args[i-1] == "{}":
			b := &batch{command: f.args[:i-1]}
			f.args = f.args[i+1:]
			f.batches = append(f.batches, b)
			return func(v *visit) bool {
				if b.names = append(b.names, v.path); len(b.names) == maxBatch {
					f.flush(b)
				}
				return true
			}, nil
		}
	}
	return nil, errors.New("-exec has no ; or {} + at its end")
}

func (f *finding) flush(b *batch) {
	if len(b.names) == 0 {
		return
	}
	words := append(append([]string{}, b.command...), b.names...)
	b.names = nil
	if f.c.command(words, os.Environ(), strings.NewReader("")) != 0 {
		f.code = 1
	}
}
