package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"tug/sys"
)

// Limits are a container's cgroup limits; 0 is none.
type Limits struct {
	Memory   int64 // bytes; with swap it may use twice that, as Docker's default
	NanoCPUs int64
	Pids     int64
}

// limit writes the limits. One that the machine has no controller for is
// dropped with a warning, as Docker does.
func (c *cgroups) limit(slot string, l Limits) (warnings []string, err error) {
	for _, set := range []func(string, Limits) error{c.limitMemory, c.limitCPU, c.limitPids} {
		err := set(slot, l)
		var missing noController
		if errors.As(err, &missing) {
			warnings = append(warnings, fmt.Sprintf("this machine has no %s cgroup controller; the limit is dropped", string(missing)))
			continue
		}
		if err != nil {
			return warnings, err
		}
	}
	return warnings, nil
}

// noController is the error of a limit whose controller is not there.
type noController string

func (e noController) Error() string { return "no cgroup controller " + string(e) }

// set writes one limit file.
func (c *cgroups) set(slot, controller, name, value string) error {
	file := c.file(slot, controller, name)
	if file == "" {
		return noController(controller)
	}
	err := writeFile(file, value)
	if errors.Is(err, fs.ErrNotExist) {
		return noController(controller)
	}
	if err != nil {
		return &StartError{Code: 125, Msg: fmt.Sprintf("set %s=%s: %v", name, value, cause(err))}
	}
	return nil
}

func (c *cgroups) limitMemory(slot string, l Limits) error {
	if l.Memory <= 0 {
		return nil
	}
	limit := strconv.FormatInt(l.Memory, 10)
	var err, swap error
	if c.v2 != "" {
		err = c.set(slot, "memory", "memory.max", limit)
		if err == nil {
			swap = c.set(slot, "memory", "memory.swap.max", limit)
		}
	} else {
		err = c.set(slot, "memory", "memory.limit_in_bytes", limit)
		if err == nil {
			swap = c.set(slot, "memory", "memory.memsw.limit_in_bytes", strconv.FormatInt(2*l.Memory, 10))
		}
	}
	if errors.As(err, new(*StartError)) {
		return &StartError{Code: 125, Msg: fmt.Sprintf("memory limit of %d bytes is too low to start a process", l.Memory)}
	}
	if errors.As(swap, new(noController)) {
		swap = nil // no swap accounting here: the memory limit stands
	}
	return errors.Join(err, swap)
}

func (c *cgroups) limitCPU(slot string, l Limits) error {
	if l.NanoCPUs <= 0 {
		return nil
	}
	const period = 100_000 // microseconds, Docker's and the kernel's default
	// The kernel's least quota is one millisecond.
	quota := strconv.FormatInt(max(l.NanoCPUs/(1e9/period), 1000), 10)
	if c.v2 != "" {
		return c.set(slot, "cpu", "cpu.max", quota+" "+strconv.Itoa(period))
	}
	return c.set(slot, "cpu", "cpu.cfs_quota_us", quota)
}

func (c *cgroups) limitPids(slot string, l Limits) error {
	if l.Pids <= 0 {
		return nil
	}
	return c.set(slot, "pids", "pids.max", strconv.FormatInt(l.Pids, 10))
}

// configure does what depends on the container but not on the moment: its
// device rules.
func (c *cgroups) configure(slot string, privileged bool) (warnings []string, err error) {
	if c.v2 == "" {
		if !privileged || c.file(slot, "devices", "") == "" {
			return nil, nil
		}
		return nil, writeFile(c.file(slot, "devices", "devices.allow"), "a")
	}
	if privileged {
		return nil, nil
	}
	c.filterOnce.Do(func() { c.filter, c.filterErr = sys.LoadDeviceFilter(deviceProgram(defaultDeviceRules())) })
	err = c.filterErr
	if err == nil {
		var dir *os.File
		if dir, err = os.Open(c.v2 + slot); err != nil {
			return nil, err
		}
		defer dir.Close()
		err = sys.AttachDeviceFilter(dir, c.filter)
	}
	// A kernel without CONFIG_CGROUP_BPF; containers still cannot make more
	// nodes work than their capabilities allow, but that is less than meant.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) {
		return []string{"this kernel cannot filter device access by cgroup (no CONFIG_CGROUP_BPF)"}, nil
	}
	return nil, err
}

// confineDevicesV1 sets the device rules of unprivileged containers on a new
// slot; tug-init itself makes do with them.
func (c *cgroups) confineDevicesV1(slot string) error {
	deny := c.file(slot, "devices", "devices.deny")
	if c.v2 != "" || deny == "" {
		return nil
	}
	if err := writeFile(deny, "a"); err != nil {
		return err
	}
	f, err := os.OpenFile(c.file(slot, "devices", "devices.allow"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, r := range defaultDeviceRules() {
		if _, err := f.WriteString(r.String()); err != nil {
			return err
		}
	}
	return nil
}

func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
