package spec

import (
	"path"
	"slices"
	"strings"

	"tug/errs"
)

// MountSpec is a mount as it is asked for, in Docker's shape. Settled, with its
// volume or image, it is a Mount.
type MountSpec struct {
	Type          string         `json:",omitempty"`
	Source        string         `json:",omitempty"`
	Target        string         `json:",omitempty"`
	ReadOnly      bool           `json:",omitempty"`
	Consistency   string         `json:",omitempty"` // accepted; of Docker on other systems
	BindOptions   *BindOptions   `json:",omitempty"`
	VolumeOptions *VolumeOptions `json:",omitempty"`
	ImageOptions  *ImageOptions  `json:",omitempty"`
	TmpfsOptions  *TmpfsOptions  `json:",omitempty"`

	Owner   string `json:",omitempty"` // see Mount; Docker has nothing like it
	Mode    string `json:"-"`          // of -v
	Relabel bool   `json:"-"`          // of -v
}

// BindOptions are a MountSpec's of type bind.
type BindOptions struct {
	Propagation            string `json:",omitempty"`
	NonRecursive           bool   `json:",omitempty"`
	CreateMountpoint       bool   `json:",omitempty"`
	ReadOnlyNonRecursive   bool   `json:",omitempty"`
	ReadOnlyForceRecursive bool   `json:",omitempty"`
}

// VolumeOptions are a MountSpec's of type volume.
type VolumeOptions struct {
	NoCopy       bool              `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"`
	Subpath      string            `json:",omitempty"`
	DriverConfig *VolumeDriver     `json:",omitempty"`
}

