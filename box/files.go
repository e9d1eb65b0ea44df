package box

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func fileApplets() []applet {
	return []applet{
		{"basename", "NAME [SUFFIX]", basename},
		{"chmod", "[-R] [-v] MODE FILE...", chmod},
		{"chown", "[-R] [-h] [-v] USER[:GROUP] FILE...", chown},
		{"chgrp", "[-R] [-h] [-v] GROUP FILE...", chown},
		{"cp", "[-r] [-a] [-p] [-L] [-f] [-n] [-u] [-v] SOURCE... TARGET", cp},
		{"dirname", "NAME...", dirname},
		{"find", "[PATH...] [-name PATTERN] [-type f|d|l] [-exec COMMAND {} ;] ...", findFiles},
		{"gunzip", "[-c] [-f] [-k] [FILE...]", gzipFiles},
		{"gzip", "[-c] [-d] [-f] [-k] [-1..9] [FILE...]", gzipFiles},
		{"ln", "[-s] [-f] [-n] [-v] TARGET... [LINK]", ln},
		{"ls", "[-l] [-a] [-R] [-1] ... [FILE...]", ls},
		{"mkdir", "[-p] [-m MODE] [-v] DIRECTORY...", mkdir},
		{"mkfifo", "NAME...", mkfifo},
		{"mktemp", "[-d] [TEMPLATE]", mktemp},
		{"mv", "[-f] [-n] [-v] SOURCE... TARGET", mv},
		{"readlink", "[-f] [-n] FILE...", readlink},
		{"realpath", "FILE...", readlink},
		{"rm", "[-r] [-f] [-v] FILE...", rm},
		{"rmdir", "[-p] DIRECTORY...", rmdir},
		{"stat", "[-L] [-c FORMAT] FILE...", stat},
		{"tar", "c|x|t[z][v][p][O]f ARCHIVE [-C DIR] [--strip-components N] [--exclude PATTERN] [FILE...]", tarFiles},
		{"touch", "[-c] [-d TIME] [-r FILE] FILE...", touch},
		{"zcat", "[FILE...]", gzipFiles},
	}
}

func basename(c *call) int {
	rest, code, ok := c.parse(c.flags(), 1, 2)
	if !ok {
		return code
	}
	name := filepath.Base(rest[0])
	if len(rest) == 2 && name != rest[1] {
		name = strings.TrimSuffix(name, rest[1])
	}
	c.printf("%s\n", name)
	return 0
}

func dirname(c *call) int {
	rest, code, ok := c.parse(c.flags(), 1, -1)
	for _, n := range rest {
		c.printf("%s\n", filepath.Dir(strings.TrimRight(n, "/")+strings.Repeat("/", max(0, 1-len(strings.TrimRight(n, "/"))))))
	}
	if !ok {
		return code
	}
	return 0
}

// targets splits arguments into sources and where they go: into a directory
// under their own names, or to one name.
func targets(rest []string, noDir bool) (pairs [][2]string, err error) {
	to := rest[len(rest)-1]
	sources := rest[:len(rest)-1]
	fi, err := os.Stat(to)
	if err == nil && fi.IsDir() && !noDir {
		for _, s := range sources {
			pairs = append(pairs, [2]string{s, filepath.Join(to, filepath.Base(s))})
		}
		return pairs, nil
	}
	if len(sources) > 1 {
		return nil, fmt.Errorf("%s is no directory", to)
	}
	return [][2]string{{sources[0], to}}, nil
}

// copier copies files.
type copier struct {
	c                                                 *call
	recursive, preserve, follow, keep, newer, verbose bool
	force                                             bool
}

func cp(c *call) int {
	fs := c.flags()
	r, r2 := flag(fs, "r", "recursive", "copy directories with all in them"), flag(fs, "R", "Recursive", "the same")
	a, p := flag(fs, "a", "archive", "copy all as it is: -r and -p, links as links"), flag(fs, "p", "preserve", "keep mode, owner and times")
	l, f := flag(fs, "L", "dereference", "follow links"), flag(fs, "f", "force", "remove a target that cannot be opened")
	d, t := flag(fs, "d", "no-dereference", "copy links as links"), flag(fs, "T", "no-target-directory", "the target is the name")
	n, u, v := flag(fs, "n", "no-clobber", "keep what is there"), flag(fs, "u", "update", "copy what is newer"), flag(fs, "v", "verbose", "say what is done")
	rest, code, ok := c.parse(fs, 2, -1)
	if !ok {
		return code
	}
	x := &copier{c: c, recursive: *r || *r2 || *a, preserve: *p || *a, keep: *n, newer: *u, verbose: *v, force: *f}
	x.follow = *l || !x.recursive && !*d
	pairs, err := targets(rest, *t)
	if err != nil {
		c.fail(err)
		return 1
	}
	for _, s := range pairs {
		x.copy(s[0], s[1])
	}
	return c.code
}

