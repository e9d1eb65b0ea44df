package runtime

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
)

// groupFile is one write to a cgroup file.
type groupFile struct {
	controller, name, value string
	optional                bool // a kernel without it does as well
}

// Apply sets the resources of an OCI configuration, but for devices. What this
// machine cannot limit is an error: nobody should believe in a limit that is
// not there.
func (g *Group) Apply(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	files, err := g.resourceFiles(r)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.optional && !g.has(f.controller, f.name) {
			continue
		}
		if err := g.write(f.controller, f.name, f.value); err != nil {
			return err
		}
	}
	return g.applyMemory(r.Memory)
}

// resourceFiles says what is to be written where, but for memory.
func (g *Group) resourceFiles(r *specs.LinuxResources) (files []groupFile, err error) {
	add := func(controller, name, value string) {
		files = append(files, groupFile{controller: controller, name: name, value: value})
	}
	if r.CPU != nil {
		g.cpuFiles(r.CPU, add)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		switch n := *r.Pids.Limit; {
		case n > 0:
			add("pids", "pids.max", itoa(n))
		case n < 0:
			add("pids", "pids.max", "max")
		}
	}
	if r.BlockIO != nil {
		g.blockFiles(r.BlockIO, add)
	}
	for _, h := range r.HugepageLimits {
		if strings.ContainsAny(h.Pagesize, "/ \n") {
			return nil, errs.New(errs.Invalid, "hugepageLimits: %q is no page size", h.Pagesize)
		}
		suffix := map[bool]string{true: ".max", false: ".limit_in_bytes"}[g.V2()]
		add("hugetlb", "hugetlb."+h.Pagesize+suffix, itoa(h.Limit))
		files = append(files, groupFile{"hugetlb", "hugetlb." + h.Pagesize + ".rsvd" + suffix, itoa(h.Limit), true})
	}
	for _, device := range slices.Sorted(maps.Keys(r.Rdma)) {
		value := device
		if n := r.Rdma[device].HcaHandles; n != nil {
			value += " hca_handle=" + itoa(*n)
		}
		if n := r.Rdma[device].HcaObjects; n != nil {
			value += " hca_object=" + itoa(*n)
		}
		add("rdma", "rdma.max", value)
	}
	if n := r.Network; n != nil && !g.V2() { // version 2 has no such controllers
		if n.ClassID != nil {
			add("net_cls", "net_cls.classid", itoa(*n.ClassID))
		}
		for _, p := range n.Priorities {
			add("net_prio", "net_prio.ifpriomap", p.Name+" "+itoa(p.Priority))
		}
	}
	return g.unifiedFiles(r.Unified, files)
}

// unifiedFiles are those that the configuration names itself.
func (g *Group) unifiedFiles(unified map[string]string, files []groupFile) ([]groupFile, error) {
	for _, name := range slices.Sorted(maps.Keys(unified)) {
		controller, _, ok := strings.Cut(name, ".")
		switch {
		case !ok || strings.Contains(name, "/"):
			return nil, errs.New(errs.Invalid, "linux.resources.unified: %q is no cgroup file", name)
		case !g.V2():
			return nil, errs.New(errs.Unsupported, "linux.resources.unified is for cgroup v2, and this machine has v1")
		}
		for line := range strings.Lines(unified[name]) {
			if line = strings.TrimSpace(line); line != "" {
				files = append(files, groupFile{controller: controller, name: name, value: line})
			}
		}
	}
	return files, nil
}

func (g *Group) cpuFiles(c *specs.LinuxCPU, add func(controller, name, value string)) {
	if c.Shares != nil && *c.Shares > 0 {
		if g.V2() {
			add("cpu", "cpu.weight", itoa(weightOfShares(int64(*c.Shares))))
		} else {
			add("cpu", "cpu.shares", itoa(*c.Shares))
		}
	}
	if c.Idle != nil {
		add("cpu", "cpu.idle", itoa(*c.Idle))
	}
	if g.V2() {
		g.cpuMax(c, add)
	} else {
		// A burst may not be above the quota, nor the quota below a burst.
		if c.Period != nil && *c.Period > 0 {
			add("cpu", "cpu.cfs_period_us", itoa(*c.Period))
		}
		if c.Quota != nil && *c.Quota != 0 {
			add("cpu", "cpu.cfs_quota_us", itoa(*c.Quota))
		}
		if c.Burst != nil {
			add("cpu", "cpu.cfs_burst_us", itoa(*c.Burst))
		}
		if c.RealtimePeriod != nil && *c.RealtimePeriod > 0 {
			add("cpu", "cpu.rt_period_us", itoa(*c.RealtimePeriod))
		}
		if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
			add("cpu", "cpu.rt_runtime_us", itoa(*c.RealtimeRuntime))
		}
	}
	if c.Cpus != "" {
		add("cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		add("cpuset", "cpuset.mems", c.Mems)
	}
}

func (g *Group) cpuMax(c *specs.LinuxCPU, add func(controller, name, value string)) {
	if c.Quota != nil && *c.Quota != 0 || c.Period != nil && *c.Period > 0 {
		value, period := "max", uint64(defaultPeriod)
		if c.Quota != nil && *c.Quota > 0 {
			value = itoa(*c.Quota)
		}
		if c.Period != nil && *c.Period > 0 {
			period = *c.Period
		}
		add("cpu", "cpu.max", value+" "+itoa(period))
	}
	if c.Burst != nil {
		add("cpu", "cpu.max.burst", itoa(*c.Burst))
	}
}

