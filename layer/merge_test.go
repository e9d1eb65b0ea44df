package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

func addTars(t testing.TB, l *Layers, tars ...[]byte) []spec.Digest {
	t.Helper()
	var ids []spec.Digest
	for _, b := range tars {
		got, err := l.Add(t.Context(), bytes.NewReader(b), Expect{BlobSize: -1})
		if err != nil {
			t.Fatal(err)
		}
		got.Close()
		ids = append(ids, got.DiffID)
	}
	return ids
}

func merge(t testing.TB, l *Layers, ids ...spec.Digest) *Merged {
	t.Helper()
	m, err := l.Merge(t.Context(), ids, ids)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// mergedPaths lists a merged tree: a path, the layer it is from, and the content.
func mergedPaths(t testing.TB, m *Merged) (lines []string) {
	t.Helper()
	var walk func(path string, n *Node)
	walk = func(path string, n *Node) {
		f := n.File(path)
		line := fmt.Sprintf("%s %o from %d", path, f.Mode, m.LayerOf(n))
		if f.IsRegular() {
			b, err := io.ReadAll(m.Open(n))
			if err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf(" %.20q", b)
		}
		lines = append(lines, line)
		for _, c := range n.Children {
			walk(strings.TrimPrefix(path+"/"+c.Name, "/"), c)
		}
	}
	walk("", m.Root)
	return lines
}

func TestMerge(t *testing.T) {
	l := openTestLayers(t)
	ids := addTars(t, l,
		fixture.NewLayer().Dir("d", 0o755).File("d/keep", 0o644, "keep").File("d/gone", 0o644, "four").
			Dir("o", 0o755).File("o/hidden", 0o644, "hidden").File("o/again", 0o644, "old").Dir("o/sub", 0o755).File("o/sub/x", 0o644, "xx").
			File("mode", 0o644, "same bytes").File("body", 0o644, "abc").Link("body2", "body").File("kind", 0o644, "file").
			Dir("tree", 0o755).File("tree/1", 0o644, "1").File("tree/2", 0o644, "22").Symlink("ln", "a").File("one", 0o644, "linked").Link("two", "one").Bytes(),
		fixture.NewLayer().File("d/.wh.gone", 0, "").File("o/.wh..wh..opq", 0, "").File("o/again", 0o644, "old").File("o/sub/y", 0o644, "y").
			File("mode", 0o600, "same bytes").File("body", 0o644, "xyz").Dir("kind", 0o755).File("kind/in", 0o644, "in").
			File(".wh.tree", 0, "").Symlink("ln", "b").File(".wh.one", 0, "").File(".wh.never", 0, "").File("new", 0o644, "new").Bytes(),
		fixture.NewLayer().File(".wh.two", 0, "").File("tree", 0o644, "now a file").Bytes(),
	)
	m := merge(t, l, ids...)
	want := []string{
		` 40755 from 2`, `body 100644 from 1 "xyz"`, `body2 100644 from 0 "abc"`, `d 40755 from 0`, `d/keep 100644 from 0 "keep"`,
		`kind 40755 from 1`, `kind/in 100644 from 1 "in"`, `ln 120777 from 1`, `mode 100600 from 1 "same bytes"`, `new 100644 from 1 "new"`,
		`o 40755 from 0`, `o/again 100644 from 1 "old"`, `o/sub 40755 from 1`, `o/sub/y 100644 from 1 "y"`, `tree 100644 from 2 "now a file"`,
	}
	if diff := cmp.Diff(want, mergedPaths(t, m)); diff != "" {
		t.Error(diff)
	}
	var changes []string
	for k, s := range m.Layers[1:] {
		for _, c := range s.Changes {
			changes = append(changes, fmt.Sprintf("%d %s %s %v size %d files %d wasted %d", k+1, c.Kind, c.Path, c.Detail.Words(), c.Size, c.Files, c.Wasted))
		}
		changes = append(changes, fmt.Sprintf("%d: files %d data %d wasted %d hides %d", k+1, s.Files, s.Data, s.Wasted, s.Hides))
	}
	want = []string{
		"1 C body [content] size 3 files 0 wasted 0", // body2 still shows it
		"1 D d/gone [] size 4 files 0 wasted 4",
		"1 C kind [type] size 0 files 0 wasted 4",
		"1 A kind/in [] size 2 files 0 wasted 0",
		"1 C ln [target] size 0 files 0 wasted 0",
		"1 C mode [mode] size 10 files 0 wasted 10",
		"1 A new [] size 3 files 0 wasted 0",
		"1 C o/again [] size 3 files 0 wasted 3",
		"1 D o/hidden [] size 6 files 0 wasted 6",
		"1 D o/sub/x [] size 2 files 0 wasted 2",
		"1 A o/sub/y [] size 1 files 0 wasted 0",
		"1 D one [] size 6 files 0 wasted 0",
		"1 D tree [] size 3 files 2 wasted 3",
		"1: files 7 data 22 wasted 0 hides 32",
		"2 A tree [] size 10 files 0 wasted 0",
		"2 D two [] size 6 files 0 wasted 6",
		"2: files 1 data 10 wasted 0 hides 6",
	}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Error(diff)
	}
	if s := m.Layers[0]; s.Wasted != 38 || s.Data != 4+4+6+3+2+10+3+4+1+2+6 {
		t.Errorf("lowest layer: wasted %d of %d", s.Wasted, s.Data)
	}
}

