package layer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"
	"strings"

	"tug/errs"
)

// Kinds of inodes, as in stat(2)'s st_mode.
const (
	kindMask    = 0o170000
	kindFifo    = 0o010000
	kindChar    = 0o020000
	kindDir     = 0o040000
	kindBlock   = 0o060000
	kindReg     = 0o100000
	kindSymlink = 0o120000
)

// inode is one file of any kind. Hard links are several names of one inode.
type inode struct {
	mode     uint16 // kind and permissions
	uid, gid uint32
	nsec     uint32
	rdev     uint32 // as the kernel's new_encode_dev
	nlink    uint32 // set by finish
	mtime    int64
	size     int64
	data     int64 // of a file: where its bytes start in the tar
	dir      *directory
	more     *extra

	pos     int64 // set by the index writer
	counted bool  // set by merger
}

// extra is what few inodes have.
type extra struct {
	target string
	xattrs []xattr // sorted by name
	sparse []segment
	isHole bool // sparse counts, also when empty
}

// directory is what inodes of directories have besides.
type directory struct {
	parent   *inode
	children map[string]*inode
	white    map[string]struct{} // names that whiteouts hide in lower layers
	opaque   bool                // all of lower layers is hidden
	implied  bool                // it has no entry, but something in it has
	fresh    bool                // a whiteout hides the directory of that name below; set by finish
	depth    int
	sorted   []dirEntry // set by finish; replaces children and white
}

type dirEntry struct {
	name string
	ino  *inode
}

func (i *inode) kind() uint16 { return i.mode & kindMask }
func (i *inode) isDir() bool  { return i.dir != nil }

func (i *inode) target() string {
	if i.more == nil {
		return ""
	}
	return i.more.target
}

func (i *inode) xattrs() []xattr {
	if i.more == nil {
		return nil
	}
	return i.more.xattrs
}

// sparse returns the pieces of a sparse file and whether it is one.
func (i *inode) sparse() ([]segment, bool) {
	if i.more == nil {
		return nil, false
	}
	return i.more.sparse, i.more.isHole
}

// tree is the filesystem that a layer's tar describes, as extracting it into an
// empty directory would make it, but with whiteouts in overlayfs form: a
// character device 0/0, and trusted.overlay.opaque on directories.
//
// Rules where archives leave room:
//   - Names are cleaned as paths are; one that climbs above the root is Invalid.
//   - A parent that is a symlink of the same layer is followed as chroot(2)
//     would, never out of the tree. Symlinks of lower layers are not known here,
//     so a directory takes their place, as with any overlay extraction.
//   - Missing parents are 0755, of root, of time 0.
//   - A later entry replaces an earlier one, except that a directory keeps what
//     is in it when only its attributes come again. A directory that replaces
//     something else is opaque: what it replaced had hidden the lower layers.
//   - A hard link to a file that is not in the layer is left out of the tree and
//     kept in links; package layer resolves it with the layers below (Stack).
//   - Whiteouts hide lower layers only, wherever they stand in the archive. A
//     directory that the layer both whites out and makes is opaque.
type tree struct {
	root    *inode
	rooted  bool // the tar has an entry for the root directory
	limits  *Limits
	entries int
	meta    int64
	content int64
	slab    []inode
	aufs    map[string]*inode // files below .wh..wh.plnk, which aufs used for hard links

	lower   *view              // the layers below, when they are known
	foreign map[*inode]*target // what inodes of kind 0 stand for, when it is known
	standIn map[*inode]*inode  // and the way back
	links   []looseLink        // names of inodes of kind 0; set by finish
	implied int                // directories without an entry; set by finish

	// The directory of the entry before: archives list them in groups.
	lastPath string
	lastDir  *inode
}

func newTree(limits *Limits) *tree {
	t := &tree{limits: limits}
	t.root = t.newDir(nil)
	return t
}

// readTree reads all of a tar.
func readTree(src blockSource, limits *Limits) (*tree, error) {
	return readTreeOver(src, limits, nil)
}

func readTreeOver(src blockSource, limits *Limits, lower *view) (*tree, error) {
	r := &tarReader{src: src, limits: limits}
	t := newTree(limits)
	t.lower = lower
	for {
		e, err := r.next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = t.add(e)
		}
		if err != nil {
			return nil, err
		}
	}
	t.entries = r.entries
	t.finish()
	return t, nil
}

func (t *tree) newInode() *inode {
	if len(t.slab) == 0 {
		t.slab = make([]inode, 128)
	}
	i := &t.slab[0]
	t.slab = t.slab[1:]
	return i
}

func (t *tree) newDir(parent *inode) *inode {
	i := t.newInode()
	i.mode = kindDir | 0o755
	i.dir = &directory{parent: parent}
	if parent != nil {
		i.dir.depth = parent.dir.depth + 1
	}
	return i
}

