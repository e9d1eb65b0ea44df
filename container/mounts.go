package container

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"tug/errs"
	"tug/image"
	"tug/spec"
	"tug/sys"
	"tug/volume"
)

// settling turns what is asked for into a container's mounts. What it makes for
// that is held until it is released.
type settling struct {
	c      *Containers
	ctr    *spec.Container
	images map[string]*image.Image // by the source of the mount

	byTarget map[string]*spec.Mount
	fresh    map[string]volume.Options // of volumes by target
	noCopy   map[string]bool           // by target
	held     []func()
	made     []string // anonymous volumes
}

// settleMounts fills in ctr.Mounts, and makes the volumes that are not there
// yet, with what the image has in their place. The caller calls release when the
// container is in place, or with undo when it is given up.
//
// In this order, as with Docker: the volumes of other containers; -v; --mount;
// and anonymous volumes for what is left of the image's and the user's.
func (c *Containers) settleMounts(ctx context.Context, ctr *spec.Container, req *Request) (release func(undo bool), err error) {
	s := &settling{c: c, ctr: ctr, images: req.MountImages, byTarget: map[string]*spec.Mount{}, fresh: map[string]volume.Options{}, noCopy: map[string]bool{}}
	if err = s.all(ctx); err != nil {
		s.release(true)
		return nil, err
	}
	return s.release, nil
}

func (s *settling) all(ctx context.Context) error {
	h := &s.ctr.Host
	if len(h.VolumesFrom)+len(h.Binds)+len(h.Mounts)+len(s.ctr.Config.Volumes) == 0 {
		return nil
	}
	if err := s.fromOthers(); err != nil {
		return err
	}
	asked := map[string]bool{}
	for _, bind := range h.Binds {
		m, err := spec.ParseVolume(bind)
		if err == nil {
			err = s.add(m, asked)
		}
		if err != nil {
			return err
		}
	}
	for i := range h.Mounts {
		err := h.Mounts[i].Check()
		if err == nil {
			err = s.add(&h.Mounts[i], asked)
		}
		if err != nil {
			return err
		}
	}
	if err := s.anonymous(); err != nil {
		return err
	}
	if len(s.byTarget) > maxMounts {
		return errs.New(errs.Invalid, "too many mounts: %d, with the image's volumes; there can be %d", len(s.byTarget), maxMounts)
	}
	if err := s.makeVolumes(ctx); err != nil {
		return err
	}
	for _, m := range s.byTarget {
		s.ctr.Mounts = append(s.ctr.Mounts, *m)
	}
	slices.SortFunc(s.ctr.Mounts, func(a, b spec.Mount) int {
		return cmp.Or(cmp.Compare(strings.Count(a.Target, "/"), strings.Count(b.Target, "/")), strings.Compare(a.Target, b.Target))
	})
	return nil
}

// maxMounts bounds what an image can make a create do. More could not be handed
// to a container's first process at once, see sys.MaxPassedFds.
const maxMounts = 240

// release lets go of what is held. With undo anonymous volumes go, too.
func (s *settling) release(undo bool) {
	for _, f := range s.held {
		f()
	}
	s.held = nil
	if undo && len(s.made) > 0 {
		s.c.Volumes.RemoveAnonymous(s.made)
	}
}

// fromOthers takes the mounts of --volumes-from: those of volumes and of the
// host's directories.
func (s *settling) fromOthers() error {
	for _, from := range s.ctr.Host.VolumesFrom {
		name, readOnly, err := spec.ParseVolumesFrom(from)
		if err != nil {
			return err
		}
		other, err := s.c.Find(name)
		if err != nil {
			return err
		}
		for _, m := range other.Mounts {
			if m.Type != spec.MountBind && m.Type != spec.MountVolume {
				continue
			}
			m.ReadOnly = m.ReadOnly || readOnly
			s.byTarget[m.Target] = &m
		}
	}
	return nil
}

// add takes a mount that was asked for. It replaces one of another container.
func (s *settling) add(from *spec.MountSpec, asked map[string]bool) error {
	target := path.Clean(from.Target)
	_, tmpfs := s.ctr.Host.Tmpfs[target]
	if asked[target] || tmpfs {
		return errs.New(errs.Invalid, "Duplicate mount point: %s", target)
	}
	asked[target] = true
	m := &spec.Mount{Type: from.Type, Target: target, ReadOnly: from.ReadOnly, Owner: from.Owner, Mode: from.Mode, Relabel: from.Relabel}
	s.byTarget[target] = m
	switch from.Type {
	case spec.MountBind:
		return s.bind(m, from)
	case spec.MountVolume:
		s.volume(m, from)
	case spec.MountTmpfs:
		m.Options = tmpfsOptions(from)
	case spec.MountImage:
		img := s.images[from.Source]
		if img == nil {
			return errs.New(errs.NotFound, "No such image: %s", from.Source).WithHint("fetch it with: tug pull %s", from.Source)
		}
		m.Source, m.Image, m.Layers, m.ReadOnly = from.Source, img.ID, img.Stack, true
		if from.ImageOptions != nil {
			m.Subpath = from.ImageOptions.Subpath
		}
	}
	return nil
}

