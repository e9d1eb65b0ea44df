package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// Root is a container's root file system, open for copying. A running
// container's is the one that its first process sees, with all that is mounted
// in it. That of one that does not run is an overlay that the supervisor
// makes and that is mounted nowhere: it ends with this process at the latest.
// Writing into the writable directory itself would be to do again what
// overlayfs does, whiteouts and all.
//
// No path of the host leads to it, and every path in it is resolved with it as
// the root (openat2(2), RESOLVE_IN_ROOT), whatever is exchanged meanwhile. Until
// Close the container is not started, paused or removed.
type Root struct {
	c       *Containers
	s       *Summary
	lock    *os.File
	root    *os.File
	running bool
}

// OpenRoot opens a container's root file system.
func (c *Containers) OpenRoot(ctx context.Context, name string) (*Root, error) {
	s, err := c.Find(name)
	if err != nil {
		return nil, err
	}
	r := &Root{c: c, s: s}
	if r.root, err = r.open(ctx); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// open takes the lock that the container's state needs. The state may change
// until it is had.
func (r *Root) open(ctx context.Context) (*os.File, error) {
	id := r.s.ID
	for _, exclusive := range []bool{false, true} {
		lock, err := r.c.lockHow(id, exclusive)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, noSuch(r.s.Name)
		}
		if err != nil {
			return nil, err
		}
		r.lock = lock
		rec, err := r.c.startRecord(id)
		if r.running = err == nil && rec.alive(); r.running {
			// The process is looked at again when its root is open: its number
			// may be another's by now.
			root, err := sys.OpenPath(fmt.Sprintf("/proc/%d/root", rec.Pid))
			if err == nil && rec.alive() {
				return root, nil
			}
			if err == nil {
				root.Close()
			}
			r.running = false
		}
		if exclusive {
			return r.c.client.Mount(ctx, id)
		}
		lock.Close()
		r.lock = nil
	}
	return nil, errs.New(errs.Internal, "open the root of container %s", r.s.Name)
}

// Close lets go of the container.
func (r *Root) Close() {
	if r.root != nil {
		r.root.Close()
	}
	if r.lock != nil {
		r.lock.Close()
	}
}

// ID is the container's.
func (r *Root) ID() string { return r.s.ID }

// Found is a path in a container. What is not there has no Mode.
type Found struct {
	Path string // from the container's root; symlinks that were followed are replaced
	Mode uint32 // as st_mode
}

// Exists reports whether there is something at the path.
func (f *Found) Exists() bool { return f.Mode != 0 }

// IsDir reports whether that is a directory.
func (f *Found) IsDir() bool { return f.Mode&syscall.S_IFMT == syscall.S_IFDIR }

// IsRegular reports whether that is a regular file.
func (f *Found) IsRegular() bool { return f.Mode&syscall.S_IFMT == syscall.S_IFREG }

// Find looks at what is at a path. A symlink in the last place is followed if
// follow is set, or if the path ends with a slash or a dot; its target need not
// be there.
func (r *Root) Find(p string, follow bool) (*Found, error) {
	p = "/" + strings.TrimLeft(p, "/")
	for range maxFollowed {
		dir, base := splitLast(p)
		place, err := openLast(r.root, dir, base)
		if errors.Is(err, fs.ErrNotExist) {
			return &Found{Path: p}, nil
		}
		if err != nil {
			return nil, r.explain(p, err)
		}
		f, st, err := lookAt(place)
		place.Close()
		if err != nil {
			return nil, r.explain(p, err)
		}
		if st.Mode&syscall.S_IFMT != syscall.S_IFLNK || !follow {
			return &Found{Path: p, Mode: st.Mode}, nil
		}
		if p = f.Target; !path.IsAbs(p) {
			p = dir + "/" + f.Target
		}
	}
	return nil, r.explain(p, syscall.ELOOP)
}

// maxFollowed is how many symlinks one path may take, as in the kernel.
const maxFollowed = 40