// copy copies from to to, reporting errors.
func (x *copier) copy(from, to string) {
	fi, err := os.Lstat(from)
	if err == nil && x.follow {
		fi, err = os.Stat(from)
	}
	if err != nil {
		x.c.fail(err)
		return
	}
	old, oldErr := os.Lstat(to)
	same := oldErr == nil && os.SameFile(old, fi)
	if end, err := os.Stat(to); err == nil && os.SameFile(end, fi) {
		same = true // a link to it: writing there would empty it first
	}
	switch {
	case fi.IsDir() && !x.recursive:
		x.c.failf("%s is a directory; copy it with -r", from)
		return
	case same:
		x.c.failf("%s and %s are the same file", from, to)
		return
	case oldErr == nil && !old.IsDir() && (x.keep || x.newer && !fi.ModTime().After(old.ModTime())):
		return
	}
	if x.verbose {
		x.c.printf("%s -> %s\n", x.c.shown(from), x.c.shown(to))
	}
	if fi.IsDir() {
		x.directory(from, to, fi)
		return
	}
	if err := x.file(from, to, fi); err != nil {
		x.c.fail(err)
	} else if x.preserve {
		x.attributes(to, fi)
	}
}

func (x *copier) directory(from, to string, fi fs.FileInfo) {
	if rel, err := filepath.Rel(from, to); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		x.c.failf("%s cannot be copied into itself, %s", from, to)
		return
	}
	err := os.Mkdir(to, 0o700|fi.Mode().Perm())
	if err != nil && !errors.Is(err, fs.ErrExist) {
		x.c.fail(err)
		return
	}
	entries, rerr := os.ReadDir(from)
	for _, e := range entries {
		x.copy(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
	}
	if rerr != nil {
		x.c.fail(rerr)
	}
	if err == nil {
		if err := os.Chmod(to, fi.Mode()&^fs.ModeType); err != nil {
			x.c.fail(err)
		}
	}
	if x.preserve {
		x.attributes(to, fi)
	}
}

// file copies what is no directory.
func (x *copier) file(from, to string, fi fs.FileInfo) error {
	st, _ := fi.Sys().(*syscall.Stat_t)
	switch kind := fi.Mode().Type(); {
	case kind&fs.ModeSymlink != 0:
		link, err := os.Readlink(from)
		if err != nil {
			return err
		}
		_ = os.Remove(to)
		return os.Symlink(link, to)
	case x.recursive && kind&(fs.ModeDevice|fs.ModeNamedPipe) != 0 && st != nil:
		_ = os.Remove(to)
		return makeNode(to, fi, st)
	case x.recursive && kind&fs.ModeSocket != 0:
		return fmt.Errorf("%s: a socket cannot be copied", from)
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fi.Mode().Perm())
	if err != nil && x.force && os.Remove(to) == nil {
		out, err = os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fi.Mode().Perm())
	}
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}

// attributes copies owner, mode and times, as far as that is allowed.
func (x *copier) attributes(to string, fi fs.FileInfo) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return
	}
	mode := fi.Mode() &^ fs.ModeType
	switch err := os.Lchown(to, int(st.Uid), int(st.Gid)); {
	case errors.Is(err, fs.ErrPermission):
		mode &^= fs.ModeSetuid | fs.ModeSetgid // these would be the copying one's rights
	case err != nil:
		x.c.fail(err)
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		return
	}
	err := os.Chmod(to, mode)
	if err == nil {
		err = os.Chtimes(to, time.Unix(st.Atim.Unix()), fi.ModTime())
	}
	if err != nil {
		x.c.fail(err)
	}
}

func mv(c *call) int {
	fs := c.flags()
	f := flag(fs, "f", "force", "do not ask (the default)")
	n, v, t := flag(fs, "n", "no-clobber", "keep what is there"), flag(fs, "v", "verbose", "say what is done"), flag(fs, "T", "no-target-directory", "the target is the name")
	rest, code, ok := c.parse(fs, 2, -1)
	if !ok {
		return code
	}
	pairs, err := targets(rest, *t)
	if err != nil {
		c.fail(err)
		return 1
	}
	for _, s := range pairs {
		if _, err := os.Lstat(s[1]); err == nil && *n && !*f {
			continue
		}
		err := os.Rename(s[0], s[1])
		if errors.Is(err, syscall.EXDEV) {
			x := &copier{c: c, recursive: true, preserve: true, force: true}
			before := c.code
			c.code = 0
			if x.copy(s[0], s[1]); c.code == 0 {
				err = os.RemoveAll(s[0])
			} else {
				err = nil // it was reported
			}
			c.code = max(c.code, before)
		}
		if err != nil {
			c.fail(err)
		} else if *v {
			c.printf("%s -> %s\n", c.shown(s[0]), c.shown(s[1]))
		}
	}
	return c.code
}

