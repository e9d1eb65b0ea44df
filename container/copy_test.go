package container

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tug/errs"
)

// What is packed and unpacked is the same, and "." goes into what is there.
func TestPackUnpack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(from, "d/e"), 0o750), os.WriteFile(filepath.Join(from, "d/f"), []byte("text"), 0o640),
		os.Link(filepath.Join(from, "d/f"), filepath.Join(from, "d/g")), os.Symlink("../nowhere", filepath.Join(from, "d/l")),
		os.WriteFile(filepath.Join(to, "f"), []byte("something longer"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, as := range []string{"d", "new", "."} {
		var b bytes.Buffer
		if err := Pack(t.Context(), filepath.Join(from, "d"), false, as, &b); err != nil {
			t.Fatal(err)
		}
		if err := Unpack(t.Context(), to, &b, false); err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(to, as)
		text, err := os.ReadFile(filepath.Join(at, "f"))
		f, err2 := os.Stat(filepath.Join(at, "f"))
		g, err3 := os.Stat(filepath.Join(at, "g"))
		link, err4 := os.Readlink(filepath.Join(at, "l"))
		e, err5 := os.Stat(filepath.Join(at, "e"))
		if err != nil || err2 != nil || err3 != nil || err4 != nil || err5 != nil {
			t.Fatal(as, err, err2, err3, err4, err5)
		}
		if string(text) != "text" || !os.SameFile(f, g) || f.Mode() != 0o640 || link != "../nowhere" || e.Mode().Perm() != 0o750 {
			t.Errorf("%s: %q %v %v %q %v", as, text, os.SameFile(f, g), f.Mode(), link, e.Mode())
		}
	}
}

// A tar that a container made writes nothing outside of the directory.
func TestUnpackHostile(t *testing.T) {
	reg := func(name string) *tar.Header { return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }
	link := func(typ byte, name, to string) *tar.Header {
		return &tar.Header{Typeflag: typ, Name: name, Linkname: to, Mode: 0o644}
	}
	top := t.TempDir()
	if err := os.WriteFile(filepath.Join(top, "secret"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, members := range map[string][]*tar.Header{
		"climbs":                {reg("../planted")},
		"climbs later":          {reg("a/../../planted")},
		"is the parent":         {reg("..")},
		"through a link":        {link(tar.TypeSymlink, "l", ".."), reg("l/planted")},
		"through two":           {link(tar.TypeSymlink, "l", "m"), link(tar.TypeSymlink, "m", top), reg("l/planted")},
		"hard link":             {link(tar.TypeLink, "h", "../secret")},
		"hard link through":     {link(tar.TypeSymlink, "l", ".."), link(tar.TypeLink, "h", "l/secret")},
		"a directory by link":   {link(tar.TypeSymlink, "l", ".."), {Typeflag: tar.TypeDir, Name: "l/", Mode: 0o777}},
		"unknown":               {{Typeflag: 'x' + 1, Name: "y"}},
		"file over directory":   {{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}, reg("d")},
		"an overlayfs deletion": {{Typeflag: tar.TypeChar, Name: "w"}},
	} {
		dir := filepath.Join(top, "d")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range members {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(what, err)
			}
		}
		_ = w.Close()
		if err := Unpack(t.Context(), dir, &b, false); !errs.Is(err, errs.Invalid) && !errs.Is(err, errs.Unsupported) {
			t.Errorf("%s: %v", what, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(top)
		if err != nil || len(left) != 1 {
			t.Errorf("%s: it left %v, %v", what, left, err)
		}
	}
	if err := Unpack(t.Context(), top, strings.NewReader("no tar at all"), false); err == nil {
		t.Error("no tar is taken")
	}
}