// splitLast divides a path into its last name and the directory that is in. A
// path that ends with a slash or a dot is all directory, and its last name ".".
func splitLast(p string) (dir, base string) {
	i := strings.LastIndexByte(p, '/')
	if dir, base = p[:i+1], p[i+1:]; base == "" || base == "." || base == ".." {
		return p, "."
	}
	return dir, base
}

// openLast opens base in dir as a place. All of dir is followed inside root,
// base is not.
func openLast(root *os.File, dir, base string) (*os.File, error) {
	d, err := sys.OpenIn(root, dir, sys.OPath|sys.ODirectory, false)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return sys.OpenPathAt(d, base)
}

// explain gives errors the words of Docker's.
func (r *Root) explain(p string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errs.New(errs.NotFound, "Could not find the file %s in container %s", p, r.s.Name)
	case errors.Is(err, syscall.EROFS) && r.onReadOnlyMount(p):
		return errs.New(errs.Conflict, "mounted volume is marked read-only").WithHint("%s of container %s cannot be written to", p, r.s.Name)
	case errors.Is(err, syscall.EROFS):
		return errs.New(errs.Conflict, "container rootfs is marked read-only").WithHint("%s of container %s cannot be written to", p, r.s.Name)
	case errs.ClassOf(err) != errs.Internal:
		return err
	}
	return fmt.Errorf("%s in container %s: %w", p, r.s.Name, noSpace(err))
}

// onReadOnlyMount reports whether a path, as it is written, is in a mount of the
// user's that is read-only.
func (r *Root) onReadOnlyMount(p string) bool {
	at := &spec.Mount{}
	for i := range r.s.Mounts {
		m := &r.s.Mounts[i]
		if len(m.Target) > len(at.Target) && strings.HasPrefix(path.Clean(p)+"/", m.Target+"/") {
			at = m
		}
	}
	return at.ReadOnly
}

// RootFS makes the root file system of a container that does not run, detached,
// for a command that has the container's lock.
func (s *Starter) RootFS(id string) (*os.File, error) {
	ctr, err := s.load(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSuch(id)
	}
	if err != nil {
		return nil, err
	}
	if ctr.State.Status == spec.StatusRunning {
		return nil, errs.New(errs.Conflict, "container %s is running", ctr.Name)
	}
	root, err := s.overlay(&ctr.Container, nil)
	if err != nil || len(ctr.Mounts) == 0 {
		return root, err
	}
	defer root.Close()
	return s.withMounts(&ctr.Container, root)
}

// withMounts puts a container's mounts onto its root and returns a copy of the
// whole, which is mounted nowhere. Mounts can only be put onto what is attached:
// that happens in a mount namespace that ends with this function.
func (s *Starter) withMounts(ctr *spec.Container, root *os.File) (whole *os.File, err error) {
	trees, err := s.trees(ctr, root, nil)
	defer sys.CloseAll(trees)
	defer s.dropVolumes(ctr)
	if err != nil {
		return nil, err
	}
	err = sys.InOwnMounts(func() error {
		if err := sys.AttachMount(root, nil, s.Mounter.Spare()); err != nil {
			return err
		}
		for i, tree := range trees {
			if tree == nil {
				continue
			}
			if err := placeTree(root, ctr.Mounts[i].Target, tree); err != nil {
				return mountError(&ctr.Mounts[i], err)
			}
		}
		whole, err = sys.CloneTree(root, "", true)
		return err
	})
	return whole, err
}

// placeTree attaches a tree in a root, as tug-init does at a start.
func placeTree(root *os.File, target string, tree *os.File) error {
	fi, err := tree.Stat()
	if err != nil {
		return err
	}
	var at *os.File
	if fi.IsDir() {
		at, err = sys.MkdirIn(root, target)
	} else {
		at, err = sys.CreateIn(root, target)
	}
	if err != nil {
		return err
	}
	defer at.Close()
	return sys.AttachMount(tree, at, "")
}
