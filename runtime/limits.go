package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"tug/spec"
)

// Limits are a container's cgroup limits; 0 is none.
type Limits struct {
	Memory            int64 // bytes
	MemorySwap        int64 // memory and swap; 0 is twice Memory, as Docker's default, -1 none
	MemoryReservation int64
	Swappiness        *int64
	NoOOMKill         bool

	NanoCPUs            int64
	CPUShares           int64
	CPUPeriod, CPUQuota int64 // microseconds
	RTPeriod, RTRuntime int64 // microseconds
	CPUs, Mems          string
	Pids                int64

	Weight uint16 // of block devices
	Block  []BlockLimit
}

func limitsOf(h *spec.HostConfig) Limits {
	l := Limits{
		Memory: h.Memory, MemorySwap: h.MemorySwap, MemoryReservation: h.MemoryReservation,
		Swappiness: h.MemorySwappiness, NoOOMKill: h.OomKillDisable,
		NanoCPUs: h.NanoCPUs, CPUShares: h.CPUShares, CPUPeriod: h.CPUPeriod, CPUQuota: h.CPUQuota,
		RTPeriod: h.CPURealtimePeriod, RTRuntime: h.CPURealtimeRuntime,
		CPUs: h.CpusetCpus, Mems: h.CpusetMems, Weight: h.BlkioWeight,
	}
	if h.PidsLimit != nil {
		l.Pids = *h.PidsLimit
	}
	return l
}

// limit writes the limits. One that the machine cannot do is dropped with a
// warning, as Docker does.
func (c *cgroups) limit(slot string, l Limits) (warnings []string, err error) {
	for _, set := range []func(string, Limits) error{
		c.limitMemory, c.reserveMemory, c.limitShares, c.limitCPU, c.limitRealtime, c.limitCPUSet, c.limitPids, c.limitWeight, c.limitBlock,
	} {
		err := set(slot, l)
		var missing noController
		var can cannot
		switch {
		case errors.As(err, &missing):
			warnings = append(warnings, fmt.Sprintf("this machine has no %s cgroup controller; the limit is dropped", string(missing)))
		case errors.As(err, &can):
			warnings = append(warnings, string(can))
		case err != nil:
			return warnings, err
		}
	}
	return warnings, nil
}

// cannot is a limit that this kernel does not have, in Docker's words.
type cannot string

func (e cannot) Error() string { return string(e) }

// try writes one limit file; that it is not there is said in the words of lack.
func (c *cgroups) try(slot, controller, name, value, lack string) error {
	err := c.set(slot, controller, name, value)
	if errors.As(err, new(noController)) {
		return cannot(lack)
	}
	return err
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
	limit, total := strconv.FormatInt(l.Memory, 10), l.MemorySwap
	if total == 0 {
		total = 2 * l.Memory
	}
	name, swapName := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	if c.v2 != "" {
		name, swapName = "memory.max", "memory.swap.max"
		total -= l.Memory // here swap is limited by itself
	}
	if err := c.set(slot, "memory", name, limit); err != nil {
		if errors.As(err, new(*StartError)) {
			return &StartError{Code: 125, Msg: fmt.Sprintf("memory limit of %d bytes is too low to start a process", l.Memory)}
		}
		return err
	}
	if l.MemorySwap < 0 {
		return nil // as it is
	}
	err := c.set(slot, "memory", swapName, strconv.FormatInt(total, 10))
	if errors.As(err, new(noController)) {
		if l.MemorySwap > 0 {
			return cannot("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
		}
		return nil // no swap accounting here: the memory limit stands
	}
	return err
}

// reserveMemory sets what else there is to say about memory.
func (c *cgroups) reserveMemory(slot string, l Limits) error {
	var errs []error
	if l.MemoryReservation > 0 {
		name := "memory.soft_limit_in_bytes"
		if c.v2 != "" {
			name = "memory.low"
		}
		errs = append(errs, c.try(slot, "memory", name, strconv.FormatInt(l.MemoryReservation, 10),
			"Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded."))
	}
	if l.Swappiness != nil {
		errs = append(errs, c.try(slot, "memory", "memory.swappiness", strconv.FormatInt(*l.Swappiness, 10),
			"Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."))
	}
	if l.NoOOMKill {
		errs = append(errs, c.try(slot, "memory", "memory.oom_control", "1", "Your kernel does not support OomKillDisable. OomKillDisable discarded."))
	}
	return worst(errs)
}

// worst returns the first error that ends a start, else all that are warnings
// as one.
func worst(all []error) error {
	var lacks []string
	for _, err := range all {
		var can cannot
		switch {
		case errors.As(err, &can):
			lacks = append(lacks, string(can))
		case err != nil:
			return err
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	return cannot(strings.Join(lacks, " "))
}

func (c *cgroups) limitShares(slot string, l Limits) error {
	if l.CPUShares <= 0 {
		return nil
	}
	const lack = "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded."
	if c.v2 != "" {
		return c.try(slot, "cpu", "cpu.weight", strconv.FormatInt(weightOfShares(l.CPUShares), 10), lack)
	}
	return c.try(slot, "cpu", "cpu.shares", strconv.FormatInt(l.CPUShares, 10), lack)
}

// weightOfShares converts v1's cpu.shares (2 to 262144, usually 1024) to v2's
// cpu.weight (1 to 10000, usually 100). It is the curve on which both ends and
// the usual values meet, which the runtimes agreed on:
// weight = 10^((l*l + 125*l)/612 - 7/34), l = log2(shares).
func weightOfShares(shares int64) int64 {
	l := math.Log2(float64(min(max(shares, 2), 262144)))
	// A little less, so that rounding up keeps what is exact.
	return max(1, int64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)-1e-9)))
}

