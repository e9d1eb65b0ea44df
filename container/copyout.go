package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// CopyOut writes a file, or a directory with all that is in it, as a tar whose
// members are called as, or lie in it. "." as the name is for what is to go
// into a directory that is there.
func (r *Root) CopyOut(ctx context.Context, p, as string, w io.Writer) error {
	dir, base := splitLast("/" + strings.TrimLeft(p, "/"))
	d, err := sys.OpenIn(r.root, dir, sys.OPath|sys.ODirectory, false)
	if err == nil {
		defer d.Close()
		err = pack(ctx, d, base, as, w, r.ids())
	}
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return r.explain(p, err)
	}
	r.c.did(&r.s.Container, "archive-path")
	return nil
}

// Pack does as CopyOut does with a file of the host. A symlink is packed as one,
// unless it is to be followed.
func Pack(ctx context.Context, p string, follow bool, as string, w io.Writer) error {
	if follow {
		at, err := os.Readlink(p)
		for n := 0; err == nil && n < maxFollowed; n++ {
			if !strings.HasPrefix(at, "/") {
				dir, _ := splitLast(p)
				at = dir + at
			}
			p = at
			at, err = os.Readlink(p)
		}
	}
	dir, base := splitLast(p)
	d, err := sys.OpenPath(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return pack(ctx, d, base, as, w, nil)
}

// pack writes base in dir as a tar. What is opened is opened once, by its name
// in an open directory; who exchanges names meanwhile gets what he put there.
// Owners are made the container's where ids are given.
func pack(ctx context.Context, dir *os.File, base, as string, w io.Writer, ids *spec.IDMaps) error {
	k := &packer{ctx: ctx, w: tar.NewWriter(w), first: map[fileID]string{}, ids: ids}
	place, err := sys.OpenPathAt(dir, base)
	if err != nil {
		return err
	}
	if err := k.add(place, as); err != nil {
		return err
	}
	return k.w.Close()
}

type packer struct {
	ctx   context.Context
	exact bool // times to the nanosecond; Docker's cp has seconds
	w     *tar.Writer
	first map[fileID]string
	ids   *spec.IDMaps
}

// add writes what place is and closes it.
func (k *packer) add(place *os.File, name string) error {
	defer place.Close()
	if err := k.ctx.Err(); err != nil {
		return err
	}
	if len(name) > maxExportPath || strings.Count(name, "/") > maxExportDepth {
		return errs.New(errs.Unsupported, "the path %.40s... is too long or too deep", name)
	}
	f, st, err := lookAt(place)
	if err != nil {
		return err
	}
	if !k.exact {
		f.Mtime = f.Mtime.Truncate(time.Second)
	}
	if k.ids != nil {
		f.UID, _ = spec.Inside(k.ids.UIDs, f.UID)
		f.GID, _ = spec.Inside(k.ids.GIDs, f.GID)
		if caps, ok := f.Xattrs[fileCaps]; ok {
			f.Xattrs[fileCaps] = capsToContainer(k.ids, caps)
		}
	}
	h := headerOf(name, f)
	kind := st.Mode & syscall.S_IFMT
	if kind == syscall.S_IFSOCK {
		return nil // a tar cannot hold a socket
	}
	if kind != syscall.S_IFDIR && st.Nlink > 1 {
		id := fileID{st.Dev, st.Ino}
		if first, ok := k.first[id]; ok {
			return k.w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first, Mode: h.Mode, Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime, Format: tar.FormatPAX})
		}
		k.first[id] = name
	}
	switch kind {
	case syscall.S_IFREG:
		return writeFile(k.ctx, k.w, h, place)
	case syscall.S_IFDIR:
		if err := k.w.WriteHeader(h); err != nil {
			return err
		}
		return k.dir(place, name)
	}
	return k.w.WriteHeader(h)
}

func (k *packer) dir(place *os.File, name string) error {
	d, err := sys.Reopen(place)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := namesIn(d)
	if err != nil {
		return err
	}
	for _, n := range names {
		p, err := sys.OpenPathAt(d, n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed just now
		}
		if err == nil {
			err = k.add(p, name+"/"+n)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	return nil
}
