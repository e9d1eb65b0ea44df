package container

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"tug/errs"
	"tug/layer"
	"tug/sys"
)

// maxPieces bounds what sparse files may cost: what comes after so many pieces
// is taken as one.
const maxPieces = 1 << 20

// changeWriter makes a layer of a container's writable layer: its files, and
// whiteouts for what overlayfs marks as deleted. What the container has written
// is hostile and may be changing; see Export.
type changeWriter struct {
	ctx     context.Context
	w       *layer.TarWriter
	first   map[fileID]string // of files with several names, the name that was written
	pending []*pendingDir     // directories on the way here that are not written yet
	placed  bool              // something in /etc was made for a mount
	pieces  int
}

// pendingDir is a directory that is written when something in it is.
type pendingDir struct {
	file   *layer.File
	opaque bool
}

// writeChanges writes what upper changes of m as a layer's tar.
func writeChanges(ctx context.Context, to io.Writer, m *layer.Merged, upper *os.File) error {
	c := &changeWriter{ctx: ctx, w: layer.NewTarWriter(to), first: map[fileID]string{}, pieces: maxPieces}
	f, st, err := lookAt(upper)
	if err == nil {
		err = c.root(f, st, m.Root, upper)
	}
	if err != nil {
		return err
	}
	return c.w.Close()
}

// root is the root directory, which is written when it is not as in the image.
func (c *changeWriter) root(f *layer.File, st *syscall.Stat_t, low *layer.Node, upper *os.File) error {
	was := low.File("")
	if st.Mode != was.Mode || st.Uid != was.UID || st.Gid != was.GID || !sameAttrs(f.Xattrs, was.Xattrs) {
		if err := c.w.Write(f, nil, nil); err != nil {
			return err
		}
	}
	return c.dir("", low, upper)
}

// lookAt describes a file that was opened as a place, or a directory.
func lookAt(f *os.File) (*layer.File, *syscall.Stat_t, error) {
	st, err := statOf(f)
	if err != nil {
		return nil, nil, err
	}
	attrs, err := sys.XattrsOf(f)
	if err != nil {
		return nil, nil, err
	}
	out := &layer.File{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Mtime: time.Unix(st.Mtim.Unix()), Xattrs: map[string]string{}}
	for name, value := range attrs {
		if !ownAttr(name) {
			out.Xattrs[name] = value
		}
	}
	out.Opaque = attrs["trusted.overlay.opaque"] == "y"
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFLNK:
		out.Target, err = sys.Readlink(f)
	case syscall.S_IFCHR, syscall.S_IFBLK:
		out.Major, out.Minor = sys.SplitDevice(st.Rdev)
	}
	return out, st, err
}

// statOf is fstat(2) of f.
func statOf(f *os.File) (*syscall.Stat_t, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, errors.New("stat: unknown kind of result")
	}
	return st, nil
}

// ownAttr tells the attributes that are overlayfs's or this host's, and those
// with a name that no tar can hold.
func ownAttr(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") || name == "security.selinux" || strings.Contains(name, "=")
}

func sameAttrs(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name, v := range a {
		if w, ok := b[name]; !ok || v != w {
			return false
		}
	}
	return true
}

// dir writes what is in a directory of the writable layer; low is the layers'
// directory of that path, or nil.
func (c *changeWriter) dir(path string, low *layer.Node, up *os.File) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if len(path) > maxExportPath || strings.Count(path, "/") > maxExportDepth {
		return errs.New(errs.Unsupported, "the path %.40s... is too long or too deep", path)
	}
	names, err := namesIn(up)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, layer.WhiteoutPrefix) {
			return errs.New(errs.Unsupported, "/%.200s: no layer can hold a file whose name begins with %s", join(path, name), layer.WhiteoutPrefix).
				WithHint("such a name marks a deleted file; rename it or remove it")
		}
		if err := c.entry(join(path, name), name, child(low, name), up); err != nil {
			return err
		}
	}
	return nil
}

// flush writes the directories on the way.
func (c *changeWriter) flush() error {
	for _, d := range c.pending {
		if d.file == nil {
			continue
		}
		if err := c.w.Write(d.file, nil, nil); err != nil {
			return err
		}
		if d.opaque {
			if err := c.w.Opaque(d.file.Path); err != nil {
				return err
			}
		}
		d.file = nil
	}
	return nil
}

