package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tug/errs"
	"tug/state"
	"tug/sys"
)

// Snapshot is an earlier state of a volume's data:
// volumes/<name>/snapshots/<snapshot>/ with snapshot.json and _data. It is made
// in tmp/ and renamed to its place, and goes with its volume.
type Snapshot struct {
	Name    string    `json:"-"`
	Created time.Time // UTC
}

const fileSnapshot = "snapshot.json"

func (v *Volumes) snapshot(name, snapshot string) string {
	return v.path(name, dirSnaps, snapshot)
}

func noSnapshot(name, snapshot string) error {
	return errs.New(errs.NotFound, "no such snapshot: %s of volume %s", snapshot, name)
}

// plain returns a volume whose data lie in its directory. Call it with a lock.
func (v *Volumes) plain(name string) (*Volume, error) {
	vol, err := v.Get(name)
	if err == nil && len(vol.Options) > 0 {
		return nil, errs.New(errs.Unsupported, "volume %s is a mount (type %s), whose data tug does not hold", name, cmp.Or(vol.Options["type"], "none"))
	}
	return vol, err
}

// Data of a volume or, for NAME@SNAPSHOT, of its snapshot; with the volume's
// shared lock.
func (v *Volumes) source(name string) (vol *Volume, data string, release func(), err error) {
	name, snapshot, isSnapshot := strings.Cut(name, "@")
	lock, err := v.lock(name, shared)
	if err != nil {
		return nil, "", nil, err
	}
	vol, err = v.plain(name)
	data = v.Data(name)
	if err == nil && isSnapshot {
		data = filepath.Join(v.snapshot(name, snapshot), dirData)
		_, err = v.Snapshot(name, snapshot)
	}
	if err != nil {
		lock.Close()
		return nil, "", nil, err
	}
	return vol, data, func() { lock.Close() }, nil
}

// Read calls f with the directory that the data of a volume or, for
// NAME@SNAPSHOT, of its snapshot is in. Meanwhile the volume stays; containers
// may write into it.
func (v *Volumes) Read(name string, f func(dir string) error) error {
	_, data, release, err := v.source(name)
	if err != nil {
		return err
	}
	defer release()
	return f(data)
}

// Clone makes a new volume with a copy of the data of another or, for
// NAME@SNAPSHOT, of its snapshot, and with its labels. Of a volume that a
// container writes to meanwhile, each file is as it was at some moment.
func (v *Volumes) Clone(ctx context.Context, from, to string) (*Volume, error) {
	src, data, release, err := v.source(from)
	if err != nil {
		return nil, err
	}
	defer release()
	labels := maps.Clone(src.Labels)
	delete(labels, AnonymousLabel)
	return v.create(&Volume{Name: to, Driver: Local, Labels: labels}, func(dir string) error { return copyTree(ctx, data, dir) })
}

// create makes a volume that fill fills; nothing of it shows before it is whole
// and on disk. That there is one of that name is Conflict.
func (v *Volumes) create(vol *Volume, fill func(dir string) error) (*Volume, error) {
	if err := CheckName(vol.Name); err != nil {
		return nil, err
	}
	taken := errs.New(errs.Conflict, "create %s: a volume of this name exists", vol.Name)
	if _, err := os.Lstat(v.path(vol.Name)); err == nil {
		return nil, taken // before all that work
	}
	vol.Created = time.Now().UTC()
	lock, err := v.place(vol, true, func(dir string) error { return v.synced(dir, fill) })
	if errors.Is(err, fs.ErrExist) {
		return nil, taken
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", vol.Name, err)
	}
	v.tell("create", vol.Name, map[string]string{"driver": Local})
	lock.Close()
	return vol, nil
}