// A directory without an entry is the one below, unless a whiteout in the same
// layer hides that, or a directory above is opaque.
func TestMergeImplied(t *testing.T) {
	l := openTestLayers(t)
	ids := addTars(t, l,
		fixture.NewLayer().Dir("kept", 0o700).Dir("fresh", 0o700).Dir("opaque", 0o700).Dir("o", 0o755).Dir("o/in", 0o700).Bytes(),
		fixture.NewLayer().File("kept/x", 0o644, "").File("fresh/x", 0o644, "").File(".wh.fresh", 0, "").
			File("opaque/x", 0o644, "").File("opaque/.wh..wh..opq", 0, "").File("o/.wh..wh..opq", 0, "").File("o/in/x", 0o644, "").Bytes(),
	)
	want := []string{
		" 40755 from 1", "fresh 40755 from 1", `fresh/x 100644 from 1 ""`, "kept 40700 from 0", `kept/x 100644 from 1 ""`,
		"o 40755 from 0", "o/in 40755 from 1", `o/in/x 100644 from 1 ""`, "opaque 40700 from 0", `opaque/x 100644 from 1 ""`,
	}
	if diff := cmp.Diff(want, mergedPaths(t, merge(t, l, ids...))); diff != "" {
		t.Error(diff)
	}
}

// Random stacks: the tree is what applying the layers' walks one by one gives,
// the lists of changes lead from each tree to the next, and what is wasted is
// what no name shows.
func TestMergeRandom(t *testing.T) {
	l := openTestLayers(t)
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 7))
		var ids []spec.Digest
		for range 1 + r.IntN(5) {
			b, _ := random(t, r)
			ids = append(ids, addTars(t, l, b)...)
		}
		m := merge(t, l, ids...)
		simple := map[string]string{}
		for k, id := range ids {
			applyWalk(t, l, simple, id, k)
		}
		got := map[string]string{}
		visible := make([]int64, len(ids))
		seen := map[any]bool{}
		var walk func(path string, n *Node)
		walk = func(path string, n *Node) {
			got[path] = fmt.Sprintf("%d %o %d", m.LayerOf(n), n.ino.mode, n.File(path).Size)
			if n.IsDir() {
				got[path] = "directory" // which one's, depends on who has an entry for it
			}
			if !seen[n.Same()] {
				seen[n.Same()] = true
				visible[m.LayerOf(n)] += n.Stored()
			}
			for _, c := range n.Children {
				walk(strings.TrimPrefix(path+"/"+c.Name, "/"), c)
			}
		}
		walk("", m.Root)
		delete(got, "")
		delete(simple, "")
		if diff := cmp.Diff(simple, got); diff != "" {
			t.Fatalf("seed %d:\n%s", seed, diff)
		}
		distinct := map[spec.Digest]bool{}
		for _, id := range ids {
			distinct[id] = true
		}
		for k, s := range m.Layers {
			if len(distinct) == len(ids) && s.Data-s.Wasted != visible[k] {
				t.Fatalf("seed %d: layer %d has %d bytes, %d of them wasted, but %d show", seed, k, s.Data, s.Wasted, visible[k])
			}
		}
		checkDiff(t, l, ids, simple, seed)
	}
}

