//go:build root

package container

import (
	"os"
	"path/filepath"
	"testing"

	"tug/sys"
)

func TestRelabel(t *testing.T) {
	if hasSELinux() {
		t.Skip("the policy decides here which labels there are")
	}
	dir, outside := t.TempDir(), t.TempDir()
	file := filepath.Join(outside, "file")
	for _, p := range []string{file, filepath.Join(dir, "a")} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "b/c"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, filepath.Join(dir, "b/link")); err != nil {
		t.Fatal(err)
	}
	place, err := sys.OpenPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close()
	if err := relabel(place, sharedLabel); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, dir + "/a", dir + "/b", dir + "/b/c", dir + "/b/link", file} {
		attrs, err := sys.Xattrs(p)
		if want := p != file; err != nil || (attrs[labelAttr] == sharedLabel) != want {
			t.Errorf("%s: %q, %v; want labelled: %v", p, attrs, err, want)
		}
	}
	if checkRelabel("/usr/") == nil || checkRelabel("/srv/data") != nil {
		t.Error("checkRelabel")
	}
}
