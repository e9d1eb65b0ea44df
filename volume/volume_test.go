package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/state"
)

func open(t *testing.T) *Volumes {
	t.Helper()
	dir := t.TempDir()
	st, err := state.Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	return Open(st)
}

// make makes a volume with one file in it.
func (v *Volumes) make(t *testing.T, name, text string) *Volume {
	t.Helper()
	vol, _, err := v.Ensure(name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.Data(vol.Name), "file"), []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return vol
}

func (v *Volumes) holds(t *testing.T, name, text string) {
	t.Helper()
	if b, err := os.ReadFile(filepath.Join(v.Data(name), "file")); err != nil || string(b) != text {
		t.Errorf("%s: %q, %v; want %q", name, b, err, text)
	}
}

// clean checks that nothing is left in tmp.
func (v *Volumes) clean(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(v.st.Tmp()); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
}

func TestEnsure(t *testing.T) {
	v := open(t)
	if list, broken, err := v.List(); list != nil || broken != nil || err != nil {
		t.Errorf("of an empty store: %v, %v, %v", list, broken, err)
	}
	labels := map[string]string{"a": "b"}
	vol, created, err := v.Ensure("data", Options{Labels: labels})
	if err != nil || !created || vol.Driver != Local || vol.Anonymous() || time.Since(vol.Created) > time.Minute {
		t.Fatalf("%+v, %v, %v", vol, created, err)
	}
	again, created, err := v.Ensure("data", Options{Driver: Local})
	if err != nil || created {
		t.Fatal(created, err)
	}
	if d := cmp.Diff(vol, again); d != "" {
		t.Error(d)
	}
	anon, created, err := v.Ensure("", Options{Labels: labels, Fleeting: true})
	if err != nil || !created || len(anon.Name) != 64 || !anon.Anonymous() || anon.Labels["a"] != "b" {
		t.Errorf("%+v, %v, %v", anon, created, err)
	}
	if len(labels) != 1 {
		t.Errorf("the caller's labels were changed: %v", labels)
	}
	fi, err := os.Stat(v.Data("data"))
	if err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	list, _, err := v.List()
	if err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	v.clean(t)
}

func TestEnsureRefuses(t *testing.T) {
	v := open(t)
	tmpfs := map[string]string{"type": "tmpfs", "device": "tmpfs"}
	if _, _, err := v.Ensure("mem", Options{Options: tmpfs}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		o     Options
		class errs.Class
		want  string
	}{
		{"x", Options{}, errs.Invalid, "create x: volume name is too short, names should be at least two alphanumeric characters"},
		{"../evil", Options{}, errs.Invalid, `create ../evil: "../evil" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed`},
		{".hidden", Options{}, errs.Invalid, "invalid characters"},
		{"a/b", Options{}, errs.Invalid, "invalid characters"},
		{"a\x00b", Options{}, errs.Invalid, "invalid characters"},
		{"é1", Options{}, errs.Invalid, "invalid characters"},
		{strings.Repeat("a", 256), Options{}, errs.Invalid, "too long"},
		{"ok", Options{Driver: "flocker"}, errs.NotFound, `create ok: error looking up volume plugin flocker: plugin "flocker" not found`},
		{"mem", Options{Options: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}}, errs.Conflict, "other options"},
		{"ok", Options{Options: map[string]string{"foo": "bar"}}, errs.Invalid, `create ok: invalid option: "foo"`},
		{"ok", Options{Options: map[string]string{"type": "tmpfs"}}, errs.Invalid, `create ok: missing required option: "device"`},
		{"ok", Options{Options: map[string]string{"o": "bind"}}, errs.Invalid, `missing required option: "type"`},
		{"ok", Options{Options: map[string]string{"type": "none", "o": "bind", "device": "relative"}}, errs.Invalid, "absolute"},
		{"ok", Options{Options: map[string]string{"type": "none", "device": "/tmp"}}, errs.Invalid, "o=bind"},
		{"ok", Options{Options: map[string]string{"type": "none", "o": "bind,size=1", "device": "/tmp"}}, errs.Invalid, `no option "size=1"`},
		{"ok", Options{Options: map[string]string{"type": "none", "o": "bind,rshared", "device": "/tmp"}}, errs.Invalid, "propagates"},
		{"ok", Options{Options: map[string]string{"size": "1g"}}, errs.Invalid, "quota size requested but no quota support"},
		{"ok", Options{Options: map[string]string{"type": "cifs", "device": "//host:445/share"}}, errs.Invalid, "port not allowed in CIFS device URL"},
		{"ok", Options{Options: map[string]string{"type": "../tmpfs", "device": "x"}}, errs.Invalid, "name of a file system"},
	} {
		if _, _, err := v.Ensure(tt.name, tt.o); !errs.Is(err, tt.class) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q %+v: %v; want %q", tt.name, tt.o, err, tt.want)
		}
	}
	for _, name := range []string{"ok", "..", ".", "", "a/b", strings.Repeat("a", 256)} {
		if _, err := v.Get(name); !errs.Is(err, errs.NotFound) {
			t.Errorf("get %q: %v", name, err)
		}
		if _, err := v.Hold(name); !errs.Is(err, errs.NotFound) {
			t.Errorf("hold %q: %v", name, err)
		}
		if err := v.Remove(name, true); !errs.Is(err, errs.NotFound) {
			t.Errorf("remove %q: %v", name, err)
		}
	}
	v.clean(t)
}

