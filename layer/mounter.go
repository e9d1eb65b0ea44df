package layer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// Mounter mounts layers in the mount namespace of its process, each once, and
// stacks them. The mounts outlive it: a new Mounter over the same directory in
// the same namespace uses what it finds. One Mounter at a time uses a directory;
// its methods may be called from many goroutines.
//
//	<dir>/<hex>/       where the layer is mounted
//	<dir>/<hex>.json   written before: which file in the store it was made from
//	<dir>/empty/a, b   layers with nothing, for overlays that need one more
//	<dir>/o-*/         gone with the call that made it
//
// A layer's mount pins its files on disk until Drop or DropGone.
type Mounter struct {
	l      *Layers
	be     backend
	dir    string
	legacy atomic.Bool // overlayfs here has no "lowerdir+"

	mu     sync.Mutex
	mounts map[spec.Digest]*layerMount
}

// layerMount is what this process knows about one layer's mount.
type layerMount struct {
	mu     sync.Mutex // held while it is made
	id     identity   // zero: not looked at yet
	opaque bool       // hides all layers below
}

// identity is the file that a mount was made from. A layer that was removed
// and pulled again is another file, and gets another mount.
type identity struct {
	Backend string
	Dev     uint64
	Ino     uint64
}

// Mounter returns a Mounter over dir, which it makes where needed.
func (l *Layers) Mounter(dir string) (*Mounter, error) {
	be, err := l.backend()
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	for _, name := range []string{"a", "b"} {
		if err := os.MkdirAll(filepath.Join(dir, "empty", name), 0o755); err != nil {
			return nil, fmt.Errorf("prepare layer mounts: %w", err)
		}
	}
	m := &Mounter{l: l, be: be, dir: dir, mounts: make(map[spec.Digest]*layerMount)}
	m.sweep()
	return m, nil
}

// Backend names the backend.
func (m *Mounter) Backend() string { return m.be.name() }

// Spare is an empty directory for who wants to mount something in a mount
// namespace of his own.
func (m *Mounter) Spare() string { return filepath.Join(m.dir, "empty", "a") }

func (m *Mounter) path(d spec.Digest) string { return filepath.Join(m.dir, d.Hex()) }

// sweep removes what a Mounter that was killed left of an overlay's making.
func (m *Mounter) sweep() {
	left, _ := filepath.Glob(filepath.Join(m.dir, "o-*"))
	for _, dir := range left {
		clearMade(dir)
	}
}

// clearMade removes a directory that an overlay was made in, and what is
// mounted there. While anything is, nothing is deleted: it could be a
// container's.
func clearMade(dir string) {
	at := filepath.Join(dir, "m")
	if sys.Unmount(at) != nil {
		return
	}
	if there, err := sys.IsMountPoint(at); err == nil && !there {
		os.RemoveAll(dir)
	}
}

// layer makes sure that a layer is mounted, at m.path, and tells whether it
// hides all layers below.
func (m *Mounter) layer(d spec.Digest) (opaque bool, err error) {
	if !spec.IsHex64(d.Hex()) {
		return false, errs.New(errs.Invalid, "invalid layer digest %q", string(d))
	}
	m.mu.Lock()
	lm := m.mounts[d]
	if lm == nil {
		lm = &layerMount{}
		m.mounts[d] = lm
	}
	m.mu.Unlock()

	lm.mu.Lock()
	defer lm.mu.Unlock()
	now, err := m.identity(d)
	if err == nil && now == lm.id {
		return lm.opaque, nil
	}
	if err := m.mount(d, lm); err != nil {
		return false, fmt.Errorf("mount layer %s: %w", d.Short(), err)
	}
	return lm.opaque, nil
}

// identity looks at the layer's prepared file; fs.ErrNotExist when it is not
// prepared, or not in the store.
func (m *Mounter) identity(d spec.Digest) (identity, error) {
	st, err := os.Lstat(m.l.path(d, m.be.file()))
	if err != nil {
		return identity{}, err
	}
	sys := st.Sys().(*syscall.Stat_t)
	return identity{m.be.name(), uint64(sys.Dev), sys.Ino}, nil
}

// mount uses the mount that is there or makes one, and fills lm.
func (m *Mounter) mount(d spec.Digest, lm *layerMount) error {
	lock, err := m.l.Get(d)
	if err != nil {
		return err
	}
	defer lock.Close()
	id, err := m.identity(d)
	if errors.Is(err, fs.ErrNotExist) {
		if err := m.l.prepareLate(m.be, lock.Info); err != nil {
			return err
		}
		if lock.Info, err = m.l.info(d); err != nil {
			return err
		}
		id, err = m.identity(d)
	}
	if err != nil {
		return err
	}
	if there, err := m.keep(d, id); err != nil {
		return err
	} else if !there {
		if err := m.attach(d, lock.Info, id); err != nil {
			return err
		}
	}
	lm.id, lm.opaque = id, lock.Opaque
	return nil
}

// keep reports whether d is mounted from the file id already, and takes a
// mount of another one away.
func (m *Mounter) keep(d spec.Digest, id identity) (there bool, err error) {
	path := m.path(d)
	if there, err = sys.IsMountPoint(path); err != nil || !there {
		return false, err
	}
	var was identity
	if b, err := os.ReadFile(path + ".json"); err == nil && json.Unmarshal(b, &was) == nil && was == id {
		return true, nil
	}
	return false, sys.Unmount(path)
}

func (m *Mounter) attach(d spec.Digest, info Info, id identity) error {
	mnt, err := m.be.mount(m.l.path(d), info)
	if err != nil {
		return err
	}
	defer mnt.Close()
	path := m.path(d)
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := m.l.st.WriteFile(path+".json", b, false); err != nil {
		return err
	}
	return sys.AttachMount(mnt, nil, path)
}

// Drop unmounts a layer. Overlays made from it keep working; only new ones
// mount it again. That it is not mounted is no error.
func (m *Mounter) Drop(d spec.Digest) error {
	if !spec.IsHex64(d.Hex()) {
		return nil
	}
	m.mu.Lock()
	lm := m.mounts[d]
	delete(m.mounts, d)
	m.mu.Unlock()
	if lm != nil {
		// Whoever is just mounting it had asked before us.
		lm.mu.Lock()
		defer lm.mu.Unlock()
	}
	path := m.path(d)
	if err := sys.Unmount(path); err != nil {
		return err
	}
	os.Remove(path + ".json")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Mounted lists the layers that are mounted.
func (m *Mounter) Mounted() ([]spec.Digest, error) {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return nil, err
	}
	var out []spec.Digest
	for _, e := range entries {
		if spec.IsHex64(e.Name()) {
			out = append(out, spec.Digest("sha256:"+e.Name()))
		}
	}
	return out, nil
}

// DropGone unmounts the layers that are no longer in the store, or of which
// the store has another copy now, so that their space becomes free.
func (m *Mounter) DropGone() error {
	all, err := m.Mounted()
	if err != nil {
		return err
	}
	var errAll error
	for _, d := range all {
		id, err := m.identity(d)
		var was identity
		if b, rerr := os.ReadFile(m.path(d) + ".json"); err == nil && rerr == nil && json.Unmarshal(b, &was) == nil && was == id {
			continue
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			errAll = errors.Join(errAll, m.Drop(d))
		}
	}
	return errAll
}
