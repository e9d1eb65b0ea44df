package layer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// OverlayOptions say how layers are stacked.
type OverlayOptions struct {
	Volatile bool // never sync the upper directory: for containers that go with --rm
	ReadOnly bool // the mount refuses writes

	// UserNS is the user namespace whose ids the files are to have in the mount,
	// and Root the host's ids for its root. On disk they have its numbers, as
	// without it. Errors: Unsupported where a file system or the kernel cannot.
	UserNS *os.File
	Root   [2]uint32 // user, group
}

// maxLowers is the kernel's OVL_MAX_STACK.
const maxLowers = 500

// Options of every overlay, set because kernels differ in their defaults. All
// of a container's changes must be in its upper directory, whole, since commit
// reads them from there; so no redirects, no metadata-only copies, no index.
var overlayOptions = []sys.Option{{Key: "index", Value: "off"}, {Key: "metacopy", Value: "off"}, {Key: "redirect_dir", Value: "nofollow"}}

// Overlay stacks layers, lowest first, mounting those that are not, and returns
// the detached mount. upper and work are the container's writable directories;
// without them the mount is read-only. A leftover of a volatile mount that was
// not unmounted in order, because the machine stopped, is cleared: the caller
// has decided to go on with what is there. Errors: NotFound for a layer that is
// not in the store, Corrupt for one that is damaged.
func (m *Mounter) Overlay(layers []spec.Digest, upper, work string, o OverlayOptions) (*os.File, error) {
	if len(layers) > maxLowers-1 {
		return nil, errs.New(errs.Unsupported, "the image has %d layers, overlayfs stacks up to %d", len(layers), maxLowers-1)
	}
	s := stack{upper: upper, work: work, o: o}
	var err error
	if s.lowers, err = m.lowers(layers); err != nil {
		return nil, err
	}
	// overlayfs wants one lower directory, and two without an upper one.
	for _, name := range []string{"a", "b"} {
		if len(s.lowers) == 0 || len(s.lowers) == 1 && upper == "" {
			s.lowers = append(s.lowers, filepath.Join(m.dir, "empty", name))
		}
	}
	if upper != "" {
		// overlayfs refuses a work directory that a volatile mount has used,
		// until this mark of it is gone.
		if err := os.RemoveAll(filepath.Join(work, "work", "incompat")); err != nil {
			return nil, err
		}
	}
	if o.UserNS != nil {
		done, err := m.mapped(&s)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	mnt, err := m.stack(&s)
	if o.UserNS != nil && errors.Is(err, sys.ErrInvalid) {
		return nil, errs.New(errs.Unsupported, "stack layers with mapped ids: %w", err).WithHint("overlayfs does that since Linux 5.19; use --userns host")
	}
	if err != nil {
		return nil, fmt.Errorf("stack %d layers: %w", len(layers), err)
	}
	return mnt, nil
}

// lowers mounts layers and returns where, highest first. A layer that comes
// again further down is left out there, because overlayfs refuses to have it
// twice (images with several empty layers exist): whatever it holds the upper
// one covers.
func (m *Mounter) lowers(layers []spec.Digest) ([]string, error) {
	var out []string
	seen := make(map[spec.Digest]bool)
	for i := len(layers) - 1; i >= 0; i-- {
		if seen[layers[i]] {
			continue
		}
		seen[layers[i]] = true
		opaque, err := m.layer(layers[i])
		if err != nil {
			return nil, err
		}
		out = append(out, m.path(layers[i]))
		if opaque {
			break // overlayfs looks at this mark in directories below the root only
		}
	}
	return out, nil
}

// stack is one overlay to be made; lowers has the highest first.
type stack struct {
	lowers      []string
	upper, work string
	o           OverlayOptions
}

func (s *stack) attrs() int {
	if s.o.ReadOnly || s.upper == "" {
		return sys.AttrReadOnly
	}
	return 0
}

func (s *stack) volatile() bool { return s.o.Volatile && s.upper != "" }

func (m *Mounter) stack(s *stack) (*os.File, error) {
	if m.legacy.Load() {
		return m.stackLegacy(s)
	}
	mnt, err := s.mount()
	if !errors.Is(err, sys.ErrInvalid) {
		return mnt, err
	}
	// Either this kernel has no "lowerdir+" (6.7 or so brought it), or there
	// is something wrong with the directories; then the old way fails as well.
	mnt, oldErr := m.stackLegacy(s)
	if oldErr != nil {
		return nil, err
	}
	m.legacy.Store(true)
	return mnt, nil
}

// mount uses the new mount API: one option for each directory.
func (s *stack) mount() (*os.File, error) {
	opts := append([]sys.Option{{Key: "source", Value: "overlay"}}, overlayOptions...)
	var open []*os.File
	defer func() { sys.CloseAll(open) }()
	for _, dir := range s.lowers {
		opts = append(opts, sys.Option{Key: "lowerdir+", Value: dir})
	}
	if s.upper != "" {
		// By descriptor: a path may be too long for an option and backslashes
		// in it would be taken as escapes.
		for _, d := range []struct{ key, path string }{{"upperdir", s.upper}, {"workdir", s.work}} {
			f, err := sys.OpenPath(d.path)
			if err != nil {
				return nil, err
			}
			open = append(open, f)
			opts = append(opts, sys.Option{Key: d.key, Value: sys.FdPath(f)})
		}
	}
	if s.volatile() {
		opts = append(opts, sys.Option{Key: "volatile"})
	}
	if s.o.UserNS == nil {
		return sys.NewMount("overlay", s.attrs(), opts...)
	}
	var mnt *os.File
	err := sys.OnThread(func() (err error) {
		if err = s.own(); err == nil {
			mnt, err = sys.NewMount("overlay", s.attrs(), opts...)
		}
		return err
	})
	return mnt, err
}

// stackLegacy uses mount(2), whose options are one string of a page. Short
// symlinks, named relative to the working directory, let it hold 500 layers;
// commas and colons in paths do not get into it either.
func (m *Mounter) stackLegacy(s *stack) (*os.File, error) {
	dir, err := os.MkdirTemp(m.dir, "o-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	target := filepath.Join(dir, "m")
	if err := os.Mkdir(target, 0o700); err != nil {
		return nil, err
	}
	var names []string
	for i, lower := range s.lowers {
		names = append(names, strconv.Itoa(i))
		if err := os.Symlink(lower, filepath.Join(dir, names[i])); err != nil {
			return nil, err
		}
	}
	var opts []string
	for _, o := range overlayOptions {
		opts = append(opts, o.Key+"="+o.Value)
	}
	opts = append(opts, "lowerdir="+strings.Join(names, ":"))
	if s.upper != "" {
		for name, path := range map[string]string{"u": s.upper, "w": s.work} {
			if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
				return nil, err
			}
		}
		opts = append(opts, "upperdir=u", "workdir=w")
	}
	if s.volatile() {
		opts = append(opts, "volatile")
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	err = sys.InDir(f, func() error {
		if err := s.own(); err != nil {
			return err
		}
		return sys.Mount("overlay", "m", "overlay", 0, strings.Join(opts, ","))
	})
	if err != nil {
		return nil, err
	}
	defer sys.Unmount(target)
	mnt, err := sys.CloneTree(nil, target, false)
	if err != nil {
		return nil, err
	}
	err = sys.MakePrivate(mnt)
	if err == nil && s.attrs() != 0 {
		err = sys.SetMountAttr(mnt, "", uint64(s.attrs()), 0, false)
	}
	if err != nil {
		mnt.Close()
		return nil, err
	}
	return mnt, nil
}
