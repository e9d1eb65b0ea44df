package runtime

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// BlockLimit is one limit of one block device.
type BlockLimit struct {
	Device string // "major:minor"
	Key    string // as in v2's io.max: rbps, wbps, riops or wiops; "weight" for a weight
	Value  uint64
}

// spareControllers are those of v1Spare that a container's limits need.
func spareControllers(h *spec.HostConfig) string {
	var all []string
	if h.CpusetCpus != "" || h.CpusetMems != "" {
		all = append(all, "cpuset")
	}
	if h.BlkioWeight != 0 || len(h.BlkioWeightDevice)+len(h.BlkioDeviceReadBps)+len(h.BlkioDeviceWriteBps)+
		len(h.BlkioDeviceReadIOps)+len(h.BlkioDeviceWriteIOps) > 0 {
		all = append(all, "blkio")
	}
	return strings.Join(all, ",")
}

// blockLimits looks the devices up on the host.
func blockLimits(h *spec.HostConfig) (all []BlockLimit, err error) {
	for _, w := range h.BlkioWeightDevice {
		if w.Weight == 0 {
			continue
		}
		if err := addBlockLimit(&all, w.Path, "weight", uint64(w.Weight)); err != nil {
			return nil, err
		}
	}
	for _, t := range []struct {
		key     string
		devices []spec.ThrottleDevice
	}{
		{"rbps", h.BlkioDeviceReadBps},
		{"wbps", h.BlkioDeviceWriteBps},
		{"riops", h.BlkioDeviceReadIOps},
		{"wiops", h.BlkioDeviceWriteIOps},
	} {
		for _, d := range t.devices {
			if err := addBlockLimit(&all, d.Path, t.key, d.Rate); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func addBlockLimit(all *[]BlockLimit, path, key string, value uint64) error {
	fi, err := os.Stat(path)
	if err != nil {
		return errs.New(errs.Invalid, "limit of a block device: %w", err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || fi.Mode()&os.ModeDevice == 0 || fi.Mode()&os.ModeCharDevice != 0 {
		return errs.New(errs.Invalid, "limit of a block device: %s is no block device", path)
	}
	major, minor := sys.SplitDevice(st.Rdev)
	*all = append(*all, BlockLimit{Device: fmt.Sprintf("%d:%d", major, minor), Key: key, Value: value})
	return nil
}

// ioWeight converts v1's weight (10 to 1000) to v2's (1 to 10000), linearly.
func ioWeight(weight uint64) uint64 { return 1 + (max(weight, 10)-10)*9999/990 }

const (
	lackWeight       = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
	lackWeightDevice = "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."
)

// limitWeight sets the weight among block devices' users. Which file has it
// depends on the I/O scheduler: BFQ takes v1's numbers, also on version 2.
func (c *cgroups) limitWeight(slot string, l Limits) error {
	if l.Weight == 0 {
		return nil
	}
	plain := strconv.Itoa(int(l.Weight))
	if c.v2 != "" {
		err := c.set(slot, "io", "io.bfq.weight", plain)
		if !errors.As(err, new(noController)) {
			return err
		}
		return c.try(slot, "io", "io.weight", "default "+strconv.FormatUint(ioWeight(uint64(l.Weight)), 10), lackWeight)
	}
	err := c.set(slot, "blkio", "blkio.weight", plain)
	if !errors.As(err, new(noController)) {
		return err
	}
	return c.try(slot, "blkio", "blkio.bfq.weight", plain, lackWeight)
}

// limitBlock sets the limits of single devices, one line in one write each, as
// the kernel wants it.
func (c *cgroups) limitBlock(slot string, l Limits) error {
	var all []error
	for _, b := range l.Block {
		all = append(all, c.limitDevice(slot, b))
	}
	return worst(all)
}

func (c *cgroups) limitDevice(slot string, b BlockLimit) error {
	if b.Key == "weight" {
		return c.weighDevice(slot, b)
	}
	value := strconv.FormatUint(b.Value, 10)
	kind, what := map[byte]string{'r': "read", 'w': "write"}[b.Key[0]], b.Key[1:] // bps or iops
	lack := fmt.Sprintf("Your kernel does not support %s Block I/O %s limit or the cgroup is not mounted. Block I/O %s %s limit discarded.",
		strings.ToUpper(what), kind, strings.ToUpper(what), kind)
	if c.v2 != "" {
		if b.Value == 0 {
			value = "max"
		}
		return c.try(slot, "io", "io.max", b.Device+" "+b.Key+"="+value, lack)
	}
	return c.try(slot, "blkio", "blkio.throttle."+kind+"_"+what+"_device", b.Device+" "+value, lack)
}

func (c *cgroups) weighDevice(slot string, b BlockLimit) error {
	controller, plain, bfq, value := "blkio", "blkio.weight_device", "blkio.bfq.weight_device", b.Value
	if c.v2 != "" {
		controller, plain, bfq, value = "io", "io.weight", "io.bfq.weight", ioWeight(b.Value)
	}
	err := c.set(slot, controller, bfq, b.Device+" "+strconv.FormatUint(b.Value, 10))
	if !errors.As(err, new(noController)) {
		return err
	}
	return c.try(slot, controller, plain, b.Device+" "+strconv.FormatUint(value, 10), lackWeightDevice)
}
