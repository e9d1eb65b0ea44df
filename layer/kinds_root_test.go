//go:build root

package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tug/spec"
)

func TestKinds(t *testing.T) {
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x06\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
	long := strings.Repeat("n", 255)
	members := []member{
		dir("./").with(func(h *tar.Header) { h.Uid, h.Gid, h.Mode = 7, 8, 0o1751 }), dir("d/"), dir("links/"),
		dir("d/sticky/").with(mode(0o1777)), dir("d/setgid/").with(mode(0o2755)), dir("d/closed/").with(mode(0)), file("d/closed/inside", "x"),
		file("d/empty", ""), file("d/text", "hello\n"), file("d/setuid", "s").with(mode(0o4711)), file("d/none", "s").with(mode(0)),
		file("d/ids", "x").with(func(h *tar.Header) { h.Uid, h.Gid = 1<<32-2, 1<<31 }),
		file("d/before-1970", "x").with(at(time.Unix(-1234567, 0))), file("d/before-1901", "x").with(at(time.Unix(-2147483648, 0))),
		file("d/nanoseconds", "x").with(at(time.Unix(1700000000, 987654321))), file("d/negative-nanoseconds", "x").with(at(time.Unix(-100, 1))),
		file("d/year-2200", "x").with(at(time.Date(2200, 1, 1, 0, 0, 0, 123456789, time.UTC))),
		dir("d/old/").with(at(time.Unix(-5, 5))), symlink("links/old", "x").with(at(time.Unix(1, 999999999))),
		file("d/capability", "x").with(xattrsOf("security.capability", capability)),
		file("d/attributes", "x").with(xattrsOf("user.a", "1", "user.binary", "a\xff\x01", "trusted.t", "2", "user.long", strings.Repeat("v", 3000))),
		file("d/attribute-of-setuid", "x").with(mode(0o6755)).with(xattrsOf("user.a", "1")),
		file("d/acl", "x").with(mode(0o664)).with(xattrsOf(aclAccess, acl)),
		dir("d/acl-default/").with(xattrsOf(aclDefault, acl, "user.d", "x")),
		symlink("links/relative", "../d/text"), symlink("links/absolute", "/d/text"), symlink("links/dangling", "/nowhere"), symlink("links/out", "../../../../etc/passwd"),
		symlink("links/mode", "x").with(mode(0o644)), symlink("links/setuid", "x").with(mode(0o7000)),
		symlink("links/long", strings.Repeat("t/", 2000)), symlink("links/block", strings.Repeat("b", 512)),
		hardlink("links/hard", "d/text"), hardlink("links/harder", "links/hard"), hardlink("links/symlink", "links/relative"),
		special("d/fifo", tar.TypeFifo, 0, 0), special("d/char", tar.TypeChar, 1, 3), special("d/block", tar.TypeBlock, 259, 70000), hardlink("links/device", "d/char"),
		file(long, "1"), dir("d/" + long + "/"), file("d/"+long+"/"+long, "2"),
		file("\xff\xfe not utf-8", "3"), file("d/new\nline and space", "4"), file("d/\x01", "5"), file("d/!", "6"), file("d/.-", "7"), file("d/...", "8"),
	}
	deep := "deep/"
	for range 300 {
		members = append(members, dir(deep))
		deep += "d/"
	}
	archive := makeTar(t, append(members, dir(deep), file(deep+"bottom", "deep down"))...)
	eachBackend(t, func(r *room) { r.check(archive) })
}

// Sizes around every border there is: of tar's blocks, of pages, of chunks.
func TestSizes(t *testing.T) {
	members := []member{dir("./")}
	r := rand.New(rand.NewPCG(1, 1))
	step := 1
	if testing.Short() {
		step = 73
	}
	for n := 0; n <= 4097; n += step {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		members = append(members, file(fmt.Sprintf("%05d", n), string(b)))
	}
	for _, near := range []int{512, 1024, 4096, 8192, 65536, 1 << 20, 3 << 20} {
		for n := near - 1; n <= near+1; n++ {
			members = append(members, file(fmt.Sprintf("near-%d", n), strings.Repeat("abcdefg", n/7+1)[:n]))
		}
	}
	archive := makeTar(t, members...)
	eachBackend(t, func(r *room) { r.check(archive) })
}

