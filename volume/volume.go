// Package volume is directories of data that outlive containers, by name.
//
// A volume is the directory volumes/<name>/:
//
//	volume.json  what it is (Volume, without the name)    Ensure; never changed
//	_data/       the data, Docker's Mountpoint            containers
//	snapshots/   earlier states of _data, by name         Snapshot
//
// It is made whole in tmp/ and renamed to its place, and renamed away before it
// is deleted, so it is there entirely or not at all. The name is the
// directory's, so a rename is one rename(2).
//
// The lock is flock(2) on the directory. Who makes or starts a container holds
// it shared (Hold) from before the volume is looked at until config.json names
// it; who removes, renames or restores it holds it exclusively and then asks
// which containers name it. So nothing takes a volume from a container that is
// being made. A volume is in use by each container whose config.json names it,
// running or not. In the order of locks (see package state) a volume comes
// after a container.
//
// Volumes with the options type, device and o (as mount(8) has them) are mounts
// that the supervisor makes for a container, see Source; their _data is empty
// and never mounted on.
package volume

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tug/errs"
	"tug/event"
	"tug/state"
	"tug/sys"
)

// Volumes is the volumes of a store.
type Volumes struct {
	Events *event.Log // may be nil

	// Uses tells who uses which volume. All that refuse to change one in use ask
	// it with the volume's lock held. Nil: nobody uses any.
	Uses func() (map[string][]Use, error)

	st *state.Store
}

// Use is a container that names a volume.
type Use struct {
	Container string // ID
	Running   bool
}

// Open returns the volumes of st. It does no I/O.
func Open(st *state.Store) *Volumes { return &Volumes{st: st} }

// Volume is what volume.json holds, and the name. It never changes.
type Volume struct {
	Name    string            `json:"-"`
	Driver  string            // Local
	Created time.Time         // UTC
	Labels  map[string]string `json:",omitempty"`
	Options map[string]string `json:",omitempty"` // type, device and o; see Source
}

// Local is the one driver there is.
const Local = "local"

// AnonymousLabel is on volumes that got no name from a user, as with Docker.
const AnonymousLabel = "com.docker.volume.anonymous"

// Anonymous reports whether the volume got no name from a user.
func (v *Volume) Anonymous() bool {
	_, ok := v.Labels[AnonymousLabel]
	return ok
}

// Options say what a new volume is to be.
type Options struct {
	Driver  string // "" is Local
	Labels  map[string]string
	Options map[string]string

	// Fleeting: it is for a container with --rm, and nothing is synced.
	Fleeting bool

	// Fill puts data into the volume before anybody sees it, and syncs them
	// unless it is fleeting; nil for none. It is not called for one that is there.
	Fill func(data string) error
}

const (
	fileVolume = "volume.json"
	dirData    = "_data"
	dirSnaps   = "snapshots"
)

// Data is where the data of a volume lies, Docker's Mountpoint. It says nothing
// of whether there is such a volume.
func (v *Volumes) Data(name string) string { return v.path(name, dirData) }

func (v *Volumes) path(name string, elem ...string) string {
	return filepath.Join(append([]string{v.st.Volume(name)}, elem...)...)
}

// CheckName returns Docker's words for a name that no volume can have.
func CheckName(name string) error {
	switch {
	case len(name) == 1:
		return errs.New(errs.Invalid, "create %s: volume name is too short, names should be at least two alphanumeric characters", name)
	case len(name) > maxName:
		return errs.New(errs.Invalid, "create %.40s...: volume name is too long, names have at most %d characters", name, maxName)
	case !nameFits(name):
		return errs.New(errs.Invalid, "create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed", name, name).
			WithHint("if you intended to pass a host directory, use absolute path")
	}
	return nil
}

// maxName leaves room for nothing else in a file name, which has 255 bytes.
const maxName = 255

func nameFits(name string) bool {
	for i, r := range []byte(name) {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("_.-", rune(r))) {
			return false
		}
	}
	return name != ""
}

// NewName makes a name for an anonymous volume.
func NewName() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Get returns a volume; NotFound when there is none.
func (v *Volumes) Get(name string) (*Volume, error) {
	vol := &Volume{Name: name}
	if !nameFits(name) || len(name) > maxName {
		return nil, noSuch(name)
	}
	err := state.ReadJSON(v.path(name, fileVolume), vol)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSuch(name)
	}
	if err != nil {
		return nil, err
	}
	return vol, nil
}

func noSuch(name string) error { return errs.New(errs.NotFound, "get %s: no such volume", name) }

// List returns all volumes by name. One that is removed meanwhile is left out,
// and so is one whose description cannot be read; the second value has those.
func (v *Volumes) List() (list []*Volume, broken []error, err error) {
	entries, err := os.ReadDir(v.st.Volumes())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		vol, err := v.Get(e.Name())
		switch {
		case err == nil:
			list = append(list, vol)
		case !errs.Is(err, errs.NotFound):
			broken = append(broken, err)
		}
	}
	return list, broken, nil
}

// Ensure returns the volume of that name, and makes it where there is none; ""
// makes an anonymous one. One that is there with other options than asked for
// is a Conflict; no options fit every volume. Between Ensure and Hold another
// command may remove it; EnsureHeld leaves no such gap.
func (v *Volumes) Ensure(name string, o Options) (vol *Volume, created bool, err error) {
	vol, created, release, err := v.EnsureHeld(name, o)
	if err == nil {
		release()
	}
	return vol, created, err
}

