package container

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
	"tug/state"
	"tug/volume"
)

// A container uses the volumes that its config.json names, each once; one that
// cannot be read may use all.
func TestVolumeUses(t *testing.T) {
	c := newContainers(t)
	one, two := mustCreate(t, c, "one"), mustCreate(t, c, "two")
	mustCreate(t, c, "three")
	name := func(ctr *spec.Container, volumes ...string) {
		t.Helper()
		ctr.Mounts = []spec.Mount{{Type: spec.MountBind, Source: "/srv", Target: "/srv"}}
		for _, v := range volumes {
			ctr.Mounts = append(ctr.Mounts, spec.Mount{Type: spec.MountVolume, Volume: v, Target: "/" + v})
		}
		if err := c.st.WriteJSON(c.path(ctr.ID, fileConfig), ctr, false); err != nil {
			t.Fatal(err)
		}
	}
	name(one, "data", "other", "data")
	name(two, "other")
	uses, err := c.VolumeUses()
	if err != nil {
		t.Fatal(err)
	}
	if len(uses["other"]) != 2 || len(uses) != 2 {
		t.Errorf("%v", uses)
	}
	if d := cmp.Diff([]volume.Use{{Container: one.ID}}, uses["data"]); d != "" {
		t.Error(d)
	}
	v := volume.Open(c.st)
	v.Uses = c.VolumeUses
	if _, _, err := v.Ensure("data", volume.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := v.Remove("data", true); !errs.Is(err, errs.Conflict) || err.Error() != "remove data: volume is in use - ["+one.ID+"]" {
		t.Error(err)
	}
	if err := os.WriteFile(c.path(two.ID, fileConfig), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.VolumeUses(); !errs.Is(err, errs.Corrupt) {
		t.Error(err)
	}
	name(one)
	if err := v.Remove("data", true); !errs.Is(err, errs.Corrupt) {
		t.Error(err)
	}
	if err := state.ReadJSON(c.st.Volume("data")+"/volume.json", &volume.Volume{}); err != nil {
		t.Error(err)
	}
}
