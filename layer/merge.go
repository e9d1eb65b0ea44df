package layer

import (
	"context"
	"os"
	"strings"

	"tug/errs"
	"tug/spec"
)

// Merged is the file tree that a stack of layers shows, as overlayfs would
// show it, made from the tars' headers. It needs neither root nor a mount. The
// layers cannot be removed until Close.
type Merged struct {
	Root   *Node
	Layers []Stacked // lowest first

	srcs []*source
}

// Node is one name in a Merged. It does not change.
type Node struct {
	Name     string
	Layer    int     // index of the layer that it comes from
	Children []*Node // of directories, in the order of their bytes

	ino *inode
}

// File describes n as the file called path.
func (n *Node) File(path string) *File { return n.ino.file(path) }

// IsDir reports whether n is a directory.
func (n *Node) IsDir() bool { return n.ino.isDir() }

// Links is how many names the file has within its layer; the names of one file
// have the same Same.
func (n *Node) Links() int    { return int(n.ino.nlink) }
func (n *Node) Same() any     { return n.ino }
func (n *Node) Stored() int64 { return n.ino.stored() }

// Child returns the entry of that name, or nil.
func (n *Node) Child(name string) *Node {
	for _, c := range n.Children {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Stacked is one layer within a stack: what it does to the layers below, and
// what the layers above do to it.
type Stacked struct {
	Info
	Changes []Change
	Files   int   // names other than directories that it brings
	Data    int64 // bytes of file data in its tar that it shows; hard links count once
	Wasted  int64 // of Data, what higher layers replace or hide
	Hides   int64 // data of lower layers that it replaces or hides
}

// Change is one difference that a layer makes to the tree below it.
type Change struct {
	Kind   ChangeKind
	Path   string
	Detail Detail // what of it changed
	Size   int64  // of the file now; of all that was in it when it was removed
	Files  int    // names that went with a removed directory, itself not counted
	Mode   uint32 // as st_mode, of the file before when it was removed
	Wasted int64  // bytes of lower layers that this change makes useless
}

// ChangeKind is one of Docker's letters.
type ChangeKind byte

const (
	Added   ChangeKind = 'A'
	Changed ChangeKind = 'C'
	Removed ChangeKind = 'D'
)

func (k ChangeKind) String() string { return string(k) }

// Word names k in JSON.
func (k ChangeKind) Word() string {
	switch k {
	case Added:
		return "added"
	case Changed:
		return "changed"
	}
	return "removed"
}

// Detail is what differs between two files, as bits.
type Detail uint16

const (
	DiffType Detail = 1 << iota
	DiffContent
	DiffMode
	DiffOwner
	DiffTarget
	DiffDevice
	DiffXattrs
	DiffTimes
)

// Words names what differs, in a fixed order; nothing for identical files.
func (d Detail) Words() []string {
	var out []string
	for i, w := range [...]string{"type", "content", "mode", "owner", "target", "device", "xattrs", "times"} {
		if d&(1<<i) != 0 {
			out = append(out, w)
		}
	}
	return out
}

// source is one layer that is read: its tree and its tar.
type source struct {
	held *Layer
	tree *tree
	tar  *os.File
}

func (s *source) close() {
	s.tar.Close()
	s.held.Close()
}

// Limits on what a stack of layers may take in memory, besides each layer's.
const (
	maxStackEntries = 16 << 20
	maxStackMeta    = 2 << 30
)

// merger makes one or several Merged.
type merger struct {
	ctx     context.Context
	l       *Layers
	srcs    []*source // by index in the stack
	read    map[spec.Digest]*source
	entries int
	meta    int64

	k    int
	path []string // directories down to where it is at
	out  *Stacked // of layer k; nil: changes are not wanted
	all  []Stacked
	gone map[*inode]uint32 // names that are gone, of files with several
	buf  [2][]byte
}

func newMerger(ctx context.Context, l *Layers) *merger {
	return &merger{ctx: ctx, l: l, read: map[spec.Digest]*source{}, gone: map[*inode]uint32{}}
}

func (m *merger) close() {
	for _, s := range m.read {
		s.close()
	}
}

// Merge reads a stack of layers, lowest first. Errors: NotFound for a layer
// that is not there, Corrupt for a damaged one, Unsupported for a stack with
// too many files to hold.
func (l *Layers) Merge(ctx context.Context, layers []spec.Digest) (*Merged, error) {
	m := newMerger(ctx, l)
	root, err := m.stack(nil, layers, true)
	if err != nil {
		m.close()
		return nil, err
	}
	return &Merged{Root: root, Layers: m.all, srcs: m.srcs}, nil
}

// Close lets go of the layers.
func (m *Merged) Close() {
	seen := map[*source]bool{}
	for _, s := range m.srcs {
		if !seen[s] {
			seen[s] = true
			s.close()
		}
	}
}

// open reads one layer, once.
func (m *merger) open(d spec.Digest) (*source, error) {
	if s := m.read[d]; s != nil {
		return s, nil
	}
	if err := m.ctx.Err(); err != nil {
		return nil, context.Cause(m.ctx)
	}
	held, err := m.l.Get(d)
	if err != nil {
		return nil, err
	}
	t, tar, err := m.l.readBack(d)
	if err != nil {
		held.Close()
		return nil, err
	}
	s := &source{held, t, tar}
	m.read[d] = s
	m.entries += t.entries
	if m.meta += t.meta; m.entries > maxStackEntries || m.meta > maxStackMeta {
		return nil, errs.New(errs.Unsupported, "the image has too many files to look into: more than %d, or than %d MiB of names", maxStackEntries, maxStackMeta>>20)
	}
	return s, nil
}

// stack puts layers on root, which may be nil.
func (m *merger) stack(root *Node, layers []spec.Digest, changes bool) (*Node, error) {
	for _, d := range layers {
		s, err := m.open(d)
		if err != nil {
			return nil, err
		}
		m.srcs = append(m.srcs, s)
		m.k = len(m.srcs) - 1
		if changes {
			m.all = append(m.all, Stacked{Info: s.held.Info})
			m.out = &m.all[m.k]
		}
		if root, err = m.root(root, s.tree); err != nil {
			return nil, err
		}
	}
	if root == nil {
		limits := Limits{}.withDefaults()
		root = &Node{ino: newTree(&limits).root}
	}
	return root, nil
}

// root puts a layer on what is below. The root directory of a layer whose tar
// has no entry for it keeps its attributes.
func (m *merger) root(low *Node, t *tree) (*Node, error) {
	n, err := m.dir("", low, t.root, false)
	if err == nil && low != nil && !t.rooted {
		n.Layer, n.ino = low.Layer, low.ino
	}
	return n, err
}

// dir puts directory up on low, which may be nil or of another kind. With hide
// nothing of low shows through.
func (m *merger) dir(name string, low *Node, up *inode, hide bool) (*Node, error) {
	if err := m.ctx.Err(); err != nil {
		return nil, context.Cause(m.ctx)
	}
	n := &Node{Name: name, Layer: m.k, ino: up}
	hide = hide || up.dir.opaque
	var lower []*Node
	if low != nil {
		lower = low.Children
	}
	n.Children = make([]*Node, 0, max(len(lower), len(up.dir.sorted)))
	add := func(c *Node, err error) error {
		if c != nil {
			n.Children = append(n.Children, c)
		}
		return err
	}
	if name != "" {
		m.path = append(m.path, name)
		defer func() { m.path = m.path[:len(m.path)-1] }()
	}
	for _, c := range up.dir.sorted {
		for len(lower) > 0 && lower[0].Name < c.name {
			if err := add(m.keep(lower[0], hide), nil); err != nil {
				return nil, err
			}
			lower = lower[1:]
		}
		var under *Node
		if len(lower) > 0 && lower[0].Name == c.name {
			under, lower = lower[0], lower[1:]
		}
		if err := add(m.entry(c.name, under, c.ino, hide)); err != nil {
			return nil, err
		}
	}
	for _, c := range lower {
		if err := add(m.keep(c, hide), nil); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// keep is an entry that only lower layers have.
func (m *merger) keep(low *Node, hide bool) *Node {
	if !hide {
		return low
	}
	m.removed(low)
	return nil
}

// entry puts one entry of the layer on what is below it, which may be nil.
func (m *merger) entry(name string, low *Node, up *inode, hide bool) (*Node, error) {
	if up.isWhiteout() {
		if low != nil {
			m.removed(low)
		}
		return nil, nil
	}
	if low == nil {
		m.change(Change{Kind: Added, Path: m.at(name)}, up)
		return m.whole(name, nil, up, hide)
	}
	if up.isDir() && low.IsDir() {
		if d := attrDiff(low.ino, up) &^ DiffTimes; d != 0 {
			m.change(Change{Kind: Changed, Path: m.at(name), Detail: d}, up)
		}
		return m.dir(name, low, up, hide)
	}
	if low.ino == up {
		return low, nil // the same layer once more
	}
	d, err := m.diff(low, up)
	if err != nil {
		return nil, err
	}
	_, gone := m.drop(low)
	m.change(Change{Kind: Changed, Path: m.at(name), Detail: d, Wasted: gone.wasted}, up)
	return m.whole(name, nil, up, hide)
}

// whole is an entry with nothing below it.
func (m *merger) whole(name string, low *Node, up *inode, hide bool) (*Node, error) {
	if up.isDir() {
		return m.dir(name, low, up, hide)
	}
	return &Node{Name: name, Layer: m.k, ino: up}, nil
}

func (m *merger) at(name string) string {
	if m.out == nil {
		return ""
	}
	return strings.Join(append(m.path, name), "/")
}

// change notes what the layer brings.
func (m *merger) change(c Change, i *inode) {
	if m.out == nil {
		return
	}
	c.Mode = uint32(i.mode)
	if i.kind() == kindReg {
		c.Size = i.size
	}
	m.out.Changes = append(m.out.Changes, c)
	if i.isDir() {
		return
	}
	m.out.Files++
	if i.kind() == kindReg && !i.counted {
		// Names of one file count once; this tree is nobody else's.
		i.counted = true
		m.out.Data += i.stored()
	}
}

// dropped is what a removal takes along.
type dropped struct {
	files  int
	size   int64
	wasted int64
}

// removed notes that a name of lower layers is gone.
func (m *merger) removed(low *Node) {
	if m.out == nil {
		return
	}
	size, d := m.drop(low)
	m.out.Changes = append(m.out.Changes, Change{
		Kind: Removed, Path: m.at(low.Name), Size: size, Files: d.files - 1, Mode: uint32(low.ino.mode), Wasted: d.wasted,
	})
}

// drop counts what becomes invisible with low.
func (m *merger) drop(low *Node) (size int64, d dropped) {
	if m.out == nil {
		return 0, d
	}
	d.files = 1
	if i := low.ino; i.kind() == kindReg {
		d.size = i.size
		if m.gone[i]++; m.gone[i] == i.nlink {
			d.wasted = i.stored()
			m.all[low.Layer].Wasted += d.wasted
			m.out.Hides += d.wasted
		}
	}
	for _, c := range low.Children {
		_, s := m.drop(c)
		d.files, d.size, d.wasted = d.files+s.files, satAdd(d.size, s.size), d.wasted+s.wasted
	}
	return d.size, d
}

// isWhiteout reports whether i stands for a whiteout.
func (i *inode) isWhiteout() bool { return i.kind() == kindChar && i.rdev == 0 }

// stored is how many bytes of a file's data the tar holds.
func (i *inode) stored() int64 {
	if i.kind() != kindReg {
		return 0
	}
	segs, sparse := i.sparse()
	if !sparse {
		return i.size
	}
	n := int64(0)
	for _, g := range segs {
		n += g.n
	}
	return n
}

// attrDiff compares what two inodes of one kind have besides their content.
func attrDiff(a, b *inode) Detail {
	var d Detail
	if a.mode&0o7777 != b.mode&0o7777 && a.kind() != kindSymlink {
		d |= DiffMode
	}
	if a.uid != b.uid || a.gid != b.gid {
		d |= DiffOwner
	}
	if a.mtime != b.mtime || a.nsec != b.nsec {
		d |= DiffTimes
	}
	if a.target() != b.target() {
		d |= DiffTarget
	}
	if a.rdev != b.rdev {
		d |= DiffDevice
	}
	if !sameXattrs(a, b) {
		d |= DiffXattrs
	}
	return d
}

// sameXattrs compares attributes, without those that speak to overlayfs.
func sameXattrs(a, b *inode) bool {
	own := func(i *inode) (out []xattr) {
		for _, x := range i.xattrs() {
			if !strings.HasPrefix(x.name, overlayXattrs) {
				out = append(out, x)
			}
		}
		return out
	}
	x, y := own(a), own(b)
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if x[i] != y[i] {
			return false
		}
	}
	return true
}

// diff compares the file low with what replaces it.
func (m *merger) diff(low *Node, up *inode) (Detail, error) {
	if m.out == nil {
		return 0, nil
	}
	return m.compare(m.srcs[low.Layer], low.ino, m.srcs[m.k], up)
}
