package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tug/sys"
)

func diskApplets() []applet {
	return []applet{
		{"date", "[-u] [-d TIME] [-r FILE] [-I] [-R] [+FORMAT]", date},
		{"df", "[-h] [-a] [FILE...]", df},
		{"du", "[-s] [-h] [-a] [-c] [-d DEPTH] [-x] [FILE...]", du},
		{"mount", "[-t TYPE] [-o OPTIONS] [SOURCE DIRECTORY]", mount},
		{"umount", "[-l] DIRECTORY...", umount},
	}
}

// mounted is a line of /proc/self/mounts.
type mounted struct{ source, target, kind, options string }

func mounts() ([]mounted, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	var out []mounted
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 4 {
			out = append(out, mounted{sys.UnescapeMount(f[0]), sys.UnescapeMount(f[1]), f[2], f[3]})
		}
	}
	return out, err
}

func df(c *call) int {
	fs := c.flags()
	h, a := flag(fs, "h", "human-readable", "sizes as 1.5M"), flag(fs, "a", "all", "also file systems without blocks")
	_, t, i := flag(fs, "k", "kilobytes", "the default"), flag(fs, "T", "print-type", "with the type"), flag(fs, "i", "inodes", "inodes instead of blocks")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	all, err := mounts()
	if err != nil {
		c.fail(err)
		return 1
	}
	if len(rest) > 0 {
		all = mountsOf(c, rest, all)
	}
	size := func(n uint64) string {
		switch {
		case *i:
			return fmt.Sprint(n)
		case *h:
			return humanSize(int64(n))
		}
		return fmt.Sprint(n / 1024)
	}
	head := []string{"Filesystem", "1K-blocks", "Used", "Available", "Use%", "Mounted on"}
	if *h {
		head[1] = "Size"
	}
	if *i {
		head[1], head[2], head[3] = "Inodes", "IUsed", "IFree"
	}
	rows := [][]string{head}
	kinds := []string{"Type"}
	for _, m := range all {
		s, err := sys.SpaceOf(m.target)
		if err != nil {
			if len(rest) > 0 || !errors.Is(err, os.ErrPermission) && !errors.Is(err, os.ErrNotExist) {
				c.fail(err)
			}
			continue
		}
		total, free, avail := s.Total, s.Free, s.Available
		if *i {
			total, free, avail = s.Inodes, s.FreeInodes, s.FreeInodes
		}
		if total == 0 && !*a && len(rest) == 0 {
			continue
		}
		used := total - min(free, total)
		percent := "-"
		if used+avail > 0 {
			percent = fmt.Sprintf("%d%%", (used*100+used+avail-1)/(used+avail))
		}
		kinds = append(kinds, m.kind)
		rows = append(rows, []string{c.shown(m.source), size(total), size(used), size(avail), percent, c.shown(m.target)})
	}
	if *t {
		for k := range rows {
			rows[k] = append([]string{rows[k][0], kinds[k]}, rows[k][1:]...)
		}
	}
	if len(rows) == 1 {
		return c.code
	}
	last := len(rows[0]) - 1
	c.table(rows, func(k int) bool { return k >= last-4 && k < last })
	return c.code
}

// mountsOf returns the mounts that files lie in.
func mountsOf(c *call, files []string, all []mounted) []mounted {
	var out []mounted
	for _, name := range files {
		abs, err := filepath.Abs(name)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			c.fail(err)
			continue
		}
		var best *mounted
		for i, m := range all {
			under := abs == m.target || m.target == "/" || strings.HasPrefix(abs, m.target+"/")
			if under && (best == nil || len(m.target) >= len(best.target)) {
				best = &all[i]
			}
		}
		if best != nil {
			out = append(out, *best)
		}
	}
	return out
}

// measuring is one run of du.
type measuring struct {
	c                *call
	human, all, xdev bool
	depth            int
	apparent         bool
	unit             int64
	seen             map[inodeID]bool
}

