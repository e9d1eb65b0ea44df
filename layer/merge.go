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

	srcs  []*source // the stack
	layer []int     // by position in the stack, the index in Layers
}

// Node is one name in a Merged. It does not change.
type Node struct {
	Name     string
	Children []*Node // of directories, in the order of their bytes

	pos int // of its layer in the stack
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
	srcs    []*source // by position in the stack
	read    map[spec.Digest]*source
	entries int
	meta    int64
	buf     [2][]byte
}

func newMerger(ctx context.Context, l *Layers) *merger {
	return &merger{ctx: ctx, l: l, read: map[spec.Digest]*source{}}
}

func (m *merger) close() {
	for _, s := range m.read {
		s.close()
	}
}

// Merge reads the layers of an image and the stack that is mounted for them
// (see Layers.Stack), both lowest first. What was made to lie above a layer
// counts as that layer's. Errors: NotFound for a layer that is not there, Corrupt
// for a damaged one, Unsupported for a stack with too many files to hold.
func (l *Layers) Merge(ctx context.Context, layers, stack []spec.Digest) (*Merged, error) {
	m := newMerger(ctx, l)
	out, err := m.merge(layers, stack)
	if err != nil {
		m.close()
	}
	return out, err
}

// Tree is Merge without finding out what the layers change.
func (l *Layers) Tree(ctx context.Context, stack []spec.Digest) (*Merged, error) {
	m := newMerger(ctx, l)
	root, err := m.stack(nil, stack)
	if err != nil {
		m.close()
		return nil, err
	}
	return &Merged{Root: root, srcs: m.srcs}, nil
}

