package box

import (
	"archive/tar"
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tug/sys"
)

// archiving is one run of tar.
type archiving struct {
	c                       *call
	verbose, gzip, toStdout bool
	keepOwner               bool
	file                    string
	strip                   int
	exclude                 []string
	members                 []string
	links                   map[string]bool      // symbolic links that were made from the archive
	dirs                    map[string]time.Time // whose times are set last
	seen                    map[inodeID]string
}

type inodeID struct{ dev, ino uint64 }

func tarFiles(c *call) int {
	// The first word may be flags without a dash.
	if len(c.args) > 0 && !strings.HasPrefix(c.args[0], "-") {
		c.args = bundled(c.args)
	}
	fs := c.flags()
	x := &archiving{c: c, links: map[string]bool{}, dirs: map[string]time.Time{}, seen: map[inodeID]string{}}
	create, extract, list := flag(fs, "c", "create", "make an archive"), flag(fs, "x", "extract", "take files out"), flag(fs, "t", "list", "list what is in it")
	fs.StringVarP(&x.file, "file", "f", "-", "the archive; - is the input or output")
	fs.BoolVarP(&x.gzip, "gzip", "z", false, "compress; to take out it is found by itself")
	fs.BoolVarP(&x.verbose, "verbose", "v", false, "list what is done")
	fs.BoolVarP(&x.toStdout, "to-stdout", "O", false, "write files' content to the output")
	dir := fs.StringP("directory", "C", "", "change there first")
	_, _ = flag(fs, "p", "preserve-permissions", "always so for root"), flag(fs, "j", "bzip2", "found by itself")
	noOwner := flag(fs, "o", "no-same-owner", "files are yours")
	fs.IntVar(&x.strip, "strip-components", 0, "take so many directories off the names")
	fs.StringArrayVar(&x.exclude, "exclude", nil, "leave out what fits the pattern")
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	x.members, x.keepOwner = rest, !*noOwner && os.Geteuid() == 0
	var err error
	archive := x.file
	if archive != "-" {
		archive, _ = filepath.Abs(archive)
	}
	if *dir != "" {
		err = os.Chdir(*dir)
	}
	switch {
	case err != nil:
	case *create && !*extract && !*list:
		err = x.create(archive)
	case *extract != *list && !*create:
		err = x.read(archive, *extract)
	default:
		return c.misuse(errors.New("give one of c, x and t"))
	}
	if err != nil {
		c.fail(err)
	}
	return c.code
}

// bundled rewrites "xzf FILE" as "-x -z -f FILE".
func bundled(args []string) []string {
	var out []string
	rest := args[1:]
	for _, l := range args[0] {
		out = append(out, "-"+string(l))
		if strings.ContainsRune("fC", l) && len(rest) > 0 {
			out, rest = append(out, rest[0]), rest[1:]
		}
	}
	return append(out, rest...)
}

func (x *archiving) create(archive string) (err error) {
	if len(x.members) == 0 {
		return errors.New("an archive of nothing is not made; name some files")
	}
	var out io.Writer = x.c.out
	var own os.FileInfo
	if archive != "-" {
		f, err := os.Create(archive)
		if err != nil {
			return err
		}
		defer func() {
			if cerr := f.Close(); err == nil {
				err = cerr
			}
		}()
		own, _ = f.Stat()
		out = f
	}
	if x.gzip {
		z := gzip.NewWriter(out)
		defer func() {
			if cerr := z.Close(); err == nil {
				err = cerr
			}
		}()
		out = z
	}
	w := tar.NewWriter(out)
	for _, name := range x.members {
		werr := filepath.WalkDir(name, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				x.c.fail(err)
				return nil
			}
			if x.left(p) {
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
			return x.add(w, p, own)
		})
		if werr != nil {
			return werr
		}
	}
	return w.Close()
}

// left reports whether a name is excluded.
func (x *archiving) left(name string) bool {
	for _, p := range x.exclude {
		whole, _ := path.Match(p, strings.TrimPrefix(name, "./"))
		if base, _ := path.Match(p, path.Base(name)); whole || base {
			return true
		}
	}
	return false
}

