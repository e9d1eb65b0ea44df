package layer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

// lookupPaths lists all that a lookup shows, as treePaths does.
func lookupPaths(t testing.TB, k *Lookup) (lines []string) {
	t.Helper()
	var walk func(path string, e *Entry)
	walk = func(path string, e *Entry) {
		if path != "" {
			lines = append(lines, fmt.Sprintf("%s %o %d:%d %d %d", path, e.Mode, e.UID, e.GID, e.Size, e.Mtime.UnixNano()))
		}
		if !e.IsDir() {
			return
		}
		names, err := e.Names()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			c, err := e.Child(n)
			if err != nil || c == nil {
				t.Fatalf("%s/%s is listed and not found: %v", path, n, err)
			}
			walk(strings.TrimPrefix(path+"/"+n, "/"), c)
		}
		if c, err := e.Child("never there"); c != nil || err != nil {
			t.Fatalf("found what is not there: %v, %v", c, err)
		}
	}
	root, err := k.Root()
	if err != nil {
		t.Fatal(err)
	}
	walk("", root)
	return lines
}

func treePaths(t testing.TB, l *Layers, stack []spec.Digest) (lines []string) {
	t.Helper()
	m, err := l.Tree(t.Context(), stack)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var walk func(path string, n *Node)
	walk = func(path string, n *Node) {
		f := n.File(path)
		if path != "" {
			size := f.Size
			if !f.IsRegular() {
				size = 0
			}
			lines = append(lines, fmt.Sprintf("%s %o %d:%d %d %d", path, f.Mode, f.UID, f.GID, size, f.Mtime.UnixNano()))
		}
		for _, c := range n.Children {
			walk(strings.TrimPrefix(path+"/"+c.Name, "/"), c)
		}
	}
	walk("", m.Root)
	return lines
}

// lookup opens a stack by the layers' indexes, or by their tars.
func lookup(t testing.TB, l *Layers, stack []spec.Digest, byTar bool) *Lookup {
	t.Helper()
	k, err := l.Lookup(t.Context(), stack)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	for i, f := range k.finders {
		if _, ok := f.(*indexFinder); !ok {
			t.Fatalf("layer %d is read from %T", i, f)
		}
		if byTar {
			f.close()
			tree, tar, err := l.readBack(k.held[i].DiffID)
			if err != nil {
				t.Fatal(err)
			}
			tar.Close()
			k.finders[i] = treeFinder{tree}
		}
	}
	return k
}

// Random stacks show the same looked up name by name as merged, with all
// attributes.
func TestLookupRandom(t *testing.T) {
	l := openTestLayers(t)
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 11))
		var ids []spec.Digest
		for range 1 + r.IntN(5) {
			b, _ := random(t, r)
			ids = append(ids, addTars(t, l, b)...)
		}
		stack, made, err := l.Stack(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		want := treePaths(t, l, stack)
		for _, byTar := range []bool{false, true} {
			if diff := cmp.Diff(want, lookupPaths(t, lookup(t, l, stack, byTar))); diff != "" {
				t.Errorf("seed %d, by tar %v (-merged +looked up):\n%s", seed, byTar, diff)
			}
		}
		closeAll(made)
	}
}

// A directory of several blocks, with names before and between the dots.
func TestLookupLarge(t *testing.T) {
	l := openTestLayers(t)
	b := fixture.NewLayer().Dir("d", 0o755).Dir("empty", 0o700)
	for i := range 2000 {
		b.File(fmt.Sprintf("d/file-%04d-%s", i*7%2000, strings.Repeat("x", i%90)), 0o644, "x")
	}
	for _, n := range []string{"!", "-", ".-", "...", ".a", "~"} {
		b.File("d/"+n, 0o600, n)
	}
	top := fixture.NewLayer().Dir("d", 0o711).File("d/.wh.!", 0, "").Dir("empty", 0o711).File("empty/.wh..wh..opq", 0, "")
	ids := addTars(t, l, b.Bytes(), top.Bytes())
	if diff := cmp.Diff(treePaths(t, l, ids), lookupPaths(t, lookup(t, l, ids, false))); diff != "" {
		t.Error(diff)
	}
	root, err := lookup(t, l, ids, false).Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{".", "..", "d/!", ""} {
		if e, err := root.Child(n); e != nil || err != nil {
			t.Errorf("%q: %v, %v", n, e, err)
		}
	}
}

// An index that was changed on the disk gives errors or wrong answers, and
// nothing worse; one that is gone or cut is not used.
func TestLookupDamaged(t *testing.T) {
	l := openTestLayers(t)
	b := fixture.NewLayer()
	for i := range 60 {
		b.Dir(fmt.Sprintf("d%02d", i), 0o755).File(fmt.Sprintf("d%02d/f", i), 0o644, "x")
	}
	ids := addTars(t, l, b.File("d00/.wh..wh..opq", 0, "").Bytes())
	path := l.path(ids[0], fileIndex)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	failed := 0
	for range 200 {
		bad := bytes.Clone(good)
		for range 1 + r.IntN(4) {
			bad[1024+r.IntN(len(bad)-1024)] = byte(r.Uint32())
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := l.Lookup(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		if err := walkSome(k); err != nil {
			failed++
			if !errs.Is(err, errs.Corrupt) {
				t.Fatal(err)
			}
		}
		k.Close()
	}
	if failed == 0 {
		t.Error("no damage was noticed")
	}
	for _, bad := range [][]byte{good[:len(good)-512], nil} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if bad == nil {
			os.Remove(path)
		}
		k, err := l.Lookup(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(treePaths(t, l, ids), lookupPaths(t, k)); diff != "" {
			t.Error(diff)
		}
		k.Close()
	}
}

// walkSome walks a tree that may have got circles.
func walkSome(k *Lookup) error {
	left := 1000
	var walk func(e *Entry) error
	walk = func(e *Entry) error {
		names, err := e.Names()
		for _, n := range names {
			if left--; left < 0 || err != nil {
				return err
			}
			var c *Entry
			if c, err = e.Child(n); err == nil && c != nil && c.IsDir() {
				err = walk(c)
			}
		}
		return err
	}
	root, err := k.Root()
	if err != nil {
		return err
	}
	return walk(root)
}

// A lookup costs what is looked up.
func BenchmarkLookup(b *testing.B) {
	l := openTestLayers(b)
	layer := fixture.NewLayer()
	for i := range 10000 {
		layer.File(fmt.Sprintf("usr/lib/%02d/file-%d", i%100, i), 0o644, "x")
	}
	ids := addTars(b, l, layer.Bytes())
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			k, err := l.Lookup(b.Context(), ids)
			if err != nil {
				b.Fatal(err)
			}
			e, err := k.Root()
			for _, n := range []string{"usr", "lib", "42", "file-4242"} {
				if err == nil {
					e, err = e.Child(n)
				}
			}
			if err != nil || e == nil {
				b.Fatal(e, err)
			}
			k.Close()
		}
	})
	b.Run("tree", func(b *testing.B) {
		for b.Loop() {
			m, err := l.Tree(b.Context(), ids)
			if err != nil {
				b.Fatal(err)
			}
			m.Close()
		}
	})
}
