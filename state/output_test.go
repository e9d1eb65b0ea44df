package state

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOutput(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	write := func(text string, commit bool) {
		t.Helper()
		o, err := CreateOutput(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if !commit {
			o.Discard()
		} else if err := o.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%q, %v; want %q", b, err, want)
		}
		if all, _ := os.ReadDir(dir); len(all) > 2 {
			t.Errorf("left: %v", all)
		}
	}
	write("first", true)
	write("second", false)
	check("first")
	write("third", true)
	check("third")
	// A link stays one.
	link := filepath.Join(dir, "link")
	if err := os.Symlink("out", link); err != nil {
		t.Fatal(err)
	}
	path = link
	write("fourth", true)
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is gone")
	}
	path = filepath.Join(dir, "out")
	check("fourth")

	for _, bad := range []string{dir, filepath.Join(dir, "no", "such"), filepath.Join(path, "file")} {
		if o, err := CreateOutput(bad); err == nil {
			t.Errorf("%s: no error", bad)
			o.Discard()
		}
	}
	null, err := CreateOutput(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if err := null.Commit(); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(os.DevNull); err != nil || fi.Mode().IsRegular() {
		t.Fatal("the device is gone")
	}
}
