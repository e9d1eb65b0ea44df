package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"tug/errs"
	"tug/image"
	"tug/spec"
	"tug/state"
	"tug/sys"
)

// Check looks at every container's files and names, and at what they refer to.
// With repair it does what can be done without touching a container's data. It
// takes the exclusive reference lock for milliseconds: nobody creates one then.
func (c *Containers) Check(repair bool) ([]image.Fault, error) {
	refs, err := c.st.Refs(true)
	if err != nil {
		return nil, err
	}
	defer refs.Close()
	k := &checkRun{c: c, repair: repair, within: c.st.Root}
	entries, err := os.ReadDir(c.st.Containers())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if !spec.IsHex64(e.Name()) {
			k.add(image.Fault{Object: "store", Path: c.path(e.Name()), What: "does not belong there", Effect: "tug does not look at it"},
				"it is nothing that tug made; remove it yourself", nil)
			continue
		}
		k.within = c.path(e.Name())
		k.container(e.Name())
		k.within = c.st.Root
	}
	k.marks()
	if root, err := os.Open(c.st.Root); err == nil {
		defer root.Close()
		k.projects(root)
	}
	return k.faults, k.names()
}

// marks finds the files in restarts/ of containers that are not there, of a
// create or a removal that was killed.
func (k *checkRun) marks() {
	for _, id := range k.c.Restarting() {
		if _, err := os.Lstat(k.c.path(id)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		path := k.c.st.Restart(id)
		k.add(image.Fault{Object: image.Leftover, Path: path, What: "belongs to no container", Effect: "none"}, "",
			func() (string, error) { return "removed it", os.Remove(path) })
	}
}

// projects finds quota projects without a container, of a create or a removal
// that was killed.
func (k *checkRun) projects(root *os.File) {
	for _, id := range k.c.lostProjects(root) {
		f := image.Fault{Object: image.Leftover, Path: k.c.st.Project(id), What: "belongs to no container", Effect: "none"}
		k.add(f, "", func() (string, error) { return "removed it", k.c.dropLost(root, id) })
	}
}

// checkRun is one run of Check.
type checkRun struct {
	c      *Containers
	repair bool
	within string // a directory; when it is gone, what was found of it is not so
	faults []image.Fault
}

// add notes a fault and, when repairing, mends it.
func (k *checkRun) add(f image.Fault, left string, mend func() (string, error)) {
	if _, err := os.Lstat(k.within); errors.Is(err, fs.ErrNotExist) {
		return // the container was removed just now
	}
	if k.repair {
		f.Left = left
		if mend != nil {
			done, err := mend()
			if f.Mended = done; err != nil {
				f.Mended, f.Left = "", err.Error()
			}
		}
	}
	k.faults = append(k.faults, f)
}

func (k *checkRun) container(id string) {
	c := k.c
	fault := func(file, what, effect string) image.Fault {
		return image.Fault{Object: "container", ID: short(id), Path: c.path(id, file), What: what, Effect: effect}
	}
	var ctr spec.Container
	err := state.ReadJSON(c.path(id, fileConfig), &ctr)
	const dataLeft = "its files may be worth keeping; move the directory away, or remove it"
	if err != nil || ctr.ID != id {
		k.add(fault(fileConfig, "is not the description of this container", "the container cannot be used, and no image or layer is removed"), dataLeft, nil)
		return
	}
	for _, dir := range []string{dirUpper, dirWork, dirLog} {
		if fi, err := os.Lstat(c.path(id, dir)); err == nil && fi.IsDir() {
			continue
		}
		f := fault(dir, "is missing", "the container cannot be started")
		if dir == dirUpper {
			k.add(f, "what the container had written is lost; remove the container", nil)
			continue
		}
		k.add(f, "", func() (string, error) { return "made it", os.Mkdir(c.path(id, dir), 0o700) })
	}
	if fi, err := os.Lstat(c.path(id, fileConfig)); err == nil && fi.Mode().Perm() != 0o600 {
		k.add(fault(fileConfig, fmt.Sprintf("has mode %04o instead of 0600", fi.Mode().Perm()), "others on this machine may read it"), "",
			func() (string, error) { return "set its mode", os.Chmod(c.path(id, fileConfig), 0o600) })
	}
	k.records(id, fault)
	for _, d := range ctr.Layers {
		// A layer that is there is looked at with the images.
		if _, err := c.layers.Info(d); errs.Is(err, errs.NotFound) {
			k.add(fault(fileConfig, "needs layer "+d.Short()+", which is not there", "the container cannot be started"),
				"pull or load image "+ctr.ImageID.Short()+" again, or remove the container", nil)
		}
	}
	k.ownName(&ctr)
	if _, err := os.Lstat(c.st.Restart(id)); ctr.Host.MayRestart() && errors.Is(err, fs.ErrNotExist) {
		k.add(image.Fault{Object: "container", ID: short(id), Path: c.st.Restart(id), What: "is missing", Effect: "its restarts are lost with a killed supervisor"}, "",
			func() (string, error) { return "made it", c.mark(id) })
	}
}

// records checks start.json and exit.json. Unreadable ones say nothing, and a
// container without them has never run.
func (k *checkRun) records(id string, fault func(file, what, effect string) image.Fault) {
	for name, v := range map[string]any{fileStart: &startRecord{}, fileExit: &struct{ Pid, Code int }{}} {
		err := state.ReadJSON(k.c.path(id, name), v)
		if !errs.Is(err, errs.Corrupt) {
			continue
		}
		k.add(fault(name, "is not the record it should be", "how the container's last run ended is not known"), "", func() (string, error) {
			if k.c.runs(id) {
				return "", errors.New("the container runs; stop it first")
			}
			return "removed it", os.Remove(k.c.path(id, name))
		})
	}
}

// ownName checks that the container's name leads to it.
func (k *checkRun) ownName(ctr *spec.Container) {
	c := k.c
	if c.idByName(ctr.Name) == ctr.ID {
		return
	}
	f := image.Fault{Object: "container", ID: short(ctr.ID), Path: c.st.ContainerName(ctr.Name), What: "does not lead to the container of that name", Effect: "it can be used by its id only"}
	if !validName(ctr.Name) {
		f.Path, f.What = c.path(ctr.ID, fileConfig), "holds a name that none can have"
		k.add(f, "use its id", nil)
		return
	}
	k.add(f, "", func() (string, error) {
		if other := c.idByName(ctr.Name); other != "" {
			return "", errors.New("container " + short(other) + " has that name; use the id")
		}
		return "gave it its name again", c.st.WriteFile(c.st.ContainerName(ctr.Name), []byte(ctr.ID+"\n"), true)
	})
}

// names finds names whose container is not there: of a create that was killed.
func (k *checkRun) names() error {
	entries, err := os.ReadDir(k.c.st.ContainerNames())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		path := k.c.st.ContainerName(e.Name())
		if !e.Type().IsRegular() {
			k.add(image.Fault{Object: "store", Path: path, What: "is not a file", Effect: "no container can have that name"}, "it is nothing that tug made; move it away", nil)
			continue
		}
		if k.c.idByName(e.Name()) != "" {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if had, err := sys.TryLock(f, true); err == nil && had && k.c.idByName(e.Name()) == "" {
			k.add(image.Fault{Object: image.Leftover, Path: path, What: "is the name of no container", Effect: "the next use of the name takes it over"}, "",
				func() (string, error) { return "removed it", os.Remove(path) })
		}
		f.Close()
	}
	return nil
}

// Running returns the layers that running containers use.
func (c *Containers) Running() map[spec.Digest]bool {
	used := map[spec.Digest]bool{}
	ids, _ := c.ids()
	for _, id := range ids {
		if s, err := c.load(id); err == nil && s.State.Status == spec.StatusRunning {
			for _, d := range s.Layers {
				used[d] = true
			}
		}
	}
	return used
}

func short(id string) string { return strings.TrimSpace(id[:min(12, len(id))]) }
