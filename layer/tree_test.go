package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
)

func TestRandomLayers(t *testing.T) {
	n := uint64(2000)
	if testing.Short() {
		n = 200
	}
	for seed := range n {
		archive, want := random(t, rand.New(rand.NewPCG(seed, 7)))
		_, image, err := indexOf(archive, Limits{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got, err := readImage(image, archive)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		want.compare(t, got)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		_, again, _ := indexOf(archive, Limits{})
		if !bytes.Equal(image, again) {
			t.Fatalf("seed %d: the index is not deterministic", seed)
		}
	}
}

// paths describes an image in a few words per file.
func paths(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	_, image, err := indexOf(archive, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := readImage(image, archive)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, f := range files {
		switch f.mode & kindMask {
		case kindReg:
			out[name] = "file " + f.content
		case kindSymlink:
			out[name] = "-> " + f.content
		case kindDir:
			out[name] = "dir"
			if f.xattrs[opaqueXattr] != "" {
				out[name] = "opaque"
			}
		case kindChar:
			out[name] = fmt.Sprintf("char %#x", f.rdev)
		default:
			out[name] = fmt.Sprintf("mode %o", f.mode)
		}
	}
	delete(out, "")
	return out
}

func TestTree(t *testing.T) {
	white := func(name string) member { return file(name, "") }
	for _, c := range []struct {
		name string
		in   []member
		want map[string]string
	}{
		{"missing parents", []member{file("a/b/c", "1")}, map[string]string{"a": "dir", "a/b": "dir", "a/b/c": "file 1"}},
		{"last wins", []member{file("a", "1"), file("a", "2")}, map[string]string{"a": "file 2"}},
		{"cleaned", []member{file("/x", "1"), file("./y/../z", "2"), file("//w//v", "3")}, map[string]string{"x": "file 1", "z": "file 2", "w": "dir", "w/v": "file 3"}},
		{"file to directory", []member{file("a", "1"), file("a2", ""), dir("a"), file("a/b", "2")}, map[string]string{"a": "opaque", "a/b": "file 2", "a2": "file "}},
		{"and back", []member{file("a", "1"), dir("a"), file("a/b", "2"), file("a", "3")}, map[string]string{"a": "file 3"}},
		{"directory twice", []member{dir("a"), file("a/b", "1"), dir("a/")}, map[string]string{"a": "dir", "a/b": "file 1"}},
		{"whiteout", []member{white("d/.wh.x")}, map[string]string{"d": "dir", "d/x": "char 0x0"}},
		{"whiteout then file", []member{white(".wh.x"), file("x", "1")}, map[string]string{"x": "file 1"}},
		{"file then whiteout", []member{file("x", "1"), white(".wh.x")}, map[string]string{"x": "file 1"}},
		{"whiteout and directory", []member{file("x/y", "1"), white(".wh.x")}, map[string]string{"x": "opaque", "x/y": "file 1"}},
		{"opaque first", []member{white("x/.wh..wh..opq"), file("x/y", "1")}, map[string]string{"x": "opaque", "x/y": "file 1"}},
		{"opaque last", []member{file("x/y", "1"), white("x/.wh..wh..opq")}, map[string]string{"x": "opaque", "x/y": "file 1"}},
		{"aufs", []member{white(".wh..wh.aufs"), dir(".wh..wh.orph"), file(".wh..wh.plnk/1.2", "1"), hardlink("a", ".wh..wh.plnk/1.2")}, map[string]string{"a": "file 1"}},
		{"linked parent", []member{dir("usr/lib"), symlink("lib", "usr/lib"), file("lib/x", "1")}, map[string]string{"usr": "dir", "usr/lib": "dir", "lib": "-> usr/lib", "usr/lib/x": "file 1"}},
		{"linked parent, absolute", []member{symlink("lib", "/usr/lib"), file("lib/x", "1")}, map[string]string{"usr": "dir", "usr/lib": "dir", "lib": "-> /usr/lib", "usr/lib/x": "file 1"}},
		{"linked parent, climbing", []member{symlink("a/up", "../../../../etc"), file("a/up/x", "1")}, map[string]string{"a": "dir", "a/up": "-> ../../../../etc", "etc": "dir", "etc/x": "file 1"}},
		{"link replaced by directory", []member{dir("t"), symlink("l", "t"), file("l/x", "1"), dir("l"), file("l/y", "2")}, map[string]string{"t": "dir", "t/x": "file 1", "l": "opaque", "l/y": "file 2"}},
		{"hard link to itself", []member{file("a", "1"), hardlink("a", "a")}, map[string]string{"a": "file 1"}},
		{"hard link through a link", []member{file("d/a", "1"), symlink("l", "d"), hardlink("b", "l/a")}, map[string]string{"d": "dir", "d/a": "file 1", "l": "-> d", "b": "file 1"}},
		{"hard link to a link", []member{symlink("l", "x"), hardlink("b", "l")}, map[string]string{"l": "-> x", "b": "-> x"}},
		{"link outlives its target", []member{file("a", "1"), hardlink("b", "a"), file("a", "2")}, map[string]string{"a": "file 2", "b": "file 1"}},
		{"long link", []member{symlink("l", strings.Repeat("a", 4095))}, map[string]string{"l": "-> " + strings.Repeat("a", 4095)}},
		{
			"names",
			[]member{file("!", "1"), file(".-", "2"), file("..a", "3"), file("\xff\xfe", "4"), file(strings.Repeat("n", 255), "5")},
			map[string]string{"!": "file 1", ".-": "file 2", "..a": "file 3", "\xff\xfe": "file 4", strings.Repeat("n", 255): "file 5"},
		},
		{
			"devices",
			[]member{{tar.Header{Typeflag: tar.TypeChar, Name: "c", Devmajor: 5, Devminor: 300}, ""}, {tar.Header{Typeflag: tar.TypeFifo, Name: "f"}, ""}},
			map[string]string{"c": "char 0x10052c", "f": "mode 10000"},
		},
		{"empty", nil, map[string]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, paths(t, makeTar(t, c.in...))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestHostileTars(t *testing.T) {
	sparseTo := func(records ...string) []byte {
		return join(paxHeader(records...), rawHeader("s", '0', 512, nil), make([]byte, 512), endMarker)
	}
	deep := strings.Repeat("d/", 5000) + "f"
	for _, c := range []struct {
		name string
		in   []byte
		want errs.Class
		text string
	}{
		{"climbing", join(rawHeader("../x", '0', 0, nil), endMarker), errs.Invalid, `"../x": its path leads out`},
		{"climbing inside", join(rawHeader("a/../../x", '0', 0, nil), endMarker), errs.Invalid, `"a/../../x"`},
		{"absolute climbing", join(rawHeader("/../x", '0', 0, nil), endMarker), errs.Invalid, `"/../x"`},
		{"climbing hard link", join(rawHeader("x", '1', 0, func(b []byte) { copy(b[157:], "../../etc/shadow") }), endMarker), errs.Invalid, "leads out"},
		{"hard link to directory", makeTar(t, dir("d"), hardlink("a", "d")), errs.Invalid, "hard link to a directory"},
		{"hard link to root", makeTar(t, hardlink("a", "/")), errs.Invalid, "hard link to a directory"},
		{"below a file", makeTar(t, file("a", "1"), file("a/b", "2")), errs.Invalid, "not a directory"},
		{"link loop", makeTar(t, symlink("a", "b"), symlink("b", "a"), file("a/c", "1")), errs.Invalid, "too many symbolic links"},
		{"root as file", join(rawHeader("./", '0', 0, nil), endMarker), errs.Invalid, "root must be a directory"},
		{"negative size", join(rawHeader("x", '0', 0, func(b []byte) { copy(b[124:136], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf0") }), endMarker), errs.Invalid, "impossible"},
		{"huge size", join(rawHeader("x", '0', 0, func(b []byte) { copy(b[124:136], "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff") }), endMarker), errs.Invalid, "impossible"},
		{"lying size", join(rawHeader("x", '0', 1<<30, nil), make([]byte, 4096)), errs.Corrupt, `ends in the middle, after 512 bytes, at entry "x"`},
		{"pax size", join(paxHeader("size=99999999999999999999"), rawHeader("x", '0', 0, nil), endMarker), errs.Invalid, "not a number"},
		{"NUL in a name", join(paxHeader("path=a\x00b"), rawHeader("x", '0', 0, nil), endMarker), errs.Invalid, "NUL"},
		{"truncated header", rawHeader("x", '0', 0, nil)[:300], errs.Corrupt, "ends in the middle"},
		{"truncated data", join(rawHeader("x", '0', 600, nil), make([]byte, 512)), errs.Corrupt, `at entry "x"`},
		{"missing padding", join(rawHeader("x", '0', 600, nil), make([]byte, 600)), errs.Corrupt, "ends in the middle"},
		{"bad checksum", bytes.Repeat([]byte("garbage!"), 128), errs.Invalid, "no tar header at byte 0"},
		{"lone zero block", join(make([]byte, 512), rawHeader("x", '0', 0, nil)), errs.Invalid, "empty header"},
		{"unknown type", join(rawHeader("x", 'Z', 0, nil), endMarker), errs.Unsupported, `its type 'Z' is unknown`},
		{"long part", join(paxHeader("path="+strings.Repeat("n", 256)), rawHeader("x", '0', 0, nil), endMarker), errs.Invalid, "longer than 255"},
		{"long path", join(paxHeader("path="+strings.Repeat("n/", 10000)), rawHeader("x", '0', 0, nil), endMarker), errs.Invalid, "longer than 16384"},
		{"deep path", join(paxHeader("path="+deep), rawHeader("x", '0', 0, nil), endMarker), errs.Invalid, "too deep"},
		{"huge extended header", join(rawHeader("x", 'x', 2<<20, nil), make([]byte, 4<<20)), errs.Invalid, "extended tar header"},
		{"negative extended header", rawHeader("x", 'L', 0, func(b []byte) { copy(b[124:136], strings.Repeat("\xff", 12)) }), errs.Invalid, "extended tar header"},
		{"malformed pax", join(paxHeader("nothing"), rawHeader("x", '0', 0, nil), endMarker), errs.Invalid, "malformed extended header"},
		{"owner", join(paxHeader("uid=4294967295"), rawHeader("x", '0', 0, nil), endMarker), errs.Invalid, "out of range"},
		{"device number", join(rawHeader("x", '3', 0, func(b []byte) { copy(b[329:], "0010000\x00") }), endMarker), errs.Invalid, "device number"},
		{"empty link", join(rawHeader("x", '2', 0, nil), endMarker), errs.Invalid, "link target"},
		{"long link", join(paxHeader("linkpath="+strings.Repeat("t", 4096)), rawHeader("x", '2', 0, nil), endMarker), errs.Invalid, "link target"},
		{"whiteout of nothing", makeTar(t, file("d/.wh.", "")), errs.Invalid, "whiteout of nothing"},
		{"whiteout of ..", makeTar(t, file("d/.wh...", "")), errs.Invalid, "whiteout of nothing"},
		{"attributes", join(paxHeader("SCHILY.xattr.user."+strings.Repeat("n", 251)+"=v"), rawHeader("x", '0', 0, nil), endMarker), errs.Invalid, "too large"},
		{"sparse beyond its end", sparseTo("GNU.sparse.map=0,512", "GNU.sparse.numblocks=1", "GNU.sparse.size=100"), errs.Invalid, "beyond its size"},
		{"sparse backwards", sparseTo("GNU.sparse.map=600,256,0,256", "GNU.sparse.numblocks=2", "GNU.sparse.size=1000"), errs.Invalid, "backwards"},
		{"sparse overflow", sparseTo("GNU.sparse.map=9223372036854775807,512", "GNU.sparse.numblocks=1", "GNU.sparse.size=9223372036854775807"), errs.Invalid, "beyond"},
		{"sparse with too much data", sparseTo("GNU.sparse.map=0,4096", "GNU.sparse.numblocks=1", "GNU.sparse.size=4096"), errs.Invalid, "more data"},
		{"sparse with data left", sparseTo("GNU.sparse.map=0,256", "GNU.sparse.numblocks=1", "GNU.sparse.size=4096"), errs.Invalid, "unused"},
		{"sparse size", sparseTo("GNU.sparse.map=0,512", "GNU.sparse.numblocks=1", "GNU.sparse.size=-5"), errs.Invalid, "not a size"},
		{"sparse 1.0 cut", join(paxHeader("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=10"), rawHeader("s", '0', 512, nil), pad("99\n1\n"), endMarker), errs.Invalid, "sparse map"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := indexOf(c.in, Limits{})
			if !errs.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("got %v (class %v), want class %v and %q", err, errs.ClassOf(err), c.want, c.text)
			}
			if strings.ContainsRune(fmt.Sprint(err), '\n') {
				t.Errorf("more than one line: %v", err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	many := makeTar(t, file("a", ""), file("b", ""), file("c", ""))
	sparse := join(paxHeader("GNU.sparse.map=0,1,8796093022000,511", "GNU.sparse.numblocks=2", "GNU.sparse.size=8796093023000"), rawHeader("s", '0', 512, nil), make([]byte, 512), endMarker)
	for _, c := range []struct {
		name   string
		in     []byte
		limits Limits
	}{
		{"entries", many, Limits{Entries: 2}},
		{"meta", many, Limits{Meta: 100}},
		{"index", many, Limits{Index: 100}},
		{"sparse index", sparse, Limits{Index: 1 << 20}},
		{"segments", sparse, Limits{Segments: 1}},
		{"path", makeTar(t, file("a/b/c/d", "")), Limits{Path: 5}},
		{"depth", makeTar(t, file("a/b/c/d", "")), Limits{Depth: 2}},
	} {
		if _, _, err := indexOf(c.in, c.limits); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: got %v", c.name, err)
		}
		if _, _, err := indexOf(c.in, Limits{}); err != nil {
			t.Errorf("%s: without limits: %v", c.name, err)
		}
	}
}

// Global headers count for all that follows, local ones for one member.
func TestGlobalHeaders(t *testing.T) {
	g := paxHeader("mtime=77.5", "uid=5")
	g[156] = 'g'
	sealHeader(g)
	in := join(g, rawHeader("a", '0', 0, nil), paxHeader("uid=6", "mtime="), rawHeader("b", '0', 0, nil), rawHeader("c", '0', 0, nil), endMarker)
	_, image, err := indexOf(in, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := readImage(image, in)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][3]int64{"a": {5, 77, 5e8}, "b": {6, 0, 0}, "c": {5, 77, 5e8}} {
		f := files[name]
		if got := [3]int64{int64(f.uid), f.mtime, int64(f.nsec)}; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	for in, want := range map[string][2]int64{"0": {0, 0}, "1.5": {1, 5e8}, "-1.5": {-2, 5e8}, "-0.25": {-1, 75e7}, "5000000000.123456789123": {5e9, 123456789}, "-2": {-2, 0}, "1.": {1, 0}} {
		sec, nsec, ok := paxTime(in)
		if !ok || sec != want[0] || int64(nsec) != want[1] {
			t.Errorf("%s: %d %d %v", in, sec, nsec, ok)
		}
	}
	for _, in := range []string{"", ".", "x", "1.x", "1.2.3", "99999999999999999999"} {
		if _, _, ok := paxTime(in); ok {
			t.Errorf("%q passed", in)
		}
	}
}

// Sparse files in all encodings, aligned and not: what the index maps must be
// what archive/tar reads.
func TestSparse(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 300 {
		unit := []int64{1, 512, 4096}[n%3]
		var m, lines string
		var off, stored int64
		var segs []segment
		for range 1 + r.IntN(20) {
			off += r.Int64N(20) * unit
			size := r.Int64N(8) * unit
			segs = append(segs, segment{off, 0, size})
			off, stored = off+size, stored+size
		}
		size := off + r.Int64N(5000)
		for i, g := range segs {
			m += strings.Repeat(",", min(i, 1)) + fmt.Sprintf("%d,%d", g.off, g.n)
			lines += fmt.Sprintf("%d\n%d\n", g.off, g.n)
		}
		data := make([]byte, stored)
		for i := range data {
			data[i] = byte(1 + r.IntN(255))
		}
		var archive []byte
		if n%2 == 0 {
			archive = join(paxHeader("GNU.sparse.map="+m, fmt.Sprintf("GNU.sparse.size=%d", size), fmt.Sprintf("GNU.sparse.numblocks=%d", len(segs)), "GNU.sparse.name=s"),
				rawHeader("x", '0', stored, nil), pad(string(data)), endMarker)
		} else {
			table := pad(fmt.Sprintf("%d\n%s", len(segs), lines))
			archive = join(paxHeader("GNU.sparse.major=1", "GNU.sparse.minor=0", fmt.Sprintf("GNU.sparse.realsize=%d", size), "GNU.sparse.name=s"),
				rawHeader("x", '0', stored+int64(len(table)), nil), table, pad(string(data)), endMarker)
		}
		tr := tar.NewReader(bytes.NewReader(archive))
		if _, err := tr.Next(); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		want, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		_, image, err := indexOf(archive, Limits{})
		if err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		files, err := readImage(image, archive)
		if err != nil {
			t.Fatal(err)
		}
		if got := files["s"]; got == nil || got.content != string(want) {
			t.Fatalf("%d: contents differ (%d segments, unit %d)", n, len(segs), unit)
		}
	}
}

// differential compares our reader with archive/tar. Ours may refuse more.
func differential(t *testing.T, archive []byte) {
	limits := Limits{}.withDefaults()
	ours := &tarReader{src: &fileBlocks{f: bytes.NewReader(archive), size: int64(len(archive))}, limits: &limits}
	theirs := tar.NewReader(bytes.NewReader(archive))
	for {
		e, err := ours.next()
		h, terr := theirs.Next()
		for terr == nil && h.Typeflag == tar.TypeXGlobalHeader {
			h, terr = theirs.Next()
		}
		if err != nil {
			if err == io.EOF && terr != io.EOF {
				t.Fatalf("ours ends, archive/tar: %v %v", h, terr)
			}
			return
		}
		if ours.global != nil {
			return // archive/tar does not apply these
		}
		if terr != nil {
			t.Fatalf("archive/tar fails with %v, ours reads %q", terr, e.name)
		}
		sec, nsec := h.ModTime.Unix(), uint32(h.ModTime.Nanosecond())
		if e.name != h.Name || e.link != h.Linkname || e.uid != int64(h.Uid) || e.gid != int64(h.Gid) || e.mode != uint16(h.Mode&0o7777) || e.mtime != sec || e.nsec != nsec {
			t.Fatalf("ours %+v, archive/tar %+v", e, h)
		}
		if e.typ == typeReg && (h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeGNUSparse) {
			if e.size != h.Size {
				t.Fatalf("%q: size %d, archive/tar %d", e.name, e.size, h.Size)
			}
			compareData(t, archive, e, theirs)
		}
	}
}

func compareData(t *testing.T, archive []byte, e *entry, theirs io.Reader) {
	if e.size > 1<<20 {
		return
	}
	want, err := io.ReadAll(theirs)
	if err != nil {
		return // our next() will see that the archive is cut
	}
	got := make([]byte, e.size)
	segs := e.sparse
	if segs == nil {
		segs = []segment{{0, e.data, e.size}}
	}
	for _, g := range segs {
		if g.data+g.n > int64(len(archive)) {
			return
		}
		copy(got[g.off:g.off+g.n], archive[g.data:])
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%q: data differs", e.name)
	}
}

func TestAgainstArchiveTar(t *testing.T) {
	for seed := range uint64(300) {
		archive, _ := random(t, rand.New(rand.NewPCG(seed, 9)))
		differential(t, archive)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	long := strings.Repeat("long/", 60)
	for _, f := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		for _, h := range []tar.Header{
			{Typeflag: tar.TypeReg, Name: "a", Uid: 77, Gid: 1 << 20, Mode: 0o4755},
			{Typeflag: tar.TypeReg, Name: "b", Uid: 1 << 31, Gid: 1<<32 - 2},
			{Typeflag: tar.TypeReg, Name: long, Size: 0},
			{Typeflag: tar.TypeSymlink, Name: "l", Linkname: long},
			{Typeflag: tar.TypeReg, Name: "old", ModTime: time.Unix(-1e9, 0)},
			{Typeflag: tar.TypeReg, Name: "ns", ModTime: time.Unix(1e9, 123456789)},
			{Typeflag: tar.TypeChar, Name: "c", Devmajor: 10, Devminor: 1 << 19},
			{Typeflag: tar.TypeReg, Name: "\xff\xfe"},
		} {
			h.Format = f
			w.WriteHeader(&h) // not every format can say everything
		}
	}
	w.Close()
	differential(t, b.Bytes())
}

func FuzzTarReader(f *testing.F) {
	for _, b := range seedTars(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, archive []byte) { differential(t, archive) })
}

// FuzzIndex: whatever a tar says, an index that is made can be read, and says
// what the tree does.
func FuzzIndex(f *testing.F) {
	for _, b := range seedTars(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		tree, image, err := indexOf(archive, Limits{Index: 1 << 20, Entries: 1000})
		if err != nil {
			if errs.ClassOf(err) == errs.Internal {
				t.Fatalf("error without a class: %v", err)
			}
			return
		}
		files, err := readImage(image, archive)
		if err != nil {
			t.Fatal(err)
		}
		compareTree(t, tree, files)
	})
}

// compareTree compares what an image holds with the tree it was made of.
func compareTree(t *testing.T, tree *tree, files map[string]*erofsFile) {
	t.Helper()
	left := len(files)
	eachInode(tree, func(path string, i *inode) {
		path = strings.TrimSuffix(path, "/")
		f := files[path]
		if f == nil {
			t.Fatalf("%q is missing", path)
		}
		left--
		if f.mode != i.mode || f.uid != i.uid || f.gid != i.gid || f.mtime != i.mtime || f.nsec != i.nsec || f.nlink != i.nlink || f.rdev != i.rdev || f.nid*32 != uint64(i.pos) {
			t.Fatalf("%q: %+v, want %+v", path, f, i)
		}
		if i.kind() == kindReg && f.size != uint64(i.size) || i.kind() == kindSymlink && f.content != i.target() {
			t.Fatalf("%q: %d bytes, %q, want %d, %q", path, f.size, f.content, i.size, i.target())
		}
		if len(f.xattrs) != len(i.xattrs()) {
			t.Fatalf("%q: attributes %v, want %v", path, f.xattrs, i.xattrs())
		}
		for _, x := range i.xattrs() {
			if f.xattrs[x.name] != x.value {
				t.Fatalf("%q: attribute %s is %q, want %q", path, x.name, f.xattrs[x.name], x.value)
			}
		}
	})
	if left != 0 {
		t.Fatalf("%d names too many", left)
	}
}

// FuzzStack: whatever two layers say, what is made to lie above them is a layer
// that depends on nothing, with all it should have.
func FuzzStack(f *testing.F) {
	base := makeTar(f, dir("d/"), file("d/a", "one"), hardlink("d/b", "d/a"), symlink("l", "d"), symlink("loop", "loop"))
	for _, top := range append(seedTars(f), makeTar(f, hardlink("x", "l/a"), file("d/new", ""), hardlink("y", "x"), file("d/.wh.b", "")), makeTar(f, hardlink("l", "loop"), file("d/.wh..wh..opq", ""))) {
		f.Add(base, top)
		f.Add(top, base)
	}
	f.Fuzz(func(t *testing.T, low, top []byte) {
		limits := Limits{Entries: 1000, Tar: 1 << 20}.withDefaults()
		tars := [][]byte{low, top}
		b := &stacking{view: newView(&limits), open: func(n int) (tarFile, error) { return memoryTar{bytes.NewReader(tars[n])}, nil }}
		for _, tar := range tars {
			tree, err := readTreeOver(&fileBlocks{f: bytes.NewReader(tar), size: int64(len(tar))}, &limits, b.view)
			if err != nil {
				if errs.ClassOf(err) == errs.Internal {
					t.Fatalf("error without a class: %v", err)
				}
				return
			}
			kept, err := b.view.cover(tree)
			if err != nil {
				return
			}
			if len(kept)+len(tree.links) > 0 {
				checkPatch(t, b, b.patch(tree, kept), &limits)
			}
		}
	})
}

type memoryTar struct{ *bytes.Reader }

func (memoryTar) Close() error { return nil }

func checkPatch(t *testing.T, b *stacking, files map[string]*target, limits *Limits) {
	t.Helper()
	var out bytes.Buffer
	if err := b.writeTar(&shortWriter{&out}, files); err != nil {
		return // data that is cut off, or too much of it
	}
	tree, err := readTree(&fileBlocks{f: bytes.NewReader(out.Bytes()), size: int64(out.Len())}, limits)
	if err != nil {
		if errs.ClassOf(err) == errs.Internal {
			t.Fatalf("error without a class: %v", err)
		}
		return // paths that became too long
	}
	if tree.loose() != 0 {
		t.Fatalf("what was made depends on lower layers")
	}
	names := 0
	eachInode(tree, func(path string, i *inode) {
		f := files[strings.TrimSuffix(path, "/")]
		if f == nil {
			if path != "" {
				t.Fatalf("%q is too much", path)
			}
			return
		}
		names++
		if i.mode != f.ino.mode || i.uid != f.ino.uid || i.mtime != f.ino.mtime || i.nsec != f.ino.nsec || i.rdev != f.ino.rdev || i.target() != f.ino.target() || !i.isDir() && i.size != f.ino.size {
			t.Fatalf("%q: %+v, want %+v", path, i, f.ino)
		}
	})
	if names != len(files) {
		t.Fatalf("%d names instead of %d", names, len(files))
	}
}

// shortWriter has room for a few MiB.
type shortWriter struct{ b *bytes.Buffer }

func (s *shortWriter) Write(p []byte) (int, error) {
	if s.b.Len()+len(p) > 4<<20 {
		return 0, io.ErrShortWrite
	}
	return s.b.Write(p)
}

// seedTars are archives with a bit of everything.
func seedTars(f testing.TB) (all [][]byte) {
	add := func(b []byte) { all = append(all, b) }
	for seed := range uint64(10) {
		archive, _ := random(f, rand.New(rand.NewPCG(seed, 3)))
		add(archive)
	}
	add(join(paxHeader("GNU.sparse.map=0,100,700,412", "GNU.sparse.numblocks=2", "GNU.sparse.size=5000"), rawHeader("s", '0', 512, nil), make([]byte, 512), endMarker))
	add(join(paxHeader("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=1000"), rawHeader("s", '0', 1024, nil), pad("1\n0\n512\n"), make([]byte, 512), endMarker))
	add(join(rawHeader("s", 'S', 512, func(b []byte) {
		copy(b[257:], "ustar  \x00")
		copy(b[386:], "00000001000\x0000000001000\x00")
		copy(b[483:], "00000010000\x00")
	}), make([]byte, 512), endMarker))
	add(join(rawHeader("x", 'L', 5, nil), pad("long\x00"), rawHeader("x", '0', 3, nil), pad("abc"), endMarker))
	add(makeTar(f, special("c", '3', 259, 70000), special("b", '4', 8, 1), file("x", "").with(xattrsOf("user.a", "1", "security.capability", capability)), file("old", "").with(at(time.Unix(-5, 5)))))
	add(makeTar(f, file("d/.wh.x", ""), file("d/.wh..wh..opq", ""), symlink("l", "d"), hardlink("h", "l")))
	return all
}
