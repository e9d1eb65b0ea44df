package user

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func openRoot(t testing.TB, files map[string]string) *os.File {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestLookupUser(t *testing.T) {
	const passwd = `root:x:0:0:root:/root:/bin/sh
  spaced:x:5:6::/spaced:/bin/sh
# comment:x:0:0::/:
bad:x:-1:0::/:
worse:x:0x0:0::/:
short:x:7
empty:x::::/:
1002:x:42:43::/numeric:
alice:x:1000:1001:Alice:/home/alice:/bin/sh
alice:x:0:0:again:/:/bin/sh
nohome:x:1003:1003::
huge:x:99999999999999999999:1::/:
`
	const group = `root:x:0:
wheel:x:10:root,alice
alice:x:1001:alice
twice:x:10:alice
1005:x:77:
bad:x:q:alice
`
	root := openRoot(t, map[string]string{"etc/passwd": passwd, "etc/group": group})
	tests := []struct {
		want string
		user User
		err  string
	}{
		{"", User{0, 0, []uint32{0, 10}, "/root"}, ""},
		{"root", User{0, 0, []uint32{0, 10}, "/root"}, ""},
		{"alice", User{1000, 1001, []uint32{1001, 10}, "/home/alice"}, ""},
		{"1000", User{1000, 1001, []uint32{1001, 10}, "/home/alice"}, ""},
		{"alice:", User{1000, 1001, []uint32{1001, 10}, "/home/alice"}, ""},
		{":wheel", User{0, 10, []uint32{10}, "/root"}, ""},
		{"alice:0", User{1000, 0, []uint32{0}, "/home/alice"}, ""},
		{"1002", User{1002, 0, []uint32{0}, "/"}, ""}, // CVE-2016-3697
		{"4711", User{4711, 0, []uint32{0}, "/"}, ""},
		{"4711:1005", User{4711, 1005, []uint32{1005}, "/"}, ""},
		{"00:00", User{0, 0, []uint32{0}, "/root"}, ""},
		{"4711:4712", User{4711, 4712, []uint32{4712}, "/"}, ""},
		{"spaced", User{5, 6, []uint32{6}, "/spaced"}, ""},
		{"nohome", User{1003, 1003, []uint32{1003}, "/"}, ""},
		{"2147483647", User{2147483647, 0, []uint32{0}, "/"}, ""},
		{"2147483648", User{}, "uids and gids must be in range 0-2147483647"},
		{"1:2147483648", User{}, "uids and gids must be in range 0-2147483647"},
		{"bad", User{}, "unable to find user bad: no matching entries in passwd file"},
		{"worse", User{}, "unable to find user worse: no matching entries in passwd file"},
		{"short", User{}, "unable to find user short: no matching entries in passwd file"},
		{"empty", User{}, "unable to find user empty: no matching entries in passwd file"},
		{"huge", User{}, "unable to find user huge: no matching entries in passwd file"},
		{"-1", User{}, "unable to find user -1: no matching entries in passwd file"},
		{"alice:bad", User{}, "unable to find group bad: no matching entries in group file"},
	}
	for _, tt := range tests {
		got, err := Lookup(root, tt.want)
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%q: error %v, want %s", tt.want, err, tt.err)
			}
			continue
		}
		if diff := cmp.Diff(tt.user, got, cmp.AllowUnexported(User{})); err != nil || diff != "" {
			t.Errorf("%q: %v %s", tt.want, err, diff)
		}
	}
}

// TestNoUserFiles: an image from scratch has none.
func TestNoUserFiles(t *testing.T) {
	root := openRoot(t, nil)
	got, err := Lookup(root, "12:34")
	if err != nil || got.UID != 12 || got.GID != 34 || got.Home != "/" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := Lookup(root, "name"); err == nil {
		t.Error("found a name in no file")
	}
}

func TestLongLine(t *testing.T) {
	root := openRoot(t, map[string]string{"etc/passwd": strings.Repeat("x", maxUserLine+1)})
	if _, err := Lookup(root, "0"); err == nil {
		t.Error("no error for a line without end")
	}
}

func FuzzUserFiles(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh", "wheel:x:10:root")
	f.Add("a:b:c:d:e:f:g:h", ":::::")
	f.Fuzz(func(t *testing.T, passwd, group string) {
		if p, ok := parsePasswd(passwd); ok && (p.name == "" || strings.ContainsAny(p.name, ":") || p.uid > maxID || p.gid > maxID) {
			t.Errorf("%q gave %+v", passwd, p)
		}
		if g, ok := parseGroup(group); ok && (g.name == "" || g.gid > maxID) {
			t.Errorf("%q gave %+v", group, g)
		}
	})
}

func TestAddGroups(t *testing.T) {
	root := openRoot(t, map[string]string{"etc/group": "audio:x:29:\nbad:x:-1:\nroot:x:0:\n1005:x:77:\n"})
	for _, tt := range []struct {
		more []string
		want []uint32
		err  string
	}{
		{[]string{"audio", "7", "1005", "root", "audio"}, []uint32{0, 29, 7, 1005}, ""},
		{[]string{"bad"}, nil, "unable to find group bad"},
		{[]string{""}, nil, "unable to find group"},
		{[]string{"2147483648"}, nil, "range"},
		{[]string{"99999999999999999999"}, nil, "range"},
	} {
		u := User{Groups: []uint32{0}}
		err := AddGroups(root, &u, tt.more)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: %v, want %s", tt.more, err, tt.err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, u.Groups); err != nil || diff != "" {
			t.Errorf("%q: %v %s", tt.more, err, diff)
		}
	}
}
