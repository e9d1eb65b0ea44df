package box

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"tug/sys"
)

// listing is one run of ls.
type listing struct {
	c                                    *call
	long, all, almost, dir, recursive    bool
	one, human, byTime, bySize, reverse  bool
	inode, numeric, classify, noSort, fb bool
	names                                *names
	headings                             bool // of directories
	width                                int
	now                                  time.Time
}

// listed is one line.
type listed struct {
	name string
	fi   os.FileInfo
	st   *syscall.Stat_t
	link string
}

func ls(c *call) int {
	fs := c.flags()
	l := &listing{c: c, names: newNames(), now: time.Now()}
	for _, f := range []struct {
		to                 *bool
		letter, long, what string
	}{
		{&l.long, "l", "long", "modes, owners, sizes and times"},
		{&l.all, "a", "all", "also names that begin with a dot"},
		{&l.almost, "A", "almost-all", "the same without . and .."},
		{&l.dir, "d", "directory", "directories themselves, not what is in them"},
		{&l.recursive, "R", "recursive", "directories with all in them"},
		{&l.one, "1", "one", "one name on a line"},
		{&l.human, "h", "human-readable", "sizes as 1.5M"},
		{&l.byTime, "t", "time", "newest first"},
		{&l.bySize, "S", "size", "largest first"},
		{&l.reverse, "r", "reverse", "the other way round"},
		{&l.inode, "i", "inode", "inode numbers"},
		{&l.numeric, "n", "numeric", "long, with numbers of users and groups"},
		{&l.classify, "F", "classify", "a mark behind names: / directory, * program, @ link"},
		{&l.fb, "p", "slash", "a slash behind directories"},
		{&l.noSort, "U", "unsorted", "in the order of the directory"},
	} {
		fs.BoolVarP(f.to, f.long, f.letter, false, f.what)
	}
	fs.String("color", "", "nothing is coloured")
	fs.Lookup("color").NoOptDefVal = "auto"
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	l.long = l.long || l.numeric
	if c.live {
		l.width, _, _ = term.GetSize(1)
	}
	if len(rest) == 0 {
		rest = []string{"."}
	}
	l.run(rest)
	return c.code
}

func (l *listing) run(args []string) {
	var files, dirs []listed
	for _, name := range args {
		e, err := l.look(name, name)
		if err == nil && e.link != "" && !l.long && !l.dir {
			if fi, serr := os.Stat(name); serr == nil && fi.IsDir() {
				e.fi = fi
			}
		}
		switch {
		case err != nil:
			l.c.fail(err)
		case e.fi.IsDir() && !l.dir:
			dirs = append(dirs, e)
		default:
			files = append(files, e)
		}
	}
	l.headings = len(args) > 1 || l.recursive
	l.sort(files)
	l.print(files, false)
	l.sort(dirs)
	for i, d := range dirs {
		if i > 0 || len(files) > 0 {
			l.c.printf("\n")
		}
		l.directory(d.name)
	}
}

func (l *listing) look(path, name string) (listed, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return listed{}, err
	}
	e := listed{name: name, fi: fi}
	e.st, _ = fi.Sys().(*syscall.Stat_t)
	if fi.Mode()&os.ModeSymlink != 0 {
		e.link, _ = os.Readlink(path)
	}
	return e, nil
}

func (l *listing) directory(dir string) {
	if l.headings {
		l.c.printf("%s:\n", l.c.shown(dir))
	}
	f, err := os.Open(dir)
	if err != nil {
		l.c.fail(err)
		return
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		l.c.fail(err)
	}
	if l.all {
		names = append([]string{".", ".."}, names...)
	}
	var list []listed
	for _, n := range names {
		if strings.HasPrefix(n, ".") && !l.all && !l.almost {
			continue
		}
		e, err := l.look(dir+"/"+n, n)
		if err != nil {
			l.c.fail(err)
			continue
		}
		list = append(list, e)
	}
	l.sort(list)
	l.print(list, true)
	if !l.recursive {
		return
	}
	for _, e := range list {
		if e.fi.IsDir() && e.name != "." && e.name != ".." {
			l.c.printf("\n")
			l.directory(filepath.Join(dir, e.name))
		}
	}
}