// add writes one file; own is the archive itself.
func (x *archiving) add(w *tar.Writer, name string, own os.FileInfo) error {
	fi, err := os.Lstat(name)
	if err != nil || own != nil && os.SameFile(fi, own) || fi.Mode()&os.ModeSocket != 0 {
		return nil // gone meanwhile, or nothing that a tar can hold
	}
	link := ""
	if fi.Mode()&os.ModeSymlink != 0 {
		if link, err = os.Readlink(name); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return err
	}
	st := statOf(fi)
	h.Name = strings.TrimLeft(name, "/")
	if h.Name == "" {
		h.Name = "."
	}
	if fi.IsDir() && !strings.HasSuffix(h.Name, "/") {
		h.Name += "/"
	}
	h.Format, h.AccessTime, h.ChangeTime = tar.FormatPAX, time.Time{}, time.Time{}
	h.ModTime = fi.ModTime().Truncate(time.Second)
	id := inodeID{uint64(st.Dev), st.Ino}
	if first, ok := x.seen[id]; ok && !fi.IsDir() && st.Nlink > 1 {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
	} else if st.Nlink > 1 {
		x.seen[id] = h.Name
	}
	var f *os.File
	if h.Typeflag == tar.TypeReg {
		if f, err = os.Open(name); err != nil {
			x.c.fail(err) // the others can be
			delete(x.seen, id)
			return nil
		}
		defer f.Close()
	}
	if x.verbose {
		fmt.Fprintln(x.c.err, printable(h.Name))
	}
	if err := w.WriteHeader(h); err != nil || f == nil {
		return err
	}
	_, err = io.CopyN(w, f, h.Size)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s got shorter while it was read", name)
	}
	return err
}

// decompressed finds out by the first bytes whether r is compressed.
func decompressed(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, _ := b.Peek(3)
	switch {
	case len(head) >= 2 && head[0] == 0x1f && head[1] == 0x8b:
		return gzip.NewReader(b)
	case string(head) == "BZh":
		return bzip2.NewReader(b), nil
	}
	return b, nil
}

func (x *archiving) read(archive string, extract bool) error {
	in := x.c.in
	if archive != "-" {
		f, err := os.Open(archive)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	in, err := decompressed(in)
	if err != nil {
		return fmt.Errorf("%s: %w", x.file, err)
	}
	r := tar.NewReader(in)
	wanted := map[string]bool{}
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", x.file, err)
		}
		if !x.asked(h.Name, wanted) || x.left(strings.TrimSuffix(h.Name, "/")) {
			continue
		}
		switch {
		case !extract:
			x.list(h)
		case x.toStdout:
			_, err = io.Copy(x.c.out, r)
		default:
			err = x.extract(h, r)
		}
		if err != nil {
			x.c.failf("%s: %s", h.Name, why(err))
		}
	}
	for dir, at := range x.dirs {
		_ = os.Chtimes(dir, at, at)
	}
	for _, m := range x.members {
		if !wanted[m] {
			x.c.failf("%s: not found in the archive", m)
		}
	}
	return nil
}

// asked reports whether a member is one of those named, or in one.
func (x *archiving) asked(name string, wanted map[string]bool) bool {
	if len(x.members) == 0 {
		return true
	}
	name = path.Clean(name)
	for _, m := range x.members {
		c := path.Clean(strings.TrimLeft(m, "/"))
		if name == c || strings.HasPrefix(name, c+"/") {
			wanted[m] = true
			return true
		}
	}
	return false
}

func (x *archiving) list(h *tar.Header) {
	if !x.verbose {
		x.c.printf("%s\n", x.c.shown(h.Name))
		return
	}
	user, group := h.Uname, h.Gname
	if user == "" {
		user, group = fmt.Sprint(h.Uid), fmt.Sprint(h.Gid)
	}
	name := x.c.shown(h.Name)
	switch h.Typeflag {
	case tar.TypeSymlink:
		name += " -> " + x.c.shown(h.Linkname)
	case tar.TypeLink:
		name += " link to " + x.c.shown(h.Linkname)
	}
	mode := modeString(uint32(h.Mode)&0o7777 | tarKind(h.Typeflag))
	x.c.printf("%s %s/%s %8d %s %s\n", mode, printable(user), printable(group), h.Size, h.ModTime.Format("2006-01-02 15:04"), name)
}

func tarKind(flag byte) uint32 {
	switch flag {
	case tar.TypeDir:
		return syscall.S_IFDIR
	case tar.TypeSymlink:
		return syscall.S_IFLNK
	case tar.TypeChar:
		return syscall.S_IFCHR
	case tar.TypeBlock:
		return syscall.S_IFBLK
	case tar.TypeFifo:
		return syscall.S_IFIFO
	}
	return syscall.S_IFREG
}

// place is where a member goes, below the working directory: an archive may not
// leave it, by its names or through links of its own.
func (x *archiving) place(name string) (string, error) {
	name = path.Clean("/" + name)[1:]
	for range x.strip {
		_, rest, ok := strings.Cut(name, "/")
		if !ok {
			return "", nil
		}
		name = rest
	}
	if name == "" {
		return ".", nil
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if x.links[dir] {
			return "", errors.New("refused: it lies behind a link of the archive")
		}
	}
	return name, nil
}

