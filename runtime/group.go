package runtime

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tug/errs"
	"tug/sys"
)

// Group is a cgroup at a path that somebody else chose, as the configuration of
// an OCI runtime does: it lies in all hierarchies of the machine, not below
// tug's own cgroup, and whoever chose it may have made it.
type Group struct {
	c    *cgroups
	Path string // below each hierarchy's mount, never "/"
}

// OpenGroup looks where the cgroup at path is; it need not be there.
func OpenGroup(at string) (*Group, error) {
	clean := path.Clean("/" + at)
	if clean == "/" {
		return nil, errs.New(errs.Invalid, "cgroup path %q is that of the machine", at)
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := parseHierarchies(bufio.NewScanner(f), isController)
	if err != nil {
		return nil, err
	}
	c.v1 = append(c.v1, c.spare...)
	c.spare = nil
	if len(c.v1) > 0 {
		c.v2 = ""
	}
	return &Group{c: c, Path: clean}, nil
}

// GroupOf returns the v2 cgroup that a process is in.
func GroupOf(pid int) (*Group, error) {
	at, err := cgroupOf(pid)
	if err != nil {
		return nil, err
	}
	return OpenGroup(at)
}

// isController tells a controller's name among the options of a cgroup mount.
func isController(opt string) bool {
	switch opt {
	case "rw", "ro", "seclabel", "xattr", "noprefix", "clone_children", "none", "cpuset_v2_mode", "favordynmods":
		return false
	}
	return !strings.Contains(opt, "=") || strings.HasPrefix(opt, "name=")
}

// V2 reports whether the machine has version 2 alone.
func (g *Group) V2() bool { return g.c.v2 != "" }

// Layout is what tug-init is told about the hierarchies.
func (g *Group) Layout() string { return g.c.makeLayout(nil) }

// Dirs are the cgroup's directories, in the order of Layout.
func (g *Group) Dirs() []string {
	all := g.c.roots()
	for i := range all {
		all[i] += g.Path
	}
	return all
}

// Create makes the cgroup where it is missing. One with processes in it is
// another container's.
func (g *Group) Create() error {
	for _, root := range g.c.roots() {
		if err := persist(func() error { return g.createIn(root) }); err != nil {
			return errs.New(errs.Denied, "make cgroup: %w", err).WithHint("the cgroup file systems have to be writable")
		}
	}
	for _, h := range g.c.v1 {
		if slices.Contains(h.controllers, "cpuset") {
			if err := inheritCpuset(h.mount, g.Path); err != nil {
				return fmt.Errorf("make cgroup: %w", err)
			}
		}
	}
	pids, err := g.Pids()
	if err == nil && len(pids) > 0 {
		err = errs.New(errs.Conflict, "cgroup %s is not empty: it has %d processes", g.Path, len(pids))
	}
	return err
}

func (g *Group) createIn(root string) error {
	dir := root
	for name := range strings.SplitSeq(g.Path[1:], "/") {
		if g.V2() {
			enableControllers(dir, nil)
		}
		dir += "/" + name
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// Start makes a process that is in the cgroup from its first moment. The
// calling thread is left in other cgroups and perhaps namespaces: it must be
// one that ends, as in sys.OnThread.
func (g *Group) Start(c sys.Clone) (pid int, pidfd *os.File, err error) {
	if g.V2() {
		dir, err := os.Open(g.c.v2 + g.Path)
		if err != nil {
			return 0, nil, err
		}
		defer dir.Close()
		c.Cgroup = dir
		return sys.CloneExec(c)
	}
	if err := enterAll(g.c.v1, g.Path); err != nil {
		return 0, nil, err
	}
	return sys.CloneExec(c)
}

// Pids are the processes of the cgroup and of those below it.
func (g *Group) Pids() ([]int, error) {
	all := []int{}
	for _, root := range g.c.roots() {
		pids, err := pidsBelow(root + g.Path)
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			if !slices.Contains(all, pid) {
				all = append(all, pid)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// Signal sends a signal to all its processes. SIGKILL leaves none.
func (g *Group) Signal(sig syscall.Signal) error {
	if sig == syscall.SIGKILL {
		g.c.killStill(g.Path)
		return nil
	}
	pids, err := g.Pids()
	if err != nil {
		return err
	}
	var failed error
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && err != syscall.ESRCH {
			failed = err
		}
	}
	return failed
}

// Frozen reports whether its processes are stopped by the freezer.
func (g *Group) Frozen() bool { return g.c.frozen(g.Path) }

// Freeze stops its processes and waits until they are.
func (g *Group) Freeze(ctx context.Context) error { return g.c.freeze(ctx, g.Path) }

// Thaw lets its processes go on.
func (g *Group) Thaw() error { return g.c.thaw(g.Path) }

// Remove kills what is left in the cgroup and removes it with those below it.
// That it is not there is no error.
func (g *Group) Remove() error {
	for wait := time.Millisecond; ; wait *= 2 {
		if g.c.tryRemove(g.Path) {
			return nil
		}
		if wait > 4*time.Second {
			return errs.New(errs.Conflict, "cgroup %s cannot be removed: its processes do not end", g.Path)
		}
		g.c.killStill(g.Path)
		time.Sleep(wait)
	}
}

// RemoveEmpty removes the cgroup unless a process is in it.
func (g *Group) RemoveEmpty() {
	if pids, err := g.Pids(); err == nil && len(pids) == 0 {
		_ = g.c.tryRemove(g.Path)
	}
}

// RemoveAbove removes the empty cgroups above, up to top.
func (g *Group) RemoveAbove(top string) {
	for dir := path.Dir(g.Path); dir == top || strings.HasPrefix(dir, top+"/"); dir = path.Dir(dir) {
		for _, root := range g.c.roots() {
			_ = syscall.Rmdir(root + dir)
		}
	}
}

// write writes one file of the cgroup, controller by controller.
func (g *Group) write(controller, name, value string) error {
	err := g.c.set(g.Path, controller, name, value)
	var missing noController
	if errors.As(err, &missing) {
		return errs.New(errs.Unsupported, "set %s=%s: this machine has no such cgroup file (controller %s)", name, value, controller)
	}
	return err
}

func (g *Group) has(controller, name string) bool {
	file := g.c.file(g.Path, controller, name)
	return file != "" && hasFile(file)
}

func itoa[T int64 | uint64 | uint16 | uint32](n T) string {
	if n < 0 {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(uint64(n), 10)
}