func (s *settling) bind(m *spec.Mount, from *spec.MountSpec) error {
	m.Source = path.Clean(from.Source)
	if o := from.BindOptions; o != nil {
		m.Create, m.NonRecursive, m.Propagation = o.CreateMountpoint, o.NonRecursive, o.Propagation
		switch {
		case o.ReadOnlyNonRecursive:
			m.Below = spec.BelowAsIs
		case o.ReadOnlyForceRecursive:
			m.Below = spec.BelowReadOnly
		}
	}
	if m.Create {
		return nil
	}
	// To tell it early; what matters is whether it is there at the start.
	if f, err := sys.OpenPath(m.Source); err == nil {
		return f.Close()
	} else if sys.IsNoPlace(err) {
		return errNoSource(m.Source)
	}
	return nil
}

func errNoSource(path string) error {
	return errs.New(errs.Invalid, "invalid mount config for type %q: bind source path does not exist: %s", spec.MountBind, path)
}

func (s *settling) volume(m *spec.Mount, from *spec.MountSpec) {
	m.Volume, m.Anonymous = from.Source, from.Source == ""
	o := volume.Options{Driver: s.ctr.Host.VolumeDriver, Fleeting: m.Anonymous && s.ctr.Host.AutoRemove}
	if v := from.VolumeOptions; v != nil {
		m.Subpath, o.Labels = v.Subpath, v.Labels
		s.noCopy[m.Target] = v.NoCopy || v.Subpath != ""
		if d := v.DriverConfig; d != nil {
			o.Driver, o.Options = cmp.Or(d.Name, o.Driver), d.Options
		}
	}
	s.fresh[m.Target] = o
}

func tmpfsOptions(from *spec.MountSpec) string {
	var all []string
	if from.ReadOnly {
		all = append(all, "ro")
	}
	if o := from.TmpfsOptions; o != nil {
		if o.SizeBytes > 0 {
			all = append(all, "size="+strconv.FormatInt(o.SizeBytes, 10))
		}
		if o.Mode != 0 {
			all = append(all, "mode="+strconv.FormatUint(uint64(o.Mode), 8))
		}
		for _, words := range o.Options {
			all = append(all, strings.Join(words, "="))
		}
	}
	return strings.Join(all, ",")
}

// anonymous adds a volume for each path of the image's VOLUMEs and of -v PATH
// that nothing else is mounted on.
func (s *settling) anonymous() error {
	for target := range s.ctr.Config.Volumes {
		from := &spec.MountSpec{Type: spec.MountVolume, Target: target}
		if err := from.Check(); err != nil {
			return err
		}
		clean := path.Clean(target)
		if _, tmpfs := s.ctr.Host.Tmpfs[clean]; tmpfs || s.byTarget[clean] != nil {
			continue
		}
		if err := s.add(from, map[string]bool{}); err != nil {
			return err
		}
	}
	return nil
}

// makeVolumes makes the volumes that are not there and holds all.
func (s *settling) makeVolumes(ctx context.Context) error {
	p := &populator{c: s.c, layers: s.ctr.Layers}
	defer p.close()
	for target, m := range s.byTarget {
		if m.Type != spec.MountVolume {
			continue
		}
		if err := s.makeVolume(ctx, p, m, target); err != nil {
			return err
		}
	}
	return nil
}

func (s *settling) makeVolume(ctx context.Context, p *populator, m *spec.Mount, target string) error {
	o, own := s.fresh[target]
	if !own { // of another container
		release, err := s.c.Volumes.Hold(m.Volume)
		if err == nil {
			s.held = append(s.held, release)
		}
		return err
	}
	failed := func(err error) error {
		return fmt.Errorf("copy %s of the image into a volume: %w", target, noSpace(err))
	}
	copies := !s.noCopy[target]
	if copies && len(o.Options) == 0 {
		o.Fill = func(data string) error {
			if err := p.fillNew(ctx, data, target, !o.Fleeting); err != nil {
				return failed(err)
			}
			return nil
		}
	}
	vol, created, release, err := s.c.Volumes.EnsureHeld(m.Volume, o)
	if err != nil {
		return err
	}
	s.held = append(s.held, release)
	m.Volume, m.Driver = vol.Name, vol.Driver
	if m.Anonymous && created {
		s.made = append(s.made, vol.Name)
	}
	if copies && (!created || o.Fill == nil) {
		if err := p.fill(ctx, vol, target); err != nil {
			return failed(err)
		}
	}
	return nil
}

// freeVolumes removes the anonymous volumes of a container that is removed.
func (c *Containers) freeVolumes(ctr *spec.Container) error {
	var names []string
	for _, m := range ctr.Mounts {
		if m.Anonymous {
			names = append(names, m.Volume)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return c.Volumes.RemoveAnonymous(names)
}

// Mountpoint is where on the host a mount's data lies, for inspect.
func (c *Containers) Mountpoint(m *spec.Mount) string {
	switch m.Type {
	case spec.MountBind:
		return m.Source
	case spec.MountVolume:
		return c.Volumes.Data(m.Volume)
	}
	return ""
}
