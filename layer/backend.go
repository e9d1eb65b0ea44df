package layer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tug/errs"
	"tug/sys"
)

// backend is a way to make the kernel show a layer. The conformance suite in
// backend_root_test.go holds for all of them.
type backend interface {
	name() string
	// prepare puts what mount needs into p.dir, from a tar that is verified
	// and the tree read from it. It need not make its files durable, except
	// that it may.
	prepare(ctx context.Context, p *prepared) error
	// file names what prepare makes, within a layer's directory. Its inode
	// stands for the identity of a mount.
	file() string
	// mount makes a detached read-only mount of a prepared layer's directory.
	mount(dir string, info Info) (*os.File, error)
}

// Backends names all storage backends, best first.
func Backends() []string {
	var names []string
	for _, be := range backends() {
		names = append(names, be.name())
	}
	return names
}

// prepared is the input of prepare. It may change info.IndexSize.
type prepared struct {
	dir  string
	tree *tree
	tar  *os.File
	info *Info
}

// The backends, best first.
func backends() []backend {
	return []backend{erofsBackend{}, erofsBackend{loop: true}, dirBackend{}}
}

// Storage says which backend is in use, and why better ones are not.
type Storage struct {
	Backend string
	Refused []string // one line for each backend that did not work
}

// Storage returns the backend in use, probing when nobody did yet.
func (l *Layers) Storage() (Storage, error) {
	if _, err := l.backend(); err != nil {
		return Storage{}, err
	}
	return l.storage, nil
}

// backend is the one that --storage names, else the first that works. What
// works was found out since the machine was started, or is tried now.
func (l *Layers) backend() (backend, error) {
	l.once.Do(func() { l.chosen, l.failed = l.choose() })
	return l.chosen, l.failed
}

// preparer is the backend for storing layers. Somebody who may not mount at
// all can still store them; what mounts them later prepares what it lacks.
func (l *Layers) preparer() (backend, error) {
	be, err := l.backend()
	if l.forced == "" && errs.Is(err, errs.Unsupported) {
		return erofsBackend{}, nil
	}
	return be, err
}

func (l *Layers) choose() (backend, error) {
	from, err := l.candidates()
	if err != nil {
		return nil, err
	}
	key, err := l.probeKey()
	if err != nil {
		return nil, err
	}
	path := l.st.RunPath("storage.json")
	known := probeResult{}
	if b, err := os.ReadFile(path); err != nil || json.Unmarshal(b, &known) != nil || known.Key != key {
		known = probeResult{Key: key}
	}
	if known.Refused == nil {
		known.Refused = make(map[string]string)
	}
	found := len(known.Works) + len(known.Refused)
	be, err := l.firstThatWorks(from, &known)
	if err != nil {
		return nil, err // not written: what stands in the way may go
	}
	if len(known.Works)+len(known.Refused) > found {
		// Without this file the next command probes again.
		if b, err := json.Marshal(known); err == nil {
			l.st.WriteFile(path, b, false)
		}
	}
	return be, nil
}

// candidates are all backends or the one that --storage names.
func (l *Layers) candidates() ([]backend, error) {
	all := backends()
	if l.forced == "" {
		return all, nil
	}
	var names []string
	for _, be := range all {
		if be.name() == l.forced {
			return []backend{be}, nil
		}
		names = append(names, be.name())
	}
	return nil, errs.New(errs.Invalid, "unknown storage %q", l.forced).WithHint("use one of %s", strings.Join(names, ", "))
}

// probeResult is kept below the run directory. Key makes it void after a
// restart of the machine, for another store and for another user.
type probeResult struct {
	Key     string
	Works   []string
	Refused map[string]string // why
}

func (l *Layers) probeKey() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %s", strings.TrimSpace(string(boot)), os.Geteuid(), l.st.Root), nil
}

func (l *Layers) firstThatWorks(from []backend, known *probeResult) (backend, error) {
	var refused []string
	for _, be := range from {
		name := be.name()
		why, bad := known.Refused[name]
		if !bad && !slices.Contains(known.Works, name) {
			err := l.probe(be)
			if sys.IsNoSpace(err) {
				return nil, noSpace(err, l.st.Root)
			}
			if bad = err != nil; bad {
				why = err.Error()
				known.Refused[name] = why
			} else {
				known.Works = append(known.Works, name)
			}
		}
		if !bad {
			l.storage = Storage{name, refused}
			return be, nil
		}
		refused = append(refused, name+": "+why)
	}
	if l.forced != "" {
		return nil, errs.New(errs.Unsupported, "storage %s", refused[0]).
			WithHint("leave --storage out to get the best that works here")
	}
	return nil, errs.New(errs.Unsupported, "no way to mount layers works here (%s)", strings.Join(refused, "; ")).
		WithHint("run as root; a kernel with EROFS and overlayfs is best")
}

// probe mounts a layer of one file, on the store's own disk, and reads it.
func (l *Layers) probe(be backend) error {
	l.probing.Lock()
	defer l.probing.Unlock()
	dir, lock, err := l.st.TempDir("probe-*")
	if err != nil {
		return err
	}
	defer lock.Close()
	defer os.RemoveAll(dir)
	want := bytes.Repeat([]byte("probe\n"), 100)
	block := make([]byte, 2*blockSize)
	copy(block, want)
	if err := os.WriteFile(filepath.Join(dir, fileTar), block, 0o600); err != nil {
		return err
	}
	tar, err := os.Open(filepath.Join(dir, fileTar))
	if err != nil {
		return err
	}
	defer tar.Close()
	limits := Limits{}.withDefaults()
	t := newTree(&limits)
	if err := t.add(&entry{name: "probe", typ: typeReg, mode: 0o600, size: int64(len(want)), stored: int64(len(want))}); err != nil {
		return err
	}
	t.finish()
	info := Info{Size: int64(len(block))}
	if err := be.prepare(context.Background(), &prepared{dir: dir, tree: t, tar: tar, info: &info}); err != nil {
		return err
	}
	m, err := be.mount(dir, info)
	if err != nil {
		return err
	}
	defer m.Close()
	f, err := sys.OpenIn(m, "probe", 0, true)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("a file read back differs")
	}
	return err
}

// Settle waits until no backend is being tried, and from then on none is, for
// ever: it is for a process about to end. What one that tries in the background
// has in tmp/ would stay there otherwise.
func (l *Layers) Settle() { l.probing.Lock() }

// prepareLate gives a layer that was stored under another backend what be
// needs. Several may do so at once; the first one's result stays. The layer's
// shared lock must be held.
func (l *Layers) prepareLate(be backend, info Info) error {
	dir, lock, err := l.st.TempDir("prepare-*")
	if err != nil {
		return err
	}
	defer lock.Close()
	defer os.RemoveAll(dir)
	tar, err := l.Tar(info.DiffID)
	if err != nil {
		return err
	}
	defer tar.Close()
	t, err := l.readAgain(info, tar, nil)
	if err != nil {
		return damaged(info.DiffID, fmt.Sprintf("its tar cannot be read: %v", err))
	}
	if err := be.prepare(context.Background(), &prepared{dir: dir, tree: t, tar: tar, info: &info}); err != nil {
		return noSpace(err, l.st.Root)
	}
	made := filepath.Join(dir, be.file())
	if err := syncFile(made); err != nil {
		return noSpace(err, l.st.Root)
	}
	if err := os.Rename(made, l.path(info.DiffID, be.file())); err != nil && !isThere(err) {
		return err
	}
	return l.st.WriteJSON(l.path(info.DiffID, fileMeta), info, true)
}
