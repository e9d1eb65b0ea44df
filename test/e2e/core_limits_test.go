//go:build root

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// onV2 reports whether this machine has cgroup version 2 alone.
func onV2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// aDisk returns a block device of this machine with its numbers.
func aDisk(t *testing.T) (path, number string) {
	t.Helper()
	all, err := filepath.Glob("/sys/block/*/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		path := "/dev/" + filepath.Base(filepath.Dir(f))
		b, err := os.ReadFile(f)
		fi, serr := os.Stat(path)
		if err == nil && serr == nil && fi.Mode()&os.ModeDevice != 0 && !strings.HasPrefix(path, "/dev/loop") && !strings.HasPrefix(path, "/dev/zram") {
			return path, strings.TrimSpace(string(b))
		}
	}
	t.Skip("no block device here")
	return "", ""
}

func TestCoreMoreLimits(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	dev, number := aDisk(t)
	for _, tt := range []struct {
		flags, v1, want1, v2, want2 string
	}{
		{"-m 64m --memory-swap 96m", "memory/memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432"},
		{"-m 64m --memory-reservation 32m", "memory/memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"},
		{"--cpu-shares 512", "cpu/cpu.shares", "512", "cpu.weight", "59"},
		{"--cpu-period 50000 --cpu-quota 25000", "cpu/cpu.cfs_period_us", "50000", "cpu.max", "25000 50000"},
		{"--cpu-quota 25000", "cpu/cpu.cfs_quota_us", "25000", "cpu.max", "25000 100000"},
		{"--cpuset-cpus 0 --cpuset-mems 0", "cpuset/cpuset.cpus", "0", "cpuset.cpus", "0"},
		{
			"--device-read-bps " + dev + ":1mb", "blkio/blkio.throttle.read_bps_device", number + " 1048576",
			"io.max", number + " rbps=1048576 wbps=max riops=max wiops=max",
		},
		{
			"--device-write-iops " + dev + ":100", "blkio/blkio.throttle.write_iops_device", number + " 100",
			"io.max", number + " rbps=max wbps=max riops=max wiops=100",
		},
	} {
		file, want := tt.v1, tt.want1
		if onV2() {
			file, want = tt.v2, tt.want2
		}
		a := append(append(args("run", "--rm"), strings.Fields(tt.flags)...), image, "cat", "/sys/fs/cgroup/"+file)
		same(t, tt.flags, g.ok(a...), want)
	}
	// What is seen is also what holds, and the place on the host is not seen.
	out := g.ok("run", "--rm", "--cpuset-cpus", "0", "--device-read-bps", dev+":1mb", image, "sh", "-c", "grep Cpus_allowed_list /proc/self/status; cat /proc/self/cgroup")
	if !strings.Contains(out, "Cpus_allowed_list:\t0\n") || strings.Contains(out, "tug") {
		t.Errorf("%s", out)
	}
	g.fails(125, args("run", "--rm", "--cpuset-cpus", "4000", image, "true"), "Requested CPUs are not available - requested 4000")
	g.fails(125, args("run", "--rm", "--device-read-bps", "/dev/null:1", image, "true"), "/dev/null is no block device")
	if r := g.do(nil, "run", "--rm", "--kernel-memory", "64m", image, "true"); r.code != 0 || !strings.Contains(r.stderr, "deprecated") {
		t.Errorf("--kernel-memory: %v", r)
	}
}

func TestCoreOOMSettings(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	same(t, "raised", g.ok("run", "--rm", "--oom-score-adj", "700", image, "cat", "/proc/self/oom_score_adj"), "700")
	g.ok("run", "-d", "--name", "early", "--oom-score-adj", "600", image, "sleep", "1000")
	same(t, "exec", g.ok("exec", "early", "cat", "/proc/self/oom_score_adj"), "600")
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	low := args("run", "--rm", "--oom-score-adj", "-500", image, "cat", "/proc/self/oom_score_adj")
	if hasCapability(t, string(b), 24) { // CAP_SYS_RESOURCE
		same(t, "lowered", g.ok(low...), "-500")
	} else {
		g.fails(125, low, "--oom-score-adj -500", "CAP_SYS_RESOURCE")
	}
	r := g.do(nil, "run", "--rm", "-m", "64m", "--oom-kill-disable", image, "true")
	if dropped := strings.Contains(r.stderr, "OomKillDisable discarded"); r.code != 0 || dropped != onV2() {
		t.Errorf("--oom-kill-disable: %v", r)
	}
}

// What a start cannot do is said whoever starts, on standard error.
func TestCoreStartWarnings(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	limit, want := args("-m", "64m", "--oom-kill-disable"), "WARNING: Your kernel does not support OomKillDisable. OomKillDisable discarded.\n"
	if !onV2() {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		if hasCapability(t, string(b), 24) {
			t.Skip("this machine can do all")
		}
		limit, want = args("--cap-add", "SYS_RESOURCE"), "WARNING: tug itself does not have CAP_SYS_RESOURCE, so the container does not get it\n"
	}
	r := g.do(nil, append(append(args("run", "-d", "--name", "one"), limit...), image, "sleep", "1000")...)
	if r.code != 0 || r.stderr != want || len(r.stdout) != 65 {
		t.Errorf("run -d: %v", r)
	}
	for _, a := range [][]string{args("restart", "-t", "0", "one"), args("stop", "-t", "0", "one"), args("start", "one")} {
		said := want
		if a[0] == "stop" {
			said = ""
		}
		if r := g.do(nil, a...); r.code != 0 || r.stderr != said || r.stdout != "one\n" {
			t.Errorf("%s: %v", a[0], r)
		}
	}
}

// The limits are there for an exec too, and after all that tug has is killed
// the cgroups of the rare controllers go like the others (see close).
func TestCoreRareCgroups(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "pinned", "--cpuset-cpus", "0", image, "sleep", "1000")
	same(t, "exec", g.ok("exec", "pinned", "grep", "Cpus_allowed_list", "/proc/self/status"), "Cpus_allowed_list:\t0")
	// The next ones have none of it.
	plain := g.ok("run", "--rm", image, "grep", "Cpus_allowed_list", "/proc/self/status")
	ours, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	same(t, "a plain container", strings.TrimSpace(strings.TrimPrefix(plain, "Cpus_allowed_list:")), field(string(ours), "Cpus_allowed_list"))
	keeper, supervisor := g.resident()
	for _, pid := range []int{keeper, supervisor} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, patience, func() string {
		if s := g.state("pinned"); s.State.Status == "running" {
			return "it still runs"
		}
		return ""
	})
	g.ok("run", "--rm", image, "true") // a new supervisor sweeps
}