func TestWhiteouts(t *testing.T) {
	base := makeTar(
		t, dir("./"), dir("d/"), file("d/a", "1"), file("d/b", "2"), file("d/c", "3"), dir("gone/"), dir("gone/deep/"), file("gone/deep/x", "4"),
		dir("opaque/"), file("opaque/old", "5"), dir("opaque/dir/"), file("opaque/dir/old", "6"), file("to-dir", "7"), dir("to-file/"), file("to-file/x", "8"),
		dir("again/"), file("again/old", "9"), symlink("link", "d"), special("dev", tar.TypeChar, 1, 5), hardlink("hard", "d/b"),
	)
	second := makeTar(
		t, dir("./"), dir("d/"), file("d/.wh.a", ""), file("d/b", "new"), file("d/.wh.never", ""), file(".wh.gone", ""),
		dir("opaque/"), file("opaque/.wh..wh..opq", ""), file("opaque/new", "10"), dir("opaque/dir/"), file("opaque/dir/new", "11"),
		dir("to-dir/"), file("to-dir/x", "12"), file(".wh.to-file", ""), file("to-file", "13"), file(".wh.again", ""), dir("again/"), file("again/new", "14"),
		file(".wh.link", ""), dir("link/"), file("link/x", "15"), file(".wh.dev", ""),
	)
	third := makeTar(t, dir("./"), dir("gone/"), file("gone/back", "16"), dir("d/"), file("d/a", "17"), file(".wh.hard", ""))
	clean := makeTar(t, dir("./").with(mode(0o700)), file(".wh..wh..opq", ""), file("only", "18"))
	eachBackend(t, func(r *room) {
		r.check(base, second)
		r.check(base, second, third)
		r.check(base, third, second, third)
		r.check(base, second, clean)
		r.check(base, clean, second)
		r.check(clean, base)
	})
}

// Hard links into lower layers, of all kinds of files.
func TestLinksBelow(t *testing.T) {
	sparse := join(paxHeader("GNU.sparse.size=10000000", "GNU.sparse.numblocks=2", "GNU.sparse.name=big/sparse", "GNU.sparse.map=0,512,9999488,512"),
		rawHeader("s", '0', 1024, nil), pad(strings.Repeat("s", 1024)))
	base := makeTar(
		t, dir("./").with(mode(0o1755)), dir("d/").with(mode(0o1777)), file("d/a", "one").with(at(time.Unix(-7, 123456789))), hardlink("d/same", "d/a"),
		file("d/attributes", "x").with(xattrsOf("user.a", "1", "security.capability", capability, "trusted.t", "")).with(mode(0o4755)),
		symlink("d/link", "a").with(at(time.Unix(1, 1))), special("d/fifo", tar.TypeFifo, 0, 0), special("d/dev", tar.TypeBlock, 259, 70000), file("d/empty", ""),
		dir("usr/"), dir("usr/lib/"), file("usr/lib/x", strings.Repeat("library\n", 1000)), symlink("lib", "usr/lib"), dir("big/"),
	)
	base = append(bytes.TrimSuffix(base, endMarker), append(sparse, endMarker...)...)
	second := makeTar(
		t, dir("n/"), hardlink("n/a", "d/a"), hardlink("n/aa", "n/a"), hardlink("n/attributes", "d/attributes"), hardlink("n/link", "d/link"),
		hardlink("n/fifo", "d/fifo"), hardlink("n/dev", "d/dev"), hardlink("n/empty", "d/empty"), hardlink("n/sparse", "big/sparse"),
	)
	third := makeTar(t, dir("n/"), file("n/.wh.aa", ""), hardlink("again", "n/a"), hardlink("through", "lib/x"), dir("usr/"), dir("usr/lib/"), hardlink("usr/lib/y", "usr/lib/x"))
	fourth := makeTar(t, file("d/new", "directory without an entry"), file("d/.wh.same", ""))
	eachBackend(t, func(r *room) {
		r.check(base, second)
		r.check(base, second, third)
		r.check(base, fourth, second, third)
	})
}