// child returns an entry of a directory, or nil.
func (i *inode) child(name string) *inode { return i.dir.children[name] }

// put links i into d under name. What was there is gone, and so is, when that
// was a directory or symlink, what is known about paths.
func (t *tree) put(d *inode, name string, i *inode) {
	if d.dir.children == nil {
		d.dir.children = make(map[string]*inode)
	}
	if old := d.dir.children[name]; old != nil && (old.isDir() || old.kind() == kindSymlink) {
		t.lastDir = nil
	}
	d.dir.children[strings.Clone(name)] = i
}

// cleanName returns the path without a leading slash, "." and ".."; ok is
// false when it climbs above the root.
func cleanName(name string) (clean string, ok bool) {
	name = strings.Trim(name, "/")
	if !strings.Contains(name, "//") && !strings.Contains("/"+name+"/", "/./") && !strings.Contains("/"+name+"/", "/../") {
		return name, true
	}
	var parts []string
	for p := range strings.SplitSeq(name, "/") {
		switch p {
		case "", ".":
		case "..":
			if len(parts) == 0 {
				return "", false
			}
			parts = parts[:len(parts)-1]
		default:
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/"), true
}

func splitLast(path string) (dir, base string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

var errAbsent = errors.New("no such file")

// walk finds the directory path, from the root, and makes what is missing of
// it when asked to.
func (t *tree) walk(path string, create bool) (*inode, error) {
	cur, links := t.root, 0
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			if p := cur.dir.parent; p != nil {
				cur = p
			}
			continue
		}
		next := cur.child(name)
		switch {
		case next == nil && !create:
			return nil, errAbsent
		case next == nil:
			if err := t.checkName(name, cur); err != nil {
				return nil, err
			}
			next = t.newDir(cur)
			next.dir.implied = true
			t.put(cur, name, next)
		case next.kind() == kindSymlink:
			if links++; links > maxSymlinks {
				return nil, errors.New("too many symbolic links in its path")
			}
			target := next.target()
			if strings.HasPrefix(target, "/") {
				cur = t.root
			}
			path = target + "/" + path
			continue
		case !next.isDir():
			return nil, errors.New(quote(name) + " in its path is not a directory")
		}
		cur = next
	}
	return cur, nil
}

// checkName tells whether a name can stand in directory d.
func (t *tree) checkName(name string, d *inode) error {
	t.meta += int64(len(name)) + 64
	switch {
	case len(name) > maxName:
		return errors.New("a part of its path is longer than 255 bytes")
	case d.dir.depth >= t.limits.Depth:
		return errors.New("its path is too deep")
	case t.meta > t.limits.Meta:
		return errors.New("the layer's names and attributes need too much memory")
	}
	return nil
}

// add applies one member to the tree.
func (t *tree) add(e *entry) error {
	if len(e.name) > t.limits.Path || len(e.link) > t.limits.Path {
		return badEntry(e.name, "its path is longer than %d bytes", t.limits.Path)
	}
	clean, ok := cleanName(e.name)
	if !ok {
		return badEntry(e.name, "its path leads out of the layer").WithHint("the archive is broken or hostile; get the image from somewhere else")
	}
	if clean == "" {
		if e.typ != typeDir {
			return badEntry(e.name, "the layer's root must be a directory")
		}
		t.rooted = true
		return t.setAttrs(t.root, e)
	}
	dir, base := splitLast(clean)
	if done, err := t.marker(e, dir, base); done || err != nil {
		return err
	}
	d, err := t.parent(dir)
	if err != nil {
		return pathError(e.name, err)
	}
	if e.typ == typeLink {
		return t.link(e, d, base)
	}
	old := d.child(base)
	if old != nil && old.isDir() && e.typ == typeDir {
		return t.setAttrs(old, e)
	}
	if err := t.checkName(base, d); err != nil {
		return pathError(e.name, err)
	}
	i, err := t.make(e, d)
	if err != nil {
		return err
	}
	if old != nil && i.isDir() {
		i.dir.opaque = true
	}
	t.put(d, base, i)
	return nil
}

func pathError(name string, err error) error { return badEntry(name, "%w", err) }

func (t *tree) parent(dir string) (*inode, error) {
	if t.lastDir != nil && t.lastPath == dir {
		return t.lastDir, nil
	}
	d, err := t.walk(dir, true)
	if err != nil {
		return nil, err
	}
	t.lastPath, t.lastDir = strings.Clone(dir), d
	return d, nil
}

// Whiteouts in archives (OCI image-spec v1.1, layer.md, "Whiteouts"; the
// double prefix is aufs's own).
const (
	whPrefix = ".wh."
	whMeta   = ".wh..wh."
	whOpaque = ".wh..wh..opq"
	whLinks  = ".wh..wh.plnk"
)

// marker handles members that stand for whiteouts, and aufs's own files.
func (t *tree) marker(e *entry, dir, base string) (done bool, err error) {
	if dir == whLinks && isRegular(e.typ) {
		i, err := t.make(e, t.root)
		if t.aufs == nil {
			t.aufs = make(map[string]*inode)
		}
		t.aufs[dir+"/"+strings.Clone(base)] = i
		return true, err
	}
	if strings.HasPrefix(dir, whMeta) {
		return true, nil
	}
	if !strings.HasPrefix(base, whPrefix) {
		return false, nil
	}
	if strings.HasPrefix(base, whMeta) && base != whOpaque {
		return true, nil
	}
	d, err := t.parent(dir)
	if err != nil {
		return true, pathError(e.name, err)
	}
	if base == whOpaque {
		d.dir.opaque = true
		return true, nil
	}
	name := base[len(whPrefix):]
	if name == "" || name == "." || name == ".." {
		return true, badEntry(e.name, "it is a whiteout of nothing")
	}
	if err := t.checkName(name, d); err != nil {
		return true, pathError(e.name, err)
	}
	if d.dir.white == nil {
		d.dir.white = make(map[string]struct{})
	}
	d.dir.white[strings.Clone(name)] = struct{}{}
	return true, nil
}

// link gives an inode of this layer another name.
func (t *tree) link(e *entry, d *inode, base string) error {
	clean, ok := cleanName(e.link)
	if !ok {
		return badEntry(e.name, "its hard link to %s leads out of the layer", quote(e.link))
	}
	i := t.aufs[clean]
	if i == nil {
		dir, last := splitLast(clean)
		p, err := t.walk(dir, false)
		if err == nil {
			i = p.child(last)
		}
	}
	if clean == "" || i != nil && i.isDir() {
		return linkToDir(e)
	}
	if i == nil {
		var err error
		if i, err = t.below(e, clean); err != nil {
			return err
		}
	}
	if err := t.checkName(base, d); err != nil {
		return pathError(e.name, err)
	}
	t.put(d, base, i)
	return nil
}

func linkToDir(e *entry) error {
	return badEntry(e.name, "it is a hard link to a directory, %s", quote(e.link))
}

// make returns a new inode for a member that is no hard link.
func (t *tree) make(e *entry, d *inode) (*inode, error) {
	var i *inode
	if e.typ == typeDir {
		i = t.newDir(d)
	} else {
		i = t.newInode()
	}
	switch e.typ {
	case typeReg:
		i.mode, i.size, i.data = kindReg, e.size, e.data
		t.content = satAdd(t.content, e.size)
		if e.sparse != nil {
			i.extra().sparse, i.more.isHole = e.sparse, true
		}
	case typeDir:
	case typeSymlink:
		if e.link == "" || len(e.link) > maxTarget {
			return nil, badEntry(e.name, "its link target is empty or longer than %d bytes", maxTarget)
		}
		i.mode, i.size = kindSymlink, int64(len(e.link))
		i.extra().target = strings.Clone(e.link)
		t.meta += int64(len(e.link))
	case typeChar, typeBlock:
		i.mode = kindChar
		if e.typ == typeBlock {
			i.mode = kindBlock
		}
		if e.major < 0 || e.major >= 1<<12 || e.minor < 0 || e.minor >= 1<<20 {
			return nil, badEntry(e.name, "device number %d:%d does not exist in Linux", e.major, e.minor)
		}
		i.rdev = uint32(e.minor&0xff | e.major<<8 | e.minor>>8<<20)
	case typeFifo:
		i.mode = kindFifo
	default:
		return nil, errs.New(errs.Unsupported, "tar entry %s: its type %q is unknown", quote(e.name), e.typ)
	}
	return i, t.setAttrs(i, e)
}

func satAdd(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func (i *inode) extra() *extra {
	if i.more == nil {
		i.more = &extra{}
	}
	return i.more
}

// setAttrs sets what every kind of inode has.
func (t *tree) setAttrs(i *inode, e *entry) error {
	// The last id means "no change" to chown(2) and is nobody's.
	if e.uid < 0 || e.uid >= math.MaxUint32 || e.gid < 0 || e.gid >= math.MaxUint32 {
		return badEntry(e.name, "owner %d:%d is out of range", e.uid, e.gid)
	}
	i.mode = i.kind() | e.mode
	switch i.kind() {
	case kindDir:
		i.dir.implied = false
	case kindSymlink:
		i.mode = kindSymlink | 0o777 // Linux has no others, whatever tars say
	}
	i.uid, i.gid = uint32(e.uid), uint32(e.gid)
	i.mtime, i.nsec = e.mtime, e.nsec
	if len(e.xattrs) == 0 && i.more == nil {
		return nil
	}
	kept, err := t.keepXattrs(i, e)
	if len(kept) > 0 || i.more != nil {
		i.extra().xattrs = kept
	}
	return err
}

// keepXattrs returns the attributes that Linux would store, sorted. Left out:
// namespaces that Linux has not, as extraction would (EOPNOTSUPP); user.* on
// what is neither file nor directory (xattr(7)); and overlayfs's own names,
// which would speak to our overlay mounts instead of to the container.
func (t *tree) keepXattrs(i *inode, e *entry) ([]xattr, error) {
	var out []xattr
	for _, x := range e.xattrs {
		if !storable(i, x) {
			continue
		}
		if len(x.name) > maxName || len(x.value) > math.MaxUint16 {
			return nil, badEntry(e.name, "extended attribute %s is too large", quote(x.name))
		}
		if t.meta += int64(len(x.name) + len(x.value) + 64); t.meta > t.limits.Meta {
			return nil, badEntry(e.name, "the layer's names and attributes need too much memory")
		}
		out = append(out, xattr{strings.Clone(x.name), strings.Clone(x.value)})
	}
	slices.SortFunc(out, func(a, b xattr) int { return cmp.Compare(a.name, b.name) })
	if xattrSize(out) > maxXattrs {
		return nil, badEntry(e.name, "its extended attributes take more than %d bytes", maxXattrs)
	}
	return out, nil
}

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

func storable(i *inode, x xattr) bool {
	if strings.HasPrefix(x.name, overlayXattrs) || strings.HasPrefix(x.name, "user.overlay.") {
		return false
	}
	switch x.name {
	case aclAccess:
		return i.kind() != kindSymlink && validACL(x.value)
	case aclDefault:
		return i.isDir() && validACL(x.value)
	}
	space, rest, _ := strings.Cut(x.name, ".")
	switch space {
	case "user":
		return rest != "" && (i.isDir() || i.kind() == kindReg)
	case "trusted", "security":
		return rest != ""
	}
	return false
}

// validACL checks the shape of a POSIX ACL as xattrs carry it: version 2 and
// entries of eight bytes. The kernel would fail every access to a file whose
// ACL it cannot read.
func validACL(v string) bool {
	return len(v) >= 4 && (len(v)-4)%8 == 0 && binary.LittleEndian.Uint32([]byte(v[:4])) == 2
}

// finish puts whiteouts in place, sorts directories and counts links. The tree
// does not change afterwards.
func (t *tree) finish() {
	whiteout := t.newInode()
	whiteout.mode = kindChar
	t.slab, t.lastDir, t.aufs = nil, nil, nil
	queue := []*inode{t.root}
	t.root.nlink = 2
	for len(queue) > 0 {
		d := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		queue = t.finishDir(d, whiteout, queue)
	}
}

// finishDir is finish for one directory; it appends its subdirectories.
func (t *tree) finishDir(i, whiteout *inode, queue []*inode) []*inode {
	hides := false
	for name, c := range i.dir.children {
		if c.kind() == 0 {
			t.links = append(t.links, looseLink{i, name, c})
			delete(i.dir.children, name)
		}
	}
	if i.dir.implied {
		t.implied++
	}
	for name := range i.dir.white {
		if c := i.child(name); c == nil {
			if i.dir.children == nil {
				i.dir.children = make(map[string]*inode)
			}
			i.dir.children[name] = whiteout
			hides = true
		} else if c.isDir() {
			c.dir.opaque, c.dir.fresh = true, true
		}
	}
	sorted := make([]dirEntry, 0, len(i.dir.children))
	for name, c := range i.dir.children {
		sorted = append(sorted, dirEntry{name, c})
	}
	slices.SortFunc(sorted, func(a, b dirEntry) int { return cmp.Compare(a.name, b.name) })
	i.dir.sorted, i.dir.children, i.dir.white = sorted, nil, nil
	for _, c := range sorted {
		if c.ino.isDir() {
			c.ino.nlink = 2
			i.nlink++
			queue = append(queue, c.ino)
		} else {
			c.ino.nlink++
		}
	}
	if i.dir.opaque {
		i.mark(opaqueXattr, "y")
	}
	if hides {
		i.mark(originXattr, "")
	}
	return queue
}

// mark adds an attribute that is meant for overlayfs.
func (i *inode) mark(name, value string) {
	x := append(slices.Clone(i.xattrs()), xattr{name, value})
	slices.SortFunc(x, func(a, b xattr) int { return cmp.Compare(a.name, b.name) })
	i.extra().xattrs = x
}

// Overlayfs's own attributes. It lists the whiteouts of a directory as if they
// were files when no other layer has that directory, except where there may
// have been one: an empty origin says so.
const (
	overlayXattrs = "trusted.overlay."
	opaqueXattr   = overlayXattrs + "opaque"
	originXattr   = overlayXattrs + "origin"
)