func (x *archiving) extract(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := x.place(h.Name)
	if err != nil || name == "" {
		return err
	}
	if x.verbose {
		fmt.Fprintln(x.c.err, printable(h.Name))
	}
	if h.Typeflag == tar.TypeDir {
		if x.links[name] {
			return errors.New("refused: it is a link of the archive")
		}
		err := os.MkdirAll(name, 0o777)
		if err == nil {
			x.dirs[name] = h.ModTime
			err = x.attributes(name, h)
		}
		return err
	}
	if err := os.MkdirAll(path.Dir(name), 0o777); err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(x.links, name)
	delete(x.dirs, name)
	mode := uint32(h.Mode) & 0o777
	switch h.Typeflag {
	case tar.TypeReg, '\x00':
		err = writeNew(name, r, os.FileMode(mode))
	case tar.TypeSymlink:
		x.links[name] = true
		if err = os.Symlink(h.Linkname, name); err == nil && x.keepOwner {
			err = os.Lchown(name, h.Uid, h.Gid)
		}
		return err
	case tar.TypeLink:
		old, perr := x.place(h.Linkname)
		if perr != nil {
			return perr
		}
		if x.links[old] { // linkat(2) does not follow it: this is a link like it
			x.links[name] = true
		}
		return os.Link(old, name)
	case tar.TypeFifo:
		err = syscall.Mkfifo(name, mode)
	case tar.TypeChar, tar.TypeBlock:
		kind := byte('b')
		if h.Typeflag == tar.TypeChar {
			kind = 'c'
		}
		err = sys.Mknod(name, kind, uint32(h.Devmajor), uint32(h.Devminor), mode)
	default:
		return fmt.Errorf("a member of kind %q is left out", h.Typeflag)
	}
	if err != nil {
		return err
	}
	return x.attributes(name, h)
}

func writeNew(name string, r io.Reader, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func (x *archiving) attributes(name string, h *tar.Header) error {
	if x.keepOwner {
		if err := os.Lchown(name, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if err := os.Chmod(name, goMode(uint32(h.Mode)&0o7777)); err != nil {
		return err
	}
	return os.Chtimes(name, h.ModTime, h.ModTime)
}

// gzipFiles is gzip, gunzip and zcat.
func gzipFiles(c *call) int {
	fs := c.flags()
	toOut, un := flag(fs, "c", "stdout", "write to the output, keep the file"), flag(fs, "d", "decompress", "decompress")
	force, keep := flag(fs, "f", "force", "replace what is there"), flag(fs, "k", "keep", "keep the file")
	level := gzip.DefaultCompression
	for n := 1; n <= 9; n++ {
		fs.BoolP(fmt.Sprintf("level-%d", n), fmt.Sprint(n), false, "compress fast (1) or well (9)")
	}
	rest, code, ok := c.parse(fs, 0, -1)
	if !ok {
		return code
	}
	for n := 1; n <= 9; n++ {
		if fs.Changed(fmt.Sprintf("level-%d", n)) {
			level = n
		}
	}
	g := &gzipping{c: c, un: *un || c.name != "gzip", toOut: *toOut || c.name == "zcat", force: *force, keep: *keep, level: level}
	if len(rest) == 0 {
		rest = []string{"-"}
	}
	for _, name := range rest {
		if err := g.file(name); err != nil {
			c.fail(err)
		}
	}
	return c.code
}

type gzipping struct {
	c                      *call
	un, toOut, force, keep bool
	level                  int
}

func (g *gzipping) file(name string) error {
	if name == "-" {
		return g.convert(g.c.out, g.c.in, name)
	}
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	if g.toOut {
		return g.convert(g.c.out, in, name)
	}
	to := name + ".gz"
	if g.un {
		var ok bool
		if to, ok = strings.CutSuffix(name, ".gz"); !ok {
			if to, ok = strings.CutSuffix(name, ".tgz"); !ok {
				return fmt.Errorf("%s: unknown suffix", name)
			}
			to += ".tar"
		}
	}
	if g.force {
		_ = os.Remove(to)
	}
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fi.Mode().Perm())
	if err != nil {
		return err
	}
	err = g.convert(out, in, name)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(to)
		return err
	}
	_ = os.Chtimes(to, fi.ModTime(), fi.ModTime())
	if !g.keep {
		return os.Remove(name)
	}
	return nil
}

func (g *gzipping) convert(out io.Writer, in io.Reader, name string) error {
	if g.un {
		z, err := gzip.NewReader(in)
		if err == nil {
			_, err = io.Copy(out, z)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	z, err := gzip.NewWriterLevel(out, g.level)
	if err != nil {
		return err
	}
	if _, err = io.Copy(z, in); err != nil {
		return err
	}
	return z.Close()
}
