package layer

import (
	"bytes"
	"os"
	"sync"
	"testing"

	"tug/errs"
	"tug/spec"
	"tug/sys"
	"tug/test/fixture"
)

// damage leaves a layer without its meta.json.
func damage(t *testing.T, l *Layers, d spec.Digest) {
	t.Helper()
	if err := os.Remove(l.path(d, fileMeta)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Get(d); !errs.Is(err, errs.Corrupt) {
		t.Fatalf("damaged: %v", err)
	}
}

// A damaged layer gives way to a good one, which nobody takes away again.
func TestAddOverDamaged(t *testing.T) {
	l := openTestLayers(t)
	archive := fixture.NewLayer().File("a", 0o644, "one").Bytes()
	d := addTars(t, l, archive)[0]
	for range 20 {
		damage(t, l, d)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				held, err := l.Add(t.Context(), bytes.NewReader(archive), Expect{BlobSize: -1})
				if err != nil {
					t.Error(err)
					return
				}
				defer held.Close()
				if !sameDir(t, held.lock, l.path(d)) {
					t.Error("what Add returned is not in the store any more")
				}
			})
		}
		wg.Wait()
		if found, err := l.Check(t.Context(), d, false); err != nil || len(found) > 0 {
			t.Fatalf("%v %v", found, err)
		}
	}
	if left, _ := os.ReadDir(l.st.Tmp()); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

func sameDir(t *testing.T, f *os.File, path string) bool {
	t.Helper()
	same, err := sys.SameFile(f, path)
	if err != nil {
		t.Error(err)
	}
	return same
}

// One Add has seen the damage, and another is faster: its layer stays. One that
// is in use stays too, damaged.
func TestClearDamaged(t *testing.T) {
	l := openTestLayers(t)
	d := addTars(t, l, fixture.NewLayer().File("a", 0o644, "one").Bytes())[0]
	if err := l.clearDamaged(d); err != nil {
		t.Fatal(err)
	}
	held, err := l.Get(d)
	if err != nil {
		t.Fatalf("a good layer: %v", err)
	}
	damage(t, l, d)
	if err := l.clearDamaged(d); !errs.Is(err, errs.Conflict) {
		t.Errorf("in use: %v", err)
	}
	held.Close()
	if err := l.clearDamaged(d); err != nil {
		t.Errorf("damaged: %v", err)
	}
	if err := l.clearDamaged(d); err != nil {
		t.Errorf("gone: %v", err)
	}
	if _, err := l.Get(d); !errs.Is(err, errs.NotFound) {
		t.Errorf("still there: %v", err)
	}
}
