package container

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"tug/errs"
	"tug/layer"
	"tug/spec"
	"tug/supervisor"
	"tug/sys"
)

// attach opens the sources of a container's mounts and puts them into the plan.
// A source is looked up once, in the host's mounts, and from then on it is a
// descriptor: whatever is exchanged afterwards, what was looked at is mounted.
// None of it is ever in a mount table but the container's.
func (s *Starter) attach(l *supervisor.Launch, ctr *spec.Container) error {
	if len(ctr.Mounts) == 0 {
		return nil
	}
	trees, err := s.trees(ctr, l.Files.RootFS, l.Namespaces.User)
	for i, m := range ctr.Mounts {
		if i < len(trees) && trees[i] != nil {
			l.Files.Trees = append(l.Files.Trees, trees[i])
			l.Plan.Attach(m.Target)
		}
	}
	if err != nil {
		s.dropVolumes(ctr)
	}
	return err
}

// holdVolumes keeps a container's volumes as they are while it starts.
func (s *Starter) holdVolumes(ctr *spec.Container) (release func(), err error) {
	var held []func()
	release = func() {
		for _, f := range held {
			f()
		}
	}
	for _, m := range ctr.Mounts {
		if m.Type != spec.MountVolume {
			continue
		}
		f, err := s.Volumes.Hold(m.Volume)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, f)
	}
	return release, nil
}

// trees makes a detached mount for each of a container's mounts, nil for a
// tmpfs. On error it returns those that it has made. userns is the container's,
// or nil.
func (s *Starter) trees(ctr *spec.Container, rootfs, userns *os.File) ([]*os.File, error) {
	all := make([]*os.File, len(ctr.Mounts))
	var host []int // to be looked up in the host's mounts
	for i := range ctr.Mounts {
		var err error
		switch m := &ctr.Mounts[i]; m.Type {
		case spec.MountBind:
			host = append(host, i)
		case spec.MountImage:
			all[i], err = s.imageTree(m, mappedFor(ctr, userns))
		case spec.MountVolume:
			var root *os.File
			if root, err = s.sharedRoot(m.Volume, ctr.ID); root == nil && err == nil {
				host = append(host, i)
				continue
			}
			if err == nil {
				all[i], err = treeBelow(root, m)
				root.Close()
			}
		}
		if err != nil {
			return all, mountError(&ctr.Mounts[i], err)
		}
	}
	if len(host) > 0 {
		err := sys.InMounts(s.Host, func() (err error) {
			for _, i := range host {
				if all[i], err = s.hostTree(&ctr.Mounts[i]); err != nil {
					return mountError(&ctr.Mounts[i], err)
				}
			}
			return nil
		})
		if err != nil {
			return all, err
		}
	}
	for i, m := range ctr.Mounts {
		if all[i] == nil {
			continue
		}
		if err := s.mapMount(all[i], &m, ctr, rootfs, userns); err != nil {
			return all, mountError(&m, err)
		}
	}
	return all, nil
}

// mountError says of which mount an error is, unless it does so itself.
func mountError(m *spec.Mount, err error) error {
	if errs.ClassOf(err) != errs.Internal {
		return err
	}
	return fmt.Errorf("mount %s: %w", m.Target, noSpace(err))
}

// hostTree makes the mount of what lies on the host.
func (s *Starter) hostTree(m *spec.Mount) (*os.File, error) {
	if m.Type == spec.MountVolume {
		root, err := sys.OpenPath(s.Volumes.Data(m.Volume))
		if err != nil {
			return nil, err
		}
		defer root.Close()
		return treeBelow(root, m)
	}
	source, err := openSource(m)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	if err := checkShared(source, m); err != nil {
		return nil, err
	}
	if m.Relabel && hasSELinux() {
		if err := checkRelabel(m.Source); err != nil {
			return nil, err
		}
		if err := relabel(source, sharedLabel); err != nil {
			return nil, err
		}
	}
	tree, err := sys.CloneTree(source, "", !m.NonRecursive)
	if err != nil {
		return nil, err
	}
	return dress(tree, m)
}

