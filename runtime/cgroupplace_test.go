package runtime

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSlicePath(t *testing.T) {
	for name, want := range map[string]string{
		"user.slice": "/user.slice", "a-b.slice": "/a.slice/a-b.slice", "a-b-c.slice": "/a.slice/a-b.slice/a-b-c.slice", "-.slice": "/",
		"a--b.slice": "", "-a.slice": "", "a-.slice": "", ".slice": "",
	} {
		got, ok := slicePath(name)
		if got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, ok, want)
		}
	}
}

// check decides what may be emptied and removed.
func TestOwnSlots(t *testing.T) {
	c := &cgroups{parent: "/tug-12345678"}
	const id = "0123456789abcdef"
	for slot, own := range map[string]bool{
		"/tug-12345678/" + id:                  true,
		"/a/b/tug-12345678-" + id:              true,
		"/tug-12345678-" + id:                  true,
		"/tug-12345678/a/tug-12345678-" + id:   true,
		"/a/" + id:                             false,
		"/a/tug-87654321-" + id:                false,
		"/a/tug-12345678-" + id + "0":          false,
		"/a/../tug-12345678-" + id:             false,
		"a/tug-12345678-" + id:                 false,
		"/tug-12345678":                        false,
		"/tug-12345678/ab":                     false,
		"/tug-12345678/some":                   false,
		"/":                                    false,
		"":                                     false,
		"/tug-12345678/" + id + "/../../other": false,
	} {
		if err := c.check(slot); (err == nil) != own {
			t.Errorf("%s: %v, want own %v", slot, err, own)
		}
	}
}

func TestCheckCgroupParent(t *testing.T) {
	for _, ok := range []string{"", "/", "/a", "a/b", "/a/b.slice", "x.y"} {
		if err := CheckCgroupParent(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"..", "a/../b", "a//b", "a/.", "a\nb", "a\x00", "no-such-slice-here.slice", "0123456789abcdef", string(make([]byte, 2000))} {
		if err := CheckCgroupParent(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// A parent that is tug's own cgroup is as none: a slot there is tug's to remove.
func TestOwnParent(t *testing.T) {
	c := &cgroups{v2: t.TempDir(), parent: "/tug-12345678"}
	for _, asked := range []string{"", "/tug-12345678", "//tug-12345678/"} {
		slot, err := c.create(asked, nil)
		if err == nil {
			err = c.check(slot)
		}
		if err != nil || !c.own(slot) {
			t.Errorf("%q: %s, %v", asked, slot, err)
		}
	}
}

// What tug made goes with its last user; what was there and what is in use stays.
func TestMadeParents(t *testing.T) {
	root := t.TempDir()
	c := &cgroups{parent: "/tug-12345678", notes: filepath.Join(root, "notes")}
	if err := os.Mkdir(filepath.Join(root, "there"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.makeParents(root, "/there/made/deep"); err != nil {
		t.Fatal(err)
	}
	user := filepath.Join(root, "there/made/user")
	if err := os.Mkdir(user, 0o755); err != nil {
		t.Fatal(err)
	}
	is := func(path string) bool { return hasFile(filepath.Join(root, path)) }
	c.removeMade()
	if is("there/made/deep") || !is("there/made") {
		t.Errorf("deep %v, made %v", is("there/made/deep"), is("there/made"))
	}
	if err := os.Remove(user); err != nil {
		t.Fatal(err)
	}
	c.removeMade()
	if is("there/made") || !is("there") || len(c.noted(noteMade)) > 0 {
		t.Errorf("made %v, there %v, notes %v", is("there/made"), is("there"), c.noted(noteMade))
	}
}