func rm(c *call) int {
	fs := c.flags()
	r, r2 := flag(fs, "r", "recursive", "remove directories with all in them"), flag(fs, "R", "Recursive", "the same")
	f, v, d := flag(fs, "f", "force", "nothing there is no error"), flag(fs, "v", "verbose", "say what is done"), flag(fs, "d", "dir", "remove empty directories")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	if len(rest) == 0 && !*f {
		return c.misuse(errors.New("too few arguments"))
	}
	for _, name := range rest {
		fi, err := os.Lstat(name)
		base := filepath.Base(filepath.Clean(name))
		switch {
		case errors.Is(err, os.ErrNotExist) && *f:
			continue
		case err != nil:
		case base == "." || base == ".." || base == "/":
			err = fmt.Errorf("%s: this directory is not removed", name)
		case fi.IsDir() && (*r || *r2):
			err = os.RemoveAll(name)
		case fi.IsDir() && !*d:
			err = fmt.Errorf("%s is a directory; remove it with -r", name)
		default:
			err = os.Remove(name)
		}
		if err != nil {
			c.fail(err)
		} else if *v {
			c.printf("removed %s\n", c.shown(name))
		}
	}
	return c.code
}

func mkdir(c *call) int {
	fs := c.flags()
	p, v := flag(fs, "p", "parents", "make the directories above, and do not mind what is there"), flag(fs, "v", "verbose", "say what is done")
	m := fs.StringP("mode", "m", "", "permissions")
	rest, code, ok := c.parse(fs, 1, -1)
	if !ok {
		return code
	}
	for _, name := range rest {
		err := error(nil)
		if *p {
			err = os.MkdirAll(name, 0o777)
		} else {
			err = os.Mkdir(name, 0o777)
		}
		if err == nil && *m != "" {
			err = changeMode(name, *m, false)
		}
		if err != nil {
			c.fail(err)
		} else if *v {
			c.printf("made %s\n", c.shown(name))
		}
	}
	return c.code
}

func rmdir(c *call) int {
	fs := c.flags()
	p := flag(fs, "p", "parents", "remove the directories above as well")
	rest, code, ok := c.parse(fs, 1, -1)
	if !ok {
		return code
	}
	for _, name := range rest {
		for {
			if err := syscall.Rmdir(name); err != nil {
				c.fail(&os.PathError{Op: "rmdir", Path: name, Err: err})
				break
			}
			if name = filepath.Dir(filepath.Clean(name)); !*p || name == "." || name == "/" {
				break
			}
		}
	}
	return c.code
}

func mkfifo(c *call) int {
	rest, code, ok := c.parse(c.flags(), 1, -1)
	if !ok {
		return code
	}
	for _, name := range rest {
		if err := syscall.Mkfifo(name, 0o666); err != nil {
			c.fail(&os.PathError{Op: "mkfifo", Path: name, Err: err})
		}
	}
	return c.code
}

func mktemp(c *call) int {
	fs := c.flags()
	d := flag(fs, "d", "directory", "make a directory")
	rest, code, ok := c.parse(fs, 0, 1)
	if !ok {
		return code
	}
	dir, pattern := os.TempDir(), "tmp.*"
	if len(rest) > 0 {
		dir, pattern = filepath.Split(rest[0])
		trimmed := strings.TrimRight(pattern, "X")
		if len(pattern)-len(trimmed) < 3 {
			c.failf("%s: the template must end in XXX or more", rest[0])
			return 1
		}
		if pattern = trimmed + "*"; dir == "" {
			dir = "."
		}
	}
	if *d {
		name, err := os.MkdirTemp(dir, pattern)
		if err != nil {
			c.fail(err)
			return 1
		}
		c.printf("%s\n", name)
		return 0
	}
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		c.fail(err)
		return 1
	}
	c.printf("%s\n", f.Name())
	f.Close()
	return 0
}