func TestSource(t *testing.T) {
	for _, tt := range []struct {
		o, want string
	}{
		{"type=tmpfs device=tmpfs o=size=100m,uid=1000,nosuid,ro", "tmpfs tmpfs [nosuid ro] [size=100m uid=1000] false"},
		{"type=none device=/srv o=bind", " /srv [] [] false"},
		{"type=bind device=/srv o=rbind,ro", " /srv [ro] [] true"},
		{"type=nfs device=:/export o=addr=10.0.0.1,rw,nfsvers=4", "nfs :/export [rw] [addr=10.0.0.1 nfsvers=4] false"},
		{"type=cifs device=//host/share o=username=u,password=p", "cifs //host/share [] [username=u password=p] false"},
		{"type=ext4 device=/dev/sdz1 o=defaults", "ext4 /dev/sdz1 [] [] false"},
	} {
		o := map[string]string{}
		for _, w := range strings.Fields(tt.o) {
			k, val, _ := strings.Cut(w, "=")
			o[k] = val
		}
		s, err := parseSource(o)
		if err != nil {
			t.Errorf("%s: %v", tt.o, err)
			continue
		}
		if got := fmt.Sprintf("%s %s %v %v %v", s.Type, s.Device, s.Flags, s.Data, s.Recursive); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.o, got, tt.want)
		}
	}
	if s, err := parseSource(nil); s != nil || err != nil {
		t.Error(s, err)
	}
}

