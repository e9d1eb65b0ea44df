package layer

import (
	"errors"
	"strings"
)

// Hard links into lower layers. A layer's tar may link to a file that is not in
// it. When such a layer is stored, nobody knows what will lie below, so an inode
// of kind 0 takes the place of that file until the tar is read to its end, and
// its names are left out of the tree. When the tar is read again over a view of
// the layers below, the inode of kind 0 stands for a target.

// target is a file, and whose tar holds its data.
type target struct {
	ino   *inode
	layer int
}

// looseLink is a name that the layer gives to a file of a lower one.
type looseLink struct {
	dir  *inode
	name string
	to   *inode // of kind 0
}

// loose counts the names whose place in an image the layer alone does not
// decide.
func (t *tree) loose() int { return len(t.links) + t.implied }

// below returns the inode of kind 0 for a hard link to path, which is not in
// this layer.
func (t *tree) below(e *entry, path string) (*inode, error) {
	if t.lower == nil {
		return t.newInode(), nil
	}
	to, err := t.find(path)
	if errors.Is(err, errIsDir) {
		return nil, linkToDir(e)
	}
	if err != nil {
		return nil, badEntry(e.name, "it is a hard link to %s, which is neither in the layer nor below it: %w", quote(e.link), err).
			WithHint("the image is broken; build it again or get it from somewhere else")
	}
	i := t.standIn[to.ino]
	if i == nil {
		if t.foreign == nil {
			t.foreign, t.standIn = make(map[*inode]*target), make(map[*inode]*inode)
		}
		i = t.newInode()
		t.foreign[i], t.standIn[to.ino] = to, i
	}
	return i, nil
}

var (
	errIsDir    = errors.New("it is a directory")
	errNotDir   = errors.New("a part of its path is not a directory")
	errTooLinky = errors.New("too many symbolic links in its path")
)

// spot is a directory as the entries so far and the layers below make it; one
// of the two may be missing.
type spot struct {
	own *inode
	low *node
}

// find finds the file that path leads to at this point of the archive. Symbolic
// links on the way, of this layer and of lower ones, are followed as chroot(2)
// would; one at the end is the file.
func (t *tree) find(path string) (*target, error) {
	trail := []spot{{t.root, t.lower.root}}
	if t.root.dir.opaque {
		trail[0].low = nil
	}
	links := 0
	for path != "" {
		name, rest, _ := strings.Cut(path, "/")
		path = rest
		switch name {
		case "", ".":
			continue
		case "..":
			trail = trail[:max(1, len(trail)-1)]
			continue
		}
		next, file := t.step(trail[len(trail)-1], name)
		switch {
		case file == nil && next == spot{}:
			return nil, errAbsent
		case file == nil:
			trail = append(trail, next)
		case rest == "":
			return file, nil
		case file.ino.kind() != kindSymlink:
			return nil, errNotDir
		default:
			if links++; links > maxSymlinks {
				return nil, errTooLinky
			}
			to := file.ino.target()
			if strings.HasPrefix(to, "/") {
				trail = trail[:1]
			}
			path = to + "/" + rest
		}
	}
	return nil, errIsDir
}

// step looks up one name: a directory, a file or, when both are empty, nothing.
func (t *tree) step(at spot, name string) (spot, *target) {
	var low *node
	if at.low != nil {
		low = at.low.kids[name]
	}
	if at.own != nil {
		if _, white := at.own.dir.white[name]; white {
			low = nil
		}
		if c := at.own.child(name); c != nil {
			switch {
			case t.foreign[c] != nil:
				return spot{}, t.foreign[c]
			case !c.isDir():
				return spot{}, &target{c, t.lower.layers}
			case low == nil || !low.ino.isDir() || c.dir.opaque:
				return spot{c, nil}, nil
			}
			return spot{c, low}, nil
		}
	}
	switch {
	case low == nil:
		return spot{}, nil
	case low.ino.isDir():
		return spot{nil, low}, nil
	}
	return spot{}, &target{low.ino, low.layer}
}
