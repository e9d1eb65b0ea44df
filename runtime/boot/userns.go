package boot

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"tug/runtime/plan"
	"tug/sys"
)

// taken is what a process takes along from the host's mounts before it leaves
// them. In a user namespace that is more than elsewhere: the kernel gives it a
// proc and a sysfs only where it can see whole ones already, and no device
// nodes at all.
type taken struct {
	shm, proc, sysfs, mqueue *os.File
	devices                  []*os.File // nil: they are made; else in the order of plan.StandardDevices
	noQueues                 bool       // there is no mqueue to take along
}

// take takes what there is in a user namespace. With the host's IPC namespace
// its queues are the host's as well.
func (t *taken) take(hostIPC bool) (err error) {
	const noexec = sys.AttrNoSuid | sys.AttrNoDev | sys.AttrNoExec
	if t.proc, err = sys.NewMount("proc", noexec, sys.Option{Key: "source", Value: "proc"}); err != nil {
		return revealing(err)
	}
	if t.sysfs, err = sys.NewMount("sysfs", noexec|sys.AttrReadOnly, sys.Option{Key: "source", Value: "sysfs"}); err != nil {
		return revealing(err)
	}
	for _, d := range plan.StandardDevices() {
		tree, err := hostDevice(&d)
		if err != nil {
			return failf(125, "bind device %s: %v", d.Path, err)
		}
		t.devices = append(t.devices, tree)
	}
	if !hostIPC {
		return nil
	}
	t.noQueues = true
	tree, err := sys.CloneTree(nil, "/dev/mqueue", false)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if magic, err := sys.FileSystem(tree); err != nil || magic != sys.MagicMqueue {
		tree.Close()
		return nil
	}
	t.mqueue = tree
	return sys.SetMountAttr(tree, "", noexec, 0, false)
}

// revealing explains a refusal. The kernel wants that nothing covers parts of
// the host's /proc and /sys.
func revealing(err error) error {
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("a user namespace needs a /proc and a /sys on the host of which nothing is covered or masked: %w", err)
	}
	return err
}

func (t *taken) close() {
	sys.CloseAll(append([]*os.File{t.shm, t.proc, t.sysfs, t.mqueue}, t.devices...))
}

// makeDevices makes the standard nodes below /dev, or shows the host's.
func (t *taken) makeDevices() error {
	for i, d := range plan.StandardDevices() {
		if t.devices == nil {
			if err := makeDevice(&d); err != nil {
				return err
			}
			continue
		}
		f, err := os.OpenFile(d.Path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o666)
		if err != nil {
			return err
		}
		f.Close()
		if err := sys.AttachMount(t.devices[i], nil, d.Path); err != nil {
			return err
		}
	}
	return nil
}

// mountSys is mountSys with the sysfs that was taken along.
func (t *taken) mountSys(layout string) error {
	if err := sys.AttachMount(t.sysfs, nil, "/sys"); err != nil {
		return err
	}
	return mountCgroups(layout, sys.MsNoSuid|sys.MsNoDev|sys.MsNoExec|sys.MsReadOnly)
}
