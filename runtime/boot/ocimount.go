package boot

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"tug/runtime/plan"
	"tug/sys"
)

// attachRoot puts the root file system's mount at its path on the host, where
// hooks expect it. Who may not go there, as the root of a user namespace
// perhaps, has it over /sys, of which nothing is needed any more.
func (c *ociStarter) attachRoot() error {
	at, err := os.OpenFile(c.oci.Root, sys.OPath|sys.ODirectory, 0)
	if err == nil {
		err = sys.AttachMount(c.root, at, "")
		at.Close()
	}
	if errors.Is(err, os.ErrPermission) {
		err = sys.AttachMount(c.root, nil, "/sys")
	}
	return err
}

// mount puts one of the configuration's mounts below the root. Its target is
// resolved there by the kernel, so no symlink of the image leads out, and then
// held by a descriptor, so nobody exchanges it meanwhile.
func (c *ociStarter) mount(m *plan.FSMount, trees []*os.File) (err error) {
	if m.Tree > len(trees) {
		return errors.New("its tree was not passed")
	}
	var tree *os.File
	if m.Tree > 0 {
		tree = trees[m.Tree-1]
	}
	target, mode, err := c.target(m, tree)
	if err != nil {
		return err
	}
	defer target.Close()
	if tree == nil && m.Type == "cgroup" {
		return c.mountOwnCgroups(m, target, trees)
	}
	if tree == nil {
		if tree, err = newFS(m, mode); err != nil {
			return err
		}
		defer tree.Close()
		if m.CopyUp {
			if err := copyUp(target, tree); err != nil {
				return err
			}
		}
	}
	for _, p := range m.Propagation {
		if err := sys.SetTreePropagation(tree, p, false); err != nil {
			return err
		}
	}
	for _, p := range m.Deep {
		if err := sys.SetTreePropagation(tree, p, true); err != nil {
			return err
		}
	}
	return sys.AttachMount(tree, target, "")
}

// target opens the place of a mount, with the mode of a directory that was
// there, and makes it when it is missing.
func (c *ociStarter) target(m *plan.FSMount, tree *os.File) (target *os.File, mode string, err error) {
	if m.Tree == 0 && (m.Type == "proc" || m.Type == "sysfs") {
		// As a symlink it would put these, and the masks on them, elsewhere.
		f, err := sys.OpenIn(c.root, m.Target, sys.OPath, true)
		if err == nil {
			f.Close()
		}
		if errors.Is(err, syscall.ELOOP) {
			return nil, "", errors.New("the root file system has a symlink there")
		}
	}
	target, err = sys.OpenIn(c.root, m.Target, sys.OPath, false)
	switch {
	case err == nil:
		mode = modeOf(target)
	case !errors.Is(err, os.ErrNotExist):
		return nil, "", err
	case m.IsFile:
		target, err = sys.CreateIn(c.root, m.Target)
	default:
		target, err = sys.MkdirIn(c.root, m.Target)
	}
	if err == nil {
		if err = c.checkProc(m, target, tree); err != nil {
			target.Close()
		}
	}
	return target, mode, err
}

// modeOf is a directory's mode as the option of a tmpfs.
func modeOf(dir *os.File) string {
	fi, err := dir.Stat()
	if err != nil || !fi.IsDir() {
		return ""
	}
	mode := uint64(fi.Mode().Perm())
	if fi.Mode()&os.ModeSticky != 0 {
		mode |= 0o1000
	}
	return strconv.FormatUint(mode, 8)
}

// checkProc says whether a mount may lie where it leads. /proc is only for a
// procfs. Inside one only the few files may be covered that tell of the machine
// where a container has its own to tell: over others, what a security setting
// is written to would be the mount's (CVE-2019-16884, CVE-2019-19921).
func (c *ociStarter) checkProc(m *plan.FSMount, target, tree *os.File) error {
	return checkProc(c.root, m.Target, target, tree, tree == nil && m.Type == "proc")
}

