package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/container"
	"tug/spec"
)

// mountFlags are the flags of volumes and mounts, beside --tmpfs.
type mountFlags struct {
	volumes, from list
	mounts        mountValue
	driver        string
}

func (f *mountFlags) define(fs *pflag.FlagSet) {
	fs.Var(&f.mounts, "mount", "Attach a filesystem mount to the container")
	fs.VarP(&f.volumes, "volume", "v", "Bind mount a volume")
	fs.StringVar(&f.driver, "volume-driver", "", "Optional volume driver for the container")
	fs.Var(&f.from, "volumes-from", "Mount volumes from the specified container(s)")
}

func (f *mountFlags) set(r *container.Request) error {
	r.Host.Mounts, r.Host.VolumesFrom, r.Host.VolumeDriver = f.mounts, f.from.values, f.driver
	for _, v := range f.volumes.values {
		source, rest, _ := strings.Cut(v, ":")
		switch {
		case v == "":
			return errors.New("invalid empty volume spec")
		case source == v:
			r.Volumes = append(r.Volumes, v)
			continue
		case source == "" || strings.HasPrefix(rest, ":") || strings.HasSuffix(rest, ":") || rest == "":
			return fmt.Errorf("invalid spec: %s: empty section between colons", oneLine(v))
		}
		if strings.HasPrefix(source, ".") {
			abs, err := filepath.Abs(source)
			if err != nil {
				return err
			}
			v = abs + ":" + rest
		}
		if _, err := spec.ParseVolume(v); err != nil {
			return err
		}
		r.Host.Binds = append(r.Host.Binds, v)
	}
	return nil
}

// mountValue collects --mount.
type mountValue []spec.MountSpec

func (v *mountValue) String() string { return "" }
func (v *mountValue) Type() string   { return "mount" }

func (v *mountValue) Set(s string) error {
	m, err := parseMountFlag(s)
	if err == nil {
		*v = append(*v, *m)
	}
	return err
}

// mountFlag is one --mount that is being read.
type mountFlag struct {
	spec.MountSpec
	bind   spec.BindOptions
	volume spec.VolumeOptions
	tmpfs  spec.TmpfsOptions
	used   map[string]bool // kinds whose options are there
}

// parseMountFlag reads the fields of --mount, with Docker's words for what is
// wrong with them.
func parseMountFlag(s string) (*spec.MountSpec, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return nil, err
	}
	m := &mountFlag{MountSpec: spec.MountSpec{Type: spec.MountVolume}, used: map[string]bool{}}
	for _, field := range fields {
		key, value, hasValue := strings.Cut(field, "=")
		key = strings.ToLower(key)
		if kind, _, of := strings.Cut(key, "-"); of {
			m.used[kind] = true
		}
		set, known := m.setters()[key]
		switch {
		case !known && !hasValue:
			return nil, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		case !known:
			return nil, fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		case !hasValue && !isSwitch(key):
			return nil, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		case !hasValue:
			value = "true"
		}
		if err := set(key, value); err != nil {
			return nil, err
		}
	}
	return m.finish()
}

// isSwitch reports whether a key alone stands for KEY=true.
func isSwitch(key string) bool {
	switch key {
	case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src":
		return true
	}
	return false
}

type setter = func(key, value string) error

func (m *mountFlag) setters() map[string]setter {
	text := func(to *string) setter {
		return func(_, v string) error { *to = v; return nil }
	}
	lower := func(to *string) setter {
		return func(_, v string) error { *to = strings.ToLower(v); return nil }
	}
	boolean := func(to *bool) setter {
		return func(key, v string) (err error) {
			if *to, err = strconv.ParseBool(v); err != nil {
				return fmt.Errorf("invalid value for %s: %s", key, v)
			}
			return nil
		}
	}
	pairs := func(to func() map[string]string) setter {
		return func(_, v string) error {
			name, value, _ := strings.Cut(v, "=")
			to()[name] = value
			return nil
		}
	}
	return map[string]setter{
		"type":   lower(&m.MountSpec.Type),
		"source": m.setSource, "src": m.setSource,
		"target": text(&m.Target), "dst": text(&m.Target), "destination": text(&m.Target),
		"readonly": boolean(&m.ReadOnly), "ro": boolean(&m.ReadOnly),
		"consistency":       lower(&m.Consistency),
		"owner":             m.setOwner,
		"bind-propagation":  lower(&m.bind.Propagation),
		"bind-nonrecursive": boolean(&m.bind.NonRecursive), "bind-create-src": boolean(&m.bind.CreateMountpoint),
		"bind-recursive": m.setRecursive,
		"volume-nocopy":  boolean(&m.volume.NoCopy), "volume-subpath": text(&m.volume.Subpath),
		"volume-driver": func(_, v string) error { m.driver().Name = v; return nil },
		"volume-opt":    pairs(m.driverOptions), "volume-label": pairs(m.labels),
		"image-subpath": func(_, v string) error { m.ImageOptions = &spec.ImageOptions{Subpath: v}; return nil },
		"tmpfs-size":    m.setSize, "tmpfs-mode": m.setTmpfsMode,
	}
}

