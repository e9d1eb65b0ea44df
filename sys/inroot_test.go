package sys

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes root/, with links, beside outside/, and opens root.
func tree(t *testing.T, links map[string]string) (dir string, root *os.File) {
	t.Helper()
	top := t.TempDir()
	dir = filepath.Join(top, "root")
	for _, d := range []string{dir + "/etc", dir + "/a/b", top + "/outside"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		root.Close()
		if left, _ := os.ReadDir(top + "/outside"); len(left) > 0 {
			t.Errorf("made outside of the root: %v", left)
		}
		if left, _ := os.ReadDir(top); len(left) != 2 {
			t.Errorf("made beside the root: %v", left)
		}
	})
	return dir, root
}

// TestInRoot makes directories and files by paths whose links lead out, to
// nothing and round.
func TestInRoot(t *testing.T) {
	for _, tt := range []struct {
		links      map[string]string
		path, want string // where it must appear below root
		err        error
	}{
		{nil, "/etc/x", "etc/x", nil},
		{nil, "new/dir/x", "new/dir/x", nil},
		{nil, "../../outside/x", "outside/x", nil},
		{map[string]string{"etc/x": "/run/y/z"}, "/etc/x", "run/y/z", nil},
		{map[string]string{"etc/x": "../run/y/z"}, "/etc/x", "run/y/z", nil},
		{map[string]string{"etc/x": "../../../../outside/z"}, "/etc/x", "outside/z", nil},
		{map[string]string{"l": "a/b", "a/b/x": "../c/x"}, "/l/x", "a/c/x", nil}, // ".." of where the link leads
		{map[string]string{"one": "two", "two": "/three", "three": "etc/four"}, "one", "etc/four", nil},
		{map[string]string{"up": "../outside"}, "up/x/y", "outside/x/y", nil},
		{map[string]string{"round": "round"}, "round", "", unix.ELOOP},
		{map[string]string{"p": "q", "q": "p"}, "p/x", "", unix.ELOOP},
		{map[string]string{"grow": "grow/x"}, "grow", "", unix.ELOOP},
		{nil, "etc/f/x", "etc/f/x", nil},
	} {
		for kind, make := range map[string]func(*os.File, string) (*os.File, error){"file": CreateIn, "directory": MkdirIn} {
			dir, root := tree(t, tt.links)
			f, err := make(root, tt.path)
			if err == nil {
				f.Close()
			}
			fi, serr := os.Lstat(filepath.Join(dir, tt.want))
			switch {
			case !errors.Is(err, tt.err):
				t.Errorf("%s %s with %v: %v, want %v", kind, tt.path, tt.links, err, tt.err)
			case err == nil && (serr != nil || fi.IsDir() != (kind == "directory") || fi.Mode()&os.ModeSymlink != 0):
				t.Errorf("%s %s with %v: not at %s: %v", kind, tt.path, tt.links, tt.want, serr)
			}
		}
	}
}

// TestInRootKeeps opens what is there already.
func TestInRootKeeps(t *testing.T) {
	dir, root := tree(t, map[string]string{"l": "/etc/x"})
	if err := os.WriteFile(dir+"/etc/x", []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := CreateIn(root, "l")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if b, _ := os.ReadFile(dir + "/etc/x"); string(b) != "kept" {
		t.Errorf("the file was written to: %q", b)
	}
	if _, err := MkdirIn(root, "/etc/x/y"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("directory below a file: %v", err)
	}
	if _, err := CreateIn(root, "/"); err != nil {
		t.Errorf("the root itself is there: %v", err)
	}
}