func du(c *call) int {
	fs := c.flags()
	m := &measuring{c: c, seen: map[inodeID]bool{}, unit: 1024}
	s, total, d := flag(fs, "s", "summarize", "one line for each argument"), flag(fs, "c", "total", "the sum at the end"), fs.IntP("max-depth", "d", -1, "how deep lines go")
	fs.BoolVarP(&m.human, "human-readable", "h", false, "sizes as 1.5M")
	fs.BoolVarP(&m.all, "all", "a", false, "files too")
	fs.BoolVarP(&m.xdev, "one-file-system", "x", false, "stay on one file system")
	fs.BoolVar(&m.apparent, "apparent-size", false, "bytes of files, not of blocks")
	mega, bytes := flag(fs, "m", "megabytes", "in units of 1 MiB"), flag(fs, "b", "bytes", "bytes of files")
	_ = flag(fs, "k", "kilobytes", "in units of 1 KiB, the default")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	if m.depth = *d; *s {
		m.depth = 0
	}
	if *mega {
		m.unit = 1 << 20
	}
	if *bytes {
		m.unit, m.apparent = 1, true
	}
	if len(rest) == 0 {
		rest = []string{"."}
	}
	sum := int64(0)
	for _, name := range rest {
		fi, err := os.Lstat(name)
		if err != nil {
			c.fail(err)
			continue
		}
		sum += m.measure(name, fi, statOf(fi).Dev, 0)
	}
	if *total {
		m.line(sum, "total")
	}
	return c.code
}

func (m *measuring) line(n int64, name string) {
	text := fmt.Sprint((n + m.unit - 1) / m.unit)
	if m.human {
		text = humanSize(n)
	}
	m.c.printf("%s\t%s\n", text, m.c.shown(name))
}

func (m *measuring) measure(name string, fi os.FileInfo, dev uint64, depth int) int64 {
	st := statOf(fi)
	if m.xdev && st.Dev != dev {
		return 0
	}
	if st.Nlink > 1 && !fi.IsDir() {
		id := inodeID{st.Dev, st.Ino}
		if m.seen[id] {
			return 0
		}
		m.seen[id] = true
	}
	n := st.Blocks * 512
	if m.apparent {
		n = fi.Size()
	}
	if fi.IsDir() && depth < 4096 {
		entries, err := os.ReadDir(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.c.fail(err)
		}
		for _, e := range entries {
			p := filepath.Join(name, e.Name())
			if in, err := os.Lstat(p); err == nil {
				n += m.measure(p, in, dev, depth+1)
			}
		}
	}
	if (fi.IsDir() || m.all || depth == 0) && (m.depth < 0 || depth <= m.depth) {
		m.line(n, name)
	}
	return n
}

func mount(c *call) int {
	fs := c.flags()
	t, o := fs.StringP("types", "t", "", "the file system's type"), fs.StringArrayP("options", "o", nil, "options, with commas between")
	bind, ro := fs.Bool("bind", false, "show a directory at another place"), flag(fs, "r", "read-only", "not to be written to")
	rest, code, ok := c.parse(fs, 0, 2)
	if !ok {
		return code
	}
	if len(rest) < 2 && len(*o) == 0 {
		all, err := mounts()
		for _, m := range all {
			if (*t == "" || m.kind == *t) && (len(rest) == 0 || m.target == rest[0]) {
				c.printf("%s on %s type %s (%s)\n", c.shown(m.source), c.shown(m.target), m.kind, c.shown(m.options))
			}
		}
		if err != nil {
			c.fail(err)
		}
		return c.code
	}
	if len(rest) == 1 { // mount -o remount,ro /dir
		rest = []string{"none", rest[0]}
	}
	if len(rest) < 2 {
		return c.misuse(errors.New("too few arguments"))
	}
	flags, data := mountFlags(strings.Join(*o, ","))
	if *bind {
		flags |= syscall.MS_BIND
	}
	if *ro {
		flags |= syscall.MS_RDONLY
	}
	err := sys.Mount(rest[0], rest[1], *t, flags, data)
	if err == nil && flags&syscall.MS_BIND != 0 && flags&syscall.MS_RDONLY != 0 && flags&syscall.MS_REMOUNT == 0 {
		err = sys.Mount("", rest[1], "", flags|syscall.MS_REMOUNT, "")
	}
	if err != nil {
		c.fail(err)
	}
	return c.code
}

