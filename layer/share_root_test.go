//go:build root

package layer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/state"
)

// The test binary is also a process that adds one layer, from its standard
// input, to the store that the variable names: root, run and backend.
const addVar = "TUG_TEST_ADD"

func TestMain(m *testing.M) {
	if where := os.Getenv(addVar); where != "" {
		addInChild(strings.Fields(where))
	}
	os.Exit(m.Run())
}

func addInChild(where []string) {
	st, err := state.Open(where[0], where[1])
	if err == nil {
		_, err = Open(st, where[2]).Add(context.Background(), os.Stdin, Expect{BlobSize: -1})
	}
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(0)
}

func (r *room) child(stdin io.Reader) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", addVar, r.st.Root, r.st.Run, r.m.Backend()))
	cmd.Stdin = stdin
	return cmd
}

func TestManyFiles(t *testing.T) {
	count := 50000
	if testing.Short() {
		count = 3000
	}
	members := []member{dir("./"), dir("one/")}
	for n := range count / 2 {
		members = append(members, file(fmt.Sprintf("one/%06d", n), fmt.Sprint(n)))
	}
	for n := range count / 2 {
		if n%100 == 0 {
			members = append(members, dir(fmt.Sprintf("%03d/", n/100)))
		}
		members = append(members, file(fmt.Sprintf("%03d/%d", n/100, n), fmt.Sprint(n)))
	}
	archive := makeTar(t, members...)
	eachBackend(t, func(r *room) { r.check(archive) })
}

// Stacks up to what overlayfs can do.
func TestHighStacks(t *testing.T) {
	eachBackend(t, func(r *room) {
		var layers []spec.Digest
		heights := []int{1, 2, 127, 400, maxLowers - 1}
		if testing.Short() {
			heights = []int{1, 127}
		}
		for n := range heights[len(heights)-1] {
			layers = append(layers, r.add(makeTar(t, dir("./"), file("top", fmt.Sprint(n)), file(fmt.Sprintf("only-%d", n), "x"))))
		}
		for _, height := range heights {
			root := r.show(layers[:height]...)
			if b, err := os.ReadFile(root + "/top"); err != nil || string(b) != fmt.Sprint(height-1) {
				t.Errorf("%d layers: top is %q, %v", height, b, err)
			}
			if names, err := os.ReadDir(root); err != nil || len(names) != height+1 {
				t.Errorf("%d layers: %d names, %v", height, len(names), err)
			}
		}
		_, err := r.m.Overlay(append(make([]spec.Digest, maxLowers), layers...), "", "", OverlayOptions{})
		if !errs.Is(err, errs.Unsupported) {
			t.Errorf("too many layers: %v", err)
		}
	})
}

