package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// CopyIn unpacks a tar into a directory of the container. Owners are those in
// the tar if owners is set, else root.
func (r *Root) CopyIn(ctx context.Context, dir string, in io.Reader, owners bool) error {
	f, err := r.Find(dir, true)
	if err != nil {
		return err
	}
	switch {
	case !f.Exists():
		return r.explain(dir, fs.ErrNotExist)
	case !f.IsDir():
		return errs.New(errs.Invalid, "extraction point is not a directory")
	case !r.running && r.s.Host.ReadonlyRootfs:
		return r.explain(dir, syscall.EROFS)
	}
	if !r.running {
		defer os.Remove(r.c.path(r.s.ID, fileSize))
	}
	u := &unpacker{ctx: ctx, root: r.root, base: f.Path, owners: owners, chown: true, ids: r.ids()}
	if err := r.asRoot(func() error { return u.all(in) }); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return r.explain(dir, err)
	}
	r.c.did(&r.s.Container, "extract-to-dir")
	return nil
}

// Unpack unpacks a tar that a container may have made into a directory of the
// host. It follows no symlink below that. Without owners the files are the
// caller's.
func Unpack(ctx context.Context, dir string, in io.Reader, owners bool) error {
	root, err := sys.OpenPath(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{ctx: ctx, root: root, base: ".", noLinks: true, owners: owners, chown: owners}
	return u.all(in)
}

// unpacker unpacks one tar. Directories are resolved inside root, and in them
// names are acted on without following them; so whoever exchanges names
// meanwhile changes at most where inside root something goes.
type unpacker struct {
	ctx     context.Context
	root    *os.File
	base    string
	noLinks bool
	owners  bool         // take the tar's
	chown   bool         // else leave them
	whole   bool         // the directory itself, too, and access control lists
	ids     *spec.IDMaps // the container's, where they have to be made the host's
	dirs    []unpackedDir
	top     *tar.Header // of the directory itself
}

// unpackedDir is a directory whose time is set at the end.
type unpackedDir struct {
	path string
	time time.Time
}

// maxUnpacked bounds how many directories one tar may have.
const maxUnpacked = 4 << 20

func (u *unpacker) all(in io.Reader) error {
	for t := tar.NewReader(in); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return errs.New(errs.Invalid, "read the tar: %w", err)
		}
		if err := u.ctx.Err(); err != nil {
			return err
		}
		if err := u.member(h, t); err != nil {
			return err
		}
	}
	for i := len(u.dirs) - 1; i >= 0; i-- {
		d := u.dirs[i]
		if f, err := sys.OpenIn(u.root, d.path, sys.ODirectory, u.noLinks); err == nil {
			sys.UtimesAt(f, "", d.time.Unix(), uint32(d.time.Nanosecond()))
			f.Close()
		}
	}
	return nil
}

// inside cleans a name of the tar; it must not climb.
func (u *unpacker) inside(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(name, 0) || len(clean) > maxExportPath {
		return "", errs.New(errs.Invalid, "the tar's member %.200q leads out of the directory", name)
	}
	return clean, nil
}

// parent opens the directory that a member goes into, and makes it where it is
// missing.
func (u *unpacker) parent(name string) (*os.File, error) {
	dir := u.base + "/" + path.Dir(name)
	f, err := sys.OpenIn(u.root, dir, sys.OPath|sys.ODirectory, u.noLinks)
	if errors.Is(err, syscall.ELOOP) && u.noLinks {
		return nil, errs.New(errs.Invalid, "the tar's member %.200q leads through a symlink", name)
	}
	if !errors.Is(err, fs.ErrNotExist) || u.noLinks {
		return f, err
	}
	return sys.MkdirIn(u.root, dir)
}

