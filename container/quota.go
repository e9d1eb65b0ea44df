package container

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	units "github.com/docker/go-units"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// A container made with --storage-opt size= has a quota project: upper/ and
// work/ belong to it, and what is made in them. Its number is drawn at random,
// so that it is not used again soon, and must not be in use on the file system,
// by whomever. projects/<number> holds the container's id; the file is there
// from before the limit is set until after it is taken away. Whoever makes such
// a container holds a lock on it until the container is in place, so one that
// nobody has locked and whose container is not there was left by a crash: it is
// cleared away once its files are gone, by the next one who makes such a
// container or by `system check --repair`.

// Numbers below are left to people who number their projects by hand.
const (
	firstProject = 1 << 24
	lastProject  = 1<<31 - 1
)

// layerSize is the limit of a container's writable layer, 0 for none.
func layerSize(h *spec.HostConfig) (uint64, error) {
	for name := range h.StorageOpt {
		if name != "size" {
			return 0, errs.New(errs.Invalid, "unknown --storage-opt %s", name).WithHint("there is size")
		}
	}
	text, ok := h.StorageOpt["size"]
	if !ok {
		return 0, nil
	}
	n, err := units.RAMInBytes(text)
	if err != nil || n < minLayer {
		return 0, errs.New(errs.Invalid, "invalid --storage-opt size=%.40s: want a size such as 10g, of 1m at least", text)
	}
	return uint64(n), nil
}

const minLayer = 1 << 20

// confine puts the writable layer in dir, which is still empty, into a project
// of its own. The returned file is to be closed when the container is in place.
func (c *Containers) confine(dir string, ctr *spec.Container) (held *os.File, err error) {
	limit, err := layerSize(&ctr.Host)
	if err != nil || limit == 0 {
		return nil, err
	}
	root, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if !sys.ProjectQuotas(root) {
		return nil, errs.New(errs.Unsupported, "--storage-opt size needs project quotas, which the file system of %s does not have", c.st.Root).
			WithHint("put the store on XFS, or ext4 with the feature project, mounted with the option prjquota")
	}
	c.freeProjects(root)
	if held, err = c.takeProject(root, ctr); err != nil {
		return nil, err
	}
	for _, name := range []string{dirUpper, dirWork} {
		if err == nil {
			err = setProject(filepath.Join(dir, name), ctr.Host.Project)
		}
	}
	if err == nil {
		err = sys.LimitProject(root, ctr.Host.Project, limit)
	}
	if err != nil {
		held.Close()
		c.freeProject(ctr)
		return nil, fmt.Errorf("limit the writable layer: %w", noSpace(err))
	}
	return held, nil
}

func setProject(dir string, id uint32) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return sys.SetProject(d, id)
}

// mountRoom is what overlayfs may need for its work directory. Without it the
// mount would be read-only, and a container that has filled its layer could
// never remove anything.
const mountRoom = 1 << 20

// loosen makes room for a mount in a container's project; tighten takes it away.
func (c *Containers) loosen(ctr *spec.Container) (tighten func(), err error) {
	limit, err := layerSize(&ctr.Host)
	if err != nil || limit == 0 || ctr.Host.Project == 0 {
		return func() {}, err
	}
	root, err := os.Open(c.st.Root)
	if err != nil {
		return nil, err
	}
	if err := sys.LimitProject(root, ctr.Host.Project, limit+mountRoom); err != nil {
		root.Close()
		return nil, fmt.Errorf("limit the writable layer: %w", err)
	}
	return func() {
		if err := sys.LimitProject(root, ctr.Host.Project, limit); err != nil {
			fmt.Fprintln(os.Stderr, "supervisor: limit the writable layer:", err)
		}
		root.Close()
	}, nil
}

// takeProject draws a number that is free and returns its file, locked.
func (c *Containers) takeProject(root *os.File, ctr *spec.Container) (*os.File, error) {
	if err := os.MkdirAll(c.st.Projects(), 0o700); err != nil {
		return nil, err
	}
	for {
		id := firstProject + rand.Uint32N(lastProject-firstProject)
		f, err := os.OpenFile(c.st.Project(id), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		use, err := sys.ProjectUsage(root, id)
		if err == nil && use == (sys.ProjectUse{}) {
			if err = sys.Lock(f, true); err == nil {
				if _, err = f.WriteString(ctr.ID + "\n"); err == nil && isAt(f, f.Name()) {
					ctr.Host.Project = id
					return f, nil
				}
			}
		}
		os.Remove(f.Name())
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// freeProject gives a container's project back when its files are gone. That
// they may be gone only nearly does no harm: nothing is added to them.
func (c *Containers) freeProject(ctr *spec.Container) {
	if ctr.Host.Project == 0 {
		return
	}
	if root, err := os.Open(c.st.Root); err == nil {
		c.dropProject(root, ctr.Host.Project)
		root.Close()
	}
}

func (c *Containers) dropProject(root *os.File, id uint32) error {
	if err := sys.LimitProject(root, id, 0); err != nil {
		return err
	}
	return os.Remove(c.st.Project(id))
}

// lostProjects lists the projects that a crash has left without container or
// files.
func (c *Containers) lostProjects(root *os.File) (lost []uint32) {
	entries, err := os.ReadDir(c.st.Projects())
	if err != nil {
		return nil
	}
	for _, e := range entries {
		id, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil {
			continue
		}
		if f := c.holdLost(root, uint32(id)); f != nil {
			f.Close()
			lost = append(lost, uint32(id))
		}
	}
	return lost
}

// holdLost returns the file of a lost project, locked, nil when it is not lost.
func (c *Containers) holdLost(root *os.File, id uint32) *os.File {
	f, err := os.Open(c.st.Project(id))
	if err != nil {
		return nil
	}
	// When it is locked, its container is being made.
	if had, err := sys.TryLock(f, true); err == nil && had && c.isLost(root, id) {
		return f
	}
	f.Close()
	return nil
}

func (c *Containers) isLost(root *os.File, id uint32) bool {
	b, err := os.ReadFile(c.st.Project(id))
	if err != nil {
		return false
	}
	if ctr := strings.TrimSpace(string(b)); spec.IsHex64(ctr) {
		if _, err := os.Lstat(c.path(ctr)); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	use, err := sys.ProjectUsage(root, id)
	return err == nil && use.Bytes == 0 && use.Inodes == 0
}

// dropLost clears a project away if it is lost, under its lock: one who has just
// made the file and waits for the lock finds it gone, and draws another number.
func (c *Containers) dropLost(root *os.File, id uint32) error {
	f := c.holdLost(root, id)
	if f == nil {
		return nil
	}
	defer f.Close()
	return c.dropProject(root, id)
}

func (c *Containers) freeProjects(root *os.File) {
	for _, id := range c.lostProjects(root) {
		_ = c.dropLost(root, id)
	}
}
