package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tug/errs"
	"tug/event"
	"tug/state"
	"tug/sys"
)

// Remove removes a volume with its data. One that is in use is Conflict, and so
// is one with snapshots, unless they are to go, too.
func (v *Volumes) Remove(name string, snapshots bool) error {
	lock, err := v.lock(name, exclusive)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := v.unused("remove", name, false); err != nil {
		return err
	}
	if n := v.snapshotCount(name); n > 0 && !snapshots {
		return errs.New(errs.Conflict, "remove %s: volume has %d snapshots", name, n).
			WithHint("remove them with tug volume snapshot rm, or all together with -f")
	}
	return v.remove(name)
}

// RemoveAnonymous removes volumes that got their names from nobody, as far as
// no container uses them. It is for those that a removed container leaves.
func (v *Volumes) RemoveAnonymous(names []string) error {
	var all error
	for _, name := range names {
		vol, err := v.Get(name)
		if err != nil || !vol.Anonymous() {
			continue
		}
		if err := v.Remove(name, false); err != nil && !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// snapshotCount counts the snapshots of a volume.
func (v *Volumes) snapshotCount(name string) int {
	entries, _ := os.ReadDir(v.path(name, dirSnaps))
	return len(entries)
}

// remove takes a volume away. Call it with the exclusive lock, which also keeps
// others from what is being deleted.
func (v *Volumes) remove(name string) error {
	if there, err := sys.IsMountPoint(v.Data(name)); err == nil && there {
		return errs.New(errs.Conflict, "remove %s: something is mounted on %s", name, v.Data(name)).WithHint("unmount it first")
	}
	trash := filepath.Join(v.st.Tmp(), "gone-"+NewName())
	if err := os.Rename(v.path(name), trash); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	// Half of its data must not come back at a power failure.
	if err := state.SyncDir(v.st.Volumes()); err != nil {
		return err
	}
	v.tell("destroy", name, map[string]string{"driver": Local})
	return state.RemoveAll(trash)
}

// unused returns Conflict when containers use the volume; of those that do not
// run, only running ones are asked for. Call it with the exclusive lock.
func (v *Volumes) unused(verb, name string, running bool) error {
	uses, err := v.uses()
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, name, err)
	}
	var ids []string
	for _, u := range uses[name] {
		if u.Running || !running {
			ids = append(ids, u.Container)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	return errs.New(errs.Conflict, "%s %s: volume is in use - [%s]", verb, name, strings.Join(ids, ", "))
}

func (v *Volumes) uses() (map[string][]Use, error) {
	if v.Uses == nil {
		return nil, nil
	}
	return v.Uses()
}

// PruneOptions say which volumes that nobody uses are removed: those without a
// name of a user's, without snapshots.
type PruneOptions struct {
	All    bool               // those with a name, too
	Match  func(*Volume) bool // nil: any
	DryRun bool               // only tell which
	Gone   []string           // containers that count as removed, with DryRun
}

// pruneBatch is how many locks Prune has at a time.
const pruneBatch = 256

// Prune removes volumes that nobody uses and returns their names and how much
// data was in them. On error what was removed so far is returned, too.
func (v *Volumes) Prune(o PruneOptions) (names []string, space int64, err error) {
	list, _, err := v.List()
	if err != nil {
		return nil, 0, err
	}
	list = slices.DeleteFunc(list, func(vol *Volume) bool {
		return !o.All && !vol.Anonymous() || o.Match != nil && !o.Match(vol) || v.snapshotCount(vol.Name) > 0
	})
	for batch := range slices.Chunk(list, pruneBatch) {
		some, size, err := v.pruneSome(batch, o)
		names, space = append(names, some...), space+size
		if err != nil {
			return names, space, err
		}
	}
	if !o.DryRun {
		v.Events.Add(event.Event{Type: event.Volume, Action: "prune", Attributes: map[string]string{"reclaimed": strconv.FormatInt(space, 10)}})
	}
	return names, space, nil
}

// pruneSome takes the locks of all that it may remove before it asks who uses
// them, which costs a look at every container. Volumes that somebody else has
// locked are in use.
func (v *Volumes) pruneSome(batch []*Volume, o PruneOptions) (names []string, space int64, err error) {
	var locked []string
	for _, vol := range batch {
		lock, err := v.lock(vol.Name, atOnce)
		if errors.Is(err, errBusy) || errs.Is(err, errs.NotFound) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		defer lock.Close()
		locked = append(locked, vol.Name)
	}
	uses, err := v.uses()
	if err != nil {
		return nil, 0, err
	}
	for _, name := range locked {
		stays := func(u Use) bool { return !o.DryRun || !slices.Contains(o.Gone, u.Container) }
		if slices.ContainsFunc(uses[name], stays) {
			continue
		}
		size, _, _, err := v.Size(name)
		if err == nil && !o.DryRun {
			err = v.remove(name)
		}
		if err != nil {
			return names, space, err
		}
		names, space = append(names, name), space+size
	}
	return names, space, nil
}

// Size is how much data is in a volume, of a mount none, and in its snapshots,
// and how many of those there are. It walks them all.
func (v *Volumes) Size(name string) (data, inSnapshots int64, snapshots int, err error) {
	data, err = state.TreeSize(v.Data(name))
	entries, _ := os.ReadDir(v.path(name, dirSnaps))
	for _, e := range entries {
		var size int64
		if err == nil {
			size, err = v.SnapshotSize(name, e.Name())
		}
		inSnapshots += size
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // removed just now
	}
	return data, inSnapshots, len(entries), err
}
