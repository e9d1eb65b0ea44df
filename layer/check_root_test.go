//go:build root

package layer

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tug/spec"
)

// What is damaged in an extracted tree is found and mended.
func TestCheckTree(t *testing.T) {
	r := newRoom(t, "dir")
	d := r.add(makeTar(t, dir("./"), dir("d/").with(mode(0o2750)), file("d/text", "hello"), file("d/other", "hello").with(xattrsOf("user.a", "1")),
		symlink("link", "d/text").with(mode(0o644)), hardlink("hard", "d/text"), file(".wh.gone", ""), special("fifo", tar.TypeFifo, 0, 0), file("big", strings.Repeat("x", 3<<20))))
	root := r.l.path(d, dirFS)
	check := func() []Fault {
		t.Helper()
		found, err := r.l.Check(t.Context(), d, false)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := check(); len(found) > 0 {
		t.Fatalf("fresh: %v", found)
	}
	for _, c := range []struct {
		name   string
		damage func(path func(string) string) error
		file   string
		what   string
	}{
		{"content", func(at func(string) string) error { return patch(at("big"), 2<<20, "y") }, "big", "differs from the tar, from byte 2097152 on"},
		{"short", func(at func(string) string) error { return os.Truncate(at("d/text"), 4) }, "d/text", "has 4 bytes instead of 5"},
		{"mode", func(at func(string) string) error { return os.Chmod(at("d/other"), 0o600) }, "d/other", "has mode 0600 instead of 0644"},
		{"mode of a directory", func(at func(string) string) error { return os.Chmod(at("d"), 0o750) }, "d", "has mode 0750 instead of 2750"},
		{"owner", func(at func(string) string) error { return os.Lchown(at("link"), 1, 2) }, "link", "is owned by 1:2 instead of 0:0"},
		{"missing", func(at func(string) string) error { return os.Remove(at("d/other")) }, "d/other", "is missing"},
		{"missing link", func(at func(string) string) error { return os.Remove(at("hard")) }, "hard", "is missing"},
		{"missing whiteout", func(at func(string) string) error { return os.Remove(at("gone")) }, "gone", "is missing"},
		{"extra", func(at func(string) string) error { return os.WriteFile(at("d/extra"), nil, 0o644) }, "d/extra", "is not in the tar"},
		{"kind", func(at func(string) string) error {
			return swap(at("fifo"), func(p string) error { return os.Mkdir(p, 0o755) })
		}, "fifo", "is of another kind"},
		{"device", func(at func(string) string) error {
			return swap(at("gone"), func(p string) error { return syscall.Mknod(p, syscall.S_IFCHR, 1<<8|3) })
		}, "gone", "is another device"},
		{"target", func(at func(string) string) error {
			return swap(at("link"), func(p string) error { return os.Symlink("/etc/shadow", p) })
		}, "link", `leads to "/etc/shadow" instead of "d/text"`},
		{"hard link", func(at func(string) string) error {
			return swap(at("hard"), func(p string) error { return os.WriteFile(p, []byte("hello"), 0o644) })
		}, "hard", "is not the hard link it should be"},
		{"attribute", func(at func(string) string) error { return syscall.Setxattr(at("d/other"), "user.a", []byte("2"), 0) }, "d/other", `has another attribute "user.a"`},
	} {
		if err := c.damage(func(name string) string { return filepath.Join(root, name) }); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		found := check()
		// Hard links are compared by their first name, "hard" before "d/text".
		if len(found) != 1 || found[0].Kind != FaultTree || !strings.HasPrefix(found[0].What, c.what) || found[0].File != filepath.Join(dirFS, c.file) {
			t.Errorf("%s: found %+v, want %s: %s", c.name, found, c.file, c.what)
		}
		if err := r.l.Mend(t.Context(), d, found); err != nil {
			t.Fatalf("%s: mend: %v", c.name, err)
		}
		mnt, err := r.m.Overlay([]spec.Digest{d}, "", "", OverlayOptions{}) // extracts it again
		if err != nil {
			t.Fatalf("%s: mount: %v", c.name, err)
		}
		mnt.Close()
		if found := check(); len(found) > 0 {
			t.Errorf("%s: after mending: %+v", c.name, found)
		}
	}
}

func patch(path string, off int64, with string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(with), off)
	return err
}

func swap(path string, make func(path string) error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return make(path)
}
