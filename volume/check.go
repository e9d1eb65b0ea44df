package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"tug/errs"
	"tug/state"
)

// Fault is something in volumes/ that is not as it should be.
type Fault struct {
	Volume string // "" when it is none
	Path   string // of what it is about
	What   string // what is wrong with it
	Effect string
	Left   string                 // why it cannot be mended, or
	Mend   func() (string, error) // what mends it, and returns what it has done
}

// Check looks at all volumes and what containers refer to. Volumes that are
// made or removed meanwhile are as they should be.
func (v *Volumes) Check() ([]Fault, error) {
	k := &check{v: v}
	entries, err := os.ReadDir(v.st.Volumes())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() || !nameFits(e.Name()) {
			k.add("", v.path(e.Name()), "does not belong there", "tug does not look at it", "it is nothing that tug made; move it away", nil)
			continue
		}
		k.volume(e.Name())
	}
	return k.faults, k.missing()
}

type check struct {
	v      *Volumes
	faults []Fault
}

// add notes a fault, unless its volume is gone by now.
func (k *check) add(volume, path, what, effect, left string, mend func() (string, error)) {
	if volume != "" {
		if _, err := os.Lstat(k.v.path(volume)); errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	k.faults = append(k.faults, Fault{volume, path, what, effect, left, mend})
}

func (k *check) volume(name string) {
	v := k.v
	data, err := os.ReadDir(v.Data(name))
	if err != nil {
		k.add(name, v.Data(name), "is missing", "containers that have the volume do not start", "bring its data back, or remove the volume", nil)
	}
	var vol Volume
	if state.ReadJSON(v.path(name, fileVolume), &vol) != nil || vol.Driver != Local {
		left, mend := "", func() (string, error) {
			return "made it again, without labels", v.st.WriteJSON(v.path(name, fileVolume), &Volume{Driver: Local, Created: madeAt(v.path(name))}, true)
		}
		if len(data) == 0 {
			// It may have been a mount.
			left, mend = "what it was a mount of is not known; remove the volume with: tug volume rm "+name, nil
		}
		k.add(name, v.path(name, fileVolume), "is not the description of this volume", "the volume cannot be used; its data are there", left, mend)
	}
	snapshots, _ := os.ReadDir(v.path(name, dirSnaps))
	for _, e := range snapshots {
		k.snapshot(name, e)
	}
}

func (k *check) snapshot(name string, e fs.DirEntry) {
	dir := k.v.snapshot(name, e.Name())
	if !e.IsDir() || !nameFits(e.Name()) {
		k.add(name, dir, "does not belong there", "tug does not look at it", "it is nothing that tug made; move it away", nil)
		return
	}
	if fi, err := os.Lstat(filepath.Join(dir, dirData)); err != nil || !fi.IsDir() {
		k.add(name, filepath.Join(dir, dirData), "is missing", "the snapshot cannot be restored", "remove it with: tug volume snapshot rm "+name+" "+e.Name(), nil)
		return
	}
	var s Snapshot
	file := filepath.Join(dir, fileSnapshot)
	if state.ReadJSON(file, &s) != nil {
		k.add(name, file, "is not the description of this snapshot", "the snapshot cannot be used; its data are there", "", func() (string, error) {
			return "made it again", k.v.st.WriteJSON(file, &Snapshot{Created: madeAt(dir)}, true)
		})
	}
}

// madeAt is when something was made, or changed last.
func madeAt(path string) time.Time {
	fi, err := os.Lstat(path)
	if err != nil {
		return time.Now().UTC()
	}
	return fi.ModTime().UTC()
}

// missing finds volumes that containers name and that are not there.
func (k *check) missing() error {
	uses, err := k.v.uses()
	if errs.Is(err, errs.Corrupt) {
		return nil // the check of containers says so
	}
	if err != nil {
		return err
	}
	for name, users := range uses {
		_, err := k.v.Get(name)
		if !errs.Is(err, errs.NotFound) {
			continue
		}
		now, err := k.v.uses() // the container may be gone with it
		if err != nil || len(now[name]) == 0 {
			continue
		}
		k.faults = append(k.faults, Fault{
			Volume: name, Path: k.v.path(name), What: "is missing", Effect: "container " + users[0].Container[:min(12, len(users[0].Container))] + " does not start",
			Left: "make it again, empty, with: tug volume create " + name,
		})
	}
	return nil
}