func (m *merger) merge(layers, stack []spec.Digest) (*Merged, error) {
	c := &changes{m: m, gone: map[*inode]uint32{}}
	root, _ := m.stack(nil, nil)
	for at := 0; at < len(stack); {
		next := at + 1 // behind the layer and what was made for it
		for next < len(stack) && (len(c.all)+1 >= len(layers) || stack[next] != layers[len(c.all)+1]) {
			next++
		}
		after, err := m.stack(root, stack[at:next])
		if err != nil {
			return nil, err
		}
		for n := at; n < next; n++ {
			c.layer, c.made = append(c.layer, len(c.all)), append(c.made, n > at)
		}
		c.all = append(c.all, Stacked{Info: m.srcs[at].held.Info})
		if err := c.between(root, after); err != nil {
			return nil, err
		}
		root, at = after, next
	}
	return &Merged{Root: root, Layers: c.all, srcs: m.srcs, layer: c.layer}, nil
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

// LayerOf returns the index in m.Layers of the layer that n comes from.
func (m *Merged) LayerOf(n *Node) int {
	if len(m.layer) == 0 {
		return 0
	}
	return m.layer[n.pos]
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

// stack puts layers on root; nil is the empty tree.
func (m *merger) stack(root *Node, layers []spec.Digest) (*Node, error) {
	if root == nil {
		limits := Limits{}.withDefaults()
		root = &Node{ino: newTree(&limits).root}
	}
	for _, d := range layers {
		s, err := m.open(d)
		if err != nil {
			return nil, err
		}
		m.srcs = append(m.srcs, s)
		n := m.dir("", root, s.tree.root, false)
		if !s.tree.rooted {
			// The root directory has the attributes of the highest layer with
			// an entry for it.
			n.pos, n.ino = root.pos, root.ino
		}
		root = n
	}
	return root, nil
}

// dir puts directory up on low, which may be nil or of another kind. With hide
// nothing of low shows through. low stays as it is.
func (m *merger) dir(name string, low *Node, up *inode, hide bool) *Node {
	n := &Node{Name: name, pos: len(m.srcs) - 1, ino: up}
	var lower []*Node
	if low != nil {
		lower = low.Children
		if up.dir.implied && !up.dir.fresh && !hide && low.IsDir() {
			n.pos, n.ino = low.pos, low.ino
		}
	}
	hide = hide || up.dir.opaque
	n.Children = make([]*Node, 0, max(len(lower), len(up.dir.sorted)))
	keep := func(c *Node) {
		if !hide {
			n.Children = append(n.Children, c)
		}
	}
	for _, c := range up.dir.sorted {
		for len(lower) > 0 && lower[0].Name < c.name {
			keep(lower[0])
			lower = lower[1:]
		}
		var under *Node
		if len(lower) > 0 && lower[0].Name == c.name {
			under, lower = lower[0], lower[1:]
		}
		switch {
		case c.ino.isWhiteout():
		case c.ino.isDir():
			n.Children = append(n.Children, m.dir(c.name, under, c.ino, hide))
		case under != nil && under.ino == c.ino: // the same layer once more
			n.Children = append(n.Children, under)
		default:
			n.Children = append(n.Children, &Node{Name: c.name, pos: len(m.srcs) - 1, ino: c.ino})
		}
	}
	for _, c := range lower {
		keep(c)
	}
	return n
}

// changes finds out what layers do to each other.
type changes struct {
	m     *merger
	all   []Stacked
	layer []int             // by position in the stack, the index in all
	made  []bool            // by position: made for the layer below it
	gone  map[*inode]uint32 // names that are gone, of files with several
	out   *Stacked          // the layer that is looked at
}

// between lists what the newest layer changed.
func (c *changes) between(before, after *Node) error {
	c.out = &c.all[len(c.all)-1]
	return c.below("", before, after)
}

// below compares what is in two directories; before may be of another kind.
func (c *changes) below(dir string, before, after *Node) error {
	if err := c.m.ctx.Err(); err != nil {
		return context.Cause(c.m.ctx)
	}
	return eachPair(dir, before.Children, after.Children, func(path string, a, b *Node) error {
		switch {
		case a == b:
			return nil
		case b == nil:
			d := c.drop(a)
			c.out.Changes = append(c.out.Changes, Change{
				Kind: Removed, Path: path, Size: d.size, Files: d.files - 1, Mode: uint32(a.ino.mode), Wasted: d.wasted,
			})
			return nil
		case a == nil:
			c.brings(Change{Kind: Added, Path: path}, b)
			return c.below(path, &Node{}, b)
		case a.IsDir() && b.IsDir():
			if d := attrDiff(a.ino, b.ino) &^ DiffTimes; d != 0 {
				c.brings(Change{Kind: Changed, Path: path, Detail: d}, b)
			}
			return c.below(path, a, b)
		}
		return c.replaced(path, a, b)
	})
}

// eachPair calls f for all names in two directories, with nil for what one has
// not.
func eachPair(dir string, x, y []*Node, f func(path string, a, b *Node) error) error {
	if dir != "" {
		dir += "/"
	}
	for len(x) > 0 || len(y) > 0 {
		var a, b *Node
		if len(y) == 0 || len(x) > 0 && x[0].Name <= y[0].Name {
			a = x[0]
		}
		if len(x) == 0 || len(y) > 0 && y[0].Name <= x[0].Name {
			b = y[0]
		}
		name := ""
		if a != nil {
			name, x = a.Name, x[1:]
		}
		if b != nil {
			name, y = b.Name, y[1:]
		}
		if err := f(dir+name, a, b); err != nil {
			return err
		}
	}
	return nil
}

// replaced is a name that shows another file now.
func (c *changes) replaced(path string, a, b *Node) error {
	d, err := c.m.compare(c.m.srcs[a.pos], a.ino, c.m.srcs[b.pos], b.ino)
	if err != nil {
		return err
	}
	if c.made[b.pos] && d == 0 {
		return nil // a copy for a hard link to it
	}
	gone := c.drop(a)
	c.brings(Change{Kind: Changed, Path: path, Detail: d, Wasted: gone.wasted}, b)
	return c.below(path, &Node{}, b)
}

// brings notes what the layer brings.
func (c *changes) brings(change Change, n *Node) {
	i := n.ino
	change.Mode = uint32(i.mode)
	if i.kind() == kindReg {
		change.Size = i.size
	}
	c.out.Changes = append(c.out.Changes, change)
	if i.isDir() {
		return
	}
	c.out.Files++
	if i.kind() == kindReg && !i.counted && !c.made[n.pos] {
		// Names of one file count once; this tree is nobody else's.
		i.counted = true
		c.out.Data += i.stored()
	}
}

// dropped is what a removal takes along.
type dropped struct {
	files  int
	size   int64
	wasted int64
}

// drop counts what becomes invisible with low.
func (c *changes) drop(low *Node) (d dropped) {
	d.files = 1
	if i := low.ino; i.kind() == kindReg {
		d.size = i.size
		if c.gone[i]++; c.gone[i] == i.nlink && !c.made[low.pos] {
			d.wasted = i.stored()
			c.all[c.layer[low.pos]].Wasted += d.wasted
			c.out.Hides += d.wasted
		}
	}
	for _, n := range low.Children {
		s := c.drop(n)
		d.files, d.size, d.wasted = d.files+s.files, satAdd(d.size, s.size), d.wasted+s.wasted
	}
	return d
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
	if a.mode&0o7777 != b.mode&0o7777 {
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