// mountFlags splits options into the kernel's flags and the file system's own.
func mountFlags(options string) (flags uintptr, data string) {
	known := map[string]uintptr{
		"ro": syscall.MS_RDONLY, "nosuid": syscall.MS_NOSUID, "nodev": syscall.MS_NODEV, "noexec": syscall.MS_NOEXEC, "remount": syscall.MS_REMOUNT,
		"noatime": syscall.MS_NOATIME, "bind": syscall.MS_BIND, "rbind": syscall.MS_BIND | syscall.MS_REC, "sync": syscall.MS_SYNCHRONOUS,
		"relatime": syscall.MS_RELATIME, "rw": 0, "defaults": 0, "private": syscall.MS_PRIVATE, "rprivate": syscall.MS_PRIVATE | syscall.MS_REC,
		"slave": syscall.MS_SLAVE, "shared": syscall.MS_SHARED,
	}
	var own []string
	for o := range strings.SplitSeq(options, ",") {
		if f, ok := known[o]; ok {
			flags |= f
		} else if o != "" {
			own = append(own, o)
		}
	}
	return flags, strings.Join(own, ",")
}

func umount(c *call) int {
	fs := c.flags()
	l := flag(fs, "l", "lazy", "also when it is busy")
	_ = flag(fs, "f", "force", "changes nothing")
	rest, code, ok := c.parse(fs, 1, -1)
	if !ok {
		return code
	}
	for _, name := range rest {
		if err := sys.UnmountNow(name, *l); err != nil {
			c.fail(err)
		}
	}
	return c.code
}

func stat(c *call) int {
	fs := c.flags()
	follow, format := flag(fs, "L", "dereference", "follow links"), fs.StringP("format", "c", "", "what to print, with %n, %s, %a ...")
	rest, code, ok := c.parse(fs, 1, -1)
	if !ok {
		return code
	}
	names := newNames()
	for _, name := range rest {
		look := os.Lstat
		if *follow {
			look = os.Stat
		}
		fi, err := look(name)
		if err != nil {
			c.fail(err)
			continue
		}
		f := *format
		if f == "" {
			f = "  File: %N\n  Size: %-10s Blocks: %-10b IO Block: %-6o %F\nDevice: %D  Inode: %-11i Links: %h\n" +
				"Access: (%04a/%A)  Uid: (%5u/%8U)   Gid: (%5g/%8G)\nAccess: %x\nModify: %y\nChange: %z"
		}
		c.printf("%s\n", c.statText(f, name, fi, names))
	}
	return c.code
}

// statText fills in a format; a number before the letter is a width.
func (c *call) statText(format, name string, fi os.FileInfo, names *names) string {
	st := statOf(fi)
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] == '\\' && i+1 < len(format) && strings.IndexByte("nt", format[i+1]) >= 0 {
			i++
			b.WriteByte(map[byte]byte{'n': '\n', 't': '\t'}[format[i]])
			continue
		}
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		from := i
		for i++; i < len(format)-1 && strings.IndexByte("-0123456789", format[i]) >= 0; i++ {
		}
		v := statValue(c, format[i], name, fi, st, names)
		if n, ok := v.(int64); ok && format[i] == 'a' {
			fmt.Fprintf(&b, format[from:i]+"o", n)
		} else {
			fmt.Fprintf(&b, format[from:i]+"v", v)
		}
	}
	return b.String()
}