// VolumeDriver is what makes a volume that is not there yet.
type VolumeDriver struct {
	Name    string            `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
}

// ImageOptions are a MountSpec's of type image.
type ImageOptions struct {
	Subpath string `json:",omitempty"`
}

// TmpfsOptions are a MountSpec's of type tmpfs.
type TmpfsOptions struct {
	SizeBytes int64      `json:",omitempty"`
	Mode      uint32     `json:",omitempty"`
	Options   [][]string `json:",omitempty"` // each a name, or a name and a value
}

// ParseVolume reads -v SOURCE:TARGET[:OPTIONS], one of HostConfig.Binds. A
// source that is an absolute path is the host's, any other names a volume.
func ParseVolume(s string) (*MountSpec, error) {
	part := strings.SplitN(s, ":", 3)
	if len(part) < 2 || part[0] == "" || part[1] == "" || len(part) == 2 && isVolumeMode(part[1]) {
		return nil, errs.New(errs.Invalid, "invalid volume specification: '%s'", s)
	}
	m := &MountSpec{Type: MountVolume, Source: part[0], Target: part[1]}
	if path.IsAbs(m.Source) {
		m.Type, m.Source = MountBind, path.Clean(m.Source)
		m.BindOptions = &BindOptions{CreateMountpoint: true}
	} else {
		m.VolumeOptions = &VolumeOptions{}
	}
	if len(part) == 3 {
		if err := m.setMode(part[2]); err != nil {
			return nil, err
		}
	}
	if err := m.Check(); err != nil {
		return nil, errs.New(errs.Invalid, "invalid volume specification: '%s': %w", s, err)
	}
	return m, nil
}

func propagations() []string {
	return []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"}
}

// modeClass is the class of an option of -v; of each there may be one. 0 is no
// option.
func modeClass(o string) int {
	switch o {
	case "ro", "rw":
		return 1
	case "z", "Z":
		return 2
	case "nocopy":
		return 3
	case "consistent", "cached", "delegated", "default":
		return 4
	case OwnerUser:
		return 5
	}
	if owner, ok := strings.CutPrefix(o, "owner="); ok && ValidOwner(owner) {
		return 5
	}
	if slices.Contains(propagations(), o) {
		return 6
	}
	return 0
}

func isVolumeMode(mode string) bool {
	seen := map[int]bool{}
	for o := range strings.SplitSeq(mode, ",") {
		class := modeClass(o)
		if class == 0 || seen[class] {
			return false
		}
		seen[class] = true
	}
	return true
}

// setMode takes the options of -v.
func (m *MountSpec) setMode(mode string) error {
	if mode != "" && !isVolumeMode(mode) {
		return errs.New(errs.Invalid, "invalid mode: %s", mode)
	}
	m.Mode = mode
	for o := range strings.SplitSeq(mode, ",") {
		switch class := modeClass(o); {
		case class == 1:
			m.ReadOnly = o == "ro"
		case class == 2:
			m.Relabel = true
		case class == 3 && m.VolumeOptions != nil:
			m.VolumeOptions.NoCopy = true
		case class == 5:
			m.Owner = strings.TrimPrefix(o, "owner=")
		case class == 6 && m.BindOptions != nil:
			m.BindOptions.Propagation = o
		case class == 3, class == 6:
			return errs.New(errs.Invalid, "invalid mode: %s", mode).WithHint("%s is for another kind of mount", o)
		}
	}
	return nil
}

// ValidOwner reports whether s is OwnerUser or UID:GID.
func ValidOwner(s string) bool {
	if s == OwnerUser {
		return true
	}
	_, _, ok := OwnerIDs(s)
	return ok
}

// OwnerIDs reads UID:GID.
func OwnerIDs(s string) (uid, gid uint32, ok bool) {
	u, g, ok := strings.Cut(s, ":")
	uid, okUID := parseID(u)
	gid, okGID := parseID(g)
	return uid, gid, ok && okUID && okGID
}

// parseID reads an id as setuid(2) takes them.
func parseID(s string) (uint32, bool) {
	const most = 1<<31 - 1
	var n uint64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if n = n*10 + uint64(s[i]-'0'); n > most {
			return 0, false
		}
	}
	return uint32(n), s != ""
}

// Check refuses what makes no sense on any machine, in Docker's words.
func (m *MountSpec) Check() error {
	bad := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "invalid mount config for type %q: %w", m.Type, errs.New(errs.Invalid, format, args...))
	}
	switch {
	case m.Target == "":
		return bad("field Target must not be empty")
	case path.Clean("/"+m.Target) == "/":
		return bad("invalid specification: destination can't be '/'")
	case !path.IsAbs(m.Target):
		return bad("invalid mount path: '%s' mount path must be absolute", m.Target)
	case strings.ContainsRune(m.Source+m.Target, 0):
		return bad("invalid mount path: it has a NUL byte")
	case m.Owner != "" && m.Type != MountBind && m.Type != MountVolume:
		return bad("an owner is for binds and volumes")
	}
	for name, of := range map[string]string{"BindOptions": MountBind, "VolumeOptions": MountVolume, "ImageOptions": MountImage, "TmpfsOptions": MountTmpfs} {
		if m.Type != of && m.has(name) {
			return bad("field %s must not be specified", name)
		}
	}
	switch m.Type {
	case MountBind:
		return m.checkBind(bad)
	case MountVolume:
		return m.checkVolume(bad)
	case MountImage:
		if m.Source == "" {
			return bad("field Source must not be empty")
		}
		if o := m.ImageOptions; o != nil && path.IsAbs(o.Subpath) {
			return bad("subpath must be a relative path within the image")
		}
	case MountTmpfs:
		if m.Source != "" {
			return bad("field Source must not be specified")
		}
	default:
		return bad("mount type unknown")
	}
	return nil
}

func (m *MountSpec) has(options string) bool {
	switch options {
	case "BindOptions":
		return m.BindOptions != nil
	case "VolumeOptions":
		return m.VolumeOptions != nil
	case "ImageOptions":
		return m.ImageOptions != nil
	}
	return m.TmpfsOptions != nil
}

func (m *MountSpec) checkBind(bad func(string, ...any) error) error {
	if m.Source == "" {
		return bad("field Source must not be empty")
	}
	if !path.IsAbs(m.Source) {
		return bad("invalid mount path: '%s' mount path must be absolute", m.Source)
	}
	o := m.BindOptions
	switch {
	case o == nil:
	case o.Propagation != "" && !slices.Contains(propagations(), o.Propagation):
		return bad("invalid propagation mode: %s", o.Propagation)
	case o.ReadOnlyForceRecursive && !m.ReadOnly:
		return bad("mount source is not read-only")
	case o.ReadOnlyForceRecursive && o.ReadOnlyNonRecursive:
		return bad("ReadOnlyForceRecursive and ReadOnlyNonRecursive exclude each other")
	case o.ReadOnlyForceRecursive && o.NonRecursive:
		return bad("ReadOnlyForceRecursive needs a recursive bind")
	}
	return nil
}

func (m *MountSpec) checkVolume(bad func(string, ...any) error) error {
	o := m.VolumeOptions
	switch {
	case o == nil || o.Subpath == "":
	case m.Source == "":
		return bad("must not set Subpath when using anonymous volumes")
	case path.IsAbs(o.Subpath):
		return bad("subpath must be a relative path within the volume")
	}
	return nil
}

// ParseVolumesFrom reads CONTAINER[:ro|rw], one of HostConfig.VolumesFrom.
func ParseVolumesFrom(s string) (name string, readOnly bool, err error) {
	name, mode, withMode := strings.Cut(s, ":")
	if name == "" {
		return "", false, errs.New(errs.Invalid, "malformed volumes-from specification: '%s'", s)
	}
	if withMode && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
		return "", false, errs.New(errs.Invalid, "invalid mode for volumes-from: %s", mode)
	}
	return name, mode == "ro", nil
}