// checkProc does it for a mount of tree, or of a new file system, at path, which
// target is open at.
func checkProc(root *os.File, path string, target, tree *os.File, newProc bool) error {
	magic, err := sys.FileSystem(target)
	if err != nil {
		return err
	}
	isRoot, err := isProcRoot(target)
	if err != nil {
		return err
	}
	if path == "/proc" || magic == sys.MagicProc && isRoot {
		if newProc {
			return nil
		}
		if tree != nil {
			if source, err := sys.FileSystem(tree); err == nil && source == sys.MagicProc {
				return nil
			}
		}
		return errors.New("only a procfs may be mounted there")
	}
	if magic != sys.MagicProc {
		return nil
	}
	for _, name := range []string{
		"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
	} {
		if same, err := sameIn(root, "/proc/"+name, target); err == nil && same {
			return nil
		}
	}
	return errors.New("inside /proc")
}

// isProcRoot reports whether f is the root of a procfs, whose inode is 1.
func isProcRoot(f *os.File) (bool, error) {
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && st.Ino == 1, nil
}

func sameIn(root *os.File, path string, f *os.File) (bool, error) {
	other, err := sys.OpenIn(root, path, sys.OPath, true)
	if err != nil {
		return false, err
	}
	defer other.Close()
	a, err := other.Stat()
	if err != nil {
		return false, err
	}
	b, err := f.Stat()
	return err == nil && os.SameFile(a, b), err
}

// newFS makes a mount of a new file system. A tmpfs has the mode of the
// directory it covers unless it is given one.
func newFS(m *plan.FSMount, mode string) (*os.File, error) {
	source := m.Source
	if source == "" {
		source = m.Type
	}
	opts := append(make([]sys.Option, 0, len(m.Options)+2), sys.Option{Key: "source", Value: source})
	for _, o := range m.Options {
		if o.Key == "mode" {
			mode = ""
		}
		opts = append(opts, sys.Option(o))
	}
	if m.Type == "tmpfs" && mode != "" {
		opts = append(opts, sys.Option{Key: "mode", Value: mode})
	}
	return sys.NewMount(m.Type, int(m.Attr), opts...)
}

// mountOwnCgroups mounts what the container may see of the cgroups: its own.
func (c *ociStarter) mountOwnCgroups(m *plan.FSMount, target *os.File, trees []*os.File) error {
	hierarchies := strings.Split(c.layout, ";")
	own := func(i int) (*os.File, error) {
		if i < len(m.Cgroups) && m.Cgroups[i] <= len(trees) {
			return trees[m.Cgroups[i]-1], nil
		}
		return newCgroupFS(hierarchies[i], int(m.Attr))
	}
	if c.layout == "v2" {
		fs, err := own(0)
		if err != nil {
			return err
		}
		defer fs.Close()
		return sys.AttachMount(fs, target, "")
	}
	top, err := sys.NewMount("tmpfs", int(m.Attr&^sys.AttrReadOnly), sys.Option{Key: "source", Value: "tmpfs"}, sys.Option{Key: "mode", Value: "755"})
	if err != nil {
		return err
	}
	defer top.Close()
	if err := sys.AttachMount(top, target, ""); err != nil {
		return err
	}
	for i, h := range hierarchies {
		fs, err := own(i)
		if err == nil {
			err = attachHierarchy(top, fs, strings.TrimPrefix(h, "name="))
			fs.Close()
		}
		if err != nil {
			return err
		}
	}
	if m.Attr&sys.AttrReadOnly == 0 {
		return nil
	}
	return sys.SetMountAttr(top, "", sys.AttrReadOnly, 0, false)
}

