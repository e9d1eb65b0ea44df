// Package layer stores image layers and mounts them.
//
// A layer is kept as the tar it is, byte for byte, beside an index that lets
// the kernel read files out of it; nothing is extracted (except by the dir
// backend, for kernels that cannot). The package does not know images, and it
// does not talk to registries: it is given a stream of bytes and the digests
// they must have.
//
// Surprising: a layer can be used only by somebody who holds its lock or a
// reference to it (package state), because rmi takes the directory away with
// one rename. And what is mounted is not always just the layers of an image,
// see Stack.
package layer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/state"
	"tug/sys"
)

// Files of a layer's directory.
const (
	fileTar   = "tar"
	fileIndex = "index.erofs"
	fileMeta  = "meta.json"
	dirFS     = "fs" // the extracted tree, for the dir backend
)

// Layers is the collection of all layers of a store. It holds no lock and no
// cache of what is on disk; methods may be called from many goroutines.
type Layers struct {
	Limits Limits // of what Add accepts; zero values are defaults

	st      *state.Store
	forced  string // backend asked for; "" probes
	once    sync.Once
	chosen  backend
	failed  error
	storage Storage
	probing sync.Mutex // held while a backend is tried
}

// Info describes a layer; it is what meta.json holds.
type Info struct {
	DiffID    spec.Digest       // digest of the uncompressed tar: the layer's name
	Size      int64             // bytes of the tar
	Content   int64             // sum of the sizes of its files
	Entries   int               // members of the tar
	IndexSize int64             // bytes of index.erofs; 0: none
	Blobs     []spec.Descriptor // compressed forms this layer has come in
	Source    string            // where it came from first
	CRC32C    *uint32           `json:",omitempty"` // of the tar; nil in layers of older stores
	Root      *Attrs            `json:",omitempty"` // of the root directory; nil: the tar has no entry for it
	Opaque    bool              `json:",omitempty"` // the root directory hides all lower layers
	Loose     int               `json:",omitempty"` // names that depend on lower layers, see Stack
}

// Layer is a layer that cannot be removed until Close.
type Layer struct {
	Info
	lock *os.File
}

// Close lets go of the layer.
func (l *Layer) Close() error { return l.lock.Close() }

// Open returns the layers of a store. storage names a backend ("erofs",
// "erofs-loop", "dir"), or is empty for the best that works. Nothing is probed
// before it is needed.
func Open(st *state.Store, storage string) *Layers { return &Layers{st: st, forced: storage} }

func (l *Layers) path(d spec.Digest, elem ...string) string {
	return filepath.Join(append([]string{l.st.Layer(d.Hex())}, elem...)...)
}

func noLayer(d spec.Digest) error {
	return errs.New(errs.NotFound, "layer %s is not in the store", d)
}

// lockDir opens and locks a layer's directory. It returns nil and no error
// when the lock is not waited for and cannot be had.
func (l *Layers) lockDir(d spec.Digest, exclusive bool) (*os.File, error) {
	if !spec.IsHex64(d.Hex()) {
		return nil, errs.New(errs.Invalid, "invalid layer digest %q", string(d))
	}
	path := l.path(d)
	for {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, noLayer(d)
		}
		if err != nil {
			return nil, err
		}
		if exclusive {
			had, err := sys.TryLock(f, true)
			if err != nil || !had {
				f.Close()
				return nil, err
			}
		} else if err := sys.Lock(f, false); err != nil {
			f.Close()
			return nil, err
		}
		// While the lock was waited for, rmi may have taken the directory
		// away, and a new pull may have put another in its place.
		same, err := sys.SameFile(f, path)
		if err == nil && same {
			return f, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// Get returns a layer with its shared lock; NotFound when there is none.
func (l *Layers) Get(diffID spec.Digest) (*Layer, error) {
	f, err := l.lockDir(diffID, false)
	if err != nil {
		return nil, err
	}
	info, err := l.info(diffID)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Layer{Info: info, lock: f}, nil
}

// info reads meta.json and compares it with the tar, which mounts without
// complaint when it is cut short and fails later.
func (l *Layers) info(d spec.Digest) (Info, error) {
	var info Info
	err := state.ReadJSON(l.path(d, fileMeta), &info)
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Lstat(l.path(d)); errors.Is(serr, fs.ErrNotExist) {
			return info, noLayer(d)
		}
		return info, damaged(d, "it has no "+fileMeta)
	}
	if err != nil {
		return info, err
	}
	st, err := os.Lstat(l.path(d, fileTar))
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return info, err
	case err != nil:
		return info, damaged(d, "its tar is missing")
	case info.DiffID != d:
		return info, damaged(d, "its "+fileMeta+" is of another layer")
	case st.Size() != info.Size:
		return info, damaged(d, fmt.Sprintf("its tar has %d bytes instead of %d", st.Size(), info.Size))
	}
	return info, nil
}

func damaged(d spec.Digest, why string) error {
	return errs.New(errs.Corrupt, "layer %s in the store is damaged: %s", d, why).
		WithHint("remove the images that use it and pull them again")
}

// List describes all layers; one that is damaged or just going is left out.
func (l *Layers) List() ([]Info, error) {
	entries, err := os.ReadDir(l.st.Layers())
	if err != nil {
		return nil, err
	}
	var out []Info
	for _, e := range entries {
		if !spec.IsHex64(e.Name()) {
			continue
		}
		info, err := l.info(spec.Digest("sha256:" + e.Name()))
		if errs.Is(err, errs.Corrupt) || errs.Is(err, errs.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}

// Remove deletes a layer; Conflict when somebody is about to use it, who may
// turn out not to need it: its directory then gets the oldest of times, so that
// the next sweep need not wait for it to become old. Call it
// with the exclusive reference lock held, knowing that nothing refers to the
// layer. The name goes at once, so a crash leaves at most a directory in tmp/.
func (l *Layers) Remove(diffID spec.Digest) error {
	f, err := l.lockDir(diffID, true)
	if err != nil {
		return err
	}
	if f == nil {
		// Without that the sweep waits: it is no error.
		old := time.Unix(0, 0)
		_ = os.Chtimes(l.path(diffID), old, old)
		return errs.New(errs.Conflict, "layer %s is in use by another command", diffID)
	}
	defer f.Close()
	return l.discard(l.path(diffID))
}

// discard moves a layer's directory to tmp/ and deletes it there.
func (l *Layers) discard(path string) error {
	// The lock moves along with the directory, so Sweep keeps away from it.
	dir, lock, err := l.st.TempDir("gone-*")
	if err != nil {
		return err
	}
	defer lock.Close()
	old := filepath.Join(dir, "layer")
	if err := os.Rename(path, old); err != nil {
		os.Remove(dir)
		return err
	}
	return os.RemoveAll(dir)
}

// Tar opens a layer's uncompressed tar for reading.
func (l *Layers) Tar(diffID spec.Digest) (*os.File, error) {
	f, err := os.Open(l.path(diffID, fileTar))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noLayer(diffID)
	}
	return f, err
}

func writeMeta(path string, info Info) error {
	b, err := json.Marshal(info)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}

// noSpace gives a full disk its class; where is what was being written.
func noSpace(err error, where string) error {
	if !sys.IsNoSpace(err) || errs.Is(err, errs.NoSpace) {
		return err
	}
	return errs.New(errs.NoSpace, "no space left on the disk of %s", strings.TrimSuffix(where, "/")).
		WithHint("free some space there, for example by removing images, and try again")
}
