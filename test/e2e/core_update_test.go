//go:build root

package e2e

import (
	"strings"
	"testing"
)

func TestCoreUpdate(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "box", "-m", "64m", "--pids-limit", "50", image, "sh", "-c", "sleep 1000 & exec sleep 1000")
	id := g.state("box").ID
	read := func(v1, v2 string) string {
		t.Helper()
		file := v1
		if onV2() {
			file = v2
		}
		return g.ok("exec", "box", "cat", "/sys/fs/cgroup/"+file)
	}
	for _, tt := range []struct {
		flags, v1, want1, v2, want2 string
	}{
		{"-m 96m", "memory/memory.limit_in_bytes", "100663296", "memory.max", "100663296"},
		{"-m 256m --memory-swap 512m", "memory/memory.limit_in_bytes", "268435456", "memory.max", "268435456"},
		{"--memory-swap 300m", "memory/memory.memsw.limit_in_bytes", "314572800", "memory.swap.max", "46137344"},
		{"-m 32m --memory-swap 48m", "memory/memory.memsw.limit_in_bytes", "50331648", "memory.swap.max", "16777216"},
		{"--memory-swap -1", "memory/memory.memsw.limit_in_bytes", "9223372036854771712", "memory.swap.max", "max"},
		{"--memory-reservation 16m", "memory/memory.soft_limit_in_bytes", "16777216", "memory.low", "16777216"},
		{"-c 512", "cpu/cpu.shares", "512", "cpu.weight", "59"},
		{"--cpu-quota 25000", "cpu/cpu.cfs_quota_us", "25000", "cpu.max", "25000 100000"},
		{"--cpu-period 50000", "cpu/cpu.cfs_period_us", "50000", "cpu.max", "25000 50000"},
		{"--cpu-quota -1", "cpu/cpu.cfs_quota_us", "-1", "cpu.max", "max 50000"},
		{"--pids-limit 70", "pids/pids.max", "70", "pids.max", "70"},
		{"--pids-limit -1", "pids/pids.max", "max", "pids.max", "max"},
	} {
		r := g.do(nil, append(append(args("update"), strings.Fields(tt.flags)...), "box")...)
		if r.code != 0 || r.stdout != "box\n" || r.stderr != "" {
			t.Errorf("%v", r)
		}
		want := tt.want1
		if onV2() {
			want = tt.want2
		}
		same(t, tt.flags, read(tt.v1, tt.v2), want)
	}
	// Also for what the container had no cgroup of yet, and all its processes.
	g.ok("update", "--cpuset-cpus", "0", "box")
	for _, pid := range append(strings.Fields(g.ok("exec", "box", "sh", "-c", "cd /proc; echo [0-9]*")), "self") {
		r := g.do(nil, "exec", "box", "grep", "Cpus_allowed_list", "/proc/"+pid+"/status")
		if r.code == 0 && r.stdout != "Cpus_allowed_list:\t0\n" {
			t.Errorf("process %s: %s", pid, r.stdout)
		}
	}

	// It stays.
	var c struct {
		HostConfig struct {
			Memory, MemorySwap, CpuQuota, CpuShares, PidsLimit int64
			CpusetCpus                                         string
		}
	}
	g.ok("restart", "-t", "0", "box")
	g.inspect(&c, "box")
	if h := c.HostConfig; h.Memory != 32<<20 || h.MemorySwap != -1 || h.CpuQuota != -1 || h.CpuShares != 512 || h.PidsLimit != -1 || h.CpusetCpus != "0" {
		t.Errorf("inspect: %+v", h)
	}
	same(t, "memory", read("memory/memory.limit_in_bytes", "memory.max"), "33554432")
	same(t, "cpuset", g.ok("exec", "box", "grep", "Cpus_allowed_list", "/proc/self/status"), "Cpus_allowed_list:\t0")

	// Stopped, it is changed for the next start.
	g.ok("stop", "-t", "0", "box")
	g.ok("container", "update", "--pids-limit", "33", "box")
	g.ok("start", "box")
	same(t, "after a start", read("pids/pids.max", "pids.max"), "33")

	// Nothing changes when something is refused.
	g.ok("update", "--memory-swap", "48m", "box")
	g.fails(1, args("update", "--pids-limit", "44", "-m", "1g", "box"), "Cannot update container "+id+": Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	g.fails(1, args("update", "box"), "you must provide one or more flags when using this command")
	g.fails(1, args("update", "-m", "1m", "box"), "Minimum memory limit allowed is 6MB")
	g.fails(1, args("update", "--cpuset-cpus", "4000", "box"), "Requested CPUs are not available")
	g.fails(1, args("update", "--cpus", "0.5", "nobody"), "No such container: nobody")
	// Not even when other things were set already.
	g.fails(1, args("update", "-m", "40m", "--cpu-shares", "300", "--cpu-rt-runtime", "900000", "box"), "Cannot update container "+id)
	same(t, "memory", read("memory/memory.limit_in_bytes", "memory.max"), "33554432")
	same(t, "shares", strings.Replace(read("cpu/cpu.shares", "cpu.weight"), "59", "512", 1), "512")
	same(t, "pids", read("pids/pids.max", "pids.max"), "33")

	// What the kernel refuses, too: the limit goes below what is in use.
	if onV2() {
		return // it kills instead
	}
	g.ok("exec", "box", "sh", "-c", "dd if=/dev/zero of=/dev/shm/fill bs=1M count=20 2>/dev/null")
	g.fails(1, args("update", "--pids-limit", "44", "-m", "6m", "--memory-swap", "6m", "--memory-reservation", "6m", "box"),
		"Cannot update container "+id+": set memory.", "device or resource busy")
	same(t, "memory", read("memory/memory.limit_in_bytes", "memory.max"), "33554432")
	same(t, "pids", read("pids/pids.max", "pids.max"), "33")
	g.inspect(&c, "box")
	if h := c.HostConfig; h.Memory != 32<<20 || h.PidsLimit != 33 {
		t.Errorf("inspect: %+v", h)
	}
}