// newCgroupFS mounts a hierarchy, "v2" or one of version 1 as "cpu,cpuacct" or
// "name=systemd", as this cgroup namespace shows it.
func newCgroupFS(h string, attr int) (*os.File, error) {
	opts := []sys.Option{{Key: "source", Value: "cgroup"}}
	if h == "v2" {
		return sys.NewMount("cgroup2", attr, opts...)
	}
	if name, named := strings.CutPrefix(h, "name="); named {
		return sys.NewMount("cgroup", attr, append(opts, sys.Option{Key: "none"}, sys.Option{Key: "name", Value: name})...)
	}
	for controller := range strings.SplitSeq(h, ",") {
		opts = append(opts, sys.Option{Key: controller})
	}
	return sys.NewMount("cgroup", attr, opts...)
}

// attachHierarchy puts one of version 1 into the directory of all, by the names
// of its controllers.
func attachHierarchy(top, fs *os.File, name string) error {
	at, err := sys.MkdirAt(top, name)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := sys.Fchmod(at, 0o755); err != nil {
		return err
	}
	if err := sys.AttachMount(fs, at, ""); err != nil {
		return err
	}
	for controller := range strings.SplitSeq(name, ",") {
		if controller == name {
			continue
		}
		if err := sys.SymlinkAt(name, top, controller); err != nil {
			return err
		}
	}
	return nil
}

// hide masks paths and makes paths read-only. What the image has in their way
// can lead them to another place of the container, never out of it. Files are
// covered by the host's /dev/null, which the container had no hand in
// (CVE-2025-31133).
func (c *ociStarter) hide() error { return hideIn(c.root, c.oci.Masked, c.oci.ReadOnly, maskFor) }

func hideIn(root *os.File, masked, readOnly []string, mask func(at *os.File) (*os.File, error)) error {
	for _, path := range masked {
		if err := overlay(root, path, mask); err != nil {
			return failf(125, "mask %s: %v", path, err)
		}
	}
	for _, path := range readOnly {
		if err := overlay(root, path, readOnlyCopy); err != nil {
			return failf(125, "make %s read-only: %v", path, err)
		}
	}
	return nil
}

// overlay covers path, if it is there, with what cover makes for it.
func overlay(root *os.File, path string, cover func(at *os.File) (*os.File, error)) error {
	at, err := sys.OpenIn(root, path, sys.OPath, false)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer at.Close()
	tree, err := cover(at)
	if err != nil {
		return err
	}
	defer tree.Close()
	return sys.AttachMount(tree, at, "")
}

func maskFor(at *os.File) (*os.File, error) {
	if mask, err := emptyFor(at); mask != nil || err != nil {
		return mask, err
	}
	return hostDevice(&plan.Device{Path: "/dev/null", Kind: 'c', Major: 1, Minor: 3})
}

// maskWith is maskFor with a /dev/null that is open.
func maskWith(at, null *os.File) (*os.File, error) {
	if mask, err := emptyFor(at); mask != nil || err != nil {
		return mask, err
	}
	return sys.CloneTree(null, "", false)
}

// emptyFor is what masks a directory; nil for a file.
func emptyFor(at *os.File) (*os.File, error) {
	fi, err := at.Stat()
	if err != nil || !fi.IsDir() {
		return nil, err
	}
	return sys.NewMount("tmpfs", sys.AttrReadOnly|sys.AttrNoSuid|sys.AttrNoDev|sys.AttrNoExec,
		sys.Option{Key: "source", Value: "tmpfs"}, sys.Option{Key: "mode", Value: "755"}, sys.Option{Key: "size", Value: "4k"})
}

func readOnlyCopy(at *os.File) (*os.File, error) {
	tree, err := sys.CloneTree(at, "", true)
	if err != nil {
		return nil, err
	}
	if err := sys.SetMountAttr(tree, "", sys.AttrReadOnly, 0, true); err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}

// hostDevice returns a copy of the mount of a device node of the host, and
// makes sure that it is this device.
func hostDevice(d *plan.Device) (*os.File, error) {
	tree, err := sys.CloneTree(nil, d.Path, false)
	if err != nil {
		return nil, err
	}
	fi, err := tree.Stat()
	if err == nil && !d.Is(fi) {
		err = errors.New("the host has something else under this name")
	}
	if err == nil {
		err = sys.MakePrivate(tree)
	}
	if err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}
