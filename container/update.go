package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"tug/errs"
	"tug/runtime"
	"tug/spec"
)

// Update changes limits of a container, those of change that are not zero, and
// its restart policy where there is one. A running container has the limits at
// once, and the policy decides when it ends. The cgroup comes first and goes
// back when the description cannot be written, so what the container says it
// has it gets at the next start in any case.
func (c *Containers) Update(ctx context.Context, id string, change *spec.HostConfig, policy *spec.RestartPolicy) (warnings []string, err error) {
	lock, err := c.lock(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSuch(id)
	}
	if err != nil {
		return nil, err
	}
	warnings, err = c.update(id, change, policy)
	lock.Close()
	if err == nil && policy != nil {
		// A restart may be due no more, or be due now: of a run that has ended
		// meanwhile.
		err = c.client.Settle(ctx, id)
	}
	if err != nil {
		return nil, fmt.Errorf("Cannot update container %s: %w", id, err)
	}
	return warnings, nil
}

// update is Update with the container's lock held.
func (c *Containers) update(id string, change *spec.HostConfig, policy *spec.RestartPolicy) (warnings []string, err error) {
	s, err := c.load(id)
	if err != nil {
		return nil, err
	}
	ctr := &s.Container
	was := ctr.Host
	if err := applyChange(&ctr.Host, change); err != nil {
		return nil, err
	}
	if policy != nil {
		if ctr.Host.AutoRemove && policy.On() {
			return nil, errs.New(errs.Conflict, "Conflicting options: Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		ctr.Host.Restart = *policy
	}
	undo := func() {}
	r, rerr := c.startRecord(id)
	if rerr == nil && r.alive() {
		warnings, undo, err = runtime.Update(r.Cgroup, &was, &ctr.Host)
		if err != nil && r.alive() {
			return nil, err
		}
		if err != nil { // it ended just now: then this is for its next start
			undo = func() {}
		}
	}
	if policy != nil {
		err = c.allowRestarts(s, r, rerr == nil)
	} else {
		err = nil
	}
	if err == nil {
		err = c.st.WriteJSON(c.path(id, fileConfig), ctr, !ctr.Host.AutoRemove)
	}
	if err != nil {
		undo()
		return nil, noSpace(err)
	}
	if policy != nil && !ctr.Host.MayRestart() {
		os.Remove(c.st.Restart(id)) // the description comes first: see mark
	}
	c.did(ctr, "update")
	return warnings, nil
}

// allowRestarts prepares a container for a new restart policy, before its
// description has it: a container that is down stays so, and one that may be
// restarted is found. s has the new policy and the state by the old one.
func (c *Containers) allowRestarts(s *Summary, r *startRecord, ran bool) error {
	if ran && (s.State.Status == spec.StatusExited || s.State.Status == spec.StatusCreated) {
		if err := c.keepDown(s.ID, r.Run); err != nil {
			return err
		}
	}
	if s.Host.MayRestart() {
		return c.mark(s.ID)
	}
	return nil
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
