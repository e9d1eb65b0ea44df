package container

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"tug/errs"
	"tug/event"
	"tug/image"
	"tug/layer"
	"tug/spec"
	"tug/state"
)

// newContainers is an empty store.
func newContainers(t *testing.T) *Containers {
	t.Helper()
	st, err := state.Open(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return Open(st, layer.Open(st, ""), nil)
}

// create makes a container that is never started. It is removed with the power
// on: no disk is waited for.
func create(t *testing.T, c *Containers, name string) (*spec.Container, error) {
	t.Helper()
	return c.Create(t.Context(), Request{Name: name, Image: "none", Cmd: []string{"sh"}, Host: spec.HostConfig{AutoRemove: true}}, &image.Image{})
}

func mustCreate(t *testing.T, c *Containers, name string) *spec.Container {
	t.Helper()
	ctr, err := create(t, c, name)
	if err != nil {
		t.Fatal(err)
	}
	return ctr
}

// consistent fails the test unless every container has its name and every name
// one container.
func consistent(t *testing.T, c *Containers) {
	t.Helper()
	list, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]string{}
	for _, s := range list {
		if other := by[s.Name]; other != "" {
			t.Errorf("%s and %s are both called %s", other[:12], s.ID[:12], s.Name)
		}
		by[s.Name] = s.ID
		if got, err := c.Find(s.Name); err != nil || got.ID != s.ID {
			t.Errorf("%s does not lead to its container: %v", s.Name, err)
		}
	}
	faults, err := c.Check(false)
	if err != nil || len(faults) > 0 {
		t.Errorf("%v %+v", err, faults)
	}
}

func TestRename(t *testing.T) {
	c := newContainers(t)
	a, b := mustCreate(t, c, "a1"), mustCreate(t, c, "b1")
	for _, tt := range []struct {
		name, to string
		class    errs.Class
		want     string // of the error
	}{
		{"nobody", "c1", errs.NotFound, "No such container: nobody"},
		{"a1", "a1", errs.Invalid, "Renaming a container with the same name as its current name"},
		{"a1", "/a1", errs.Invalid, "Renaming a container with the same name"},
		{"a1", "b1", errs.Conflict, `Error when allocating new name: Conflict. The container name "/b1" is already in use by container "` + b.ID + `"`},
		{"a1", "-x", errs.Invalid, "Error when allocating new name: Invalid container name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"},
		{"a1", "../x", errs.Invalid, "Invalid container name"},
		{"a1", "x", errs.Invalid, "Invalid container name"},
		{"a1", "c\n1", errs.Invalid, "Invalid container name"},
		{"a1", "/", errs.Invalid, "Invalid container name"},
		{"a1", strings.Repeat("x", 201), errs.Invalid, "Invalid container name"},
	} {
		err := c.Rename(tt.name, tt.to)
		if !errs.Is(err, tt.class) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s to %q: %v, want %q", tt.name, tt.to, err, tt.want)
		}
	}
	consistent(t, c)
	for _, step := range [][2]string{{"a1", "/c1"}, {a.ID[:12], "d1"}, {"b1", "a1"}, {"d1", "b1"}} {
		if err := c.Rename(step[0], step[1]); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		consistent(t, c)
	}
	if s, err := c.Find("b1"); err != nil || s.ID != a.ID {
		t.Errorf("b1 is not the container that was a1: %v", err)
	}
	for _, gone := range []string{"c1", "d1"} {
		if _, err := os.Lstat(c.st.ContainerName(gone)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file of name %s is still there: %v", gone, err)
		}
	}
}

// A rename that was killed leaves the old name or the new one; what is left of
// the other is free to be taken.
func TestRenameKilled(t *testing.T) {
	c := newContainers(t)
	a := mustCreate(t, c, "old1")
	write := func(name string) {
		if err := os.WriteFile(c.st.ContainerName(name), []byte(a.ID+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("new1") // killed before the description was replaced
	if s, err := c.Find("old1"); err != nil || s.ID != a.ID {
		t.Errorf("before: %v", err)
	}
	if _, err := c.Find("new1"); !errs.Is(err, errs.NotFound) {
		t.Errorf("before: the new name leads somewhere: %v", err)
	}
	if faults, _ := c.Check(true); len(faults) != 1 || faults[0].Object != image.Leftover || faults[0].Mended == "" {
		t.Errorf("%+v", faults)
	}
	write("new1")
	if err := c.Rename("old1", "new1"); err != nil {
		t.Fatal(err)
	}
	write("old1") // killed after
	if _, err := c.Find("old1"); !errs.Is(err, errs.NotFound) {
		t.Errorf("after: the old name leads somewhere: %v", err)
	}
	b := mustCreate(t, c, "old1")
	if s, err := c.Find("old1"); err != nil || s.ID != b.ID {
		t.Errorf("the name was not taken over: %v", err)
	}
	consistent(t, c)
}

// Many rename, create and remove at the same time, over a few names: no name is
// lost and none is given twice.
func TestRenameCrowd(t *testing.T) {
	c := newContainers(t)
	names := strings.Fields("n0 n1 n2 n3 n4 n5")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 60 {
				from, to := names[rand.IntN(len(names))], names[rand.IntN(len(names))]
				var err error
				switch rand.IntN(5) {
				case 0:
					_, err = create(t, c, to)
				case 1:
					var s *Summary
					if s, err = c.Find(from); err == nil {
						_, _, err = c.unlink(s.ID, event.Cause{})
					}
				default:
					err = c.Rename(from, to)
				}
				switch {
				case err == nil, errors.Is(err, os.ErrNotExist),
					errs.Is(err, errs.NotFound), errs.Is(err, errs.Conflict), errs.Is(err, errs.Invalid):
				default:
					t.Error(fmt.Errorf("%s to %s: %w", from, to, err))
				}
			}
		})
	}
	wg.Wait()
	consistent(t, c)
}
