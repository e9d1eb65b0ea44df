package spec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseVolume(t *testing.T) {
	bind := func(source, target string, change func(*MountSpec)) *MountSpec {
		m := &MountSpec{Type: MountBind, Source: source, Target: target, BindOptions: &BindOptions{CreateMountpoint: true}}
		if change != nil {
			change(m)
		}
		return m
	}
	volume := func(name, target string, change func(*MountSpec)) *MountSpec {
		m := &MountSpec{Type: MountVolume, Source: name, Target: target, VolumeOptions: &VolumeOptions{}}
		if change != nil {
			change(m)
		}
		return m
	}
	for s, want := range map[string]*MountSpec{
		"/a:/b":       bind("/a", "/b", nil),
		"/a/../c:/b/": bind("/c", "/b/", nil),
		"/a:/b:":      bind("/a", "/b", nil),
		"/a:/b:ro":    bind("/a", "/b", func(m *MountSpec) { m.ReadOnly, m.Mode = true, "ro" }),
		"/a:/b:rw,Z,rslave,cached": bind("/a", "/b", func(m *MountSpec) {
			m.Mode, m.Relabel, m.BindOptions.Propagation = "rw,Z,rslave,cached", true, "rslave"
		}),
		"/a:/b:U":             bind("/a", "/b", func(m *MountSpec) { m.Owner, m.Mode = "U", "U" }),
		"/a:/b:ro,owner=5:70": bind("/a", "/b", func(m *MountSpec) { m.Owner, m.ReadOnly, m.Mode = "5:70", true, "ro,owner=5:70" }),
		"data:/b":             volume("data", "/b", nil),
		"data:/b:nocopy,z":    volume("data", "/b", func(m *MountSpec) { m.Mode, m.Relabel, m.VolumeOptions.NoCopy = "nocopy,z", true, true }),
		"~/x:/b":              volume("~/x", "/b", nil), // which no volume is called
	} {
		got, err := ParseVolume(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", s, diff)
		}
	}
	for s, want := range map[string]string{
		"":                  "invalid volume specification: ''",
		"/a":                "invalid volume specification: '/a'",
		":/b":               "invalid volume specification: ':/b'",
		"/a::ro":            "invalid volume specification: '/a::ro'",
		"/a:ro":             "invalid volume specification: '/a:ro'",
		"/a:/b:ro,rw":       "invalid mode: ro,rw",
		"/a:/b:z,Z":         "invalid mode: z,Z",
		"/a:/b:x":           "invalid mode: x",
		"/a:/b:owner=5":     "invalid mode: owner=5",
		"/a:/b:owner=-1:0":  "invalid mode: owner=-1:0",
		"/a:/b:U,owner=1:1": "invalid mode: U,owner=1:1",
		"/a:/b:nocopy":      "invalid mode: nocopy",
		"data:/b:shared":    "invalid mode: shared",
		"/a:b":              `invalid volume specification: '/a:b': invalid mount config for type "bind": invalid mount path: 'b' mount path must be absolute`,
		"/a:/":              `invalid volume specification: '/a:/': invalid mount config for type "bind": invalid specification: destination can't be '/'`,
		"/a:/x/..":          `invalid volume specification: '/a:/x/..': invalid mount config for type "bind": invalid specification: destination can't be '/'`,
		"/a:../..":          `invalid volume specification: '/a:../..': invalid mount config for type "bind": invalid specification: destination can't be '/'`,
		"/a:/b\x00":         "invalid volume specification: '/a:/b\x00': invalid mount config for type \"bind\": invalid mount path: it has a NUL byte",
	} {
		if _, err := ParseVolume(s); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", s, err, want)
		}
	}
}

func TestCheckMount(t *testing.T) {
	for want, m := range map[string]MountSpec{
		`invalid mount config for type "bind": field Source must not be empty`:                                     {Type: MountBind, Target: "/x"},
		`invalid mount config for type "bind": field Target must not be empty`:                                     {Type: MountBind, Source: "/x"},
		`invalid mount config for type "bind": invalid mount path: 'x' mount path must be absolute`:                {Type: MountBind, Source: "x", Target: "/x"},
		`invalid mount config for type "bind": field VolumeOptions must not be specified`:                          {Type: MountBind, Source: "/x", Target: "/x", VolumeOptions: &VolumeOptions{}},
		`invalid mount config for type "bind": invalid propagation mode: up`:                                       {Type: MountBind, Source: "/x", Target: "/x", BindOptions: &BindOptions{Propagation: "up"}},
		`invalid mount config for type "tmpfs": field Source must not be specified`:                                {Type: MountTmpfs, Source: "/x", Target: "/x"},
		`invalid mount config for type "tmpfs": an owner is for binds and volumes`:                                 {Type: MountTmpfs, Target: "/x", Owner: "U"},
		`invalid mount config for type "image": field Source must not be empty`:                                    {Type: MountImage, Target: "/x"},
		`invalid mount config for type "npipe": mount type unknown`:                                                {Type: "npipe", Source: "/x", Target: "/x"},
		`invalid mount config for type "volume": must not set Subpath when using anonymous volumes`:                {Type: MountVolume, Target: "/x", VolumeOptions: &VolumeOptions{Subpath: "a"}},
		`invalid mount config for type "volume": subpath must be a relative path within the volume`:                {Type: MountVolume, Source: "vv", Target: "/x", VolumeOptions: &VolumeOptions{Subpath: "/a"}},
		`invalid mount config for type "bind": ReadOnlyForceRecursive and ReadOnlyNonRecursive exclude each other`: {Type: MountBind, Source: "/x", Target: "/x", ReadOnly: true, BindOptions: &BindOptions{ReadOnlyForceRecursive: true, ReadOnlyNonRecursive: true}},
	} {
		if err := m.Check(); err == nil || err.Error() != want {
			t.Errorf("%+v:\n got %v\nwant %s", m, err, want)
		}
	}
}

func TestParseVolumesFrom(t *testing.T) {
	for s, want := range map[string][2]any{"c": {"c", false}, "c:ro": {"c", true}, "c:rw": {"c", false}} {
		if name, ro, err := ParseVolumesFrom(s); err != nil || name != want[0] || ro != want[1] {
			t.Errorf("%s: %s, %v, %v", s, name, ro, err)
		}
	}
	for _, s := range []string{"", ":ro", "c:", "c:x"} {
		if _, _, err := ParseVolumesFrom(s); err == nil {
			t.Errorf("%q is no error", s)
		}
	}
}
