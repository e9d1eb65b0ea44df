package cli

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"

	"tug/spec"
)

// limitFlags are the flags of cgroup limits beyond -m, --cpus and --pids-limit.
type limitFlags struct {
	memoryReservation bytesValue
	kernelMemory      quietBytes
	memorySwap        swapValue
	swappiness        int64
	oomKillDisable    bool
	oomScoreAdj       int

	cpuShares, cpuPeriod, cpuQuota, rtPeriod, rtRuntime int64
	cpus, mems                                          string

	blkioWeight                            uint16
	weights                                weightValue
	readBps, writeBps, readIOps, writeIOps throttleValue
}

func (f *limitFlags) define(fs *pflag.FlagSet) {
	fs.Uint16Var(&f.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.Var(&f.weights, "blkio-weight-device", "Block IO weight (relative device weight)")
	fs.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.rtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&f.rtRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.StringVar(&f.cpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.mems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.readIOps.count, f.writeIOps.count = true, true
	fs.Var(&f.readBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	fs.Var(&f.readIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	fs.Var(&f.writeBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	fs.Var(&f.writeIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
	fs.Var(&f.kernelMemory, "kernel-memory", "Kernel memory limit")
	hide(fs, "kernel-memory")
	fs.Var(&f.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&f.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&f.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.BoolVar(&f.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
}

func (f *limitFlags) set(h *spec.HostConfig) {
	h.MemoryReservation, h.MemorySwap, h.OomKillDisable = int64(f.memoryReservation), int64(f.memorySwap), f.oomKillDisable
	if f.swappiness != -1 {
		h.MemorySwappiness = &f.swappiness
	}
	h.OomScoreAdj = f.oomScoreAdj
	h.CPUShares, h.CPUPeriod, h.CPUQuota = f.cpuShares, f.cpuPeriod, f.cpuQuota
	h.CPURealtimePeriod, h.CPURealtimeRuntime = f.rtPeriod, f.rtRuntime
	h.CpusetCpus, h.CpusetMems = f.cpus, f.mems
	h.BlkioWeight, h.BlkioWeightDevice = f.blkioWeight, f.weights
	h.BlkioDeviceReadBps, h.BlkioDeviceWriteBps = f.readBps.devices, f.writeBps.devices
	h.BlkioDeviceReadIOps, h.BlkioDeviceWriteIOps = f.readIOps.devices, f.writeIOps.devices
}

// warnings tells of flags that do less than their names say.
func (f *runFlags) warnings() (all []string) {
	if f.limits.kernelMemory.n != 0 {
		all = append(all, "--kernel-memory is deprecated and does nothing: kernel memory counts for --memory")
	}
	if f.limits.oomKillDisable && f.memory == 0 {
		all = append(all, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	return all
}

const (
	minMemory = 6 << 20 // less is not enough to start a program with
	minCPUs   = 1e7     // of 1e9, what the kernel's scheduler can do
)

// checkLimits refuses limits outside of the ranges that Docker allows, and
// those that contradict each other.
func checkLimits(h *spec.HostConfig) error {
	for _, check := range []func(*spec.HostConfig) error{checkMemory, checkCPU, checkCpusets} {
		if err := check(h); err != nil {
			return err
		}
	}
	if h.BlkioWeight > 0 && (h.BlkioWeight < 10 || h.BlkioWeight > 1000) {
		return errors.New("Range of blkio weight is from 10 to 1000")
	}
	return nil
}

func checkMemory(h *spec.HostConfig) error {
	swappiness := h.MemorySwappiness
	switch {
	case h.Memory != 0 && h.Memory < minMemory:
		return errors.New("Minimum memory limit allowed is 6MB")
	case h.Memory > 0 && h.MemorySwap > 0 && h.MemorySwap < h.Memory:
		return errors.New("Minimum memoryswap limit should be larger than memory limit, see usage")
	case h.Memory == 0 && h.MemorySwap > 0:
		return errors.New("You should always set the Memory limit when using Memoryswap limit, see usage")
	case swappiness != nil && (*swappiness < 0 || *swappiness > 100):
		return fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", *swappiness)
	case h.MemoryReservation != 0 && h.MemoryReservation < minMemory:
		return errors.New("Minimum memory reservation allowed is 6MB")
	case h.Memory > 0 && h.MemoryReservation > h.Memory:
		return errors.New("Minimum memory limit can not be less than memory reservation limit, see usage")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return fmt.Errorf("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	return nil
}

func checkCPU(h *spec.HostConfig) error {
	cpus := goruntime.NumCPU()
	switch {
	case h.NanoCPUs != 0 && (h.NanoCPUs < minCPUs || h.NanoCPUs > int64(cpus)*1e9):
		return fmt.Errorf("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	case h.NanoCPUs > 0 && h.CPUPeriod > 0:
		return errors.New("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case h.NanoCPUs > 0 && h.CPUQuota > 0:
		return errors.New("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case h.CPUShares < 0:
		return fmt.Errorf("Invalid CPU shares (%d): value must be a positive integer", h.CPUShares)
	case h.CPUPeriod != 0 && (h.CPUPeriod < 1000 || h.CPUPeriod > 1_000_000):
		return errors.New("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case h.CPUQuota > 0 && h.CPUQuota < 1000:
		return errors.New("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case h.CPURealtimePeriod < 0 || h.CPURealtimeRuntime < 0:
		return errors.New("CPU real-time period and runtime cannot be negative")
	case h.CPURealtimePeriod != 0 && h.CPURealtimeRuntime > h.CPURealtimePeriod:
		return errors.New("cpu real-time runtime cannot be higher than cpu real-time period")
	}
	return nil
}

// checkCpusets makes sure that the processors and memory nodes exist. The
// kernel's answer is the same error for all that can be wrong with them.
func checkCpusets(h *spec.HostConfig) error {
	for _, set := range []struct{ asked, what, things, online string }{
		{h.CpusetCpus, "cpuset cpus", "CPUs", "/sys/devices/system/cpu/online"},
		{h.CpusetMems, "cpuset mems", "memory nodes", "/sys/devices/system/node/online"},
	} {
		if set.asked == "" {
			continue
		}
		asked, err := parseCPUList(set.asked)
		if err != nil {
			return fmt.Errorf("Invalid value %s for %s", oneLine(set.asked), set.what)
		}
		online := "0" // what a kernel without NUMA has
		if b, err := os.ReadFile(set.online); err == nil {
			online = strings.TrimSpace(string(b))
		}
		have, err := parseCPUList(online)
		if err != nil {
			return err
		}
		for n := range asked {
			if !have[n] {
				return fmt.Errorf("Requested %s are not available - requested %s, available: %s", set.things, set.asked, online)
			}
		}
	}
	return nil
}

// parseCPUList parses the kernel's list format, "0-3,5".
func parseCPUList(s string) (map[int]bool, error) {
	const most = 1 << 13 // NR_CPUS of the largest kernels
	set := map[int]bool{}
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.ParseUint(first, 10, 31)
		to := from
		if err == nil && isRange {
			to, err = strconv.ParseUint(last, 10, 31)
		}
		if err != nil || from > to || to >= most {
			return nil, fmt.Errorf("invalid list %q", s)
		}
		for n := from; n <= to; n++ {
			set[int(n)] = true
		}
	}
	return set, nil
}

// swapValue is --memory-swap: a size, or -1 for no limit.
type swapValue int64

func (v *swapValue) String() string {
	if *v == -1 {
		return "-1"
	}
	return (*bytesValue)(v).String()
}
func (v *swapValue) Type() string { return "bytes" }
func (v *swapValue) Set(s string) error {
	if s == "-1" {
		*v = -1
		return nil
	}
	return (*bytesValue)(v).Set(s)
}

// quietBytes is a size whose default is not shown.
type quietBytes struct{ n bytesValue }

func (v *quietBytes) String() string     { return "" }
func (v *quietBytes) Type() string       { return v.n.Type() }
func (v *quietBytes) Set(s string) error { return v.n.Set(s) }

// splitDevice takes PATH:VALUE apart.
func splitDevice(s string) (path, value string, err error) {
	path, value, ok := strings.Cut(s, ":")
	if !ok || path == "" {
		return "", "", fmt.Errorf("bad format: %s", s)
	}
	if !strings.HasPrefix(path, "/dev/") {
		return "", "", fmt.Errorf("bad format for device path: %s", s)
	}
	return path, value, nil
}

// weightValue collects PATH:WEIGHT.
type weightValue []spec.WeightDevice

func (v *weightValue) String() string { return "[]" }
func (v *weightValue) Type() string   { return "list" }
func (v *weightValue) Set(s string) error {
	path, value, err := splitDevice(s)
	if err != nil {
		return err
	}
	weight, err := strconv.ParseUint(value, 10, 16)
	if err != nil || weight > 0 && (weight < 10 || weight > 1000) {
		return fmt.Errorf("invalid weight for device: %s", s)
	}
	*v = append(*v, spec.WeightDevice{Path: path, Weight: uint16(weight)})
	return nil
}

// throttleValue collects PATH:RATE; with count the rate is a number, else a
// size.
type throttleValue struct {
	devices []spec.ThrottleDevice
	count   bool
}

func (v *throttleValue) String() string { return "[]" }
func (v *throttleValue) Type() string   { return "list" }
func (v *throttleValue) Set(s string) error {
	path, value, err := splitDevice(s)
	if err != nil {
		return err
	}
	d := spec.ThrottleDevice{Path: path}
	if v.count {
		if d.Rate, err = strconv.ParseUint(value, 10, 64); err != nil {
			return fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", s)
		}
	} else {
		n, err := units.RAMInBytes(value)
		if err != nil || n < 0 {
			return fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", s)
		}
		d.Rate = uint64(n)
	}
	v.devices = append(v.devices, d)
	return nil
}
