package runtime

import (
	"context"
	"os"
	"strings"
	"sync"
	"time"

	"tug/errs"
	"tug/sys"
)

// machine is the cgroup layout, for those that are given a container's cgroup
// and need no supervisor. It does not change while the machine runs.
var machine = sync.OnceValues(func() (*cgroups, error) { return findCgroups("") })

// Frozen reports whether the processes of a container's cgroup are stopped by
// the freezer, or are about to be.
func Frozen(cgroup string) bool {
	c, err := machine()
	return err == nil && cgroup != "" && c.frozen(cgroup)
}

// Freeze stops all processes of a container's cgroup and waits until they are.
// On error they go on.
func Freeze(ctx context.Context, cgroup string) error {
	c, err := machine()
	if err != nil {
		return err
	}
	return c.freeze(ctx, cgroup)
}

// freeze stops a slot's processes and waits until they are. On error they go on.
func (c *cgroups) freeze(ctx context.Context, slot string) error {
	f := c.freezer(slot)
	if f.file == "" || !hasFile(f.file) {
		return errs.New(errs.Unsupported, "this machine has no freezer cgroup")
	}
	ctx, cancel := context.WithTimeout(ctx, freezeLimit)
	defer cancel()
	err := f.freeze(ctx)
	if err != nil {
		_ = writeFile(f.file, f.off)
	}
	return err
}

// freezeLimit is how long processes may take to stop: those that wait for a
// disk in the kernel do not until it answers.
const freezeLimit = 10 * time.Second

// freezer is how the freezer of one cgroup is used.
type freezer struct {
	file, on, off string
	state, done   string // the file that says when all are stopped, and how
}

func (c *cgroups) freezer(slot string) freezer {
	if c.v2 != "" {
		return freezer{c.file(slot, "freezer", "cgroup.freeze"), "1", "0", c.file(slot, "freezer", "cgroup.events"), "frozen 1"}
	}
	file := c.file(slot, "freezer", "freezer.state")
	return freezer{file, "FROZEN", "THAWED", file, "FROZEN"}
}

// freeze writes and waits. Version 1 may stay on the way when processes fork
// just then: to be asked again helps, and now and then to be let go first.
func (f *freezer) freeze(ctx context.Context) error {
	pause := 100 * time.Microsecond
	for try := 1; ; try++ {
		if try%32 == 0 {
			if err := writeFile(f.file, f.off); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		if err := writeFile(f.file, f.on); err != nil {
			return err
		}
		b, err := os.ReadFile(f.state)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if strings.TrimSpace(line) == f.done {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errs.New(errs.Unavailable, "its processes did not stop within %v", freezeLimit)
		case <-time.After(pause):
		}
		pause = min(2*pause, 20*time.Millisecond)
	}
}

// frozen reports whether the slot's processes are stopped by the freezer.
func (c *cgroups) frozen(slot string) bool {
	f := c.freezer(slot)
	if f.file == "" {
		return false
	}
	b, err := sys.ReadFile(f.file)
	return err == nil && strings.TrimSpace(string(b)) != f.off
}

// thaw lets a slot's processes go on: on version 1 frozen ones do not even
// die.
func (c *cgroups) thaw(slot string) error {
	f := c.freezer(slot)
	if f.file == "" {
		return nil
	}
	return writeFile(f.file, f.off)
}

// Thaw lets the processes of a container's cgroup go on, should they be frozen.
func Thaw(cgroup string) error {
	c, err := machine()
	if err == nil && cgroup != "" {
		err = c.thaw(cgroup)
	}
	return err
}