// The formats that GNU tar writes, each with what it can hold.
func TestFormats(t *testing.T) {
	src := t.TempDir()
	for _, name := range []string{"d/sub", "d/" + strings.Repeat("n", 90) + "/" + strings.Repeat("m", 60)} {
		if err := os.MkdirAll(filepath.Join(src, name), 0o2775); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, body string, when time.Time, uid int) {
		path := filepath.Join(src, name)
		if err := os.WriteFile(path, []byte(body), 0o4711); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	write("d/plain", "plain", time.Unix(1e9, 0), 7)
	write("d/sub/nanoseconds", strings.Repeat("x", 5000), time.Unix(1700000000, 123456789), 65535)
	if err := os.Link(filepath.Join(src, "d/plain"), filepath.Join(src, "d/sub/linked")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../plain", filepath.Join(src, "d/sub/symlink")); err != nil {
		t.Fatal(err)
	}
	archives := [][]byte{tarOf(t, src, "--format=v7", "--exclude=n*"), tarOf(t, src, "--format=ustar")}
	write("d/owner", "", time.Unix(5, 0), 1<<31+5)
	write("d/old", "", time.Unix(-5, 0), 70000)
	write("d/"+strings.Repeat("l", 255), "long", time.Unix(1, 0), 0)
	archives = append(archives, tarOf(t, src, "--format=oldgnu"), tarOf(t, src, "--format=gnu"))
	write("d/negative-nanoseconds", "", time.Unix(-5, 5), 1<<32-2)
	archives = append(archives, tarOf(t, src, "--format=posix"))
	eachBackend(t, func(r *room) {
		for _, b := range archives {
			r.check(b)
		}
	})
}

// Layers without any file, and no layer at all.
func TestEmptyLayers(t *testing.T) {
	eachBackend(t, func(r *room) {
		empty, rooted := r.add(endMarker), r.add(makeTar(t, dir("./")))
		full := makeTar(t, dir("./"), file("a", "1"))
		for _, stack := range [][]spec.Digest{{}, {empty}, {rooted}, {empty, rooted}, {empty, empty}} {
			if got := describe(t, r.show(stack...)); len(got) != 1 {
				t.Errorf("%d empty layers hold %q", len(stack), got)
			}
		}
		want := describe(t, extractGNU(t, full))
		d := r.add(full)
		r.same(want, describe(t, r.show(empty, d)))
		r.same(want[1:], describe(t, r.show(d, empty))[1:]) // the root is the upper layer's
		r.same(want, describe(t, r.show(d, empty, d)))
	})
}

// Sparse files as GNU tar stores them, in its four ways.
func TestSparseFiles(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(5, 5))
	count := 40
	if testing.Short() {
		count = 6
	}
	for n := range count {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint("s", n)))
		if err != nil {
			t.Fatal(err)
		}
		size := int64(0)
		for range n {
			size += int64(r.IntN(100)) * 4096
			b := bytes.Repeat([]byte{byte(1 + r.IntN(255))}, 1+r.IntN(9000))
			if _, err := f.WriteAt(b, size); err != nil {
				t.Fatal(err)
			}
			size += int64(len(b))
		}
		if err := f.Truncate(size + int64(r.IntN(3))*5000); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	archives := [][]byte{
		tarOf(t, dir, "--sparse", "--format=gnu"), tarOf(t, dir, "--sparse", "--format=posix", "--sparse-version=0.0"),
		tarOf(t, dir, "--sparse", "--format=posix", "--sparse-version=0.1"), tarOf(t, dir, "--sparse", "--format=posix", "--sparse-version=1.0"),
	}
	eachBackend(t, func(r *room) {
		for _, b := range archives {
			r.check(b)
		}
	})
}

