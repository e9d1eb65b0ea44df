package cli

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/spec"
)

func TestMountFlag(t *testing.T) {
	here, err := filepath.Abs("x")
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]spec.MountSpec{
		"dst=/b":                                          {Type: "volume", Target: "/b"},
		"type=BIND,src=./x,target=/b":                     {Type: "bind", Source: here, Target: "/b"},
		"type=bind,source=~/x,destination=/b,ro":          {Type: "bind", Source: "~/x", Target: "/b", ReadOnly: true},
		"type=bind,src=/a,dst=/b,ro=0":                    {Type: "bind", Source: "/a", Target: "/b"},
		`"type=bind","src=/a,b",dst=/b`:                   {Type: "bind", Source: "/a,b", Target: "/b"},
		"type=bind,src=/a,dst=/b,bind-recursive=disabled": {Type: "bind", Source: "/a", Target: "/b", BindOptions: &spec.BindOptions{NonRecursive: true}},
		"type=bind,src=/a,dst=/b,bind-nonrecursive":       {Type: "bind", Source: "/a", Target: "/b", BindOptions: &spec.BindOptions{NonRecursive: true}},
		"type=bind,src=/a,dst=/b,bind-create-src=true":    {Type: "bind", Source: "/a", Target: "/b", BindOptions: &spec.BindOptions{CreateMountpoint: true}},
		"type=bind,src=/a,dst=/b,bind-propagation=RSlave,consistency=cached": {
			Type: "bind", Source: "/a", Target: "/b", Consistency: "cached", BindOptions: &spec.BindOptions{Propagation: "rslave"},
		},
		"type=bind,src=/a,dst=/b,ro,bind-propagation=rprivate,bind-recursive=readonly": {
			Type: "bind", Source: "/a", Target: "/b", ReadOnly: true, BindOptions: &spec.BindOptions{Propagation: "rprivate", ReadOnlyForceRecursive: true},
		},
		"type=bind,src=/a,dst=/b,owner=1000:100": {Type: "bind", Source: "/a", Target: "/b", Owner: "1000:100"},
		"src=v,dst=/b,volume-nocopy,volume-subpath=a/b,volume-label=x=1,volume-label=y,volume-driver=local,volume-opt=type=tmpfs,volume-opt=o=a=b": {
			Type: "volume", Source: "v", Target: "/b", VolumeOptions: &spec.VolumeOptions{
				NoCopy: true, Subpath: "a/b", Labels: map[string]string{"x": "1", "y": ""},
				DriverConfig: &spec.VolumeDriver{Name: "local", Options: map[string]string{"type": "tmpfs", "o": "a=b"}},
			},
		},
		"type=tmpfs,dst=/b,tmpfs-size=2m,tmpfs-mode=1770": {Type: "tmpfs", Target: "/b", TmpfsOptions: &spec.TmpfsOptions{SizeBytes: 2 << 20, Mode: 0o1770}},
		"type=image,src=busybox,dst=/b,image-subpath=etc": {Type: "image", Source: "busybox", Target: "/b", ImageOptions: &spec.ImageOptions{Subpath: "etc"}},
	} {
		got, err := parseMountFlag(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", s, diff)
		}
	}
}

// What Docker's command says.
func TestMountFlagErrors(t *testing.T) {
	for s, want := range map[string]string{
		"":                                      "EOF",
		"type=bind,src=/a":                      "target is required",
		"src=/a,foo":                            "invalid field 'foo' must be a key=value pair",
		"src=/a,dst":                            "invalid field 'dst' must be a key=value pair",
		"foo=bar":                               "unexpected key 'foo' in 'foo=bar'",
		"type=bind, src=/a":                     "unexpected key ' src' in ' src=/a'",
		"type=,dst=/b":                          "type is required",
		`dst=/b,"`:                              `parse error on line 1, column 9: extraneous or missing " in quoted-field`,
		"dst=/b,ro=maybe":                       "invalid value for ro: maybe",
		"dst=/b,readonly=":                      "invalid value for readonly: ",
		"dst=/b,volume-nocopy=x":                "invalid value for volume-nocopy: x",
		"dst=/b,owner=root":                     `invalid value for owner: root (must be UID:GID, or "U" for the container's user)`,
		"dst=/b,bind-nonrecursive":              "cannot mix 'bind-*' options with mount type 'volume'",
		"type=bind,src=/a,dst=/b,volume-nocopy": "cannot mix 'volume-*' options with mount type 'bind'",
		"type=bind,src=/a,dst=/b,tmpfs-size=3":  "cannot mix 'tmpfs-*' options with mount type 'bind'",
		"type=bind,src=/a,dst=/b,image-subpath=x":            "cannot mix 'image-*' options with mount type 'bind'",
		"type=tmpfs,dst=/b,tmpfs-mode=9":                     "invalid value for tmpfs-mode: 9",
		"type=tmpfs,dst=/b,tmpfs-size=9x":                    "invalid value for tmpfs-size: 9x",
		"type=bind,dst=/b,src=/a,bind-recursive=foo":         `invalid value for bind-recursive: foo (must be "enabled", "disabled", "writable", or "readonly")`,
		"type=bind,dst=/b,src=/a,bind-recursive=writable":    "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
		"type=bind,dst=/b,src=/a,bind-recursive=readonly":    "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction",
		"type=bind,dst=/b,src=/a,ro,bind-recursive=readonly": "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
	} {
		if _, err := parseMountFlag(s); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", s, err, want)
		}
	}
}

func TestVolumeFlag(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRun(t, "-v", "/anon", "-v", "./x:/b:ro", "--volume=data:/c", "--volumes-from", "other:ro", "--volume-driver", "local", "img")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/anon"}, r.Volumes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{here + "/x:/b:ro", "data:/c"}, r.Host.Binds); diff != "" {
		t.Error(diff)
	}
	if len(r.Host.VolumesFrom) != 1 || r.Host.VolumesFrom[0] != "other:ro" || r.Host.VolumeDriver != "local" {
		t.Errorf("%q %q", r.Host.VolumesFrom, r.Host.VolumeDriver)
	}
	for _, s := range []string{"", ":/x", "/x:", "a::ro"} {
		if _, err := parseRun(t, "-v", s, "img"); err == nil {
			t.Errorf("-v %q is no error", s)
		}
	}
}