// EnsureHeld is Ensure and Hold in one.
func (v *Volumes) EnsureHeld(name string, o Options) (vol *Volume, created bool, release func(), err error) {
	labels := maps.Clone(o.Labels)
	if name == "" {
		name = NewName()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[AnonymousLabel] = ""
	}
	if err := CheckName(name); err != nil {
		return nil, false, nil, err
	}
	if err := checkOptions(name, &o); err != nil {
		return nil, false, nil, err
	}
	for {
		lock, err := v.lock(name, shared)
		if err == nil {
			vol, err := v.existing(name, o)
			if err != nil {
				lock.Close()
				return nil, false, nil, err
			}
			return vol, false, func() { lock.Close() }, nil
		}
		if !errs.Is(err, errs.NotFound) {
			return nil, false, nil, err
		}
		vol := &Volume{Name: name, Driver: Local, Created: time.Now().UTC(), Labels: labels, Options: o.Options}
		lock, err = v.place(vol, !o.Fleeting, o.Fill)
		if errors.Is(err, fs.ErrExist) || errors.Is(err, errLost) {
			continue
		}
		if err != nil {
			return nil, false, nil, err
		}
		v.tell("create", name, map[string]string{"driver": Local})
		return vol, true, func() { lock.Close() }, nil
	}
}

// existing returns the volume if it is what is asked for.
func (v *Volumes) existing(name string, o Options) (*Volume, error) {
	vol, err := v.Get(name)
	if err != nil {
		return nil, err
	}
	if len(o.Options) > 0 && !maps.Equal(o.Options, vol.Options) {
		return nil, errs.New(errs.Conflict, "create %s: a volume of this name exists with other options", name).
			WithHint("choose another name, or remove it first")
	}
	return vol, nil
}

// errLost is that of a volume that was made and taken away by somebody else
// before its maker had the lock.
var errLost = errors.New("it was removed at once")

// place makes a volume and returns its shared lock. fill, which may be nil,
// puts data into it before anybody sees it. The error is fs.ErrExist when there
// is one of that name.
func (v *Volumes) place(vol *Volume, durable bool, fill func(dir string) error) (*os.File, error) {
	dir, lock, err := v.st.TempDir("volume-*")
	if err != nil {
		return nil, err
	}
	err = v.furnish(vol, dir, durable, fill)
	if err == nil {
		err = v.moveIn(dir, vol.Name, durable)
	}
	if err != nil {
		state.RemoveAll(dir)
		lock.Close()
		return nil, err
	}
	// From exclusive to shared. In between another command may take it away.
	if err := sys.Lock(lock, false); err != nil {
		lock.Close()
		return nil, err
	}
	same, err := sys.SameFile(lock, v.path(vol.Name))
	if same {
		return lock, nil
	}
	lock.Close()
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = errLost
	}
	return nil, err
}

func (v *Volumes) furnish(vol *Volume, dir string, durable bool, fill func(dir string) error) error {
	data := filepath.Join(dir, dirData)
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(data, 0o755); err != nil { // whatever the umask
		return err
	}
	if fill != nil {
		if err := fill(data); err != nil {
			return err
		}
	}
	return v.st.WriteJSON(filepath.Join(dir, fileVolume), vol, durable)
}

// moveIn renames a finished directory to its place.
func (v *Volumes) moveIn(dir, name string, durable bool) error {
	if err := os.Mkdir(v.st.Volumes(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// It fails if there is one: no volume is an empty directory.
	if err := os.Rename(dir, v.path(name)); err != nil {
		return err
	}
	if durable {
		return state.SyncDir(v.st.Volumes())
	}
	return nil
}

// Hold takes the shared lock: until release nobody removes, renames or restores
// the volume. NotFound when there is none.
func (v *Volumes) Hold(name string) (release func(), err error) {
	lock, err := v.lock(name, shared)
	if err != nil {
		return nil, err
	}
	return func() { lock.Close() }, nil
}

// How a lock is taken.
var (
	shared    = func(f *os.File) (bool, error) { return true, sys.Lock(f, false) }
	exclusive = func(f *os.File) (bool, error) { return true, sys.Lock(f, true) }
	atOnce    = func(f *os.File) (bool, error) { return sys.TryLock(f, true) } // exclusive, or errBusy
)

// errBusy is that of a lock that cannot be had at once.
var errBusy = errors.New("somebody else has the volume's lock")

// lock takes a volume's lock.
func (v *Volumes) lock(name string, take func(*os.File) (bool, error)) (*os.File, error) {
	if !nameFits(name) || len(name) > maxName {
		return nil, noSuch(name)
	}
	for {
		d, err := os.Open(v.path(name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, noSuch(name)
		}
		if err != nil {
			return nil, err
		}
		had, err := take(d)
		if err == nil && !had {
			err = errBusy
		}
		if err != nil {
			d.Close()
			return nil, err
		}
		// It may have been removed or replaced while we waited.
		same, err := sys.SameFile(d, v.path(name))
		if same {
			return d, nil
		}
		d.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// tell records an event.
func (v *Volumes) tell(action, name string, attributes map[string]string) {
	v.Events.Add(event.Event{Type: event.Volume, Action: action, ID: name, Attributes: attributes})
}
