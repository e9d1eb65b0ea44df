package runtime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"tug/errs"
	"tug/spec"
)

// Update sets the limits of a running container's cgroup that differ between
// was and now. On error all are as they were, as far as the kernel lets them;
// the same does undo.
func Update(cgroup string, was, now *spec.HostConfig) (warnings []string, undo func(), err error) {
	c, err := machine()
	if err != nil {
		return nil, nil, err
	}
	if err := c.addSpare(cgroup, spareControllers(now)); err != nil {
		return nil, nil, fmt.Errorf("make cgroup: %w", err)
	}
	undo = c.remember(cgroup)
	warnings, err = c.update(cgroup, was, now)
	if err != nil {
		undo()
		return nil, nil, err
	}
	return warnings, undo, nil
}

// update writes what changed. What has a limit and is to have none any more is
// not among what limit does.
func (c *cgroups) update(slot string, was, now *spec.HostConfig) ([]string, error) {
	old, l := limitsOf(was), limitsOf(now)
	if err := c.updateMemory(slot, old, l); err != nil {
		return nil, err
	}
	if l.Pids != old.Pids && l.Pids <= 0 {
		if err := c.set(slot, "pids", "pids.max", "max"); err != nil {
			return nil, err
		}
	}
	if l.CPUQuota != old.CPUQuota && l.CPUQuota < 0 {
		if err := c.unlimitCPU(slot, l); err != nil {
			return nil, err
		}
	}
	return c.limit(slot, changed(old, l))
}

// changed returns the limits of l that differ from old, besides memory's.
// Those that the kernel has in one file belong together.
func changed(old, l Limits) Limits {
	l.Memory, l.MemorySwap, l.Swappiness, l.NoOOMKill, l.Block = 0, 0, nil, false, nil
	for _, f := range []struct{ old, now *int64 }{
		{&old.MemoryReservation, &l.MemoryReservation},
		{&old.CPUShares, &l.CPUShares},
		{&old.Pids, &l.Pids},
		{&old.RTPeriod, &l.RTPeriod},
		{&old.RTRuntime, &l.RTRuntime},
	} {
		if *f.old == *f.now {
			*f.now = 0
		}
	}
	if old.NanoCPUs == l.NanoCPUs && old.CPUPeriod == l.CPUPeriod && old.CPUQuota == l.CPUQuota {
		l.NanoCPUs, l.CPUPeriod, l.CPUQuota = 0, 0, 0
	}
	if old.CPUs == l.CPUs {
		l.CPUs = ""
	}
	if old.Mems == l.Mems {
		l.Mems = ""
	}
	if old.Weight == l.Weight {
		l.Weight = 0
	}
	return l
}

func (c *cgroups) unlimitCPU(slot string, l Limits) error {
	if c.v2 == "" {
		return c.set(slot, "cpu", "cpu.cfs_quota_us", "-1")
	}
	period := l.CPUPeriod
	if period <= 0 {
		period = defaultPeriod
	}
	return c.set(slot, "cpu", "cpu.max", "max "+strconv.FormatInt(period, 10))
}

// updateMemory changes both limits of memory. Version 1 wants that of memory
// and swap never below that of memory, so the one that goes up comes first; from
// no limit it is a way down.
func (c *cgroups) updateMemory(slot string, old, l Limits) error {
	if l.Memory == old.Memory && l.MemorySwap == old.MemorySwap || l.Memory <= 0 {
		return nil
	}
	total := l.MemorySwap
	if total == 0 {
		total = 2 * l.Memory
	}
	limit := strconv.FormatInt(l.Memory, 10)
	name, swapName, swap := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", strconv.FormatInt(total, 10)
	if c.v2 != "" {
		name, swapName, swap = "memory.max", "memory.swap.max", "max"
		if total > 0 {
			swap = strconv.FormatInt(total-l.Memory, 10)
		}
	}
	steps := []func() error{
		func() error { return c.set(slot, "memory", name, limit) },
		func() error {
			err := c.set(slot, "memory", swapName, swap)
			if errors.As(err, new(noController)) {
				return nil // no swap accounting here: the memory limit stands
			}
			return err
		},
	}
	if c.v2 == "" && (total < 0 || old.Memory > 0 && l.Memory > old.Memory) {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		err := step()
		if errors.As(err, new(noController)) {
			return errs.New(errs.Unsupported, "this machine has no memory cgroup controller")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// limitFiles are the files update may write, with their controllers.
func limitFiles() [][2]string {
	return [][2]string{
		{"memory", "memory.limit_in_bytes"},
		{"memory", "memory.memsw.limit_in_bytes"},
		{"memory", "memory.soft_limit_in_bytes"},
		{"memory", "memory.max"},
		{"memory", "memory.swap.max"},
		{"memory", "memory.low"},
		{"cpu", "cpu.shares"},
		{"cpu", "cpu.cfs_period_us"},
		{"cpu", "cpu.cfs_quota_us"},
		{"cpu", "cpu.weight"},
		{"cpu", "cpu.max"},
		{"cpu", "cpu.rt_period_us"},
		{"cpu", "cpu.rt_runtime_us"},
		{"cpuset", "cpuset.cpus"},
		{"cpuset", "cpuset.mems"},
		{"pids", "pids.max"},
		{"blkio", "blkio.weight"},
		{"blkio", "blkio.bfq.weight"},
		{"io", "io.weight"},
		{"io", "io.bfq.weight"},
	}
}

// remember reads a slot's limits and returns what writes them back.
func (c *cgroups) remember(slot string) (undo func()) {
	type setting struct{ file, value string }
	var all []setting
	for _, f := range limitFiles() {
		file := c.file(slot, f[0], f[1])
		b, err := os.ReadFile(file)
		if file == "" || err != nil {
			continue
		}
		value, _, _ := strings.Cut(string(b), "\n") // the default, before those of devices
		all = append(all, setting{file, strings.TrimSpace(value)})
	}
	return func() {
		for range 2 { // some can only be written after others
			for _, s := range all {
				if b, err := os.ReadFile(s.file); err == nil && !strings.HasPrefix(string(b), s.value+"\n") {
					_ = writeFile(s.file, s.value)
				}
			}
		}
	}
}

// addSpare gives a running container a slot in the hierarchies of further
// controllers, with all its processes in it.
func (c *cgroups) addSpare(slot, controllers string) error {
	for _, h := range c.asked(controllers) {
		dir := h.mount + slot
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		// Who removes the container's cgroups begins with the others.
		if !hasFile(c.roots()[0] + slot) {
			removeTree(dir)
			_ = os.Remove(path.Dir(dir))
			return ErrNotRunning
		}
		if slices.Contains(h.controllers, "cpuset") {
			if err := inheritCpuset(h.mount, slot); err != nil {
				return err
			}
		}
		if err := c.moveInto(slot, dir); err != nil {
			return err
		}
	}
	return nil
}

// moveInto moves the processes of a slot into dir, another hierarchy's, until
// all are there: they make others meanwhile.
func (c *cgroups) moveInto(slot, dir string) error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		pids, err := pidsBelow(c.roots()[0] + slot)
		if err != nil {
			return err
		}
		there, err := pidsBelow(dir)
		if err != nil {
			return err
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return slices.Contains(there, pid) })
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = writeFile(dir+"/cgroup.procs", strconv.Itoa(pid)) // or it has ended
		}
	}
	return errs.New(errs.Unavailable, "its processes change too fast to be limited")
}
