package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"tug/errs"
	"tug/layer"
	"tug/sys"
)

// Change is a path of a container's root file system that is not as in its
// image. Paths begin with a slash.
type Change struct {
	Kind layer.ChangeKind
	Path string
	Mode uint32 // as st_mode; of what was there, when it was removed
	Size int64  // of a file's bytes, as Mode
	Was  int64  // of the file that is changed: its bytes in the image

	gone *layer.Entry // what was removed
}

// IsDir reports whether the path is a directory, or was.
func (c *Change) IsDir() bool { return c.Mode&syscall.S_IFMT == syscall.S_IFDIR }

// Diff lists what a container has added, changed and deleted, running or not,
// each directory before what is in it. It looks at the writable layer, and up
// in the image's layers what is in it: it costs what was changed. A directory counts
// as changed when something in it does; a file that was copied up does, also if
// its bytes are the same. Of what was added to make place for mounts nothing is
// said.
//
// What the container has written is hostile; see Export.
func (c *Containers) Diff(ctx context.Context, name string) ([]Change, error) {
	s, err := c.Find(name)
	if err != nil {
		return nil, err
	}
	var all []Change
	err = c.diff(ctx, s, func(d *differ) error {
		all = d.all
		return nil
	})
	return all, err
}

// diff compares a container with its image and calls f with what differs, while
// the layers are open.
func (c *Containers) diff(ctx context.Context, s *Summary, f func(*differ) error) error {
	upper, err := os.Open(c.UpperDir(s.ID))
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := os.Lstat(c.path(s.ID)); errors.Is(gone, fs.ErrNotExist) {
			return noSuch(s.Name)
		}
		return errs.New(errs.Corrupt, "container %s: its writable layer is missing", s.Name).WithHint("see: tug system check")
	}
	if err != nil {
		return err
	}
	defer upper.Close()
	d := &differ{ctx: ctx, placed: map[string]bool{}}
	names, err := namesIn(upper)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return f(d)
	}
	k, err := c.layers.Lookup(ctx, s.Layers)
	if err == nil {
		defer k.Close()
		var root *layer.Entry
		if root, err = k.Root(); err == nil {
			err = d.dir("", root, upper, names, false)
		}
	}
	if err == nil {
		err = f(d)
	}
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("compare container %s with its image: %w", s.Name, err)
	}
	return nil
}

// differ is one run of Diff.
type differ struct {
	ctx    context.Context
	all    []Change
	placed map[string]bool // directories in which something was made for a mount
}

// isPlace reports whether a path is where every container has something
// mounted. tug makes what the image lacks there.
func isPlace(path string) bool {
	switch path {
	case "dev", "proc", "sys", "etc", "etc/hosts", "etc/hostname", "etc/resolv.conf":
		return true
	}
	return false
}

func (d *differ) add(kind layer.ChangeKind, path string, low *layer.Entry, st *syscall.Stat_t) {
	c := Change{Kind: kind, Path: "/" + path}
	switch {
	case kind == layer.Removed:
		c.Mode, c.Size, c.gone = low.Mode, low.Size, low
	case low != nil:
		c.Was = low.Size
		fallthrough
	default:
		c.Mode = st.Mode
		if st.Mode&syscall.S_IFMT == syscall.S_IFREG {
			c.Size = st.Size
		}
	}
	d.all = append(d.all, c)
}

// namesIn lists a directory, in the order of bytes.
func namesIn(dir *os.File) ([]string, error) {
	names, err := dir.Readdirnames(-1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // removed just now
	}
	slices.Sort(names)
	return names, err
}

// below is what a directory of the layers, which may be none, has by a name.
func below(low *layer.Entry, name string) (*layer.Entry, error) {
	if low == nil {
		return nil, nil
	}
	return low.Child(name)
}

// dir compares a directory of the writable layer, in which are names, with the
// layers' one, low, which may be nil. When that is hidden, what is not in the
// writable layer is deleted.
func (d *differ) dir(path string, low *layer.Entry, up *os.File, names []string, hidden bool) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if len(path) > maxExportPath || strings.Count(path, "/") > maxExportDepth {
		return errs.New(errs.Unsupported, "the path %.40s... is too long or too deep", path)
	}
	if hidden && low != nil {
		more, err := low.Names()
		if err != nil {
			return err
		}
		names = append(names, more...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	for _, name := range names {
		under, err := below(low, name)
		if err != nil {
			return err
		}
		if err := d.entry(join(path, name), name, under, up, hidden); err != nil {
			return err
		}
	}
	return nil
}

// entry compares one name.
func (d *differ) entry(path, name string, low *layer.Entry, up *os.File, hidden bool) error {
	f, err := sys.OpenPathAt(up, name)
	if errors.Is(err, fs.ErrNotExist) {
		if hidden && low != nil {
			d.add(layer.Removed, path, low, nil)
		}
		return nil // or it was removed just now
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := statOf(f)
	if err != nil {
		return err
	}
	kind := st.Mode & syscall.S_IFMT
	switch {
	case kind == syscall.S_IFCHR && st.Rdev == 0:
		if low != nil {
			d.add(layer.Removed, path, low, nil)
		}
		return nil
	case low == nil && kind == syscall.S_IFREG && st.Size == 0 && isPlace(path):
		d.placed["etc"] = true
		return nil
	case low != nil:
		d.add(layer.Changed, path, low, st)
	default:
		d.add(layer.Added, path, nil, st)
	}
	if kind != syscall.S_IFDIR {
		return nil
	}
	return d.subdirectory(path, low, f, st, hidden)
}

// subdirectory goes on with a directory that is noted as changed, and forgets
// that note when nothing is.
func (d *differ) subdirectory(path string, low *layer.Entry, f *os.File, st *syscall.Stat_t, hidden bool) error {
	later := false // only its time differs, perhaps
	same := low == nil && isPlace(path)
	if low != nil {
		attrs, err := sys.XattrsOf(f)
		if err != nil {
			return err
		}
		hidden = hidden || attrs["trusted.overlay.opaque"] == "y"
		same = low.IsDir() && low.Mode == st.Mode && low.UID == st.Uid && low.GID == st.Gid
		later = low.Mtime.Unix() != st.Mtim.Sec
	}
	dir, err := sys.Reopen(f)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := namesIn(dir)
	if err != nil {
		return err
	}
	if low != nil && !low.IsDir() {
		low = nil
	}
	before := len(d.all)
	if err := d.dir(path, low, dir, names, hidden); err != nil {
		return err
	}
	if same && (!later || d.placed[path]) && len(d.all) == before {
		d.all = d.all[:before-1]
	}
	return nil
}
