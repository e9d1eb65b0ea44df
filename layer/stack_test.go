package layer

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
)

// addAll stores tars and keeps their layers until the test ends.
func addAll(t *testing.T, l *Layers, tars ...[]byte) (out []spec.Digest) {
	t.Helper()
	for _, tar := range tars {
		got, err := l.Add(t.Context(), bytes.NewReader(tar), Expect{BlobSize: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { got.Close() })
		out = append(out, got.DiffID)
	}
	return out
}

// stack returns what Stack makes above the last of tars: its files in a few
// words, "" where it makes nothing.
func stackOf(t *testing.T, l *Layers, tars ...[]byte) (string, error) {
	t.Helper()
	layers := addAll(t, l, tars...)
	stack, made, err := l.Stack(t.Context(), layers)
	if err != nil {
		return "", err
	}
	defer closeAll(made)
	if len(stack) != len(layers)+len(made) {
		t.Errorf("%d layers, %d made, a stack of %d", len(layers), len(made), len(stack))
	}
	top := stack[len(stack)-1]
	if top == layers[len(layers)-1] {
		return "", nil
	}
	again, madeAgain, err := l.Stack(t.Context(), layers)
	if err != nil || cmp.Diff(stack, again) != "" {
		t.Errorf("made again: %v, %v", again, err)
	}
	closeAll(madeAgain)
	var lines []string
	inodes := map[int64]string{}
	err = l.Walk(top, func(f *File) error {
		line := fmt.Sprintf("%s %o %d:%d", f.Path, f.Mode, f.UID, f.GID)
		switch first, seen := inodes[f.Inode]; {
		case seen:
			line = fmt.Sprintf("%s = %s", f.Path, first)
		case f.IsRegular():
			line += fmt.Sprint(" ", f.Size)
		}
		inodes[f.Inode] = f.Path
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n"), nil
}

func owned(m member, uid int) member {
	m.Uid, m.Gid = uid, uid
	return m
}

func TestStack(t *testing.T) {
	base := makeTar(t, dir("./"), owned(dir("d/").with(mode(0o1777)), 5), owned(file("d/a", "one"), 6), hardlink("d/same", "d/a"), file("d/b", "two"),
		dir("usr/"), dir("usr/lib/"), file("usr/lib/x", "lib"), symlink("lib", "usr/lib"), symlink("up", "../../d/../lib/../lib"), symlink("loop", "loop"))
	for _, c := range []struct {
		name string
		in   []member
		want string
	}{
		{"nothing", []member{dir("d/"), file("d/new", ""), file("top", "")}, ""},
		{"link", []member{dir("n/"), hardlink("n/l", "/d/b")}, " 40755 0:0\nd 41777 5:5\nd/b 100644 0:0 3\nn 40755 0:0\nn/l = d/b"},
		{"all names", []member{hardlink("l", "d/same")}, " 40755 0:0\nd 41777 5:5\nd/a 100644 6:6 3\nd/same = d/a\nl = d/same"},
		{
			"link of a link",
			[]member{hardlink("l", "d/b"), hardlink("m", "l"), hardlink("l", "usr/lib/x")},
			" 40755 0:0\nd 41777 5:5\nd/b 100644 0:0 3\nl 100644 0:0 3\nm = d/b\nusr 40755 0:0\nusr/lib 40755 0:0\nusr/lib/x = l",
		},
		{"through links", []member{hardlink("l", "up/x")}, " 40755 0:0\nl 100644 0:0 3\nusr 40755 0:0\nusr/lib 40755 0:0\nusr/lib/x = l"},
		{"to a link", []member{hardlink("l", "lib")}, " 40755 0:0\nl 120777 0:0\nlib = l"},
		{"to itself", []member{hardlink("d/b", "d/b")}, " 40755 0:0\nd 41777 5:5\nd/b 100644 0:0 3"},
		{
			"to an own file, through a link below",
			[]member{dir("usr/"), dir("usr/lib/"), file("usr/lib/y", "own!"), hardlink("l", "lib/y")},
			" 40755 0:0\nl 100644 0:0 4\nusr 40755 0:0\nusr/lib 40755 0:0\nusr/lib/y = l",
		},
		{"target replaced", []member{dir("d/"), hardlink("l", "d/b"), file("d/b", "other")}, " 40755 0:0\nl 100644 0:0 3"},
		{"target removed", []member{dir("d/"), hardlink("l", "d/b"), file("d/.wh.b", "")}, " 40755 0:0\nl 100644 0:0 3"},
		{"directory replaced later", []member{hardlink("l", "d/b"), file("d", "file")}, " 40755 0:0\nl 100644 0:0 3"},
		{"replaced by a file", []member{hardlink("l", "d/b"), file("l", "")}, ""},
		{"in the place of a directory", []member{hardlink("d", "d/b")}, " 40755 0:0\nd 100644 0:0 3"},
		{"no entry for a directory", []member{file("d/new", "")}, " 40755 0:0\nd 41777 5:5"},
		{"whiteout only", []member{file("d/.wh.b", "")}, " 40755 0:0\nd 41777 5:5"},
		{"new directory without an entry", []member{file("fresh/new", "")}, ""},
		{"directory without an entry over a link", []member{file("lib/new", "")}, ""},
		{"opaque directory without an entry", []member{file("d/.wh..wh..opq", ""), file("d/new", "")}, " 40755 0:0\nd 41777 5:5"},
		{"removed directory without an entry", []member{file(".wh.d", ""), file("d/new", "")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := stackOf(t, openTestLayers(t), base, makeTar(t, c.in...))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestStackRefuses(t *testing.T) {
	base := makeTar(t, dir("d/"), file("d/b", "two"), dir("d/sub/"), symlink("loop", "loop"), symlink("up", "../../../../../d"))
	wide := []member{symlink("s0", "d")}
	for n := range 50 {
		wide = append(wide, symlink(fmt.Sprint("s", n+1), fmt.Sprint("s", n)))
	}
	for _, c := range []struct {
		name string
		in   []member
		text string
	}{
		{"absent", []member{hardlink("l", "d/never")}, "neither in the layer nor below it: no such file"},
		{"whited out before", []member{file("d/.wh.b", ""), hardlink("l", "d/b")}, "no such file"},
		{"parent whited out before", []member{file(".wh.d", ""), hardlink("l", "d/b")}, "no such file"},
		{"parent whited out and made", []member{file(".wh.d", ""), dir("d/"), hardlink("l", "d/b")}, "no such file"},
		{"parent opaque", []member{file("d/.wh..wh..opq", ""), hardlink("l", "d/b")}, "no such file"},
		{"root opaque", []member{file(".wh..wh..opq", ""), hardlink("l", "d/b")}, "no such file"},
		{"parent replaced", []member{file("d", ""), dir("d/"), hardlink("l", "d/b")}, "no such file"},
		{"directory", []member{hardlink("l", "d/sub")}, "a hard link to a directory"},
		{"directory through a link", []member{hardlink("l", "up/sub")}, "a hard link to a directory"},
		{"through a file", []member{hardlink("l", "d/b/x")}, "not a directory"},
		{"loop", []member{hardlink("l", "loop/x")}, "too many symbolic links"},
		{"out", []member{hardlink("l", "../d/b")}, "leads out of the layer"},
		{"many links", append(wide, hardlink("l", "s50/b")), "too many symbolic links"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := openTestLayers(t)
			layers := addAll(t, l, base)
			got, err := l.Add(t.Context(), bytes.NewReader(makeTar(t, c.in...)), Expect{BlobSize: -1})
			if err == nil {
				defer got.Close()
				_, _, err = l.Stack(t.Context(), append(layers, got.DiffID))
			}
			if !errs.Is(err, errs.Invalid) || !strings.Contains(fmt.Sprint(err), c.text) || strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("lowest layer", func(t *testing.T) {
		if _, err := stackOf(t, openTestLayers(t), makeTar(t, hardlink("a", "etc/passwd"))); !errs.Is(err, errs.Invalid) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("too much to copy", func(t *testing.T) {
		l := openTestLayers(t)
		layers := addAll(t, l, makeTar(t, file("big", strings.Repeat("x", 64<<10))), makeTar(t, hardlink("l", "big")))
		l.Limits.Tar = 32 << 10
		if _, _, err := l.Stack(t.Context(), layers); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "limit") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("too many names", func(t *testing.T) {
		l := openTestLayers(t)
		layers := addAll(t, l, makeTar(t, file("a", ""), file("b", ""), file("c", "")), makeTar(t, file("d", ""), hardlink("l", "a")))
		l.Limits.Entries = 4
		if _, _, err := l.Stack(t.Context(), layers); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "more than 4 entries") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		l := openTestLayers(t)
		layers := addAll(t, l, makeTar(t, file("a", "")), makeTar(t, hardlink("l", "a")))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := l.Stack(ctx, layers); err != context.Canceled {
			t.Errorf("got %v", err)
		}
	})
}

// What tarMaker writes reads back as it was.
func TestTarMaker(t *testing.T) {
	for _, archive := range [][]byte{
		makeTar(t, file("f", "data").with(at(time.Unix(-2, 5e8))).with(xattrsOf("user.a", "b\n\x00c", "security.capability", capability)), file("g", "").with(at(time.Unix(-1, 5e8)))),
		join(paxHeader("GNU.sparse.map=0,100,700,412", "GNU.sparse.numblocks=2", "GNU.sparse.size=5000"), rawHeader("s", '0', 512, nil), pad(strings.Repeat("d", 512)), endMarker),
		join(paxHeader("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=99999999999"), rawHeader("s", '0', 512, nil), pad("0\n"), endMarker),
		makeTar(t, special("c", '3', 4095, 1<<20-1).with(mode(0o1777)), special("p", '6', 0, 0), symlink("l", strings.Repeat("t/", 2000)), file(strings.Repeat("n/", 300)+"\xff", "x")),
		makeTar(t, owned(file("uid", ""), 1<<32-2)),
	} {
		want, _, err := indexOf(archive, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w := &tarMaker{w: &out}
		eachInode(want, func(path string, i *inode) { w.member(path, i, "", bytes.NewReader(archive)) })
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(imageOf(t, archive), imageOf(t, out.Bytes()), cmp.AllowUnexported(erofsFile{}), cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".nid" }, cmp.Ignore())); d != "" {
			t.Error(d)
		}
	}
}

func imageOf(t *testing.T, archive []byte) map[string]*erofsFile {
	t.Helper()
	_, image, err := indexOf(archive, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := readImage(image, archive)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// eachInode calls f for all of a tree, parents first.
func eachInode(t *tree, f func(string, *inode)) {
	var walk func(path string, i *inode)
	walk = func(path string, i *inode) {
		f(path, i)
		for _, c := range i.dir.sorted {
			if c.ino.isDir() {
				walk(path+c.name+"/", c.ino)
			} else {
				f(path+c.name, c.ino)
			}
		}
	}
	walk("", t.root)
}
