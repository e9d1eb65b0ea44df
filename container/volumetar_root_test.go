//go:build root

package container

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

type member struct {
	tar.Header
	data string
}

func tarOf(t *testing.T, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		m.Size = int64(len(m.data))
		if m.Mode == 0 {
			m.Mode = 0o644
		}
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestTreeRoundTrip packs a directory and unpacks it elsewhere: the directory
// itself, owners, modes, times, links and attributes are the same.
func TestTreeRoundTrip(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	past := time.Date(2001, 2, 3, 4, 5, 6, 789_000_000, time.UTC)
	for _, err := range []error{
		os.WriteFile(filepath.Join(from, "file"), []byte("text"), 0o640),
		os.Chown(filepath.Join(from, "file"), 999, 998),
		syscall.Chmod(filepath.Join(from, "file"), 0o4750),
		syscall.Setxattr(filepath.Join(from, "file"), "user.key", []byte("value"), 0),
		os.Chtimes(filepath.Join(from, "file"), past, past),
		os.Mkdir(filepath.Join(from, "dir"), 0o700),
		os.Link(filepath.Join(from, "file"), filepath.Join(from, "dir", "again")),
		os.Symlink("/etc", filepath.Join(from, "dir", "link")),
		syscall.Mkfifo(filepath.Join(from, "fifo"), 0o600),
		os.Chtimes(filepath.Join(from, "dir"), past, past),
		os.Chown(from, 70, 71), syscall.Chmod(from, 0o2750), os.Chtimes(from, past, past),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := PackTree(context.Background(), from, &b); err != nil {
		t.Fatal(err)
	}
	if err := UnpackTree(context.Background(), to, &b); err != nil {
		t.Fatal(err)
	}
	show := func(dir, name string) string {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Error(err)
		}
		attr := make([]byte, 100)
		n, _ := syscall.Getxattr(filepath.Join(dir, name), "user.key", attr)
		return fmt.Sprint(name, st.Mode, st.Uid, st.Gid, st.Nlink, st.Mtim, string(attr[:max(n, 0)]))
	}
	for _, name := range []string{".", "file", "dir", "dir/again", "dir/link", "fifo"} {
		if a, b := show(from, name), show(to, name); a != b {
			t.Errorf("%s, want %s", b, a)
		}
	}
}

// TestTreeHostile: no archive gets out of the directory, or is half believed.
func TestTreeHostile(t *testing.T) {
	reg := func(name string) member {
		return member{tar.Header{Typeflag: tar.TypeReg, Name: name}, "evil"}
	}
	link := func(name, to string) member {
		return member{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}, ""}
	}
	hard := func(name, to string) member {
		return member{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}, ""}
	}
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := tarOf(t, reg("a"), reg("b"))
	for name, tt := range map[string]struct {
		tar  []byte
		fail string // "" when it may be unpacked, inside
	}{
		"climbs":           {tarOf(t, reg("../evil")), "leads out of the directory"},
		"climbs deep":      {tarOf(t, reg("a/../../evil")), "leads out of the directory"},
		"absolute":         {tarOf(t, reg(outside+"/evil")), ""},
		"through a link":   {tarOf(t, link("out", outside), reg("out/evil")), ""},
		"through two":      {tarOf(t, link("up", "../../../.."), link("out", "up"+outside), reg("out/evil")), ""},
		"link to a secret": {tarOf(t, hard("mine", "../secret")), "leads out of the directory"},
		"link by a link":   {tarOf(t, link("out", outside), hard("mine", "out/secret")), "no such file"},
		"link with a root": {tarOf(t, hard("mine", secret)), "no such file"},
		"parent a file":    {tarOf(t, reg("a"), reg("a/b")), "not a directory"},
		"no tar":           {bytes.Repeat([]byte("garbage "), 200), "read the tar"},
		"cut in a member":  {whole[:600], "read the tar"},
		"cut after one":    {whole[:1024], "ends early"},
		"cut before all":   {nil, "ends early"},
		"replaces itself":  {tarOf(t, member{tar.Header{Typeflag: tar.TypeReg, Name: "."}, ""}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			err := UnpackTree(context.Background(), dir, bytes.NewReader(tt.tar))
			if tt.fail == "" && err != nil || tt.fail != "" && (err == nil || !strings.Contains(err.Error(), tt.fail)) {
				t.Errorf("%v, want %q", err, tt.fail)
			}
			for _, d := range []string{outside, filepath.Dir(dir)} {
				if all, _ := os.ReadDir(d); len(all) != 1 {
					t.Errorf("in %s: %v", d, all)
				}
			}
			if fi, err := os.Stat(secret); err != nil || fi.Sys().(*syscall.Stat_t).Nlink != 1 {
				t.Errorf("the secret: %v, %v", fi, err)
			}
		})
	}
}
