package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tug/errs"
)

func open(t *testing.T) *Store {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOpen(t *testing.T) {
	s := open(t)
	for _, dir := range []string{s.Root, s.Run, s.Tmp(), s.Containers(), s.Layers()} {
		fi, err := os.Stat(dir)
		if err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want mode 0700", dir, fi.Mode(), err)
		}
	}
	if _, err := Open(s.Root, s.Run); err != nil {
		t.Errorf("open again: %v", err)
	}
	for text, class := range map[string]errs.Class{"99\n": errs.Unsupported, "": errs.Corrupt, "one": errs.Corrupt} {
		if err := os.WriteFile(filepath.Join(s.Root, "version"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(s.Root, s.Run); !errs.Is(err, class) {
			t.Errorf("version %q: %v", text, err)
		}
	}
}

// TestReplace: whoever reads while a file is replaced sees the old or the new
// contents, whole.
func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	texts := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 50_000)}
	if err := Replace(path, []byte(texts[0]), false); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range 200 {
			if err := Replace(path, []byte(texts[n%2]), n%50 == 0); err != nil {
				t.Error(err)
			}
		}
	})
	for range 200 {
		b, err := os.ReadFile(path)
		if err != nil || string(b) != texts[0] && string(b) != texts[1] {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
	}
	wg.Wait()
	left, _ := os.ReadDir(filepath.Dir(path))
	fi, err := os.Stat(path)
	if len(left) != 1 || err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("left %v, mode %v, %v", left, fi.Mode(), err)
	}
	// A failure leaves the old file and nothing beside it.
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.MkdirAll(filepath.Join(dir, "not-empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(dir, []byte("x"), true); err == nil {
		t.Error("a directory was replaced")
	}
	if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

func TestJSON(t *testing.T) {
	s := open(t)
	path := s.path("x.json")
	var v struct{ A int }
	if err := ReadJSON(path, &v); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	v.A = 7
	if err := s.WriteJSON(path, v, true); err != nil {
		t.Fatal(err)
	}
	v.A = 0
	if err := ReadJSON(path, &v); err != nil || v.A != 7 {
		t.Errorf("%+v, %v", v, err)
	}
	for _, text := range []string{"", "{", `{"A":"seven"}`, "\x00"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ReadJSON(path, &v); !errs.Is(err, errs.Corrupt) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestSweep removes what nobody holds and nothing else.
func TestSweep(t *testing.T) {
	s := open(t)
	held, err := s.TempFile("held-*")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	heldDir, d, err := s.TempDir("dir-*")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	dead, err := s.TempFile("dead-*")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	if err := os.MkdirAll(filepath.Join(s.Tmp(), "removed-1", "upper", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	if n := s.Sweep(); n != 2 {
		t.Errorf("%d were removed, want 2", n)
	}
	for path, want := range map[string]bool{held.Name(): true, heldDir: true, dead.Name(): false, filepath.Join(s.Tmp(), "removed-1"): false} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", path, err, want)
		}
	}
}

// TestTempAgainstSweep makes temporaries while somebody sweeps all the time:
// what TempFile returns is there and stays.
func TestTempAgainstSweep(t *testing.T) {
	s := open(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.Sweep()
			}
		}
	})
	for range 300 {
		f, err := s.TempFile("x-*")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(f.Name()); err != nil {
			t.Errorf("swept away: %v", err)
		}
		os.Remove(f.Name())
		f.Close()
	}
	close(stop)
	wg.Wait()
}

func TestRefs(t *testing.T) {
	s := open(t)
	one, err := s.Refs(false)
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Refs(false) // readers do not wait for one another
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan struct{})
	go func() {
		f, err := s.Refs(true)
		if err == nil {
			f.Close()
		}
		close(got)
	}()
	two.Close()
	select {
	case <-got:
		t.Error("the exclusive lock was had beside a shared one")
	case <-time.After(50 * time.Millisecond):
	}
	one.Close()
	<-got
}