func (u *unpacker) member(h *tar.Header, data io.Reader) error {
	name, err := u.inside(h.Name)
	if err == nil && name == "." && u.whole && h.Typeflag == tar.TypeDir {
		u.top = h
	}
	if err != nil || name == "." {
		return err // that directory is there and stays as it is
	}
	if _, _, err := u.owner(h); err != nil {
		return err
	}
	dir, err := u.parent(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	base := path.Base(name)
	if err := u.makeRoom(dir, base, name, h); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		f, err := sys.CreateAt(dir, base)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := io.Copy(f, &untilDone{u.ctx, data}); err != nil {
			return err
		}
		return u.dress(f, h)
	case tar.TypeDir:
		return u.directory(dir, base, name, h)
	case tar.TypeLink:
		return u.link(dir, base, h)
	case tar.TypeSymlink:
		if err := sys.SymlinkAt(h.Linkname, dir, base); err != nil {
			return err
		}
		return u.named(dir, base, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.special(dir, base, h)
	}
	return errs.New(errs.Unsupported, "the tar's member %.200q is of the unknown type %q", h.Name, h.Typeflag)
}

// makeRoom removes what is in the place of a member. A directory makes no place
// for something else, nor something else for a directory.
func (u *unpacker) makeRoom(dir *os.File, base, name string, h *tar.Header) error {
	place, err := sys.OpenPathAt(dir, base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	fi, err := place.Stat()
	place.Close()
	switch isDir := h.Typeflag == tar.TypeDir; {
	case err != nil:
		return err
	case fi.IsDir() && !isDir:
		return errs.New(errs.Invalid, "cannot overwrite directory %q with non-directory %q", path.Join(u.base, name), path.Dir(path.Join(u.base, name)))
	case !fi.IsDir() && isDir:
		return errs.New(errs.Invalid, "cannot overwrite non-directory %q with directory %q", path.Join(u.base, name), path.Dir(path.Join(u.base, name)))
	case fi.IsDir():
		return nil
	}
	if err := sys.UnlinkAt(dir, base, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (u *unpacker) directory(dir *os.File, base, name string, h *tar.Header) error {
	f, err := sys.MkdirAt(dir, base)
	if errors.Is(err, fs.ErrExist) {
		f, err = sys.OpenDirAt(dir, base)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if len(u.dirs) >= maxUnpacked {
		return errs.New(errs.Unsupported, "the tar has more than %d directories", maxUnpacked)
	}
	u.dirs = append(u.dirs, unpackedDir{u.base + "/" + name, h.ModTime})
	return u.dress(f, h)
}

// link makes a further name of a file that the tar brought, or that was there
// before.
func (u *unpacker) link(dir *os.File, base string, h *tar.Header) error {
	old, err := u.inside(h.Linkname)
	if err != nil {
		return err
	}
	from, err := u.parent(old)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := sys.LinkAt(from, path.Base(old), dir, base); err != nil {
		return fmt.Errorf("link to %.200q: %w", h.Linkname, err)
	}
	return nil
}

func (u *unpacker) special(dir *os.File, base string, h *tar.Header) error {
	kind := map[byte]uint32{tar.TypeChar: syscall.S_IFCHR, tar.TypeBlock: syscall.S_IFBLK, tar.TypeFifo: syscall.S_IFIFO}[h.Typeflag]
	if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff || h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 {
		return errs.New(errs.Invalid, "the tar's member %.200q is no device that there can be", h.Name)
	}
	if err := sys.MknodAt(dir, base, kind|0o600, uint32(sys.DeviceNumber(uint32(h.Devmajor), uint32(h.Devminor)))); err != nil {
		return err
	}
	place, err := sys.OpenPathAt(dir, base)
	if err != nil {
		return err
	}
	defer place.Close()
	if err := u.named(dir, base, h); err != nil {
		return err
	}
	return sys.ChmodPlace(place, uint32(h.Mode&0o7777))
}

// owner returns whom a member is to belong to.
func (u *unpacker) owner(h *tar.Header) (uid, gid uint32, err error) {
	if u.owners {
		uid, gid = uint32(h.Uid), uint32(h.Gid)
	}
	return toHost(u.ids, uid, gid)
}

// named sets owner and time of what cannot be opened.
func (u *unpacker) named(dir *os.File, base string, h *tar.Header) error {
	if u.chown {
		uid, gid, err := u.owner(h)
		if err == nil {
			err = sys.ChownAt(dir, base, uid, gid)
		}
		if err != nil {
			return err
		}
	}
	return sys.UtimesAt(dir, base, h.ModTime.Unix(), uint32(h.ModTime.Nanosecond()))
}

// wanted reports whether a file gets an extended attribute that the tar has.
func (u *unpacker) wanted(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability" || u.whole && strings.HasPrefix(name, "system.posix_acl_")
}

// dress sets owner, attributes, permissions and time, in the order in which
// none takes another away.
func (u *unpacker) dress(f *os.File, h *tar.Header) error {
	if u.chown {
		uid, gid, err := u.owner(h)
		if err == nil {
			err = f.Chown(int(uid), int(gid))
		}
		if err != nil {
			return err
		}
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || ownAttr(name) || !u.wanted(name) {
			continue
		}
		if name == fileCaps {
			value = capsToHost(u.ids, value)
		}
		if err := sys.SetXattr(f, name, []byte(value)); err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
			return err
		}
	}
	if err := sys.Fchmod(f, uint32(h.Mode&0o7777)); err != nil {
		return err
	}
	return sys.UtimesAt(f, "", h.ModTime.Unix(), uint32(h.ModTime.Nanosecond()))
}
