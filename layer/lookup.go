package layer

import (
	"context"
	"slices"
	"strings"
	"time"

	"tug/errs"
	"tug/spec"
)

// Lookup looks names up in a stack of layers and shows what overlayfs would
// show there. It needs neither root nor a mount and reads no more than what it
// is asked for: a few blocks of the layers' indexes for a name, where Merge and
// Tree read the headers of all tars. Of a layer without an index it reads the
// tar's headers. The layers cannot be removed until Close.
type Lookup struct {
	held    []*Layer
	finders []finder // highest layer first
}

// Entry is one name that a stack shows.
type Entry struct {
	Mode     uint32 // as st_mode
	UID, GID uint32
	Size     int64 // of files
	Mtime    time.Time

	parts []part // of a directory: what it is merged from, highest first
}

// part is a directory in one layer.
type part struct {
	in finder
	at found
}

// finder finds names in one layer.
type finder interface {
	root() (found, error)
	// child returns the entry of that name; false when there is none.
	child(dir found, name string) (found, bool, error)
	// names lists a directory.
	names(dir found) ([]string, error)
	close()
}

// found is one inode of a layer.
type found struct {
	mode     uint16
	uid, gid uint32
	rdev     uint32
	size     int64
	mtime    int64
	nsec     uint32
	opaque   bool

	ino *inode // of a treeFinder

	// Of an indexFinder: where the data of a directory is.
	layout byte
	block  int64 // of its whole blocks
	tail   int64 // position of the rest
}

func (f *found) isDir() bool      { return f.mode&kindMask == kindDir }
func (f *found) isWhiteout() bool { return f.mode&kindMask == kindChar && f.rdev == 0 }

func (f *found) entry() *Entry {
	e := &Entry{Mode: uint32(f.mode), UID: f.uid, GID: f.gid, Mtime: time.Unix(f.mtime, int64(f.nsec))}
	if f.mode&kindMask == kindReg {
		e.Size = f.size
	}
	return e
}

// Lookup opens a stack, lowest layer first. Errors are those of Get and, for a
// layer that is damaged, Corrupt; also of the Entry's methods.
func (l *Layers) Lookup(ctx context.Context, stack []spec.Digest) (*Lookup, error) {
	k := &Lookup{}
	seen := map[spec.Digest]bool{}
	for i := len(stack) - 1; i >= 0; i-- {
		if seen[stack[i]] {
			continue // what it holds the upper one covers
		}
		seen[stack[i]] = true
		if err := k.open(ctx, l, stack[i]); err != nil {
			k.Close()
			return nil, err
		}
		if k.held[len(k.held)-1].Opaque {
			break
		}
	}
	return k, nil
}

func (k *Lookup) open(ctx context.Context, l *Layers, d spec.Digest) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	held, err := l.Get(d)
	if err != nil {
		return err
	}
	k.held = append(k.held, held)
	if held.IndexSize > 0 {
		f, err := openIndex(l.path(d, fileIndex), held.Info)
		if err == nil {
			k.finders = append(k.finders, f)
		}
		if !errs.Is(err, errs.Corrupt) {
			return err
		}
	}
	t, tar, err := l.readBack(d)
	if err != nil {
		return err
	}
	tar.Close()
	k.finders = append(k.finders, treeFinder{t})
	return nil
}

// Close lets go of the layers.
func (k *Lookup) Close() {
	for _, f := range k.finders {
		f.close()
	}
	closeAll(k.held)
}

// Root is the root directory. Its attributes are not those that a container's
// has, which come from DressRoot.
func (k *Lookup) Root() (*Entry, error) {
	e := &Entry{Mode: kindDir | 0o755}
	for i, f := range k.finders {
		at, err := f.root()
		if err != nil {
			return nil, err
		}
		if i == 0 {
			e = at.entry()
		}
		e.parts = append(e.parts, part{f, at})
	}
	return e, nil
}

// IsDir reports whether e is a directory.
func (e *Entry) IsDir() bool { return e.Mode&kindMask == kindDir }

// Child returns what a directory shows by that name, or nil.
func (e *Entry) Child(name string) (*Entry, error) {
	if name == "." || name == ".." || strings.Contains(name, "/") {
		return nil, nil
	}
	var out *Entry
	for _, p := range e.parts {
		f, ok, err := p.in.child(p.at, name)
		if err != nil {
			return nil, err
		}
		switch {
		case !ok:
			continue
		case f.isWhiteout(), out != nil && !f.isDir():
			return out, nil
		case out == nil:
			out = f.entry()
		}
		if !f.isDir() {
			return out, nil
		}
		out.parts = append(out.parts, part{p.in, f})
		if f.opaque {
			return out, nil
		}
	}
	return out, nil
}

// Names lists what a directory shows, in the order of bytes.
func (e *Entry) Names() ([]string, error) {
	var all []string
	for _, p := range e.parts {
		names, err := p.in.names(p.at)
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	var out []string
	for _, n := range all {
		c, err := e.Child(n)
		if err != nil {
			return nil, err
		}
		if c != nil {
			out = append(out, n)
		}
	}
	return out, nil
}

// treeFinder finds in a tree read from a tar.
type treeFinder struct{ t *tree }

func (t treeFinder) close() {}

func (t treeFinder) root() (found, error) { return foundOf(t.t.root), nil }

func (t treeFinder) child(dir found, name string) (found, bool, error) {
	list := dir.ino.dir.sorted
	i, ok := slices.BinarySearchFunc(list, name, func(e dirEntry, name string) int { return strings.Compare(e.name, name) })
	if !ok {
		return found{}, false, nil
	}
	return foundOf(list[i].ino), true, nil
}

func (t treeFinder) names(dir found) ([]string, error) {
	var out []string
	for _, e := range dir.ino.dir.sorted {
		out = append(out, e.name)
	}
	return out, nil
}

func foundOf(i *inode) found {
	f := found{mode: i.mode, uid: i.uid, gid: i.gid, rdev: i.rdev, size: i.size, mtime: i.mtime, nsec: i.nsec, ino: i}
	f.opaque = i.isDir() && i.dir.opaque
	return f
}