// openSource opens the source of a bind mount, which -v makes when it is not
// there.
func openSource(m *spec.Mount) (*os.File, error) {
	source, err := sys.OpenPath(m.Source)
	if err == nil || !sys.IsNoPlace(err) {
		return source, err
	}
	if !m.Create {
		return nil, errNoSource(m.Source)
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return nil, errs.New(errs.Invalid, "error while creating mount source path '%s': %w", m.Source, err)
	}
	return sys.OpenPath(m.Source)
}

// treeBelow makes the mount of a volume or of what is in it. A path in it must
// not lead out: containers write there.
func treeBelow(root *os.File, m *spec.Mount) (*os.File, error) {
	place := root
	if m.Subpath != "" {
		sub, err := sys.OpenPlace(root, m.Subpath)
		switch {
		case errors.Is(err, sys.ErrOutside), errors.Is(err, syscall.ELOOP):
			return nil, errs.New(errs.Invalid, "mount %s: the subpath %q leads out of %s", m.Target, m.Subpath, nameOf(m))
		case err != nil && sys.IsNoPlace(err):
			return nil, errs.New(errs.NotFound, "mount %s: cannot access path %q in %s: no such file or directory", m.Target, m.Subpath, nameOf(m))
		case err != nil:
			return nil, err
		}
		defer sub.Close()
		place = sub
	}
	tree, err := sys.CloneTree(place, "", m.Type == spec.MountVolume)
	if err != nil {
		return nil, err
	}
	return dress(tree, m)
}

func nameOf(m *spec.Mount) string {
	if m.Type == spec.MountImage {
		return "image " + m.Source
	}
	return "volume " + m.Volume
}

// imageTree makes the mount of an image's file system. What is in it can only be
// looked up once it is attached: in a mount namespace that ends with that.
func (s *Starter) imageTree(m *spec.Mount, o layer.OverlayOptions) (tree *os.File, err error) {
	o.ReadOnly = true
	root, err := s.Mounter.Overlay(m.Layers, "", "", o)
	if err != nil || m.Subpath == "" {
		return root, err
	}
	defer root.Close()
	err = sys.InOwnMounts(func() error {
		if err := sys.AttachMount(root, nil, s.Mounter.Spare()); err != nil {
			return err
		}
		tree, err = treeBelow(root, m)
		return err
	})
	return tree, err
}

// dress sets attributes and propagation of a tree that nobody sees yet, or
// closes it.
func dress(tree *os.File, m *spec.Mount) (*os.File, error) {
	var err error
	switch strings.TrimPrefix(m.Propagation, "r") {
	case "shared": // as its source
	case "slave":
		err = sys.SetTreePropagation(tree, sys.PropagationSlave, true)
	default:
		err = sys.MakePrivate(tree)
	}
	if err == nil && m.ReadOnly {
		err = sys.SetMountAttr(tree, "", sys.AttrReadOnly, 0, m.Below != spec.BelowAsIs)
	}
	if err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}

// checkShared refuses a propagation that the source's mount does not have.
func checkShared(source *os.File, m *spec.Mount) error {
	want := strings.TrimPrefix(m.Propagation, "r")
	if want != "shared" && want != "slave" {
		return nil
	}
	id, err := sys.MountID(source)
	if err != nil {
		return err
	}
	info, err := sys.ThreadMounts()
	if err != nil {
		return err
	}
	number := strconv.FormatUint(id, 10)
	for line := range strings.Lines(string(info)) {
		f := strings.Fields(line)
		if len(f) < 7 || f[0] != number {
			continue
		}
		for _, tag := range f[6:] {
			switch {
			case tag == "-":
				return errNotShared(m.Source, sys.UnescapeMount(f[4]), want)
			case strings.HasPrefix(tag, "shared:"), strings.HasPrefix(tag, "master:") && want == "slave":
				return nil
			}
		}
	}
	return errNotShared(m.Source, "an unknown mount", want)
}

func errNotShared(path, on, want string) error {
	kind := "a shared"
	if want == "slave" {
		kind = "a shared or slave"
	}
	return errs.New(errs.Invalid, "path %s is mounted on %s but it is not %s mount", path, on, kind).
		WithHint("change it with: mount --make-rshared %s", on)
}
