package cli

import "testing"

func TestSplitCopy(t *testing.T) {
	for arg, want := range map[string][2]string{
		"box:/a":   {"box", "/a"},
		"box:a:b":  {"box", "a:b"},
		"./box:/a": {"", "./box:/a"},
		"/box:/a":  {"", "/box:/a"},
		"../x:y":   {"", "../x:y"},
		"file":     {"", "file"},
		"-":        {"", "-"},
	} {
		if name, p := splitCopy(arg); name != want[0] || p != want[1] {
			t.Errorf("%s: %q %q, want %q", arg, name, p, want)
		}
	}
}

func TestCopyPlace(t *testing.T) {
	for _, tt := range []struct {
		src           string
		isDir         bool
		dst           string
		exists, dstIs bool
		dir, as, err  string
	}{
		{"/a/f", false, "/d", true, true, "/d", "f", ""},
		{"/a/f", false, "/d/", true, true, "/d/", "f", ""},
		{"/a/f", false, "/d/g", true, false, "/d", "g", ""},
		{"/a/f", false, "/d/g", false, false, "/d", "g", ""},
		{"/a/f", false, "/d/g/", false, false, "", "", "no such directory"},
		{"/a/f", false, "/d/g/.", false, false, "", "", "no such directory"},
		{"/a/d", true, "/d", true, true, "/d", "d", ""},
		{"/a/d/", true, "/d", true, true, "/d", "d", ""},
		{"/a/d/.", true, "/d", true, true, "/d", ".", ""},
		{"/", true, "/d", true, true, "/d", ".", ""},
		{"/a/d", true, "/f", true, false, "", "", "cannot copy directory"},
		{"/a/d", true, "/n/m/", false, false, "/n", "m", ""},
		{"/a/d/.", true, "/n/m", false, false, "/n", "m", ""},
	} {
		dir, as, err := place(baseOf(tt.src), tt.isDir, tt.dst, tt.exists, tt.dstIs)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if dir != tt.dir || as != tt.as || got != tt.err {
			t.Errorf("%s to %s: %q %q %q, want %q %q %q", tt.src, tt.dst, dir, as, got, tt.dir, tt.as, tt.err)
		}
	}
}