func (g *Group) blockFiles(b *specs.LinuxBlockIO, add func(controller, name, value string)) {
	controller, plain, weight := "blkio", "blkio.weight", func(n uint16) string { return itoa(n) }
	bfq := "blkio.bfq.weight"
	if g.V2() {
		controller, plain, bfq = "io", "io.weight", "io.bfq.weight"
		weight = func(n uint16) string { return itoa(ioWeight(uint64(n))) }
	}
	withBFQ := g.has(controller, bfq)
	if withBFQ {
		plain, weight = bfq, func(n uint16) string { return itoa(n) }
	}
	if b.Weight != nil && *b.Weight != 0 {
		value := weight(*b.Weight)
		if g.V2() && !withBFQ {
			value = "default " + value
		}
		add(controller, plain, value)
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 && !g.V2() {
		add(controller, "blkio.leaf_weight", itoa(*b.LeafWeight))
	}
	device := func(major, minor int64) string { return fmt.Sprintf("%d:%d ", major, minor) }
	name := plain
	if !g.V2() {
		name = plain + "_device"
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil && *d.Weight != 0 {
			add(controller, name, device(d.Major, d.Minor)+weight(*d.Weight))
		}
		if d.LeafWeight != nil && *d.LeafWeight != 0 && !g.V2() {
			add(controller, "blkio.leaf_weight_device", device(d.Major, d.Minor)+itoa(*d.LeafWeight))
		}
	}
	for _, t := range []struct {
		v1, v2 string
		all    []specs.LinuxThrottleDevice
	}{
		{"read_bps", "rbps", b.ThrottleReadBpsDevice},
		{"write_bps", "wbps", b.ThrottleWriteBpsDevice},
		{"read_iops", "riops", b.ThrottleReadIOPSDevice},
		{"write_iops", "wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.all {
			switch {
			case !g.V2():
				add("blkio", "blkio.throttle."+t.v1+"_device", device(d.Major, d.Minor)+itoa(d.Rate))
			case d.Rate == 0:
				add("io", "io.max", device(d.Major, d.Minor)+t.v2+"=max")
			default:
				add("io", "io.max", device(d.Major, d.Minor)+t.v2+"="+itoa(d.Rate))
			}
		}
	}
}

// applyMemory sets the memory limits. On version 1 the limit may not be above
// that of memory and swap together, whichever way both go.
func (g *Group) applyMemory(m *specs.LinuxMemory) error {
	if m == nil {
		return nil
	}
	files, err := g.memoryFiles(m)
	if err != nil {
		return err
	}
	var late []groupFile
	for _, f := range files {
		if f.optional && !g.has(f.controller, f.name) {
			continue
		}
		err := g.write(f.controller, f.name, f.value)
		if err != nil && f.name == "memory.limit_in_bytes" {
			late = append(late, f)
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, f := range late {
		if err := g.write(f.controller, f.name, f.value); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) memoryFiles(m *specs.LinuxMemory) (files []groupFile, err error) {
	add := func(name, value string, optional bool) {
		files = append(files, groupFile{"memory", name, value, optional})
	}
	if m.Swappiness != nil && *m.Swappiness > 100 {
		return nil, errs.New(errs.Invalid, "memory.swappiness: %d is not between 0 and 100", *m.Swappiness)
	}
	if m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate && m.Limit != nil && *m.Limit > 0 {
		if used := g.memoryUsed(); used > uint64(*m.Limit) {
			return nil, errs.New(errs.Conflict, "memory.limit: %d bytes are in use, more than the limit of %d", used, *m.Limit)
		}
	}
	value := func(n *int64) string {
		if g.V2() && *n < 0 {
			return "max"
		}
		return itoa(*n)
	}
	set := func(n *int64) bool { return n != nil && *n != 0 }
	if g.V2() {
		if set(m.Limit) {
			add("memory.max", value(m.Limit), false)
		}
		if set(m.Reservation) {
			add("memory.low", value(m.Reservation), false)
		}
		if set(m.Swap) {
			swap := *m.Swap
			if swap > 0 {
				if m.Limit == nil || *m.Limit <= 0 || swap < *m.Limit {
					return nil, errs.New(errs.Invalid, "memory.swap of %d bytes includes memory.limit, which has to be set and not above", swap)
				}
				swap -= *m.Limit
			}
			add("memory.swap.max", value(&swap), true)
		}
		return files, nil
	}
	if set(m.Limit) {
		add("memory.limit_in_bytes", itoa(*m.Limit), false)
	}
	if set(m.Swap) {
		add("memory.memsw.limit_in_bytes", itoa(*m.Swap), true)
	}
	if set(m.Reservation) {
		add("memory.soft_limit_in_bytes", itoa(*m.Reservation), false)
	}
	if set(m.KernelTCP) {
		add("memory.kmem.tcp.limit_in_bytes", itoa(*m.KernelTCP), true)
	}
	if m.Swappiness != nil {
		add("memory.swappiness", itoa(*m.Swappiness), false)
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		add("memory.oom_control", "1", false)
	}
	return files, nil
}

func (g *Group) memoryUsed() uint64 {
	name := "memory.usage_in_bytes"
	if g.V2() {
		name = "memory.current"
	}
	return number(g.c.file(g.Path, "memory", name))
}
