package layer

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"tug/errs"
	"tug/sys"
)

// dirBackend extracts layers into directories. It works on every kernel with
// overlayfs, at the price of one file on disk for each in the layer.
type dirBackend struct{}

func (dirBackend) name() string { return "dir" }
func (dirBackend) file() string { return dirFS }

func (dirBackend) prepare(ctx context.Context, p *prepared) error {
	parent, err := os.Open(p.dir)
	if err != nil {
		return err
	}
	defer parent.Close()
	x := &extraction{ctx: ctx, tar: p.tar, buf: make([]byte, 256<<10), first: make(map[*inode]linkedFrom)}
	defer x.close()
	if err := x.directory(parent, dirFS, p.tree.root); err != nil {
		return err
	}
	// One sync for all files instead of one for each.
	return sys.SyncFS(parent)
}

func (dirBackend) mount(dir string, _ Info) (*os.File, error) {
	m, err := sys.CloneTree(nil, filepath.Join(dir, dirFS), false)
	if err != nil {
		return nil, err
	}
	err = sys.MakePrivate(m)
	if err == nil {
		err = sys.SetMountAttr(m, "", sys.AttrReadOnly, 0, false)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// extraction makes the tree's files below a directory that it has made itself,
// one name at a time, relative to open directories, without following links.
// Nothing that an archive says becomes a path.
type extraction struct {
	ctx   context.Context
	tar   io.ReaderAt
	buf   []byte
	first map[*inode]linkedFrom // of inodes with several names, the first one made
}

// linkedFrom is a name that hard links are made from. The directory stays open
// until all names of its inodes are there.
type linkedFrom struct {
	dir  *os.File
	name string
	left uint32 // names yet to come
}

func (x *extraction) close() {
	for _, l := range x.first {
		l.dir.Close()
	}
}

// directory makes one directory with all in it. Its own attributes come last:
// making entries changes its time, and its mode may forbid making them.
func (x *extraction) directory(parent *os.File, name string, d *inode) error {
	if err := x.ctx.Err(); err != nil {
		return err
	}
	f, err := sys.MkdirAt(parent, name)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, c := range d.dir.sorted {
		if c.ino.isDir() {
			err = x.directory(f, c.name, c.ino)
		} else {
			err = x.entry(f, c.name, c.ino)
		}
		if err != nil {
			return err
		}
	}
	return x.finishOpen(f, d)
}

func (x *extraction) entry(dir *os.File, name string, i *inode) error {
	whiteout := i.kind() == kindChar && i.rdev == 0
	if i.nlink > 1 && !whiteout { // whiteouts share an inode only because it is cheap
		if l, ok := x.first[i]; ok {
			return x.hardlink(dir, name, i, l)
		}
	}
	if err := x.make(dir, name, i); err != nil {
		return err
	}
	if i.nlink > 1 && !whiteout {
		return x.remember(dir, name, i)
	}
	return nil
}

func (x *extraction) remember(dir *os.File, name string, i *inode) error {
	again, err := sys.OpenDirAt(dir, ".")
	if err != nil {
		return err
	}
	x.first[i] = linkedFrom{again, name, i.nlink - 1}
	return nil
}

func (x *extraction) hardlink(dir *os.File, name string, i *inode, l linkedFrom) error {
	err := sys.LinkAt(l.dir, l.name, dir, name)
	if errors.Is(err, syscall.EMLINK) {
		return errs.New(errs.Unsupported, "a file of the layer has %d names, more than the filesystem of the store allows", i.nlink).
			WithHint("use a kernel with EROFS, which needs no extraction")
	}
	if l.left--; l.left == 0 {
		l.dir.Close()
		delete(x.first, i)
		return err
	}
	x.first[i] = l
	return err
}

func (x *extraction) make(dir *os.File, name string, i *inode) error {
	switch i.kind() {
	case kindReg:
		f, err := sys.CreateAt(dir, name)
		if err != nil {
			return err
		}
		err = x.data(f, i)
		if err == nil {
			err = x.finishOpen(f, i)
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return err
	case kindSymlink:
		if err := sys.SymlinkAt(i.target(), dir, name); err != nil {
			return err
		}
	default:
		if err := sys.MknodAt(dir, name, uint32(i.kind())|0o600, i.rdev); err != nil {
			return err
		}
	}
	return x.finishNamed(dir, name, i)
}

// data copies a file's bytes out of the tar; holes stay holes.
func (x *extraction) data(f *os.File, i *inode) error {
	segs, sparse := i.sparse()
	if !sparse {
		segs = []segment{{0, i.data, i.size}}
	}
	for _, g := range segs {
		for done := int64(0); done < g.n; {
			if err := x.ctx.Err(); err != nil {
				return err
			}
			b := x.buf[:min(int64(len(x.buf)), g.n-done)]
			if _, err := x.tar.ReadAt(b, g.data+done); err != nil {
				return err
			}
			if _, err := f.WriteAt(b, g.off+done); err != nil {
				return err
			}
			done += int64(len(b))
		}
	}
	if sparse {
		return f.Truncate(i.size)
	}
	return nil
}

// finishOpen sets the attributes of a file or directory. The order matters:
// chown clears set-user-ID bits and capabilities, all of it changes times.
func (x *extraction) finishOpen(f *os.File, i *inode) error {
	if err := f.Chown(int(i.uid), int(i.gid)); err != nil {
		return err
	}
	for _, a := range i.xattrs() {
		if err := xattrError(sys.SetXattr(f, a.name, []byte(a.value)), a); err != nil {
			return err
		}
	}
	// After the attributes, since an ACL is mirrored in the mode.
	if err := sys.Fchmod(f, uint32(i.mode&0o7777)); err != nil {
		return err
	}
	return sys.UtimesAt(f, "", i.mtime, i.nsec)
}

func (x *extraction) finishNamed(dir *os.File, name string, i *inode) error {
	if err := sys.ChownAt(dir, name, i.uid, i.gid); err != nil {
		return err
	}
	for _, a := range i.xattrs() {
		if err := xattrError(sys.SetXattrAt(dir, name, a.name, []byte(a.value)), a); err != nil {
			return err
		}
	}
	if i.kind() != kindSymlink {
		if err := sys.ChmodAt(dir, name, uint32(i.mode&0o7777)); err != nil {
			return err
		}
	}
	return sys.UtimesAt(dir, name, i.mtime, i.nsec)
}

// xattrError explains what filesystems say about attributes: "no space" means
// that this one does not fit, not that the disk is full.
func xattrError(err error, a xattr) error {
	switch {
	case err == nil:
		return nil
	case sys.IsNoSpace(err), errors.Is(err, syscall.E2BIG):
		return errs.New(errs.Unsupported, "the filesystem of the store has no room for extended attribute %s of %d bytes", quote(a.name), len(a.value)).
			WithHint("use a kernel with EROFS, which needs no extraction")
	}
	return err
}
