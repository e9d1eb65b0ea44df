package container

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"

	"tug/errs"
	"tug/runtime"
	"tug/spec"
)

// Update changes limits of a container: those of change that are not zero. A
// running container has them at once. The cgroup comes first and goes back when
// the description cannot be written, so what the container says it has it gets
// at the next start in any case.
func (c *Containers) Update(id string, change *spec.HostConfig) (warnings []string, err error) {
	lock, err := c.lock(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSuch(id)
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	ctr, err := c.config(id)
	if err != nil {
		return nil, err
	}
	was := ctr.Host
	if err := applyChange(&ctr.Host, change); err != nil {
		return nil, fmt.Errorf("Cannot update container %s: %w", id, err)
	}
	undo := func() {}
	if r, rerr := c.startRecord(id); rerr == nil && r.alive() {
		warnings, undo, err = runtime.Update(r.Cgroup, &was, &ctr.Host)
		if err != nil && r.alive() {
			return nil, fmt.Errorf("Cannot update container %s: %w", id, err)
		}
		if err != nil { // it ended just now: then this is for its next start
			undo = func() {}
		}
	}
	if err := c.st.WriteJSON(c.path(id, fileConfig), ctr, !ctr.Host.AutoRemove); err != nil {
		undo()
		return nil, fmt.Errorf("Cannot update container %s: %w", id, noSpace(err))
	}
	c.did(ctr, "update")
	return warnings, nil
}

// applyChange sets in h what change says, and refuses what does not fit what
// h has already.
func applyChange(h, change *spec.HostConfig) error {
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory // as it is in force
	}
	for _, conflict := range []struct {
		is   bool
		text string
	}{
		{h.NanoCPUs > 0 && change.CPUPeriod > 0, "CPU Period cannot be updated as NanoCPUs has already been set"},
		{h.NanoCPUs > 0 && change.CPUQuota > 0, "CPU Quota cannot be updated as NanoCPUs has already been set"},
		{change.NanoCPUs > 0 && h.CPUPeriod > 0, "NanoCPUs cannot be updated as CPU Period has already been set"},
		{change.NanoCPUs > 0 && h.CPUQuota > 0, "NanoCPUs cannot be updated as CPU Quota has already been set"},
	} {
		if conflict.is {
			return errs.New(errs.Conflict, "Conflicting options: %s", conflict.text)
		}
	}
	switch {
	case change.Memory > h.MemorySwap && change.MemorySwap == 0 && h.MemorySwap > 0:
		return errs.New(errs.Conflict, "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	case change.MemorySwap > 0 && change.Memory == 0 && change.MemorySwap < h.Memory:
		return errs.New(errs.Invalid, "Minimum memoryswap limit should be larger than memory limit, see usage")
	case change.MemorySwap > 0 && cmp.Or(change.Memory, h.Memory) == 0:
		return errs.New(errs.Invalid, "You should always set the Memory limit when using Memoryswap limit, see usage")
	case change.Memory > 0 && change.MemoryReservation == 0 && change.Memory < h.MemoryReservation,
		change.Memory == 0 && h.Memory > 0 && change.MemoryReservation > h.Memory:
		return errs.New(errs.Invalid, "Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	for _, f := range []struct{ to, from *int64 }{
		{&h.Memory, &change.Memory},
		{&h.MemorySwap, &change.MemorySwap},
		{&h.MemoryReservation, &change.MemoryReservation},
		{&h.NanoCPUs, &change.NanoCPUs},
		{&h.CPUShares, &change.CPUShares},
		{&h.CPUPeriod, &change.CPUPeriod},
		{&h.CPUQuota, &change.CPUQuota},
		{&h.CPURealtimePeriod, &change.CPURealtimePeriod},
		{&h.CPURealtimeRuntime, &change.CPURealtimeRuntime},
	} {
		*f.to = cmp.Or(*f.from, *f.to)
	}
	h.CpusetCpus, h.CpusetMems = cmp.Or(change.CpusetCpus, h.CpusetCpus), cmp.Or(change.CpusetMems, h.CpusetMems)
	h.BlkioWeight = cmp.Or(change.BlkioWeight, h.BlkioWeight)
	if change.PidsLimit != nil {
		h.PidsLimit = change.PidsLimit
	}
	return nil
}
