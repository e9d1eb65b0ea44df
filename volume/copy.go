package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"tug/errs"
	"tug/sys"
)

// copier copies a tree of files as it is: owners, modes, extended attributes,
// hard links, holes, times of change, devices. Data is shared with the original
// where the file system can (reflinks).
//
// A container may change the original meanwhile, and may be hostile. So a name
// is opened once, as a place and without following it, and what was opened is
// asked what it is. The copy lies where no container can get at it.
type copier struct {
	ctx   context.Context
	to    *os.File          // where the copy begins, for links
	links map[fileID]string // of files with several names the first, from there
	plain bool              // this file system has no reflinks
}

type fileID struct{ dev, ino uint64 }

// Limits on what a container can make a copy cost: each level holds open files.
const (
	maxDepth = 4 << 10
	maxPath  = 4<<10 - 2 // beyond, a path cannot be linked to
)

// copyTree copies all that is in the directory from into the directory to, which
// is there and empty, and makes to look like from.
func copyTree(ctx context.Context, from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Open(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	c := &copier{ctx: ctx, to: dst, links: map[fileID]string{}}
	err = c.dir(src, dst, "")
	if errors.Is(err, syscall.EMFILE) {
		return errs.New(errs.Unsupported, "its directories are too deep to be copied: %w", err)
	}
	return err
}

// dir copies what is in src, then owner and such of src itself, whose time
// would change again if it were done before.
func (c *copier) dir(src, dst *os.File, path string) error {
	if strings.Count(path, "/") > maxDepth {
		return errs.New(errs.Unsupported, "the path %.40s... is too deep to be copied", path)
	}
	for {
		names, err := src.Readdirnames(1024)
		if err == io.EOF || errors.Is(err, fs.ErrNotExist) { // or removed just now
			break
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := c.ctx.Err(); err != nil {
				return context.Cause(c.ctx)
			}
			if err := c.entry(src, dst, name, path); err != nil {
				return err
			}
		}
	}
	st, err := statOf(src)
	if err != nil {
		return err
	}
	attrs, err := sys.XattrsOf(src)
	if err != nil {
		return err
	}
	if err := dst.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	for attr, value := range attrs {
		if err := sys.SetXattr(dst, attr, []byte(value)); err != nil {
			return err
		}
	}
	if err := sys.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	return sys.UtimesAt(dst, "", st.Mtim.Sec, uint32(st.Mtim.Nsec))
}

func statOf(f *os.File) (*syscall.Stat_t, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return st, nil
}

// entry copies one name. What is gone by now is left out.
func (c *copier) entry(src, dst *os.File, name, path string) error {
	place, err := sys.OpenPathAt(src, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer place.Close()
	st, err := statOf(place)
	if err != nil {
		return err
	}
	path += "/" + name
	kind := st.Mode & syscall.S_IFMT
	if kind == syscall.S_IFDIR {
		return c.subdir(place, dst, name, path)
	}
	if err := c.leaf(place, st, dst, name, path); err != nil {
		return fmt.Errorf("%.200s: %w", path[1:], err)
	}
	return nil
}

// leaf copies what is no directory.
func (c *copier) leaf(place *os.File, st *syscall.Stat_t, dst *os.File, name, path string) error {
	kind := st.Mode & syscall.S_IFMT
	if st.Nlink > 1 && len(path) <= maxPath {
		id := fileID{st.Dev, st.Ino}
		if first, ok := c.links[id]; ok {
			return sys.LinkAt(c.to, first, dst, name)
		}
		c.links[id] = path[1:]
	}
	switch kind {
	case syscall.S_IFREG:
		return c.file(place, st, dst, name)
	case syscall.S_IFLNK:
		target, err := sys.Readlink(place)
		if err == nil {
			err = sys.SymlinkAt(target, dst, name)
		}
		if err != nil {
			return err
		}
	default: // devices, FIFOs and sockets
		if err := sys.MknodAt(dst, name, kind|0o600, uint32(st.Rdev)); err != nil {
			return err
		}
	}
	return c.dress(place, st, dst, name)
}

func (c *copier) subdir(place, dst *os.File, name, path string) error {
	in, err := sys.Reopen(place)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := sys.MkdirAt(dst, name)
	if err != nil {
		return err
	}
	defer out.Close()
	return c.dir(in, out, path)
}

func (c *copier) file(place *os.File, st *syscall.Stat_t, dst *os.File, name string) error {
	in, err := sys.Reopen(place)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := sys.CreateAt(dst, name)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := c.data(in, out, st.Size); err != nil {
		return err
	}
	return c.dress(place, st, dst, name)
}

// data copies the first size bytes, or shares all there are.
func (c *copier) data(in, out *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	if !c.plain {
		done, err := sys.Reflink(out, in)
		if done || err != nil {
			return err
		}
		// Not of one file is not of any, except on file systems that have them,
		// where some files are kept in other ways; there asking costs little.
		c.plain = !sys.HasReflinks(out)
	}
	for off := int64(0); off < size; {
		start, end, err := sys.NextData(in, off)
		if err == io.EOF || err == nil && start >= size {
			break
		}
		if err != nil {
			return err
		}
		if off, err = c.extent(in, out, start, min(end, size)); err != nil {
			return err
		}
	}
	return out.Truncate(size)
}

// piece is how much is copied between two looks at whether to go on.
const piece = 64 << 20

// extent copies from start on, to end or what is the file's end meanwhile, and
// returns end.
func (c *copier) extent(in, out *os.File, start, end int64) (int64, error) {
	if _, err := in.Seek(start, io.SeekStart); err != nil {
		return 0, err
	}
	if _, err := out.Seek(start, io.SeekStart); err != nil {
		return 0, err
	}
	for start < end {
		if err := c.ctx.Err(); err != nil {
			return 0, context.Cause(c.ctx)
		}
		n, err := io.CopyN(out, in, min(piece, end-start))
		start += n
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	return end, nil
}

// dress gives name in dst owner, attributes, permissions and time of a file, in
// the order in which none takes another away.
func (c *copier) dress(place *os.File, st *syscall.Stat_t, dst *os.File, name string) error {
	if err := sys.ChownAt(dst, name, st.Uid, st.Gid); err != nil {
		return err
	}
	attrs, err := sys.XattrsOf(place)
	if err != nil && !errors.Is(err, syscall.EPERM) { // of what cannot have any
		return err
	}
	for attr, value := range attrs {
		if err := sys.SetXattrAt(dst, name, attr, []byte(value)); err != nil {
			return err
		}
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		if err := sys.ChmodAt(dst, name, st.Mode&0o7777); err != nil {
			return err
		}
	}
	return sys.UtimesAt(dst, name, st.Mtim.Sec, uint32(st.Mtim.Nsec))
}