// applyWalk puts a layer on a tree that is a map.
func applyWalk(t testing.TB, l *Layers, tree map[string]string, id spec.Digest, k int) {
	t.Helper()
	clear := func(path string, below bool) {
		for p := range tree {
			if strings.HasPrefix(p, path+"/") || !below && p == path || path == "" && p != "" {
				delete(tree, p)
			}
		}
	}
	// First what is hidden, since opaque directories and whiteouts hide lower
	// layers only.
	for _, hide := range []bool{true, false} {
		err := l.Walk(id, func(f *File) error {
			switch {
			case hide && f.Whiteout:
				clear(f.Path, false)
			case hide && f.Opaque:
				clear(f.Path, true)
			case hide && !f.IsDir():
				clear(f.Path, false)
			case !hide && !f.Whiteout:
				tree[f.Path] = fmt.Sprintf("%d %o %d", k, f.Mode, f.Size)
				if f.IsDir() {
					tree[f.Path] = "directory"
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// checkDiff compares the whole stack with all but its highest layer.
func checkDiff(t testing.TB, l *Layers, ids []spec.Digest, all map[string]string, seed uint64) {
	t.Helper()
	less := map[string]string{}
	for k, id := range ids[:len(ids)-1] {
		applyWalk(t, l, less, id, k)
	}
	names := map[string]ChangeKind{}
	for p := range all {
		if _, ok := less[p]; !ok {
			names[p] = Added
		}
	}
	for p := range less {
		if _, ok := all[p]; !ok && p != "" {
			names[p] = Removed
		}
	}
	got := map[string]ChangeKind{}
	err := l.Diff(t.Context(), ids[:len(ids)-1], ids, func(d Difference) error {
		if d.Kind != Changed {
			got[d.Path] = d.Kind
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names, got); diff != "" {
		t.Fatalf("seed %d: diff:\n%s", seed, diff)
	}
}

// What was made for hard links into lower layers counts for the layer with the
// link, and is no waste.
func TestMergeStack(t *testing.T) {
	l := openTestLayers(t)
	ids := addTars(t, l,
		fixture.NewLayer().Dir("d", 0o700).File("d/a", 0o600, "content").Bytes(),
		fixture.NewLayer().Link("d/b", "d/a").File("d/c", 0o644, "c").Bytes(),
		fixture.NewLayer().File("d/.wh.a", 0, "").Bytes())
	stack, made, err := l.Stack(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(made)
	if len(stack) <= len(ids) {
		t.Fatal("nothing was made")
	}
	m, err := l.Merge(t.Context(), ids, stack)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	want := []string{` 40755 from 2`, `d 40700 from 2`, `d/b 100600 from 1 "content"`, `d/c 100644 from 1 "c"`}
	if diff := cmp.Diff(want, mergedPaths(t, m)); diff != "" {
		t.Error(diff)
	}
	var changes []string
	for k, s := range m.Layers {
		for _, c := range s.Changes {
			changes = append(changes, fmt.Sprintf("%d %s %s %v %d", k, c.Kind, c.Path, c.Detail.Words(), c.Wasted))
		}
		changes = append(changes, fmt.Sprintf("%d: data %d wasted %d", k, s.Data, s.Wasted))
	}
	want = []string{
		"0 A d [] 0", "0 A d/a [] 0", "0: data 7 wasted 0",
		"1 A d/b [] 0", "1 A d/c [] 0", "1: data 1 wasted 0",
		"2 D d/a [] 0", "2: data 0 wasted 0",
	}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Error(diff)
	}
}

func TestDiff(t *testing.T) {
	l := openTestLayers(t)
	base := fixture.NewLayer().Dir("d", 0o755).File("d/a", 0o644, "aaa").File("same", 0o644, "bytes").Bytes()
	ids := addTars(t, l, base,
		fixture.NewLayer().File("d/a", 0o644, "bbb").File("x", 0o644, "").Symlink("s", "1").File("same", 0o644, "bytes").Bytes(),
		fixture.NewLayer().File("d/a", 0o640, "bbc").Dir("x", 0o700).File("x/y", 0o644, "").Symlink("s", "2").Bytes(),
		join(paxHeader("mtime=77.5"), rawHeader("same", '0', 5, nil), pad("bytes"), endMarker))
	var got []string
	list := func(d Difference) error {
		got = append(got, fmt.Sprintf("%s %s %v", d.Kind, d.Path, d.Detail.Words()))
		return nil
	}
	if err := l.Diff(t.Context(), []spec.Digest{ids[0], ids[1]}, []spec.Digest{ids[0], ids[2]}, list); err != nil {
		t.Fatal(err)
	}
	want := []string{"C d/a [content mode]", "C s [target]", "C x [type]", "A x/y []"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = nil
	if err := l.Diff(t.Context(), ids[:1], []spec.Digest{ids[0], ids[3]}, list); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"C same [times]"}, got); diff != "" {
		t.Error(diff)
	}
	got = nil
	if err := l.Diff(t.Context(), ids[:1], ids[:1], list); err != nil || got != nil {
		t.Error(got, err)
	}
	if err := l.Diff(t.Context(), nil, ids[:1], list); err != nil || len(got) != 4 { // with the root
		t.Error(got, err)
	}
	stop := errors.New("enough")
	if err := l.Diff(t.Context(), nil, ids[:1], func(Difference) error { return stop }); err != stop {
		t.Error(err)
	}
}

// Holes are compared without being read.
func TestMergeSparse(t *testing.T) {
	l := openTestLayers(t)
	sparse := func(at int64, body string) []byte {
		size := int64(1) << 42
		m := fmt.Sprintf("2\n%d\n%d\n%d\n0\n", at, len(body), size)
		return join(paxHeader("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=big", fmt.Sprintf("GNU.sparse.realsize=%d", size)),
			rawHeader("GNUSparseFile.0/big", '0', int64(512+len(body)), nil), pad(m), pad(body), endMarker)
	}
	ids := addTars(t, l, sparse(1<<40, "data"), sparse(1<<40, "dato"), sparse(1<<41, "data"), sparse(1<<40, "data\x00"))
	for i, want := range []Detail{0, DiffContent, DiffContent, 0} {
		m := merge(t, l, ids[0], ids[i])
		if i == 0 {
			continue
		}
		c := m.Layers[1].Changes[0]
		if c.Detail != want || c.Wasted != 4 || c.Size != 1<<42 {
			t.Errorf("%d: %+v", i, c)
		}
	}
	m := merge(t, l, ids[0])
	f := m.Open(m.Root.Child("big")).(*fileReader)
	f.off = 1<<40 - 2
	b := make([]byte, 8)
	if _, err := io.ReadFull(f, b); err != nil || string(b) != "\x00\x00data\x00\x00" {
		t.Errorf("%q %v", b, err)
	}
}

func TestFileReader(t *testing.T) {
	l := openTestLayers(t)
	body := strings.Repeat("0123456789", 5000)
	ids := addTars(t, l, fixture.NewLayer().File("f", 0o644, body).Bytes())
	m := merge(t, l, ids...)
	if err := iotest.TestReader(m.Open(m.Root.Child("f")), []byte(body)); err != nil {
		t.Error(err)
	}
}

func TestMergeErrors(t *testing.T) {
	l := openTestLayers(t)
	ids := addTars(t, l, fixture.NewLayer().File("f", 0o644, "x").Bytes())
	if _, err := l.Merge(t.Context(), nil, append(ids, spec.DigestOf(nil))); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Merge(ctx, ids, ids); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// Nothing stays locked.
	if err := l.Remove(ids[0]); err != nil {
		t.Error(err)
	}
	if m := merge(t, l); len(m.Root.Children) != 0 || !m.Root.IsDir() {
		t.Error("no layers are no empty tree")
	}
}

func BenchmarkMerge(b *testing.B) {
	l := openTestLayers(b)
	low, up := fixture.NewLayer(), fixture.NewLayer()
	for i := range 50000 {
		low.File(fmt.Sprintf("d%03d/file%05d", i/100, i), 0o644, "some bytes")
		if i%10 == 0 {
			up.File(fmt.Sprintf("d%03d/file%05d", i/100, i), 0o644, "more bytes")
		}
	}
	ids := addTars(b, l, low.Bytes(), up.Bytes())
	for b.Loop() {
		m, err := l.Merge(b.Context(), ids, ids)
		if err != nil {
			b.Fatal(err)
		}
		m.Close()
	}
}