func ln(c *call) int {
	fs := c.flags()
	s, f := flag(fs, "s", "symbolic", "make symbolic links"), flag(fs, "f", "force", "replace what is there")
	n, v := flag(fs, "n", "no-dereference", "a link to a directory is no directory"), flag(fs, "v", "verbose", "say what is done")
	rest, code, ok := c.parse(fs, 1, -1)
	if !ok {
		return code
	}
	if len(rest) == 1 {
		rest = append(rest, ".")
	}
	noDir := false
	if fi, err := os.Lstat(rest[len(rest)-1]); err == nil && *n && fi.Mode()&os.ModeSymlink != 0 {
		noDir = true
	}
	pairs, err := targets(rest, noDir)
	if err != nil {
		c.fail(err)
		return 1
	}
	for _, p := range pairs {
		if *f {
			if fi, err := os.Lstat(p[1]); err == nil && !fi.IsDir() {
				_ = os.Remove(p[1])
			}
		}
		if *s {
			err = os.Symlink(p[0], p[1])
		} else {
			err = os.Link(p[0], p[1])
		}
		if err != nil {
			c.fail(err)
		} else if *v {
			c.printf("%s -> %s\n", c.shown(p[1]), c.shown(p[0]))
		}
	}
	return c.code
}

func readlink(c *call) int {
	fs := c.flags()
	f, n := flag(fs, "f", "canonicalize", "follow all links"), flag(fs, "n", "no-newline", "no newline at the end")
	rest, code, ok := c.parse(fs, 1, -1)
	if !ok {
		return code
	}
	for _, name := range rest {
		var to string
		var err error
		if *f || c.name == "realpath" {
			if to, err = filepath.Abs(name); err == nil {
				to, err = resolve(to)
			}
		} else {
			to, err = os.Readlink(name)
		}
		if err != nil {
			if c.name == "realpath" {
				c.fail(err)
			}
			c.code = 1
			continue
		}
		c.printf("%s", c.shown(to))
		if !*n {
			c.printf("\n")
		}
	}
	return c.code
}

// resolve follows links; the last name need not exist.
func resolve(name string) (string, error) {
	to, err := filepath.EvalSymlinks(name)
	for links := 0; errors.Is(err, os.ErrNotExist) && links < 40; links++ {
		link, lerr := os.Readlink(name)
		if lerr != nil {
			break
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(name), link)
		}
		name = link
	}
	if errors.Is(err, os.ErrNotExist) {
		dir, derr := filepath.EvalSymlinks(filepath.Dir(name))
		if derr == nil {
			return filepath.Join(dir, filepath.Base(name)), nil
		}
	}
	return to, err
}

func touch(c *call) int {
	fs := c.flags()
	noCreate := flag(fs, "c", "no-create", "make no files")
	_, _ = flag(fs, "a", "atime", "set both times all the same"), flag(fs, "m", "mtime", "set both times all the same")
	d, r := fs.StringP("date", "d", "", "the time to set"), fs.StringP("reference", "r", "", "take the time of this file")
	rest, code, ok := c.parse(fs, 1, -1)
	if !ok {
		return code
	}
	at := time.Now()
	if *d != "" {
		var err error
		if at, err = parseTime(*d); err != nil {
			return c.misuse(err)
		}
	}
	if *r != "" {
		fi, err := os.Stat(*r)
		if err != nil {
			c.fail(err)
			return 1
		}
		at = fi.ModTime()
	}
	for _, name := range rest {
		err := os.Chtimes(name, at, at)
		if errors.Is(err, os.ErrNotExist) {
			if *noCreate {
				continue
			}
			var f *os.File
			if f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666); err == nil {
				f.Close()
				err = os.Chtimes(name, at, at)
			}
		}
		if err != nil {
			c.fail(err)
		}
	}
	return c.code
}

// parseTime reads what people write as a time.
func parseTime(s string) (time.Time, error) {
	if n, ok := strings.CutPrefix(s, "@"); ok {
		sec, err := strconv.ParseFloat(n, 64)
		if err == nil {
			return time.Unix(0, int64(sec*1e9)), nil
		}
	}
	if s == "now" {
		return time.Now(), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02 15:04:05.999999999 -0700", "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04",
		"2006-01-02T15:04", "2006-01-02", "15:04:05", "15:04", time.RFC1123Z, time.UnixDate,
	} {
		t, err := time.ParseInLocation(layout, s, time.Local)
		if err != nil {
			continue
		}
		if t.Year() == 0 {
			y, m, d := time.Now().Date()
			t = time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, time.Local)
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is no time", s)
}

// ask reads yes or no from the terminal.
func ask(c *call, question string) bool {
	fmt.Fprintf(c.err, "%s: %s ", c.name, printable(question))
	line, _ := bufio.NewReader(c.in).ReadString('\n')
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "y")
}
