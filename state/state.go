// Package state is the files-and-locks seam: where things lie under the store's
// root, how a file is replaced so that a crash leaves the old or the new one,
// and which locks there are. It knows names and bytes, not what they mean.
//
// # Locks
//
// All locks are flock(2) on files or directories, so they end with their
// holder, also at kill -9. Whoever needs several takes them in this order:
//
//  1. Store.Refs    <root>/refs.lock    shared: adds a reference to an image or
//     layer (load, pull, tag, create); exclusive: looks whether an object is
//     still referenced and removes it (rmi, prune). Held for milliseconds,
//     never during a transfer.
//  2. a container   flock on containers/<id>/ itself, exclusive: start, remove,
//     rename.
//  3. a volume      flock on volumes/<name>/ itself; shared: a container that
//     names it is being made or started; exclusive: it is being removed,
//     renamed or restored. Of several volumes that one container has, the
//     shared locks may be taken in any order; of two for a change, none waits
//     for the other.
//  4. a layer       flock on layers/<hex>/ itself; shared: somebody is about to
//     reference it (a pull holds it until its image is recorded); exclusive,
//     never waited for: it is being removed. A damaged layer may be removed
//     under the shared reference lock, when a good one is ready to take its
//     place: nobody can get it to refer to it.
//  5. a partial     flock on partial/<hex> itself, exclusive, never waited for:
//     it is being written or removed.
//
// Readers take no locks: every file is replaced by rename, so a reader sees
// the old or the new one whole. A reader treats an absent file as an absent
// object, also in the middle of a listing.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tug/errs"
	"tug/sys"
)

// FormatVersion is what this code writes into <root>/version. A store with a
// higher one is refused.
const FormatVersion = 1

// Store is the root directory of everything that survives a reboot, and the
// run directory of everything that does not. It is a value; opening holds
// nothing.
type Store struct {
	Root string // absolute, for example /var/lib/tug
	Run  string // absolute, for example /run/tug
}

// Directory names below Root.
const (
	dirBlobs      = "blobs/sha256"
	dirLayers     = "layers"
	dirImages     = "images/ids"
	dirNames      = "images/names"
	dirContainers = "containers"
	dirCtrNames   = "containers-by-name"
	dirPartial    = "partial"  // made on demand
	dirRestarts   = "restarts" // made on demand
	dirProjects   = "projects" // made on demand
	dirVolumes    = "volumes"  // made on demand
	dirEvents     = "events"
	dirTmp        = "tmp"
)

// Open makes the directories where needed and checks the format version. The
// directories are 0700: images and containers may hold secrets.
func Open(root, run string) (*Store, error) {
	s := &Store{}
	var err error
	if s.Root, err = filepath.Abs(root); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if s.Run, err = filepath.Abs(run); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	b, err := os.ReadFile(s.path("version"))
	switch {
	case err == nil:
		return s, s.checkVersion(b)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, openError(s.Root, err)
	}
	return s, s.create()
}

func (s *Store) checkVersion(b []byte) error {
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return errs.New(errs.Corrupt, "store %s: its version file does not hold a number", s.Root)
	}
	if v > FormatVersion {
		return errs.New(errs.Unsupported, "store %s has format %d, this tug knows formats up to %d", s.Root, v, FormatVersion).
			WithHint("use the newer tug that wrote it, or another --root")
	}
	return os.MkdirAll(s.Run, 0o700)
}

func (s *Store) create() error {
	for _, d := range []string{dirBlobs, dirLayers, dirImages, dirNames, dirContainers, dirCtrNames, dirTmp} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return openError(s.Root, err)
		}
	}
	if err := os.MkdirAll(s.Run, 0o700); err != nil {
		return openError(s.Run, err)
	}
	return s.WriteFile(s.path("version"), []byte(strconv.Itoa(FormatVersion)+"\n"), true)
}

func openError(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return errs.New(errs.Denied, "open store %s: %w", dir, err).WithHint("run as root (sudo), or choose a directory of yours with --root and --run-root")
	}
	return fmt.Errorf("open store %s: %w", dir, err)
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.Root}, elem...)...)
}

