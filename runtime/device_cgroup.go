package runtime

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"tug/sys"
)

// configure does what depends on the container but not on the moment: its
// device rules.
func (c *cgroups) configure(slot string, privileged bool, more []deviceRule) (warnings []string, err error) {
	if c.v2 == "" {
		allow := c.file(slot, "devices", "devices.allow")
		switch {
		case allow == "":
			return nil, nil
		case privileged:
			return nil, writeFile(allow, "a")
		}
		return nil, allowDevices(allow, more)
	}
	if privileged {
		return nil, nil
	}
	err = c.filterDevices(slot, more)
	// A kernel without CONFIG_CGROUP_BPF; containers still cannot make more
	// nodes work than their capabilities allow, but that is less than meant.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) {
		return []string{"this kernel cannot filter device access by cgroup (no CONFIG_CGROUP_BPF)"}, nil
	}
	return nil, err
}

// filterDevices attaches the filter that nearly all containers share, or one
// with more rules.
func (c *cgroups) filterDevices(slot string, more []deviceRule) error {
	dir, err := os.Open(c.v2 + slot)
	if err != nil {
		return err
	}
	defer dir.Close()
	if len(more) == 0 {
		c.filterOnce.Do(func() { c.filter, c.filterErr = sys.LoadDeviceFilter(deviceProgram(defaultDeviceRules())) })
		if c.filterErr != nil {
			return c.filterErr
		}
		return sys.AttachDeviceFilter(dir, c.filter)
	}
	filter, err := sys.LoadDeviceFilter(deviceProgram(mergeRules(append(defaultDeviceRules(), more...))))
	if err != nil {
		return err
	}
	defer filter.Close() // the cgroup keeps it
	return sys.AttachDeviceFilter(dir, filter)
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
	return allowDevices(c.file(slot, "devices", "devices.allow"), defaultDeviceRules())
}

// allowDevices writes each rule in one write.
func allowDevices(allow string, rules []deviceRule) error {
	if len(rules) == 0 {
		return nil
	}
	f, err := os.OpenFile(allow, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, r := range rules {
		if _, err := f.WriteString(r.String()); err != nil {
			return fmt.Errorf("allow device %s: %w", r, err)
		}
	}
	return nil
}