// synced fills a directory and writes it back to the disk.
func (v *Volumes) synced(dir string, fill func(dir string) error) error {
	err := fill(dir)
	if sys.IsNoSpace(err) {
		return errs.New(errs.NoSpace, "%w", err).WithHint("free some space; nothing was changed")
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return sys.SyncFS(d)
}

// Import makes a new volume from what fill puts into a directory, or gives an
// existing one that data instead of its own: if that has none, or replace is
// set, and no running container uses it. The old data or all of the new are
// there at any time.
func (v *Volumes) Import(name string, replace bool, fill func(dir string) error) (*Volume, error) {
	if _, err := v.Get(name); errs.Is(err, errs.NotFound) {
		return v.create(&Volume{Name: name, Driver: Local}, fill)
	}
	err := v.exchange("import", name, func() error {
		if _, err := v.plain(name); err != nil {
			return err
		}
		old, err := os.ReadDir(v.Data(name))
		if err == nil && len(old) > 0 && !replace {
			return errs.New(errs.Conflict, "import %s: the volume has data", name).WithHint("replace them with --replace")
		}
		return err
	}, fill)
	if err != nil {
		return nil, err
	}
	v.tell("import", name, map[string]string{"driver": Local})
	return v.Get(name)
}

// exchange replaces the data of a volume, if check has nothing against it and no
// running container uses it: asked before all the work, and after it once more,
// since containers may be started meanwhile.
func (v *Volumes) exchange(verb, name string, check func() error, fill func(dir string) error) error {
	may := func() error {
		if err := check(); err != nil {
			return err
		}
		return v.unused(verb, name, true)
	}
	dir, temp, err := v.st.TempDir("data-*")
	if err != nil {
		return err
	}
	defer temp.Close()
	defer state.RemoveAll(dir) // then with the old data
	lock, err := v.lock(name, shared)
	if err != nil {
		return err
	}
	defer lock.Close() // before they go, which takes time
	if err := may(); err != nil {
		return err
	}
	data := filepath.Join(dir, dirData)
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if err := v.synced(data, fill); err != nil {
		return fmt.Errorf("%s %s: %w", verb, name, err)
	}
	if err := v.upgrade(lock, name); err != nil {
		return err
	}
	if err := may(); err != nil {
		return err
	}
	fi, err := os.Stat(data)
	if err == nil {
		err = sys.Exchange(data, v.Data(name))
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, name, err)
	}
	// XFS takes a move for a change of the directory.
	if err := os.Chtimes(v.Data(name), time.Time{}, fi.ModTime()); err != nil {
		return err
	}
	return state.SyncDir(v.path(name))
}

// upgrade makes a shared lock exclusive. In between others may have it, and
// take the volume away.
func (v *Volumes) upgrade(lock *os.File, name string) error {
	if err := sys.Lock(lock, true); err != nil {
		return err
	}
	if same, err := sys.SameFile(lock, v.path(name)); err != nil || !same {
		return noSuch(name)
	}
	return nil
}

// TakeSnapshot makes a snapshot; "" names it by the time. Of a volume that a
// container writes to meanwhile, each file is as it was at some moment.
func (v *Volumes) TakeSnapshot(ctx context.Context, name, snapshot string) (*Snapshot, error) {
	if !nameFits(name) {
		return nil, noSuch(name) // NAME@SNAPSHOT is no volume
	}
	_, data, release, err := v.source(name)
	if err != nil {
		return nil, err
	}
	defer release()
	s := &Snapshot{Name: snapshot, Created: time.Now().UTC()}
	if s.Name == "" {
		s.Name = s.Created.Format("20060102-150405.000")
	}
	if len(s.Name) > maxName || !nameFits(s.Name) {
		return nil, errs.New(errs.Invalid, "%q cannot be the name of a snapshot: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", s.Name)
	}
	taken := errs.New(errs.Conflict, "volume %s has a snapshot %s already", name, s.Name)
	if _, err := os.Lstat(v.snapshot(name, s.Name)); err == nil {
		return nil, taken
	}
	dir, lock, err := v.st.TempDir("snapshot-*")
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := v.settle(ctx, s, name, data, dir); err != nil {
		state.RemoveAll(dir)
		if errors.Is(err, fs.ErrExist) {
			return nil, taken
		}
		return nil, fmt.Errorf("snapshot of %s: %w", name, err)
	}
	v.tell("snapshot", name, map[string]string{"driver": Local, "snapshot": s.Name})
	return s, nil
}