const defaultPeriod = 100_000 // microseconds, Docker's and the kernel's

func (c *cgroups) limitCPU(slot string, l Limits) error {
	period, quota := l.CPUPeriod, l.CPUQuota
	if l.NanoCPUs > 0 {
		period = 0
		// The kernel's least quota is one millisecond.
		quota = max(l.NanoCPUs/(1e9/defaultPeriod), 1000)
	}
	if period <= 0 && quota <= 0 {
		return nil
	}
	if c.v2 != "" {
		value := "max"
		if quota > 0 {
			value = strconv.FormatInt(quota, 10)
		}
		if period <= 0 {
			period = defaultPeriod
		}
		return c.set(slot, "cpu", "cpu.max", value+" "+strconv.FormatInt(period, 10))
	}
	if period > 0 {
		if err := c.set(slot, "cpu", "cpu.cfs_period_us", strconv.FormatInt(period, 10)); err != nil {
			return err
		}
	}
	if quota <= 0 {
		return nil
	}
	return c.set(slot, "cpu", "cpu.cfs_quota_us", strconv.FormatInt(quota, 10))
}

// limitRealtime gives time to processes of real-time policies, which have none
// otherwise. Only version 1 can, and not every kernel.
func (c *cgroups) limitRealtime(slot string, l Limits) error {
	for _, f := range []struct {
		name  string
		value int64
	}{{"cpu.rt_period_us", l.RTPeriod}, {"cpu.rt_runtime_us", l.RTRuntime}} {
		if f.value == 0 {
			continue
		}
		err := c.set(slot, "cpu", f.name, strconv.FormatInt(f.value, 10))
		var se *StartError
		switch {
		case errors.As(err, new(noController)):
			return &StartError{Code: 125, Msg: "Your kernel does not support CPU real-time scheduler"}
		case errors.As(err, &se):
			se.Msg += fmt.Sprintf(": the cgroup %s above has to have that much real-time, in its cpu.rt_runtime_us", c.parent)
			return se
		}
	}
	return nil
}

func (c *cgroups) limitCPUSet(slot string, l Limits) error {
	for _, f := range [][2]string{{"cpuset.cpus", l.CPUs}, {"cpuset.mems", l.Mems}} {
		if f[1] == "" {
			continue
		}
		if err := c.set(slot, "cpuset", f[0], f[1]); err != nil {
			return err
		}
	}
	return nil
}

func (c *cgroups) limitPids(slot string, l Limits) error {
	if l.Pids <= 0 {
		return nil
	}
	return c.set(slot, "pids", "pids.max", strconv.FormatInt(l.Pids, 10))
}

func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