func TestAddress(t *testing.T) {
	for _, tt := range []struct {
		typ, device, data, want string
	}{
		{"nfs", ":/export", "vers=4,addr=127.0.0.1", "vers=4,addr=127.0.0.1"},
		{"nfs4", "10.1.2.3:/export", "vers=4", "vers=4,addr=10.1.2.3"},
		{"nfs", "[fd00::1]:/export", "vers=4", "vers=4,addr=fd00::1"},
		{"nfs", "localhost:/export", "vers=4", "vers=4,addr=127.0.0.1"},
		{"cifs", "//10.1.2.3/share", "guest", "guest,addr=10.1.2.3"},
		{"cifs", "//name/share", "ip=10.1.2.3", "addr=10.1.2.3"},
		{"ext4", "/dev/sdz", "data=ordered", "data=ordered"},
	} {
		s := &Source{Type: tt.typ, Device: tt.device, Data: strings.Split(tt.data, ",")}
		if err := s.address(); err != nil {
			t.Errorf("%+v: %v", tt, err)
		}
		got := strings.Join(s.Data, ",")
		if got != tt.want && got != strings.Replace(tt.want, "127.0.0.1", "::1", 1) {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

func TestRemove(t *testing.T) {
	v := open(t)
	used := map[string][]Use{}
	v.Uses = func() (map[string][]Use, error) { return used, nil }
	v.make(t, "data", "text")
	used["data"] = []Use{{Container: "c2"}, {Container: "c1", Running: true}}
	err := v.Remove("data", true)
	if !errs.Is(err, errs.Conflict) || err.Error() != "remove data: volume is in use - [c1, c2]" {
		t.Errorf("%v", err)
	}
	v.holds(t, "data", "text")
	delete(used, "data")
	if err := v.Remove("data", false); err != nil {
		t.Error(err)
	}
	if _, err := v.Get("data"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}

	// Without knowing who uses what, nothing goes.
	v.make(t, "data", "text")
	v.Uses = func() (map[string][]Use, error) { return nil, errs.New(errs.Corrupt, "who knows") }
	if err := v.Remove("data", false); !errs.Is(err, errs.Corrupt) {
		t.Error(err)
	}
	if _, _, err := v.Prune(PruneOptions{All: true}); !errs.Is(err, errs.Corrupt) {
		t.Error(err)
	}
	v.holds(t, "data", "text")
	v.clean(t)
}

func TestPrune(t *testing.T) {
	v := open(t)
	used := map[string][]Use{}
	v.Uses = func() (map[string][]Use, error) { return used, nil }
	v.make(t, "named", "12345")
	anon := v.make(t, "", "123").Name
	busy := v.make(t, "", "12").Name
	held := v.make(t, "", "1").Name
	used[busy] = []Use{{Container: "c"}}
	release, err := v.Hold(held)
	if err != nil {
		t.Fatal(err)
	}
	prune := func(o PruneOptions, wantSpace int64, want ...string) {
		t.Helper()
		names, space, err := v.Prune(o)
		if err != nil || space != wantSpace || strings.Join(names, " ") != strings.Join(want, " ") {
			t.Errorf("%+v: %v, %d, %v", o, names, space, err)
		}
	}
	prune(PruneOptions{DryRun: true}, 3, anon)
	prune(PruneOptions{}, 3, anon)
	prune(PruneOptions{All: true, Match: func(vol *Volume) bool { return vol.Name != "named" }}, 0)
	release()
	prune(PruneOptions{}, 1, held)
	prune(PruneOptions{DryRun: true, Gone: []string{"c"}}, 2, busy)
	prune(PruneOptions{All: true}, 5, "named")
	v.holds(t, busy, "12")
	v.make(t, "named", "x")
	if err := v.RemoveAnonymous([]string{busy, "named", "none", anon}); err != nil {
		t.Error(err)
	}
	v.holds(t, busy, "12")
	v.holds(t, "named", "x")
	delete(used, busy)
	if err := v.RemoveAnonymous([]string{busy}); err != nil {
		t.Error(err)
	}
	if list, _, _ := v.List(); len(list) != 1 {
		t.Errorf("%v", list)
	}
	v.clean(t)
}

// TestParallel makes, holds and removes volumes of the same names: what is held
// is there, and each create but the first finds one.
func TestParallel(t *testing.T) {
	v := open(t)
	names := []string{"aa", "bb", "cc"}
	var made, removed atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := range 40 {
				name := names[(n+w)%len(names)]
				_, created, release, err := v.EnsureHeld(name, Options{Fleeting: true})
				if err != nil {
					t.Error(err)
					return
				}
				if created {
					made.Add(1)
				}
				if _, err := os.Stat(v.Data(name)); err != nil {
					t.Errorf("held, and gone: %v", err)
				}
				if _, err := v.Get(name); err != nil {
					t.Errorf("held, and not found: %v", err)
				}
				release()
				if err := v.Remove(name, false); err == nil {
					removed.Add(1)
				} else if !errs.Is(err, errs.NotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if list, _, err := v.List(); len(list) != 0 || err != nil || made.Load() != removed.Load() || made.Load() < 3 {
		t.Errorf("%v, %v: %d made, %d removed", list, err, made.Load(), removed.Load())
	}
	v.clean(t)
}

func TestBroken(t *testing.T) {
	v := open(t)
	v.make(t, "good", "x")
	v.make(t, "bad", "x")
	if err := os.WriteFile(v.path("bad", fileVolume), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, broken, err := v.List()
	if err != nil || len(list) != 1 || len(broken) != 1 || !errs.Is(broken[0], errs.Corrupt) {
		t.Errorf("%v, %v, %v", list, broken, err)
	}
	if _, _, err := v.Prune(PruneOptions{All: true}); err != nil {
		t.Error(err)
	}
	v.holds(t, "bad", "x")
}