// settle fills dir with a snapshot and moves it to its place.
func (v *Volumes) settle(ctx context.Context, s *Snapshot, name, data, dir string) error {
	to := filepath.Join(dir, dirData)
	err := os.Mkdir(to, 0o700)
	if err == nil {
		err = v.st.WriteJSON(filepath.Join(dir, fileSnapshot), s, true)
	}
	if err == nil {
		err = v.synced(to, func(to string) error { return copyTree(ctx, data, to) })
	}
	if err != nil {
		return err
	}
	if err := os.Mkdir(v.path(name, dirSnaps), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Rename(dir, v.snapshot(name, s.Name)); err != nil {
		return err
	}
	return state.SyncDir(v.path(name, dirSnaps))
}

// Snapshot returns one snapshot; NotFound when there is none.
func (v *Volumes) Snapshot(name, snapshot string) (*Snapshot, error) {
	if !nameFits(snapshot) || len(snapshot) > maxName {
		return nil, noSnapshot(name, snapshot)
	}
	s := &Snapshot{Name: snapshot}
	err := state.ReadJSON(filepath.Join(v.snapshot(name, snapshot), fileSnapshot), s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSnapshot(name, snapshot)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Snapshots returns the snapshots of a volume, oldest first.
func (v *Volumes) Snapshots(name string) ([]*Snapshot, error) {
	if _, err := v.Get(name); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(v.path(name, dirSnaps))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []*Snapshot
	for _, e := range entries {
		s, err := v.Snapshot(name, e.Name())
		if err == nil {
			list = append(list, s)
		} else if !errs.Is(err, errs.NotFound) {
			return nil, err
		}
	}
	slices.SortStableFunc(list, func(a, b *Snapshot) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// SnapshotSize is how much data is in a snapshot, shared with others or not.
func (v *Volumes) SnapshotSize(name, snapshot string) (int64, error) {
	return state.TreeSize(filepath.Join(v.snapshot(name, snapshot), dirData))
}

// Restore gives a volume the data of a snapshot again; the snapshot stays. That
// a running container uses the volume is Conflict.
func (v *Volumes) Restore(ctx context.Context, name, snapshot string) error {
	data := filepath.Join(v.snapshot(name, snapshot), dirData)
	err := v.exchange("restore", name, func() error {
		_, err := v.plain(name)
		if err == nil {
			_, err = v.Snapshot(name, snapshot)
		}
		return err
	}, func(dir string) error { return copyTree(ctx, data, dir) })
	if err == nil {
		v.tell("restore", name, map[string]string{"driver": Local, "snapshot": snapshot})
	}
	return err
}

// RemoveSnapshot removes a snapshot.
func (v *Volumes) RemoveSnapshot(name, snapshot string) error {
	lock, err := v.lock(name, exclusive)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := v.Snapshot(name, snapshot); errs.Is(err, errs.NotFound) {
		return err // a broken one can be removed
	}
	trash := filepath.Join(v.st.Tmp(), "gone-"+NewName())
	if err := os.Rename(v.snapshot(name, snapshot), trash); err != nil {
		return err
	}
	os.Remove(v.path(name, dirSnaps)) // if it was the last
	if err := state.SyncDir(v.path(name)); err != nil {
		return err
	}
	v.tell("snapshot-rm", name, map[string]string{"driver": Local, "snapshot": snapshot})
	lock.Close() // what comes may take time, and is nobody's any more
	return state.RemoveAll(trash)
}

// Rename gives a volume another name, under which it has its data and
// snapshots. One that is in use, if only by a container that does not run, is
// Conflict: it is found by its name.
func (v *Volumes) Rename(name, to string) error {
	if err := CheckName(to); err != nil {
		return err
	}
	lock, err := v.lock(name, exclusive)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := v.unused("rename", name, false); err != nil {
		return err
	}
	vol, err := v.Get(name)
	if err != nil {
		return err
	}
	if vol.Anonymous() {
		// It has a name from a user now.
		delete(vol.Labels, AnonymousLabel)
		if err := v.st.WriteJSON(v.path(name, fileVolume), vol, true); err != nil {
			return err
		}
	}
	err = os.Rename(v.path(name), v.path(to))
	if errors.Is(err, fs.ErrExist) || name == to {
		return errs.New(errs.Conflict, "rename %s: a volume %s exists", name, to)
	}
	if err != nil {
		return fmt.Errorf("rename %s: %w", name, err)
	}
	v.tell("rename", to, map[string]string{"driver": Local, "oldName": name})
	return state.SyncDir(v.st.Volumes())
}
