package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/image"
	"tug/spec"
	"tug/supervisor"
	"tug/sys"
	"tug/volume"
)

func withVolumes(t *testing.T) *Containers {
	t.Helper()
	c := newContainers(t)
	c.client = &supervisor.Client{Run: c.st.Run} // which is not there
	c.Volumes = volume.Open(c.st)
	c.Volumes.Uses = c.VolumeUses
	return c
}

func makeWith(t *testing.T, c *Containers, name string, change func(*Request, *image.Image)) (*spec.Container, error) {
	t.Helper()
	req, img := Request{Name: name, Cmd: []string{"true"}}, &image.Image{}
	change(&req, img)
	return c.Create(t.Context(), req, img)
}

func TestSettleMounts(t *testing.T) {
	c := withVolumes(t)
	dir := t.TempDir()
	first, err := makeWith(t, c, "first", func(r *Request, i *image.Image) {
		i.Config.Config.Volumes = map[string]struct{}{"/image": {}, "/bind/": {}, "/tmpfs": {}, "/named": {}}
		r.Host.Binds = []string{dir + ":/bind:ro,Z,slave", "data:/named", "data:/a/b/c"}
		r.Host.Tmpfs = map[string]string{"/tmpfs": ""}
		r.Host.Mounts = []spec.MountSpec{
			{Type: spec.MountTmpfs, Target: "/t/", TmpfsOptions: &spec.TmpfsOptions{SizeBytes: 4096, Mode: 0o1777, Options: [][]string{{"exec"}, {"uid", "5"}}}},
			{Type: spec.MountBind, Source: dir, Target: "/b", ReadOnly: true, Owner: "5:6", BindOptions: &spec.BindOptions{ReadOnlyNonRecursive: true}},
		}
		r.Volumes = []string{"/mine"}
	})
	if err != nil {
		t.Fatal(err)
	}
	anonymous := map[string]string{}
	for i, m := range first.Mounts {
		if m.Anonymous {
			anonymous[m.Target] = m.Volume
			first.Mounts[i].Volume = "?"
			if !spec.IsHex64(m.Volume) {
				t.Errorf("%+v", m)
			}
		}
	}
	want := []spec.Mount{
		{Type: "bind", Target: "/b", Source: dir, ReadOnly: true, Below: "writable", Owner: "5:6"},
		{Type: "bind", Target: "/bind", Source: dir, ReadOnly: true, Relabel: true, Propagation: "slave", Create: true, Mode: "ro,Z,slave"},
		{Type: "volume", Target: "/image", Volume: "?", Driver: "local", Anonymous: true},
		{Type: "volume", Target: "/mine", Volume: "?", Driver: "local", Anonymous: true},
		{Type: "volume", Target: "/named", Volume: "data", Driver: "local"},
		{Type: "tmpfs", Target: "/t", Options: "size=4096,mode=1777,exec,uid=5"},
		{Type: "volume", Target: "/a/b/c", Volume: "data", Driver: "local"},
	}
	if diff := cmp.Diff(want, first.Mounts); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	second, err := makeWith(t, c, "second", func(r *Request, _ *image.Image) {
		r.Host.VolumesFrom, r.Host.Binds = []string{"first:ro"}, []string{"other:/named"}
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range second.Mounts {
		word := " rw"
		if m.ReadOnly {
			word = " ro"
		}
		got = append(got, m.Target+word)
	}
	if diff := cmp.Diff([]string{"/b ro", "/bind ro", "/image ro", "/mine ro", "/named rw", "/a/b/c ro"}, got); diff != "" {
		t.Error(diff)
	}

	// What others have stays; what nobody has goes.
	if err := c.Remove(t.Context(), first.ID, false, true); err != nil {
		t.Fatal(err)
	}
	for _, name := range anonymous {
		if _, err := c.Volumes.Get(name); err != nil {
			t.Error(err)
		}
	}
	if err := c.Remove(t.Context(), second.ID, false, true); err != nil {
		t.Fatal(err)
	}
	list, _, err := c.Volumes.List()
	if err != nil || len(list) != 2 || list[0].Name != "data" || list[1].Name != "other" {
		t.Errorf("%v, %v", list, err)
	}
}

func TestSettleErrors(t *testing.T) {
	c := withVolumes(t)
	for want, change := range map[string]func(*Request){
		"Duplicate mount point: /x":              func(r *Request) { r.Host.Binds = []string{"aa:/x", "bb:/x/"} },
		"Duplicate mount point: /y":              func(r *Request) { r.Host.Binds, r.Host.Tmpfs = []string{"aa:/y"}, map[string]string{"/y": ""} },
		"No such container: nobody":              func(r *Request) { r.Host.VolumesFrom = []string{"nobody"} },
		"bind source path does not exist: /no/x": func(r *Request) { r.Host.Mounts = []spec.MountSpec{{Type: "bind", Source: "/no/x", Target: "/x"}} },
		"mount path must be absolute":            func(r *Request) { r.Volumes = []string{"rel"} },
		"destination can't be '/'":               func(r *Request) { r.Volumes = []string{"/."} },
		"too many mounts": func(r *Request) {
			for n := range 250 {
				r.Volumes = append(r.Volumes, fmt.Sprint("/v", n))
			}
		},
		"No such image: img": func(r *Request) { r.Host.Mounts = []spec.MountSpec{{Type: "image", Source: "img", Target: "/x"}} },
	} {
		_, err := makeWith(t, c, "refused", func(r *Request, i *image.Image) {
			i.Config.Config.Volumes = map[string]struct{}{"/also": {}}
			change(r)
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	list, _, err := c.Volumes.List()
	if err != nil || len(list) > 0 {
		t.Errorf("left: %v, %v", list, err)
	}
	if _, err := c.Find("refused"); !errs.Is(err, errs.NotFound) {
		t.Errorf("it is there: %v", err)
	}
}

func TestSwapped(t *testing.T) {
	const end = 1<<32 - 1
	for _, ids := range [][2]uint32{{0, 0}, {0, 1}, {1, 0}, {1000, 0}, {1000, 1001}, {5, 7}, {0, end - 1}, {end - 1, 3}} {
		maps := swapped(ids[0], ids[1])
		at := func(id uint32) (uint32, bool) {
			for _, m := range maps {
				if id >= m.Inside && uint64(id) < uint64(m.Inside)+uint64(m.Size) {
					return m.Outside + (id - m.Inside), true
				}
			}
			return 0, false
		}
		var sum uint64
		for _, m := range maps {
			sum += uint64(m.Size)
		}
		if sum != end {
			t.Errorf("%v: %d ids", ids, sum)
		}
		for _, id := range []uint32{0, 1, 2, 4, 6, 999, 1000, 1001, end - 2, end - 1, ids[0], ids[1]} {
			want := id
			switch id {
			case ids[0]:
				want = ids[1]
			case ids[1]:
				want = ids[0]
			}
			if got, ok := at(id); !ok || got != want {
				t.Errorf("%v: %d is %d, want %d", ids, id, got, want)
			}
		}
	}
}

func TestUserIn(t *testing.T) {
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	passwd := "broken\nroot:x:0:0::/:\nalice:x:1000:1001::/:\n1000:x:0:0::/:\nbig:x:99999999999:1::/:\n"
	if err := os.WriteFile(filepath.Join(dir, "passwd"), []byte(passwd), 0o600); err != nil {
		t.Fatal(err)
	}
	// Followed inside the root.
	if err := os.Symlink("/../../passwd", filepath.Join(etc, "passwd")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etc, "group"), []byte("staff:x:50:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := sys.OpenPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for user, want := range map[string][2]uint32{
		"": {0, 0}, "alice": {1000, 1001}, "1000": {1000, 1001}, "77": {77, 0}, "77:88": {77, 88}, "alice:staff": {1000, 50}, "0:50": {0, 50},
	} {
		if uid, gid, err := userIn(root, user); err != nil || uid != want[0] || gid != want[1] {
			t.Errorf("%q: %d:%d, %v; want %v", user, uid, gid, err, want)
		}
	}
	for _, user := range []string{"bob", "alice:wheel", "big", "99999999999"} {
		if _, _, err := userIn(root, user); err == nil {
			t.Errorf("%q is no error", user)
		}
	}
}