func tarOf(t *testing.T, dir string, flags ...string) []byte {
	t.Helper()
	cmd := exec.Command("tar", append([]string{"--create", "--numeric-owner", "--directory", dir}, append(flags, ".")...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tar: %v\n%s", err, &said)
	}
	return out
}

// A file of more than 4 GiB, nearly all of it hole.
func TestHugeSparseFile(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "huge"))
	if err != nil {
		t.Fatal(err)
	}
	const size = 4<<30 + 12345
	for _, off := range []int64{0, 1<<31 - 7, 1<<32 - 7, size - 5} {
		if _, err := f.WriteAt([]byte("data at " + fmt.Sprint(off))[:5], off); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	archive := tarOf(t, dir, "--sparse")
	eachBackend(t, func(r *room) { r.check(archive) })
}

// Random archives, stacked: whatever comes together, GNU tar's tree is shown.
func TestRandomStacks(t *testing.T) {
	rounds := uint64(60)
	if testing.Short() {
		rounds = 5
	}
	eachBackend(t, func(r *room) {
		for seed := range rounds {
			gen := rand.New(rand.NewPCG(seed, 11))
			var stack [][]byte
			var layers []spec.Digest
			for range 1 + gen.IntN(4) {
				archive, _ := random(t, gen)
				for contradicts(t, archive) {
					archive, _ = random(t, gen)
				}
				archive = withParents(t, archive)
				stack, layers = append(stack, archive), append(layers, r.add(archive))
			}
			r.same(noDirXattrs(describe(r, extractGNU(r, stack...))), noDirXattrs(describe(r, r.show(layers...))))
			if r.Failed() {
				r.Fatalf("seed %d", seed)
			}
		}
	})
}

// noDirXattrs leaves the attributes of directories out: GNU tar adds those of
// a later entry to those of earlier ones, overlayfs shows the last ones.
func noDirXattrs(lines []string) []string {
	for n, l := range lines {
		at := strings.LastIndex(l, `" 4`) + 3
		if fields := strings.SplitN(l[at:], " ", 4); at > 2 && len(fields) == 4 {
			lines[n] = l[:at] + strings.Join(fields[:3], " ")
		}
	}
	return lines
}

// withParents adds to an archive the directories that it leaves out: what they
// look like in a merged tree is not defined.
func withParents(t *testing.T, archive []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	out.Write(bytes.TrimSuffix(makeTar(t, dir("./")), endMarker))
	seen := map[string]bool{"": true}
	var add func(path string)
	add = func(path string) {
		if seen[path] {
			return
		}
		seen[path] = true
		parent, _ := splitLast(path)
		add(parent)
		out.Write(bytes.TrimSuffix(makeTar(t, dir(path+"/")), endMarker))
	}
	eachMember(t, archive, func(h *tar.Header) {
		parent, _ := splitLast(strings.TrimSuffix(h.Name, "/"))
		add(parent)
	})
	out.Write(archive)
	return out.Bytes()
}

// contradicts tells whether an archive has a directory and something else under
// one name: GNU tar refuses some of that, and what becomes of what lower layers
// have there depends on who extracts.
func contradicts(t *testing.T, archive []byte) (found bool) {
	isDir := map[string]bool{}
	is := func(name string, dir bool) {
		was, seen := isDir[name]
		found = found || seen && was != dir
		isDir[name] = dir
	}
	eachMember(t, archive, func(h *tar.Header) {
		name := strings.TrimSuffix(h.Name, "/")
		is(name, h.Typeflag == tar.TypeDir)
		for parent, _ := splitLast(name); parent != ""; parent, _ = splitLast(parent) {
			is(parent, true)
		}
	})
	return found
}