func (l *listing) sort(list []listed) {
	if l.noSort {
		return
	}
	slices.SortStableFunc(list, func(a, b listed) int {
		order := 0
		switch {
		case l.byTime:
			order = b.fi.ModTime().Compare(a.fi.ModTime())
		case l.bySize:
			order = cmp.Compare(b.fi.Size(), a.fi.Size())
		}
		order = cmp.Or(order, cmp.Compare(a.name, b.name))
		if l.reverse {
			order = -order
		}
		return order
	})
}

func (l *listing) print(list []listed, inDir bool) {
	if l.long {
		l.printLong(list, inDir)
		return
	}
	var words []string
	widest := 0
	for _, e := range list {
		w := l.c.shown(e.name) + l.mark(e)
		if l.inode && e.st != nil {
			w = fmt.Sprintf("%d %s", e.st.Ino, w)
		}
		words = append(words, w)
		widest = max(widest, utf8.RuneCountInString(w))
	}
	columns := 1
	if l.width > 0 && !l.one {
		columns = max(1, (l.width+2)/(widest+2))
	}
	rows := (len(words) + columns - 1) / columns
	for r := range rows {
		line := ""
		for i := r; i < len(words); i += rows {
			line += words[i]
			if i+rows < len(words) {
				line += strings.Repeat(" ", widest+2-utf8.RuneCountInString(words[i]))
			}
		}
		l.c.printf("%s\n", line)
	}
}

func (l *listing) mark(e listed) string {
	m := e.fi.Mode()
	switch {
	case m.IsDir() && (l.classify || l.fb):
		return "/"
	case !l.classify:
	case m&os.ModeSymlink != 0:
		return "@"
	case m&os.ModeNamedPipe != 0:
		return "|"
	case m&os.ModeSocket != 0:
		return "="
	case m.IsRegular() && m&0o111 != 0:
		return "*"
	}
	return ""
}

func (l *listing) printLong(list []listed, inDir bool) {
	rows := make([][]string, len(list))
	blocks := int64(0)
	for i, e := range list {
		rows[i] = l.fields(e)
		if e.st != nil {
			blocks += e.st.Blocks
		}
	}
	if inDir {
		l.c.printf("total %s\n", l.size(blocks*512, blocks/2))
	}
	widths := make([]int, 6)
	for _, r := range rows {
		for i := range widths {
			widths[i] = max(widths[i], len(r[i]))
		}
	}
	for i, r := range rows {
		if l.inode && list[i].st != nil {
			l.c.printf("%8d ", list[i].st.Ino)
		}
		l.c.printf("%s %*s %-*s %-*s %*s %s %s\n", r[0], widths[1], r[1], widths[2], r[2], widths[3], r[3], widths[4], r[4], r[5], r[6])
	}
}

func (l *listing) size(bytes, plain int64) string {
	if l.human {
		return humanSize(bytes)
	}
	return fmt.Sprint(plain)
}

// fields are mode, links, owner, group, size, time and name.
func (l *listing) fields(e listed) []string {
	st := e.st
	if st == nil {
		st = &syscall.Stat_t{}
	}
	name := l.c.shown(e.name) + l.mark(e)
	if e.link != "" {
		name = l.c.shown(e.name) + " -> " + l.c.shown(e.link)
	}
	owner, group := l.names.user(st.Uid), l.names.group(st.Gid)
	if l.numeric {
		owner, group = fmt.Sprint(st.Uid), fmt.Sprint(st.Gid)
	}
	size := l.size(e.fi.Size(), e.fi.Size())
	if e.fi.Mode()&os.ModeDevice != 0 {
		major, minor := sys.SplitDevice(st.Rdev)
		size = fmt.Sprintf("%d, %d", major, minor)
	}
	t := e.fi.ModTime()
	layout := "Jan _2 15:04"
	if age := l.now.Sub(t); age > 180*24*time.Hour || age < -time.Hour {
		layout = "Jan _2  2006"
	}
	return []string{modeString(st.Mode), fmt.Sprint(st.Nlink), owner, group, size, t.Format(layout), name}
}

// humanSize is a size in powers of 1024, as ls -h and du -h have it.
func humanSize(n int64) string {
	if n < 1024 {
		return fmt.Sprint(n)
	}
	f, unit := float64(n), -1
	for f >= 1024 && unit < 5 {
		f, unit = f/1024, unit+1
	}
	if f < 10 {
		return fmt.Sprintf("%.1f%c", f, "KMGTPE"[unit])
	}
	return fmt.Sprintf("%.0f%c", f, "KMGTPE"[unit])
}