func (c *changeWriter) entry(path, name string, low *layer.Node, up *os.File) error {
	place, err := sys.OpenPathAt(up, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed just now
	}
	if err != nil {
		return err
	}
	defer place.Close()
	f, st, err := lookAt(place)
	if err != nil {
		return err
	}
	f.Path = path
	kind := st.Mode & syscall.S_IFMT
	switch {
	case kind == syscall.S_IFDIR:
		return c.directory(f, low, place)
	case kind == syscall.S_IFSOCK:
		return nil // a tar cannot hold a socket
	case kind == syscall.S_IFCHR && st.Rdev == 0:
		if low == nil {
			return nil
		}
		if err = c.flush(); err == nil {
			err = c.w.Whiteout(path)
		}
		return err
	case low == nil && kind == syscall.S_IFREG && st.Size == 0 && isPlace(path):
		c.placed = true
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	if st.Nlink > 1 {
		id := fileID{st.Dev, st.Ino}
		if first, ok := c.first[id]; ok {
			return c.w.Link(path, first)
		}
		c.first[id] = path
	}
	if kind == syscall.S_IFREG {
		return c.file(f, place)
	}
	return c.w.Write(f, nil, nil)
}

// directory writes a directory and what is in it. One that overlayfs copied up
// to hold something, or was made to hold a mount, is written only if there is
// something in it that is.
func (c *changeWriter) directory(f *layer.File, low *layer.Node, place *os.File) error {
	dir, err := sys.Reopen(place)
	if err != nil {
		return err
	}
	defer dir.Close()
	same, later := low == nil && isPlace(f.Path), false
	if low != nil {
		was := low.File(f.Path)
		same = low.IsDir() && was.Mode == f.Mode && was.UID == f.UID && was.GID == f.GID && !f.Opaque && sameAttrs(f.Xattrs, was.Xattrs)
		later = was.Mtime.Unix() != f.Mtime.Unix()
	}
	if low != nil && !low.IsDir() {
		low = nil
	}
	d := &pendingDir{file: f, opaque: f.Opaque && low != nil}
	if f.Opaque {
		low = nil
	}
	c.pending = append(c.pending, d)
	err = c.dir(f.Path, low, dir)
	if err == nil && d.file != nil && (!same || later && !(f.Path == "etc" && c.placed)) {
		err = c.flush()
	}
	c.pending = c.pending[:len(c.pending)-1]
	return err
}

// file writes a regular file with the size that it had just now; see
// export.file. Its holes stay holes.
func (c *changeWriter) file(f *layer.File, place *os.File) error {
	r, err := sys.Reopen(place)
	if err != nil {
		return err
	}
	defer r.Close()
	return c.w.Write(f, c.holes(r, f.Size), &paddedReader{c.ctx, r})
}

// Whence values of lseek(2).
const (
	seekData = 3
	seekHole = 4
)

// holes returns the pieces of a sparse file, or nil for one without holes.
func (c *changeWriter) holes(r *os.File, size int64) []layer.Piece {
	if end, err := r.Seek(0, seekHole); err != nil || end >= size {
		return nil
	}
	pieces := []layer.Piece{}
	for at := int64(0); at < size; {
		from, err := r.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) || err == nil && from >= size {
			break // a hole up to the end
		}
		to := size
		if c.pieces--; err != nil || from < at {
			from = at
		} else if c.pieces > 0 {
			if end, err := r.Seek(from, seekHole); err == nil && end > from {
				to = min(end, size)
			}
		}
		pieces = append(pieces, layer.Piece{Off: from, Len: to - from})
		at = to
	}
	return pieces
}

// paddedReader reads zeros where the file has become shorter, and ends with its
// context.
type paddedReader struct {
	ctx context.Context
	f   *os.File
}

func (p *paddedReader) ReadAt(b []byte, off int64) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.f.ReadAt(b, off)
	if err != nil && err != io.EOF {
		return n, err
	}
	clear(b[n:])
	return len(b), nil
}

// child is what a directory of the layers, which may be none, has by a name.
func child(low *layer.Node, name string) *layer.Node {
	if low == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(low.Children, name, func(n *layer.Node, name string) int { return cmp.Compare(n.Name, name) })
	if !ok {
		return nil
	}
	return low.Children[i]
}
