// Package oci is tug's runtime behind the command line of the OCI runtime
// specification: it runs bundles (a config.json and a root file system) for
// others, as podman, containerd or CRI-O. It turns the configuration into the
// same plan that tug's own containers are made by, and has the same tug-init
// carry it out; what differs is that nobody stays: no supervisor, no keeper.
// Images, layers, logs and networks are the caller's.
//
// On disk there is one directory per container below Options.Root; see
// docs/formats.md. Each operation takes that directory's lock and asks the
// kernel what is still true, so that kill -9 at any point leaves something that
// Delete removes.
//
// The configuration is its caller's, who is root, and is believed. What is not:
// the root file system and everything in it.
package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/runtime"
	"tug/runtime/plan"
	"tug/state"
	"tug/sys"
)

// Version is that of the specification.
const Version = "1.2.1"

// DefaultRoot is where containers are recorded.
const DefaultRoot = "/run/tug/oci"

// Options say how to run.
type Options struct {
	Root     string
	InitPath string       // the tug-init binary
	Warn     func(string) // told what went wrong and did not matter
}

// Runtime does the operations of the specification. Nothing lives in it.
type Runtime struct{ Options }

// New returns a runtime. It touches nothing yet.
func New(o Options) *Runtime {
	if o.Root == "" {
		o.Root = DefaultRoot
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	return &Runtime{o}
}

// Files of a container's directory.
const (
	fileRecord = "state.json"
	fileConfig = "config.json"
	fileSocket = "start.sock"
)

// record is what is kept of a container. What can be asked of the kernel is not
// in it.
type record struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Bundle      string            `json:"bundle"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Rootfs      string            `json:"rootfs"`
	Cgroup      string            `json:"cgroup"`
	Grouped     bool              `json:"grouped"` // the cgroup is this container's: it was there empty, or not
	Created     time.Time         `json:"created"`
	Ready       bool              `json:"ready"`           // create is done
	Pid         int               `json:"pid,omitempty"`   // of the first process
	StartTicks  uint64            `json:"ticks,omitempty"` // with Pid it names one process for ever
}

// container is one that is on disk. The zero record is one whose create ended
// before it was whole.
type container struct {
	r    *Runtime
	dir  string
	rec  record
	lock *os.File
}

// ValidID reports whether id may name a container.
func ValidID(id string) bool {
	if id == "" || id == "." || id == ".." || len(id) > 1024 {
		return false
	}
	return strings.IndexFunc(id, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_+-.", c))
	}) < 0
}

func (r *Runtime) dir(id string) (string, error) {
	if !ValidID(id) {
		return "", errs.New(errs.Invalid, "invalid container ID %q", id).WithHint("letters, digits and _ + - . make one")
	}
	return filepath.Join(r.Root, id), nil
}

// load reads a container without its lock. There being none is errs.NotFound.
func (r *Runtime) load(id string) (*container, error) {
	dir, err := r.dir(id)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errs.New(errs.NotFound, "container %q does not exist", id)
		}
		return nil, err
	}
	c := &container{r: r, dir: dir}
	err = state.ReadJSON(c.path(fileRecord), &c.rec)
	if errors.Is(err, fs.ErrNotExist) {
		c.rec = record{ID: id}
		err = nil
	}
	return c, err
}

// locked is load with the container's lock, which unlock gives back.
func (r *Runtime) locked(id string) (*container, error) {
	for {
		c, err := r.load(id)
		if err != nil {
			return nil, err
		}
		lock, err := lockDir(c.dir)
		if err != nil {
			return nil, err
		}
		if lock == nil {
			continue // removed while we waited
		}
		c, err = r.load(id)
		if err != nil {
			lock.Close()
			return nil, err
		}
		c.lock = lock
		return c, nil
	}
}

// lockDir takes a directory's lock; nil when it is another by then.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = sys.Lock(lock, true)
	}
	if err != nil {
		return nil, err
	}
	if same, err := sys.SameFile(lock, dir); err != nil || !same {
		lock.Close()
		return nil, nil
	}
	return lock, nil
}

func (c *container) unlock() { c.lock.Close() }

func (c *container) path(name string) string { return filepath.Join(c.dir, name) }

func (c *container) save() error {
	b, err := json.Marshal(&c.rec)
	if err != nil {
		return err
	}
	return state.Replace(c.path(fileRecord), b, false)
}

// config reads the configuration as it was at create.
func (c *container) config() (*specs.Spec, error) {
	s, _, err := readConfig(c.path(fileConfig))
	return s, err
}

func (c *container) group() (*runtime.Group, error) { return runtime.OpenGroup(c.rec.Cgroup) }

// paused is a status that the specification leaves to runtimes.
const paused specs.ContainerState = "paused"

// status asks the kernel.
func (c *container) status() specs.ContainerState {
	switch {
	case c.rec.Pid == 0 || !sys.Alive(c.rec.Pid, c.rec.StartTicks):
		if c.rec.Pid == 0 && c.beingMade() {
			return specs.StateCreating
		}
		return specs.StateStopped
	case !c.rec.Ready:
		return specs.StateCreating
	}
	if g, err := c.group(); err == nil && g.Frozen() {
		return paused
	}
	if c.parked() {
		return specs.StateCreated
	}
	return specs.StateRunning
}

// beingMade reports whether a create has the lock.
func (c *container) beingMade() bool {
	f, err := os.Open(c.dir)
	if err != nil {
		return false
	}
	defer f.Close()
	if c.lock != nil {
		return false // it is ours
	}
	free, err := sys.TryLock(f, false) // shared: others may be asking, too
	return err == nil && !free
}

// parked reports whether the first process is still tug-init. The socket alone
// does not tell: start may have been killed before it removed it.
func (c *container) parked() bool {
	if _, err := os.Lstat(c.path(fileSocket)); err != nil {
		return false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.rec.Pid))
	return err != nil || strings.HasPrefix(exe, "/memfd:tug-init")
}

// State is what `state` prints: the specification's, and what other runtimes
// add.
type State struct {
	specs.State
	Rootfs  string    `json:"rootfs,omitempty"`
	Created time.Time `json:"created"`
	Owner   string    `json:"owner"`
}

// State returns the state of a container.
func (r *Runtime) State(id string) (*State, error) {
	c, err := r.load(id)
	if err != nil {
		return nil, err
	}
	return c.state(), nil
}

func (c *container) state() *State {
	s := &State{State: specs.State{
		Version: Version, ID: c.rec.ID, Status: c.status(), Bundle: c.rec.Bundle, Annotations: c.rec.Annotations,
	}, Rootfs: c.rec.Rootfs, Created: c.rec.Created}
	if s.Status != specs.StateStopped {
		s.Pid = c.rec.Pid
	}
	return s
}

// hookState is the state that hooks read.
func (c *container) hookState(status specs.ContainerState) plan.State {
	s := plan.State{Version: Version, ID: c.rec.ID, Status: string(status), Bundle: c.rec.Bundle, Annotations: c.rec.Annotations}
	if status != specs.StateStopped {
		s.Pid = c.rec.Pid
	}
	return s
}

// List returns the states of all containers, by ID.
func (r *Runtime) List() ([]*State, error) {
	entries, err := os.ReadDir(r.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []*State
	for _, e := range entries {
		if !e.IsDir() || !ValidID(e.Name()) {
			continue
		}
		if c, err := r.load(e.Name()); err == nil {
			all = append(all, c.state())
		}
	}
	return all, err
}

// maxConfig bounds a config.json.
const maxConfig = 16 << 20

func readConfig(path string) (s *specs.Spec, text []byte, err error) {
	if text, err = readBounded(path); err != nil {
		return nil, nil, err
	}
	s = new(specs.Spec)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, nil, errs.New(errs.Invalid, "read %s: %w", path, err)
	}
	return s, text, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(b) > maxConfig {
		err = errs.New(errs.Invalid, "%s is too large: at most %d bytes are read", path, maxConfig)
	}
	return b, err
}

// hooksOf turns hooks into the plan's.
func hooksOf(all []specs.Hook) []plan.Hook {
	var out []plan.Hook
	for _, h := range all {
		p := plan.Hook{Path: h.Path, Args: h.Args, Env: slices.Clone(h.Env)}
		if h.Timeout != nil {
			p.Timeout = *h.Timeout
		}
		out = append(out, p)
	}
	return out
}

// runHooks runs hooks in the runtime's namespaces. The first that fails ends
// it, unless they all are to be run, with warnings.
func (c *container) runHooks(kind string, hooks []specs.Hook, status specs.ContainerState, all bool) error {
	if len(hooks) == 0 {
		return nil
	}
	text, err := json.Marshal(c.hookState(status))
	if err != nil {
		return err
	}
	for _, h := range hooksOf(hooks) {
		err := h.Run(text)
		switch {
		case err != nil && all:
			c.r.Warn(fmt.Sprintf("%s hook %s: %v", kind, h.Path, err))
		case err != nil:
			return fmt.Errorf("%s hook %s: %w", kind, h.Path, err)
		}
	}
	return nil
}
