package layer

import "strings"

// view is the tree that layers on top of each other show, as overlayfs would.
type view struct {
	root   *node
	dress  *inode // the highest root directory that a tar has an entry for
	layers int    // that are in it
	nodes  int
	limits *Limits
}

// node is one name. Its inode belongs to the tree of the layer it came from.
type node struct {
	ino   *inode
	layer int              // whose tar holds its data
	kids  map[string]*node // of a directory; may be nil
}

func newView(limits *Limits) *view {
	t := newTree(limits)
	t.finish()
	return &view{root: &node{ino: t.root}, limits: limits}
}

// cover lays a layer on top. Directories that the layer has without an entry
// keep what they are; their paths are returned, for overlayfs does not do so.
func (v *view) cover(t *tree) (kept []string, err error) {
	if t.rooted {
		v.dress = t.root
	}
	c := &covering{v: v}
	was := v.root.ino
	c.directory(v.root, t.root, "")
	v.root.ino = was
	v.layers++
	if v.nodes > v.limits.Entries {
		return nil, v.limits.tooMany("the image's layers have together")
	}
	return c.kept, nil
}

type covering struct {
	v    *view
	kept []string
}

// directory lays top over the directory n. path is n's, with a slash at its end
// except for the root's.
func (c *covering) directory(n *node, top *inode, path string) {
	if top.dir.opaque {
		c.v.forget(n)
	}
	for _, e := range top.dir.sorted {
		old := n.kids[e.name]
		switch {
		case e.ino.kind() == kindChar && e.ino.rdev == 0:
			if old != nil {
				c.v.forget(old)
				delete(n.kids, e.name)
				c.v.nodes--
			}
		case e.ino.isDir() && old != nil && old.ino.isDir():
			if e.ino.dir.implied && !e.ino.dir.fresh {
				c.kept = append(c.kept, path+e.name)
			} else {
				old.ino, old.layer = e.ino, c.v.layers
			}
			c.directory(old, e.ino, path+e.name+"/")
		default:
			if old == nil {
				c.v.nodes++
			} else {
				c.v.forget(old)
			}
			if n.kids == nil {
				n.kids = make(map[string]*node)
			}
			fresh := &node{ino: e.ino, layer: c.v.layers}
			n.kids[e.name] = fresh
			if e.ino.isDir() && c.v.nodes <= c.v.limits.Entries {
				c.directory(fresh, e.ino, path+e.name+"/")
			}
		}
	}
}

// forget empties a directory.
func (v *view) forget(n *node) {
	v.nodes -= len(n.kids)
	for _, k := range n.kids {
		v.forget(k)
	}
	n.kids = nil
}

// at returns the node of a path that is there.
func (v *view) at(path string) *node {
	n := v.root
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		n = n.kids[name]
	}
	return n
}

// put gives a file a name in dir, a path with a slash at its end.
func (v *view) put(dir, name string, f *target) {
	n := v.at(strings.TrimSuffix(dir, "/"))
	if old := n.kids[name]; old != nil {
		v.forget(old)
	} else {
		v.nodes++
	}
	if n.kids == nil {
		n.kids = make(map[string]*node)
	}
	n.kids[name] = &node{ino: f.ino, layer: f.layer}
}

// eachFile calls f for everything but directories.
func (n *node) eachFile(path string, f func(path string, n *node)) {
	for name, k := range n.kids {
		if k.ino.isDir() {
			k.eachFile(path+name+"/", f)
		} else {
			f(path+name, k)
		}
	}
}