func statValue(c *call, letter byte, name string, fi os.FileInfo, st *syscall.Stat_t, names *names) any {
	stamp := func(t syscall.Timespec) string {
		return time.Unix(t.Unix()).Format("2006-01-02 15:04:05.000000000 -0700")
	}
	switch letter {
	case 'n':
		return c.shown(name)
	case 'N':
		if to, err := os.Readlink(name); err == nil {
			return c.shown(name) + " -> " + c.shown(to)
		}
		return c.shown(name)
	case 's':
		return fi.Size()
	case 'b':
		return st.Blocks
	case 'o', 'B':
		return map[byte]int64{'o': int64(st.Blksize), 'B': 512}[letter]
	case 'a':
		return int64(unixMode(fi))
	case 'f':
		return strconv.FormatUint(uint64(st.Mode), 16)
	case 'A':
		return modeString(st.Mode)
	case 'F':
		return kindWord(st.Mode)
	case 'u':
		return st.Uid
	case 'g':
		return st.Gid
	case 'U':
		return names.user(st.Uid)
	case 'G':
		return names.group(st.Gid)
	case 'i':
		return st.Ino
	case 'h':
		return st.Nlink
	case 'd':
		return st.Dev
	case 'D':
		major, minor := sys.SplitDevice(st.Dev)
		return fmt.Sprintf("%d,%d", major, minor)
	case 't', 'T':
		major, minor := sys.SplitDevice(st.Rdev)
		return strconv.FormatUint(uint64(map[byte]uint32{'t': major, 'T': minor}[letter]), 16)
	case 'x':
		return stamp(st.Atim)
	case 'y':
		return stamp(st.Mtim)
	case 'z':
		return stamp(st.Ctim)
	case 'X':
		return st.Atim.Sec
	case 'Y':
		return st.Mtim.Sec
	case 'Z':
		return st.Ctim.Sec
	case '%':
		return "%"
	}
	return "?"
}

func kindWord(mode uint32) string {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return "directory"
	case syscall.S_IFLNK:
		return "symbolic link"
	case syscall.S_IFCHR:
		return "character special file"
	case syscall.S_IFBLK:
		return "block special file"
	case syscall.S_IFIFO:
		return "fifo"
	case syscall.S_IFSOCK:
		return "socket"
	}
	return "regular file"
}

func date(c *call) int {
	fs := c.flags()
	u, d, r := flag(fs, "u", "utc", "in UTC"), fs.StringP("date", "d", "", "another time than now"), fs.StringP("reference", "r", "", "the time of a file")
	iso, mail := fs.StringP("iso-8601", "I", "", "as 2006-01-02"), flag(fs, "R", "rfc-email", "as in mail")
	fs.Lookup("iso-8601").NoOptDefVal = "date"
	rest, code, ok := c.parse(fs, 0, 1)
	if !ok {
		return code
	}
	t := time.Now()
	var err error
	switch {
	case *d != "":
		t, err = parseTime(*d)
	case *r != "":
		var fi os.FileInfo
		if fi, err = os.Stat(*r); err == nil {
			t = fi.ModTime()
		}
	}
	if err == nil && len(rest) > 0 && !strings.HasPrefix(rest[0], "+") {
		err = errors.New("the clock is not set from here; a format begins with +")
	}
	if err != nil {
		c.fail(err)
		return 1
	}
	if *u {
		t = t.UTC()
	}
	switch {
	case len(rest) > 0:
		c.printf("%s\n", strftime(rest[0][1:], t))
	case *mail:
		c.printf("%s\n", t.Format(time.RFC1123Z))
	case *iso != "":
		layout := map[string]string{"date": "2006-01-02", "hours": "2006-01-02T15-07:00", "minutes": "2006-01-02T15:04-07:00", "seconds": "2006-01-02T15:04:05-07:00", "ns": "2006-01-02T15:04:05,000000000-07:00"}[*iso]
		c.printf("%s\n", t.Format(layout))
	default:
		c.printf("%s\n", t.Format("Mon Jan _2 15:04:05 MST 2006"))
	}
	return 0
}

// strftime is date's FORMAT.
func strftime(format string, t time.Time) string {
	layouts := map[byte]string{
		'Y': "2006", 'm': "01", 'd': "02", 'e': "_2", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'Z': "MST", 'z': "-0700",
		'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January", 'y': "06", 'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04",
		'D': "01/02/06", 'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05", 'N': "000000000",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		switch ch := format[i]; ch {
		case 's':
			fmt.Fprint(&b, t.Unix())
		case 'N':
			fmt.Fprintf(&b, "%09d", t.Nanosecond())
		case 'j':
			fmt.Fprintf(&b, "%03d", t.YearDay())
		case 'u':
			fmt.Fprint(&b, (int(t.Weekday())+6)%7+1)
		case 'w':
			fmt.Fprint(&b, int(t.Weekday()))
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case '%':
			b.WriteByte('%')
		default:
			if l, ok := layouts[ch]; ok {
				b.WriteString(t.Format(l))
			} else {
				b.WriteString(format[i-1 : i+1])
			}
		}
	}
	return b.String()
}
