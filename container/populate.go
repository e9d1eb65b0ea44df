package container

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"tug/errs"
	"tug/layer"
	"tug/spec"
	"tug/sys"
	"tug/volume"
)

// populator copies what an image has at a path into a volume that is empty. It
// takes it from the layers, and mounts nothing: the image's files are described
// by their tars' headers, and a symlink in it is a description, too.
type populator struct {
	c      *Containers
	layers []spec.Digest
	lookup *layer.Lookup
	tree   *layer.Merged
}

func (p *populator) close() {
	if p == nil {
		return
	}
	if p.lookup != nil {
		p.lookup.Close()
	}
	if p.tree != nil {
		p.tree.Close()
	}
}

// fillNew copies what the image has at target, with owners, modes, attributes
// and hard links, into the data of a volume that nobody sees yet.
func (p *populator) fillNew(ctx context.Context, data, target string, durable bool) error {
	from, err := p.source(ctx, target)
	if err != nil || from == nil {
		return err
	}
	dir, err := os.Open(data)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := p.into(ctx, dir, from, target); err != nil || !durable || !from.any {
		return err
	}
	return sys.SyncFS(dir)
}

// fill is fillNew for a volume that is there, if there is nothing in it.
func (p *populator) fill(ctx context.Context, vol *volume.Volume, target string) error {
	from, err := p.source(ctx, target)
	if err != nil || from == nil {
		return err
	}
	root, err := p.open(vol)
	if err != nil || root == nil {
		return err
	}
	defer root.Close()
	// One at a time: two commands may make containers with the same volume.
	dir, err := sys.Reopen(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := sys.Lock(dir, true); err != nil {
		return err
	}
	if names, err := dir.Readdirnames(1); err != io.EOF || len(names) > 0 {
		return notEOF(err)
	}
	return p.into(ctx, dir, from, target)
}

// source is what the image has at target; nil for nothing.
func (p *populator) source(ctx context.Context, target string) (*place, error) {
	if len(p.layers) == 0 {
		return nil, nil
	}
	from, err := p.find(ctx, target)
	if err == nil && from != nil && !from.dir {
		return nil, errs.New(errs.Invalid, "cannot mount volume over existing file, file exists %s", target)
	}
	return from, err
}

func (p *populator) into(ctx context.Context, dir *os.File, from *place, target string) error {
	if from.any {
		if err := p.copy(ctx, dir, target); err != nil {
			return err
		}
	}
	if err := dir.Chown(int(from.uid), int(from.gid)); err != nil {
		return err
	}
	if err := sys.Fchmod(dir, from.mode&0o7777); err != nil {
		return err
	}
	return sys.UtimesAt(dir, "", from.mtime.Unix(), uint32(from.mtime.Nanosecond()))
}

func notEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// open opens the root of a volume's data. Of one that is a tmpfs there is none:
// it begins empty with each use.
func (p *populator) open(vol *volume.Volume) (*os.File, error) {
	if vol.Options["type"] == "tmpfs" {
		return nil, nil
	}
	mnt, err := p.c.Volumes.Mount(vol)
	if err != nil || mnt != nil {
		return mnt, err
	}
	return sys.OpenPath(p.c.Volumes.Data(vol.Name))
}

// place is what an image has at a path.
type place struct {
	dir, any       bool // any: there is something in it
	uid, gid, mode uint32
	mtime          time.Time
}

// find looks by the layers' indexes, which is fast, unless there is a symlink
// on the way.
func (p *populator) find(ctx context.Context, target string) (*place, error) {
	if p.lookup == nil {
		k, err := p.c.layers.Lookup(ctx, p.layers)
		if err != nil {
			return nil, err
		}
		p.lookup = k
	}
	e, err := p.lookup.Root()
	if err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(strings.Trim(target, "/"), "/") {
		if e, err = e.Child(name); err != nil || e == nil {
			return nil, err
		}
		if e.Mode&syscall.S_IFMT == syscall.S_IFLNK {
			return p.findNode(ctx, target)
		}
	}
	at := &place{dir: e.IsDir(), uid: e.UID, gid: e.GID, mode: e.Mode, mtime: e.Mtime}
	if at.dir {
		names, err := e.Names()
		if err != nil {
			return nil, err
		}
		at.any = len(names) > 0
	}
	return at, nil
}

func (p *populator) findNode(ctx context.Context, target string) (*place, error) {
	n, err := p.node(ctx, target)
	if err != nil || n == nil {
		return nil, err
	}
	f := n.File("")
	return &place{dir: n.IsDir(), any: len(n.Children) > 0, uid: f.UID, gid: f.GID, mode: f.Mode, mtime: f.Mtime}, nil
}

// node follows a path in the image as chroot(2) would: symlinks lead to places
// in it. It returns nil where there is nothing.
func (p *populator) node(ctx context.Context, target string) (*layer.Node, error) {
	if p.tree == nil {
		m, err := p.c.layers.Tree(ctx, p.layers)
		if err != nil {
			return nil, err
		}
		p.tree = m
	}
	rest := strings.Split(strings.Trim(target, "/"), "/")
	at, links := "/", 0
	n := p.tree.Root
	for len(rest) > 0 {
		at = path.Join(at, rest[0])
		rest = rest[1:]
		if n = nodeAt(p.tree.Root, at); n == nil {
			return nil, nil
		}
		f := n.File("")
		if f.Mode&syscall.S_IFMT != syscall.S_IFLNK {
			continue
		}
		if links++; links > maxFollowed {
			return nil, syscall.ELOOP
		}
		rest = append(strings.Split(f.Target, "/"), rest...)
		if at = path.Dir(at); path.IsAbs(f.Target) {
			at = "/"
		}
		n = nodeAt(p.tree.Root, at)
	}
	return n, nil
}

// nodeAt goes down a clean path in which no symlink is left but the last name.
func nodeAt(root *layer.Node, at string) *layer.Node {
	n := root
	for name := range strings.SplitSeq(strings.Trim(at, "/"), "/") {
		if name == "" {
			return n
		}
		if n = n.Child(name); n == nil {
			return nil
		}
	}
	return n
}

// copy sends what is in a directory of the image through a tar into dir: both
// ends are used to hostile content.
func (p *populator) copy(ctx context.Context, dir *os.File, target string) error {
	n, err := p.node(ctx, target)
	if err != nil || n == nil {
		return err
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		x := &export{ctx: ctx, m: p.tree, w: tar.NewWriter(w), lower: map[any]string{}, upper: map[fileID]string{}}
		err := x.dir("", n, nil)
		if err == nil {
			err = x.w.Close()
		}
		w.CloseWithError(err)
	}()
	u := &unpacker{ctx: ctx, root: dir, base: ".", noLinks: true, owners: true, chown: true}
	err = u.all(r)
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	<-done
	return err
}