// Paths of objects. hex is 64 hex digits, id a container's full id.
func (s *Store) Blob(hex string) string        { return s.path(dirBlobs, hex) }
func (s *Store) Layer(hex string) string       { return s.path(dirLayers, hex) }
func (s *Store) Layers() string                { return s.path(dirLayers) }
func (s *Store) Images() string                { return s.path(dirImages) }
func (s *Store) Image(hex string) string       { return s.path(dirImages, hex+".json") }
func (s *Store) Names() string                 { return s.path(dirNames) }
func (s *Store) Partials() string              { return s.path(dirPartial) }
func (s *Store) Partial(hex string) string     { return s.path(dirPartial, hex) }
func (s *Store) Containers() string            { return s.path(dirContainers) }
func (s *Store) Container(id string) string    { return s.path(dirContainers, id) }
func (s *Store) ContainerNames() string        { return s.path(dirCtrNames) }
func (s *Store) ContainerName(n string) string { return s.path(dirCtrNames, n) }
func (s *Store) Restarts() string              { return s.path(dirRestarts) }
func (s *Store) Restart(id string) string      { return s.path(dirRestarts, id) }
func (s *Store) Projects() string              { return s.path(dirProjects) }
func (s *Store) Project(id uint32) string {
	return s.path(dirProjects, strconv.FormatUint(uint64(id), 10))
}
func (s *Store) Volumes() string           { return s.path(dirVolumes) }
func (s *Store) Volume(name string) string { return s.path(dirVolumes, name) }
func (s *Store) Events() string            { return s.path(dirEvents) }
func (s *Store) Tmp() string               { return s.path(dirTmp) }
func (s *Store) RunPath(elem ...string) string {
	return filepath.Join(append([]string{s.Run}, elem...)...)
}

// Refs takes the reference lock (see the package comment). Closing the file
// releases it.
func (s *Store) Refs(exclusive bool) (*os.File, error) {
	return LockFile(s.path("refs.lock"), exclusive)
}

// LockFile opens (making it where needed) and locks path.
func LockFile(path string, exclusive bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := sys.Lock(f, exclusive); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// TempFile makes a file in tmp/, held by an exclusive flock so that Sweep can
// tell a writer's file from a dead one's. The caller renames or removes it.
func (s *Store) TempFile(pattern string) (*os.File, error) {
	for {
		f, err := os.CreateTemp(s.Tmp(), pattern)
		if err != nil {
			return nil, err
		}
		if kept, err := lockTemp(f); err != nil || kept {
			return f, err
		}
	}
}

// lockTemp locks a fresh temporary and reports whether it is still there: a
// Sweep may have come in between making and locking it.
func lockTemp(f *os.File) (kept bool, err error) {
	err = sys.Lock(f, true)
	if err != nil {
		os.Remove(f.Name())
	} else if _, serr := os.Lstat(f.Name()); serr == nil {
		return true, nil
	}
	f.Close()
	return false, err
}

// TempDir makes a directory in tmp/ and returns it with an open, locked
// descriptor (see TempFile).
func (s *Store) TempDir(pattern string) (string, *os.File, error) {
	for {
		dir, err := os.MkdirTemp(s.Tmp(), pattern)
		if err != nil {
			return "", nil, err
		}
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", nil, err
		}
		if kept, err := lockTemp(f); err != nil || kept {
			return dir, f, err
		}
	}
}

// Sweep removes what dead processes left in tmp/: entries whose flock can be
// had. Call it with the exclusive reference lock held. It returns how many
// entries it removed; an entry that cannot be removed is left for next time.
func (s *Store) Sweep() int {
	entries, err := os.ReadDir(s.Tmp())
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		p := filepath.Join(s.Tmp(), e.Name())
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		if had, err := sys.TryLock(f, true); err == nil && had && RemoveAll(p) == nil {
			n++
		}
		f.Close()
	}
	return n
}

// WriteFile replaces path by a file of mode 0600 with contents b: temporary
// file beside it, rename, and, when durable, fsync before and fsync of the
// directory after. A crash leaves the old file or the new one.
func (s *Store) WriteFile(path string, b []byte, durable bool) error {
	return Replace(path, b, durable)
}

// Replace is WriteFile for those who have no Store.
func Replace(path string, b []byte, durable bool) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && durable {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	if durable {
		return SyncDir(dir)
	}
	return nil
}

// WriteJSON is WriteFile of v as JSON.
func (s *Store) WriteJSON(path string, v any, durable bool) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return s.WriteFile(path, append(b, '\n'), durable)
}

// ReadJSON reads path into v. An absent file is fs.ErrNotExist; bytes that are
// not JSON of v's shape are Corrupt.
func ReadJSON(path string, v any) error {
	b, err := sys.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return errs.New(errs.Corrupt, "read %s: %w", path, err)
	}
	return nil
}

// SyncFile makes a file that was replaced durable after all.
func SyncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the directory's entries durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