func (m *mountFlag) setSource(_, v string) error {
	m.Source = v
	if v == "." || v == ".." || strings.HasPrefix(v, "./") || strings.HasPrefix(v, "../") {
		abs, err := filepath.Abs(v)
		if err != nil {
			return err
		}
		m.Source = abs
	}
	return nil
}

func (m *mountFlag) setOwner(key, v string) error {
	if !spec.ValidOwner(v) {
		return fmt.Errorf(`invalid value for %s: %s (must be UID:GID, or "U" for the container's user)`, key, v)
	}
	m.Owner = v
	return nil
}

func (m *mountFlag) setRecursive(key, v string) error {
	switch v {
	case "enabled":
	case "disabled":
		m.bind.NonRecursive = true
	case "writable":
		m.bind.ReadOnlyNonRecursive = true
	case "readonly":
		m.bind.ReadOnlyForceRecursive = true
	default:
		return fmt.Errorf(`invalid value for %s: %s (must be "enabled", "disabled", "writable", or "readonly")`, key, v)
	}
	return nil
}

func (m *mountFlag) driver() *spec.VolumeDriver {
	if m.volume.DriverConfig == nil {
		m.volume.DriverConfig = &spec.VolumeDriver{}
	}
	return m.volume.DriverConfig
}

func (m *mountFlag) driverOptions() map[string]string {
	d := m.driver()
	if d.Options == nil {
		d.Options = map[string]string{}
	}
	return d.Options
}

func (m *mountFlag) labels() map[string]string {
	if m.volume.Labels == nil {
		m.volume.Labels = map[string]string{}
	}
	return m.volume.Labels
}

func (m *mountFlag) setSize(key, v string) (err error) {
	if m.tmpfs.SizeBytes, err = units.RAMInBytes(v); err != nil {
		return fmt.Errorf("invalid value for %s: %s", key, v)
	}
	return nil
}

func (m *mountFlag) setTmpfsMode(key, v string) error {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil {
		return fmt.Errorf("invalid value for %s: %s", key, v)
	}
	m.tmpfs.Mode = uint32(n)
	return nil
}

// finish checks what depends on several fields.
func (m *mountFlag) finish() (*spec.MountSpec, error) {
	if m.MountSpec.Type == "" {
		return nil, errors.New("type is required")
	}
	if m.Target == "" {
		return nil, errors.New("target is required")
	}
	for _, kind := range []string{spec.MountVolume, spec.MountBind, spec.MountTmpfs, spec.MountImage} {
		if m.used[kind] && m.MountSpec.Type != kind {
			return nil, fmt.Errorf("cannot mix '%s-*' options with mount type '%s'", kind, m.MountSpec.Type)
		}
	}
	switch b := m.bind; {
	case b.ReadOnlyNonRecursive && !m.ReadOnly:
		return nil, errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
	case b.ReadOnlyForceRecursive && !m.ReadOnly:
		return nil, errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
	case b.ReadOnlyForceRecursive && b.Propagation != "rprivate":
		return nil, errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
	}
	if m.used[spec.MountBind] {
		m.BindOptions = &m.bind
	}
	if m.used[spec.MountVolume] {
		m.VolumeOptions = &m.volume
	}
	if m.used[spec.MountTmpfs] {
		m.TmpfsOptions = &m.tmpfs
	}
	return &m.MountSpec, nil
}
