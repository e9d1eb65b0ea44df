package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"tug/errs"
	"tug/layer"
	"tug/sys"
)

// Export writes what a container sees of its root file system as a tar: its
// layers with its own changes applied, without mounting anything, so it works
// for running and stopped containers and needs no supervisor. What is mounted
// into the container is not in it. A running container may write meanwhile:
// each file then is as it was at some moment.
//
// What the container has written is hostile. Its names are opened one by one,
// without following links, and asked what they are before they are read.
func (c *Containers) Export(ctx context.Context, name string, w io.Writer) error {
	s, err := c.Find(name)
	if err != nil {
		return err
	}
	m, err := c.layers.Tree(ctx, s.Layers)
	if err != nil {
		return fmt.Errorf("export container %s: %w", s.Name, err)
	}
	defer m.Close()
	upper, err := os.Open(c.UpperDir(s.ID))
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := os.Lstat(c.path(s.ID)); errors.Is(gone, fs.ErrNotExist) {
			return noSuch(name)
		}
		return errs.New(errs.Corrupt, "container %s: its writable layer is missing", s.Name).WithHint("see: tug system check")
	}
	if err != nil {
		return err
	}
	defer upper.Close()
	x := &export{ctx: ctx, m: m, w: tar.NewWriter(w), lower: map[any]string{}, upper: map[fileID]string{}}
	if err := x.dir("", m.Root, upper); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("export container %s: %w", s.Name, err)
	}
	if err := x.w.Close(); err != nil {
		return err
	}
	c.did(&s.Container, "export")
	return nil
}

// fileID identifies a file of the writable layer, for hard links.
type fileID struct{ dev, ino uint64 }

// export is one run of Export.
type export struct {
	ctx   context.Context
	m     *layer.Merged
	w     *tar.Writer
	lower map[any]string    // of files of layers with several names, the first
	upper map[fileID]string // of those of the writable layer
}

// Limits on what a container can make its export cost. Docker's and tug's own
// readers take no more either.
const (
	maxExportPath  = 16 << 10
	maxExportDepth = 4 << 10
	maxExportAttrs = 256 << 10
)

// dir writes all that is in a directory. low, of the layers, and up, of the
// writable layer, may be nil.
func (x *export) dir(path string, low *layer.Node, up *os.File) error {
	if err := x.ctx.Err(); err != nil {
		return err
	}
	if len(path) > maxExportPath || strings.Count(path, "/") > maxExportDepth {
		return errs.New(errs.Unsupported, "the path %.40s... is too long or too deep", path)
	}
	var names []string
	if up != nil {
		var err error
		if names, err = up.Readdirnames(-1); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		slices.Sort(names)
	}
	var lower []*layer.Node
	if low != nil {
		lower = low.Children
	}
	for len(names) > 0 || len(lower) > 0 {
		var err error
		if len(names) == 0 || len(lower) > 0 && lower[0].Name < names[0] {
			err = x.fromLayer(join(path, lower[0].Name), lower[0])
			lower = lower[1:]
		} else {
			var under *layer.Node
			if len(lower) > 0 && lower[0].Name == names[0] {
				under, lower = lower[0], lower[1:]
			}
			err = x.fromUpper(path, names[0], under, up)
			names = names[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// fromLayer writes a file of the layers with all that is in it.
func (x *export) fromLayer(path string, n *layer.Node) error {
	f := n.File(path)
	h := headerOf(path, f)
	if n.Links() > 1 && !n.IsDir() {
		if first, ok := x.lower[n.Same()]; ok {
			return x.w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: path, Linkname: first, ModTime: f.Mtime, Format: tar.FormatPAX})
		}
		x.lower[n.Same()] = path
	}
	if err := x.w.WriteHeader(h); err != nil {
		return err
	}
	switch {
	case n.IsDir():
		return x.dir(path, n, nil)
	case f.IsRegular():
		_, err := io.Copy(x.w, &untilDone{x.ctx, x.m.Open(n)})
		return err
	}
	return nil
}

// fromUpper writes a file of the writable layer, or nothing for a whiteout.
func (x *export) fromUpper(dir, name string, low *layer.Node, up *os.File) error {
	f, err := sys.OpenPathAt(up, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed just now
	}
	if err != nil {
		return err
	}
	defer f.Close()
	at, st, err := lookAt(f)
	if err != nil {
		return err
	}
	path, kind := join(dir, name), st.Mode&syscall.S_IFMT
	if kind == syscall.S_IFCHR && st.Rdev == 0 || kind == syscall.S_IFSOCK {
		return nil // a whiteout; and a tar cannot hold a socket
	}
	if kind == syscall.S_IFDIR {
		if low != nil && (!low.IsDir() || at.Opaque) {
			low = nil
		}
	} else if st.Nlink > 1 {
		id := fileID{st.Dev, st.Ino}
		if first, ok := x.upper[id]; ok {
			return x.w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: path, Linkname: first, ModTime: at.Mtime, Format: tar.FormatPAX})
		}
		x.upper[id] = path
	}
	h := headerOf(path, at)
	if kind == syscall.S_IFREG {
		return writeFile(x.ctx, x.w, h, f)
	}
	if err := x.w.WriteHeader(h); err != nil || kind != syscall.S_IFDIR {
		return err
	}
	d, err := sys.Reopen(f)
	if err != nil {
		return err
	}
	defer d.Close()
	return x.dir(path, low, d)
}

// writeFile writes a file of the writable layer with the size that it had just
// now: what a writer adds meanwhile is left out, what is cut off is zeros. One
// without bytes is not opened: those of /proc seem to be so.
func writeFile(ctx context.Context, w *tar.Writer, h *tar.Header, place *os.File) error {
	if h.Size == 0 {
		return w.WriteHeader(h)
	}
	r, err := sys.Reopen(place)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.CopyN(w, io.MultiReader(&untilDone{ctx, r}, &untilDone{ctx, zeros{}}), h.Size)
	return err
}

// untilDone is a reader that ends with its context.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// headerOf makes the member of a file, with its extended attributes.
func headerOf(path string, f *layer.File) *tar.Header {
	h := &tar.Header{
		Name: path, Mode: int64(f.Mode & 0o7777), Uid: int(f.UID), Gid: int(f.GID), ModTime: f.Mtime, Format: tar.FormatPAX,
		Linkname: f.Target, Devmajor: int64(f.Major), Devminor: int64(f.Minor),
	}
	switch f.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
	case syscall.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case syscall.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case syscall.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	case syscall.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		h.Typeflag, h.Size = tar.TypeReg, f.Size
	}
	addXattrs(h, f.Xattrs)
	return h
}

// addXattrs adds extended attributes, without those that are overlayfs's or
// this host's. A name that no pax record can have is left out, and so is what
// goes beyond all that a layer may hold.
func addXattrs(h *tar.Header, attrs map[string]string) {
	total := 0
	for _, name := range sortedNames(attrs) {
		if ownAttr(name) {
			continue
		}
		if total += len(name) + len(attrs[name]); total > maxExportAttrs {
			return
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = attrs[name]
	}
}

func sortedNames(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
