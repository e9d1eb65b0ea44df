package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tug/errs"
)

func TestSnapshots(t *testing.T) {
	v := open(t)
	used := map[string][]Use{}
	v.Uses = func() (map[string][]Use, error) { return used, nil }
	ctx := context.Background()
	v.make(t, "data", "one")
	if s, err := v.TakeSnapshot(ctx, "data", "first"); err != nil || s.Name != "first" {
		t.Fatal(s, err)
	}
	if _, err := v.TakeSnapshot(ctx, "data", "first"); !errs.Is(err, errs.Conflict) {
		t.Errorf("twice: %v", err)
	}
	for _, bad := range []string{"..", "a/b", ".x", "a b", strings.Repeat("a", 256)} {
		if _, err := v.TakeSnapshot(ctx, "data", bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
		if err := v.RemoveSnapshot("data", bad); !errs.Is(err, errs.NotFound) {
			t.Errorf("%q: %v", bad, err)
		}
		if err := v.Restore(ctx, "data", bad); !errs.Is(err, errs.NotFound) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, none := range []string{"none", "data@first", "../data"} {
		if _, err := v.TakeSnapshot(ctx, none, "x"); !errs.Is(err, errs.NotFound) {
			t.Errorf("%s: %v", none, err)
		}
	}
	v.make(t, "data", "two")
	auto, err := v.TakeSnapshot(ctx, "data", "")
	if err != nil {
		t.Fatal(err)
	}
	list, err := v.Snapshots("data")
	if err != nil || len(list) != 2 || list[0].Name != "first" || list[1].Name != auto.Name {
		t.Errorf("%v, %v", list, err)
	}
	if size, err := v.SnapshotSize("data", "first"); size != 3 || err != nil {
		t.Error(size, err)
	}

	if data, more, n, err := v.Size("data"); data != 3 || more != 6 || n != 2 || err != nil {
		t.Error(data, more, n, err)
	}
	if data, more, n, err := v.Size("none"); data != 0 || more != 0 || n != 0 || err != nil {
		t.Error(data, more, n, err)
	}

	used["data"] = []Use{{Container: "c1", Running: true}}
	if err := v.Restore(ctx, "data", "first"); !errs.Is(err, errs.Conflict) || err.Error() != "restore data: volume is in use - [c1]" {
		t.Errorf("restore of a volume in use: %v", err)
	}
	v.holds(t, "data", "two")
	used["data"] = []Use{{Container: "c1"}}
	if err := v.Restore(ctx, "data", "first"); err != nil {
		t.Error(err)
	}
	v.holds(t, "data", "one")

	delete(used, "data")
	if err := v.Remove("data", false); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "volume has 2 snapshots") {
		t.Errorf("%v", err)
	}
	if names, _, err := v.Prune(PruneOptions{All: true}); len(names) > 0 || err != nil {
		t.Error(names, err)
	}
	for _, s := range list {
		if err := v.RemoveSnapshot("data", s.Name); err != nil {
			t.Error(err)
		}
	}
	if err := v.Remove("data", false); err != nil {
		t.Error(err)
	}
	v.clean(t)
}

func TestClone(t *testing.T) {
	v := open(t)
	ctx := context.Background()
	from := v.make(t, "", "text")
	vol, err := v.Clone(ctx, from.Name, "copy")
	if err != nil || vol.Anonymous() {
		t.Fatal(vol, err)
	}
	v.holds(t, "copy", "text")
	if err := v.Remove(from.Name, false); err != nil {
		t.Error(err)
	}
	v.holds(t, "copy", "text")
	for name, class := range map[string]errs.Class{"copy": errs.Conflict, "x": errs.Invalid, "../x": errs.Invalid} {
		if _, err := v.Clone(ctx, "copy", name); !errs.Is(err, class) {
			t.Errorf("to %q: %v", name, err)
		}
	}
	for _, name := range []string{"none", "copy@none", "copy@", "@", "copy@../.."} {
		if _, err := v.Clone(ctx, name, "other"); !errs.Is(err, errs.NotFound) {
			t.Errorf("of %q: %v", name, err)
		}
	}
	if _, _, err := v.Ensure("mem", Options{Options: map[string]string{"type": "tmpfs", "device": "tmpfs"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Clone(ctx, "mem", "other"); !errs.Is(err, errs.Unsupported) {
		t.Error(err)
	}
	if _, err := v.TakeSnapshot(ctx, "mem", "other"); !errs.Is(err, errs.Unsupported) {
		t.Error(err)
	}
	v.clean(t)
}

func TestRename(t *testing.T) {
	v := open(t)
	used := map[string][]Use{}
	v.Uses = func() (map[string][]Use, error) { return used, nil }
	old := v.make(t, "", "text").Name
	if _, err := v.TakeSnapshot(context.Background(), old, "first"); err != nil {
		t.Fatal(err)
	}
	used[old] = []Use{{Container: "c"}}
	if err := v.Rename(old, "data"); !errs.Is(err, errs.Conflict) {
		t.Error(err)
	}
	delete(used, old)
	if err := v.Rename(old, "data"); err != nil {
		t.Fatal(err)
	}
	vol, err := v.Get("data")
	if err != nil || vol.Anonymous() || vol.Name != "data" {
		t.Errorf("%+v, %v", vol, err)
	}
	v.holds(t, "data", "text")
	if list, err := v.Snapshots("data"); len(list) != 1 || err != nil {
		t.Error(list, err)
	}
	v.make(t, "other", "other")
	for name, class := range map[string]errs.Class{"other": errs.Conflict, "data": errs.Conflict, "a/b": errs.Invalid, "": errs.Invalid} {
		if err := v.Rename("data", name); !errs.Is(err, class) {
			t.Errorf("to %q: %v", name, err)
		}
	}
	if err := v.Rename(old, "again"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	v.holds(t, "other", "other")
	v.holds(t, "data", "text")
}

func TestImport(t *testing.T) {
	v := open(t)
	used := map[string][]Use{}
	v.Uses = func() (map[string][]Use, error) { return used, nil }
	with := func(text string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o600) }
	}
	broken := func(dir string) error { return errors.Join(with("half")(dir), errors.New("broken")) }
	if _, err := v.Import("data", false, broken); err == nil {
		t.Error("no error")
	}
	if _, err := v.Get("data"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if _, err := v.Import("data", false, with("new")); err != nil {
		t.Error(err)
	}
	if _, err := v.Import("data", false, with("newer")); !errs.Is(err, errs.Conflict) {
		t.Error(err)
	}
	if _, err := v.Import("data", true, broken); err == nil {
		t.Error("no error")
	}
	v.holds(t, "data", "new")
	used["data"] = []Use{{Container: "c", Running: true}}
	if _, err := v.Import("data", true, with("newer")); !errs.Is(err, errs.Conflict) {
		t.Error(err)
	}
	// It is started while the data come in.
	delete(used, "data")
	_, err := v.Import("data", true, func(dir string) error {
		used["data"] = []Use{{Container: "c", Running: true}}
		return with("newer")(dir)
	})
	if !errs.Is(err, errs.Conflict) {
		t.Error(err)
	}
	v.holds(t, "data", "new")
	delete(used, "data")
	if _, err := v.Import("data", true, with("newer")); err != nil {
		t.Error(err)
	}
	v.holds(t, "data", "newer")
	if _, _, err := v.Ensure("empty", Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Import("empty", false, with("first")); err != nil {
		t.Error(err)
	}
	v.holds(t, "empty", "first")
	// It is removed while the data come in: before they are there, or after.
	removed := make(chan error)
	_, err = v.Import("empty", true, func(dir string) error {
		go func() { removed <- v.Remove("empty", true) }()
		return with("late")(dir)
	})
	if err != nil && !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}
	if _, err := v.Get("empty"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	v.clean(t)
}

func TestCheck(t *testing.T) {
	v := open(t)
	if faults, err := v.Check(); len(faults) > 0 || err != nil {
		t.Error(faults, err)
	}
	ctx := context.Background()
	for _, name := range []string{"good", "bad", "gone", "mount", "snaps"} {
		v.make(t, name, name)
		if _, err := v.TakeSnapshot(ctx, name, "one"); err != nil {
			t.Fatal(err)
		}
	}
	if faults, err := v.Check(); len(faults) > 0 || err != nil {
		t.Error(faults, err)
	}
	v.Uses = func() (map[string][]Use, error) {
		return map[string][]Use{"lost": {{Container: "c1"}}, "good": {{Container: "c1"}}}, nil
	}
	for _, err := range []error{
		os.WriteFile(v.path("bad", fileVolume), []byte("{"), 0o600),
		os.RemoveAll(v.Data("gone")),
		os.Remove(v.path("mount", fileVolume)), os.Remove(filepath.Join(v.Data("mount"), "file")),
		os.WriteFile(v.path("snaps", dirSnaps, "one", fileSnapshot), nil, 0o600),
		os.WriteFile(v.path("stray"), nil, 0o600),
		os.Mkdir(v.path(".hidden"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	faults, err := v.Check()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, f := range faults {
		rel, _ := filepath.Rel(v.st.Volumes(), f.Path)
		got[rel] = true
		if (f.Mend == nil) == (f.Left == "") {
			t.Errorf("%+v: neither mended nor told why not", f)
		}
		if f.Mend != nil {
			if _, err := f.Mend(); err != nil {
				t.Error(err)
			}
		}
	}
	for _, want := range []string{"bad/volume.json", "gone/_data", "mount/volume.json", "snaps/snapshots/one/snapshot.json", "stray", ".hidden", "lost"} {
		if !got[want] {
			t.Errorf("no fault in %s", want)
		}
		delete(got, want)
	}
	if len(got) > 0 {
		t.Errorf("faults in %v", got)
	}
	if vol, err := v.Get("bad"); err != nil || vol.Driver != Local {
		t.Error(vol, err)
	}
	v.holds(t, "bad", "bad")
	if err := v.Restore(ctx, "snaps", "one"); err != nil {
		t.Error(err)
	}
	if err := v.Remove("mount", true); err != nil {
		t.Error(err)
	}
}