// A layer is mounted once, for several images and several Mounters.
func TestMountsAreShared(t *testing.T) {
	eachBackend(t, func(r *room) {
		base, a, b := r.add(makeTar(t, dir("./"), file("base", "1"))), r.add(makeTar(t, dir("./"), file("a", "1"))), r.add(makeTar(t, dir("./"), file("b", "1")))
		r.show(base, a)
		before := r.mounts()
		if len(before) != 2 {
			t.Errorf("two layers, mounts %q", before)
		}
		r.show(base, b)
		r.show(base, a)
		r.m = r.mounter() // of a new supervisor
		r.show(base, b)
		after := r.mounts()
		if len(after) != 3 || strings.Join(after[:2], "") != strings.Join(before, "") {
			t.Errorf("three layers, mounts %q, before %q", after, before)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := r.m.layer(base); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if again := r.mounts(); len(again) != 3 {
			t.Errorf("asked for at once: %q", again)
		}
	})
}

// A removed layer stays readable where it is in use, goes from where it is
// mounted, and comes back as another one.
func TestRemoveWhileMounted(t *testing.T) {
	eachBackend(t, func(r *room) {
		archive := makeTar(t, dir("./"), file("a", "old and new"))
		d := r.add(archive)
		held, err := r.l.Get(d)
		if err != nil {
			t.Fatal(err)
		}
		root := r.show(d)
		if err := r.l.Remove(d); !errs.Is(err, errs.Conflict) {
			t.Errorf("remove of a held layer: %v", err)
		}
		held.Close()
		if err := r.l.Remove(d); err != nil {
			t.Fatal(err)
		}
		if err := r.m.DropGone(); err != nil || len(r.mounts()) != 0 {
			t.Errorf("after DropGone: %v, mounts %q", err, r.mounts())
		}
		if r.m.Backend() != "dir" { // there, files go with their names
			if b, err := os.ReadFile(root + "/a"); err != nil || string(b) != "old and new" {
				t.Errorf("a removed layer in use: %q %v", b, err)
			}
		}
		if _, err := r.m.Overlay([]spec.Digest{d}, "", "", OverlayOptions{}); !errs.Is(err, errs.NotFound) {
			t.Errorf("a removed layer mounted anew: %v", err)
		}
		r.add(archive)
		if b, err := os.ReadFile(r.show(d) + "/a"); err != nil || string(b) != "old and new" {
			t.Errorf("a layer that came back: %q %v", b, err)
		}
		// Removed and added behind the Mounter's back: its mount is of other files.
		if err := r.l.Remove(d); err != nil {
			t.Fatal(err)
		}
		r.add(archive)
		if b, err := os.ReadFile(r.show(d) + "/a"); err != nil || string(b) != "old and new" || len(r.mounts()) != 1 {
			t.Errorf("a layer that was changed: %q %v, mounts %q", b, err, r.mounts())
		}
	})
}

// What one backend stored, the others can mount.
func TestStoredForAnotherBackend(t *testing.T) {
	archive := makeTar(t, dir("./"), dir("d/"), file("d/a", strings.Repeat("1", 5000)), symlink("l", "d"), file("d/.wh.x", ""))
	eachBackend(t, func(r *room) {
		want := describe(t, extractGNU(t, archive))
		for _, other := range backends() {
			by := newRoom(t, "")
			by.l = Open(by.st, other.name())
			if _, err := by.l.backend(); errs.Is(err, errs.Unsupported) {
				continue
			}
			d := by.add(archive)
			user := &room{T: by.T, st: by.st, l: Open(by.st, r.m.Backend())}
			user.m = user.mounter()
			user.same(want, describe(t, user.show(d)))
			by.same(want, describe(t, by.show(d)))
		}
	})
}

// A container's root directory has the attributes of its image's.
func TestDressRoot(t *testing.T) {
	eachBackend(t, func(r *room) {
		layers := []spec.Digest{
			r.add(makeTar(t, dir("./"), file("low", "1"))),
			r.add(makeTar(t, dir("./").with(mode(0o1710)).with(xattrsOf("user.a", "b")).with(at(time.Unix(-5, 7))), file(".wh.low", ""))),
			r.add(makeTar(t, file("no-entry-for-the-root", "1"))),
		}
		up := t.TempDir()
		upper, work := filepath.Join(up, "u"), filepath.Join(up, "w")
		for _, d := range []string{upper, work} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.l.DressRoot(upper, layers); err != nil {
			t.Fatal(err)
		}
		mnt, err := r.m.Overlay(layers, upper, work, OverlayOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer mnt.Close()
		got := describe(t, fmt.Sprintf("/proc/self/fd/%d", mnt.Fd()))
		want := describe(t, r.show(layers[1]))
		if len(got) != 2 || got[0] != want[0] {
			t.Errorf("got %q, want %q and one file", got, want)
		}
	})
}

func TestAddAtOnce(t *testing.T) {
	archive := makeTar(t, dir("./"), file("a", strings.Repeat("x", 1<<20)))
	eachBackend(t, func(r *room) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if out, err := r.child(bytes.NewReader(archive)).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
			wg.Go(func() { r.add(archive) })
		}
		wg.Wait()
		if list, err := r.l.List(); err != nil || len(list) != 1 {
			t.Errorf("%d layers, %v", len(list), err)
		}
		if tmp, _ := os.ReadDir(r.st.Tmp()); len(tmp) != 0 {
			t.Errorf("left in tmp: %v", tmp)
		}
		r.check(archive)
	})
}

// A killed Add leaves the layer whole or not at all, and nothing after a sweep.
func TestKilledAdd(t *testing.T) {
	members := []member{dir("./")}
	for n := range 2000 {
		members = append(members, file(fmt.Sprint(n), strings.Repeat("x", 4000)))
	}
	archive := makeTar(t, members...)
	eachBackend(t, func(r *room) {
		rounds := 12
		if testing.Short() {
			rounds = 4
		}
		for n := range rounds {
			pr, pw, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd := r.child(pr)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pr.Close()
			// Half of them in the stream, the others while things are finished.
			if part := len(archive); n%2 == 0 {
				part = part * n / rounds
				pw.Write(archive[:part])
			} else {
				pw.Write(archive)
				pw.Close()
				time.Sleep(time.Duration(n) * 3 * time.Millisecond)
			}
			cmd.Process.Signal(syscall.SIGKILL)
			cmd.Wait()
			pw.Close()
			r.st.Sweep()
			if tmp, _ := os.ReadDir(r.st.Tmp()); len(tmp) != 0 {
				t.Errorf("round %d: left in tmp after a sweep: %v", n, tmp)
			}
			names, _ := os.ReadDir(r.st.Layers())
			list, err := r.l.List()
			if err != nil || len(list) != len(names) {
				t.Fatalf("round %d: %d layers of %d are whole, %v", n, len(list), len(names), err)
			}
			for _, info := range list {
				if err := r.l.Remove(info.DiffID); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.check(archive)
	})
}
