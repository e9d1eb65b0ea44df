package box

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An archive writes nothing outside of the directory that it is taken out into:
// not by its names, and not through links of its own.
func TestTarEscapes(t *testing.T) {
	dir := t.TempDir()
	outside, in := filepath.Join(dir, "outside"), filepath.Join(dir, "in")
	for _, d := range []string{outside, in} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "kept"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "../outside/a", Typeflag: tar.TypeReg, Size: 1},
		{Name: outside + "/b", Typeflag: tar.TypeReg, Size: 1},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: outside},
		{Name: "link/c", Typeflag: tar.TypeReg, Size: 1},
		{Name: "link/", Typeflag: tar.TypeDir, Mode: 0o777},
		{Name: "link/./d/e", Typeflag: tar.TypeReg, Size: 1},
		{Name: "file", Typeflag: tar.TypeSymlink, Linkname: outside + "/kept"},
		{Name: "file", Typeflag: tar.TypeReg, Size: 1},
		{Name: "hard", Typeflag: tar.TypeLink, Linkname: "link/kept"},
		{Name: "again", Typeflag: tar.TypeLink, Linkname: "link"},
		{Name: "again/f", Typeflag: tar.TypeReg, Size: 1},
		{Name: "again/", Typeflag: tar.TypeDir, Mode: 0o777},
		{Name: "hard2", Typeflag: tar.TypeLink, Linkname: "../outside/kept"},
		{Name: "fine", Typeflag: tar.TypeReg, Size: 1},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte("x"))
		}
	}
	w.Close()
	archive := filepath.Join(dir, "evil.tar")
	if err := os.WriteFile(archive, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs, code := runBox(t, "cd "+in+" && tar xf "+archive, "")
	if code != 1 || !strings.Contains(errs, "refused") {
		t.Errorf("%d %s", code, errs)
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside: %v, %v", entries, err)
	}
	if got, _ := os.ReadFile(filepath.Join(outside, "kept")); string(got) != "old" {
		t.Errorf("kept is %q", got)
	}
	if fi, _ := os.Stat(outside); fi.Mode().Perm() != 0o755 {
		t.Errorf("the mode is %v", fi.Mode())
	}
	if got, _ := os.ReadFile(filepath.Join(in, "fine")); string(got) != "x" {
		t.Errorf("fine is %q", got)
	}
}

// Names that somebody else chose do not move the cursor in messages.
func TestHostileNames(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "a\x1b[2Jb"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := filesIn(dir, "", ""); got != nil {
		t.Errorf("completes %q", got)
	}
	_, errs, code := runBox(t, "cd "+dir+"; rm *; cat *; cp * x", "")
	if code != 1 || strings.Contains(errs, "\x1b") || !strings.Contains(errs, "a?[2Jb") {
		t.Errorf("%d %q", code, errs)
	}
	if got := printable("a\x1b\x07\u0085z"); got != "a???z" {
		t.Errorf("%q", got)
	}
}

func TestModes(t *testing.T) {
	for _, tt := range []struct {
		old  uint32
		mode string
		dir  bool
		want uint32
	}{
		{0o644, "755", false, 0o755},
		{0o644, "+x", false, 0o755},
		{0o644, "u+x,go-r", false, 0o700},
		{0o777, "a=r", false, 0o444},
		{0o600, "g=u", false, 0o660},
		{0o644, "+X", false, 0o644},
		{0o644, "+X", true, 0o755},
		{0o755, "u+s", false, 0o4755},
		{0o755, "+t", true, 0o1755},
		{0o444, "+w", false, 0o644},
		{0o444, "a+w", false, 0o666},
		{0o666, "-w", false, 0o466},
		{0o7777, "ug-s", false, 0o1777},
		{0o640, "o=g-r", false, 0o640},
	} {
		got, err := newMode(tt.old, tt.mode, tt.dir, 0o022)
		if err != nil || got != tt.want {
			t.Errorf("%o %s: %o, want %o: %v", tt.old, tt.mode, got, tt.want, err)
		}
	}
	for _, bad := range []string{"", "8", "u", "x+", "u+q", "77777"} {
		if _, err := newMode(0, bad, false, 0); err == nil {
			t.Errorf("%q is a mode", bad)
		}
	}
}
