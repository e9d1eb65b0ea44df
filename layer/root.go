package layer

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"tug/spec"
	"tug/sys"
)

// Attrs are what a directory has besides its entries.
type Attrs struct {
	Mode     uint16 // permissions
	UID, GID uint32
	Mtime    int64
	Nsec     uint32
	Xattrs   map[string][]byte `json:",omitempty"`
}

// rootAttrs returns the attributes that the tar gives to the layer's root
// directory; nil when it has no entry for it.
func (t *tree) rootAttrs() *Attrs {
	if !t.rooted {
		return nil
	}
	r := t.root
	a := &Attrs{Mode: r.mode & 0o7777, UID: r.uid, GID: r.gid, Mtime: r.mtime, Nsec: r.nsec}
	for _, x := range r.xattrs() {
		if strings.HasPrefix(x.name, overlayXattrs) {
			continue // speaks of the layer, not of the directory
		}
		if a.Xattrs == nil {
			a.Xattrs = make(map[string][]byte)
		}
		a.Xattrs[x.name] = []byte(x.value)
	}
	return a
}

// DressRoot gives dir, which is to be the upper directory over layers (lowest
// first), the attributes that the root directory has in the highest layer with
// an entry for it: overlayfs shows the upper directory's own. When no layer has
// one, dir stays as it is. A layer that only adds files to the root changes its
// time for whoever extracts layers one by one, to a time that nobody defines.
func (l *Layers) DressRoot(dir string, layers []spec.Digest) error {
	for i := len(layers) - 1; i >= 0; i-- {
		info, err := l.info(layers[i])
		if err != nil {
			return err
		}
		if info.Root != nil {
			return info.Root.set(dir)
		}
	}
	return nil
}

// set puts the attributes on dir, in the order of extraction.finishOpen.
// Attributes that the filesystem does not know are left out.
func (a *Attrs) set(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chown(int(a.UID), int(a.GID)); err != nil {
		return err
	}
	for name, value := range a.Xattrs {
		if err := sys.SetXattr(f, name, value); err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
			return xattrError(err, xattr{name, string(value)})
		}
	}
	if err := sys.Fchmod(f, uint32(a.Mode)); err != nil {
		return err
	}
	return sys.UtimesAt(f, "", a.Mtime, a.Nsec)
}
