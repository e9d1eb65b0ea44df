package runtime

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
)

// fakeSlot makes empty files in the slot of a hierarchy.
func fakeSlot(t *testing.T, mount, slot string, files string) {
	t.Helper()
	if err := os.MkdirAll(mount+slot, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(files) {
		if err := os.WriteFile(filepath.Join(mount+slot, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// written reads back all that is not empty.
func written(t *testing.T, mounts ...string) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, m := range mounts {
		files, err := filepath.Glob(m + "/tug/0a/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > 0 {
				got[filepath.Base(f)] = string(b)
			}
		}
	}
	return got
}

func allLimits() Limits {
	zero := int64(0)
	return Limits{
		Memory: 64 << 20, MemorySwap: 96 << 20, MemoryReservation: 32 << 20, Swappiness: &zero, NoOOMKill: true,
		CPUShares: 512, CPUPeriod: 50_000, CPUQuota: 25_000, CPUs: "0-1", Mems: "0", Pids: 7, Weight: 500,
		Block: []BlockLimit{{"8:0", "rbps", 1 << 20}},
	}
}

func TestLimitsV2(t *testing.T) {
	const slot = "/tug/0a"
	c := &cgroups{v2: t.TempDir(), parent: "/tug"}
	fakeSlot(t, c.v2, slot, "memory.max memory.swap.max memory.low cpu.max cpu.weight cpuset.cpus cpuset.mems pids.max io.weight io.max")
	if warnings, err := c.limit(slot, Limits{}); err != nil || warnings != nil || len(written(t, c.v2)) > 0 {
		t.Errorf("no limits: %v, %v, wrote %v", warnings, err, written(t, c.v2))
	}
	warnings, err := c.limit(slot, allLimits())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "33554432", "cpu.max": "25000 50000", "cpu.weight": "59",
		"cpuset.cpus": "0-1", "cpuset.mems": "0", "pids.max": "7", "io.weight": "default 4950", "io.max": "8:0 rbps=1048576",
	}
	if diff := cmp.Diff(want, written(t, c.v2)); diff != "" {
		t.Error(diff)
	}
	if s := strings.Join(warnings, "\n"); !strings.Contains(s, "swappiness discarded") || !strings.Contains(s, "OomKillDisable discarded") || len(warnings) != 1 {
		t.Errorf("warnings: %q", warnings)
	}
	if _, err := c.limit(slot, Limits{RTRuntime: 1000}); err == nil || !strings.Contains(err.Error(), "real-time scheduler") {
		t.Errorf("real-time on version 2: %v", err)
	}
}

// BFQ has a file of its own, with v1's range.
func TestWeightsBFQ(t *testing.T) {
	const slot = "/tug/0a"
	device := Limits{Block: []BlockLimit{{"8:0", "weight", 300}}}
	for _, tt := range []struct {
		files  string
		limits Limits
		want   map[string]string
	}{
		{"io.bfq.weight io.weight", Limits{Weight: 500}, map[string]string{"io.bfq.weight": "500"}},
		{"io.bfq.weight io.weight", device, map[string]string{"io.bfq.weight": "8:0 300"}},
		{"io.weight", device, map[string]string{"io.weight": "8:0 2930"}},
	} {
		c := &cgroups{v2: t.TempDir(), parent: "/tug"}
		fakeSlot(t, c.v2, slot, tt.files)
		if warnings, err := c.limit(slot, tt.limits); err != nil || warnings != nil {
			t.Errorf("%s: %v, %v", tt.files, warnings, err)
		}
		if diff := cmp.Diff(tt.want, written(t, c.v2)); diff != "" {
			t.Errorf("%s: %s", tt.files, diff)
		}
	}
	c := &cgroups{v2: t.TempDir(), parent: "/tug"}
	fakeSlot(t, c.v2, slot, "")
	device.Weight = 10
	if warnings, err := c.limit(slot, device); err != nil || len(warnings) != 2 {
		t.Errorf("no weights at all: %v, %v", warnings, err)
	}
}

func TestLimitsV1(t *testing.T) {
	const slot = "/tug/0a"
	var c cgroups
	c.parent = "/tug"
	mount := func(controllers ...string) hierarchy { return hierarchy{t.TempDir(), controllers} }
	c.v1 = []hierarchy{mount("cpu", "cpuacct"), mount("memory"), mount("pids")}
	c.spare = []hierarchy{mount("cpuset"), mount("blkio")}
	fakeSlot(t, c.v1[0].mount, slot, "cpu.shares cpu.cfs_period_us cpu.cfs_quota_us")
	fakeSlot(t, c.v1[1].mount, slot, "memory.limit_in_bytes memory.memsw.limit_in_bytes memory.soft_limit_in_bytes memory.swappiness memory.oom_control")
	fakeSlot(t, c.v1[2].mount, slot, "pids.max")
	fakeSlot(t, c.spare[0].mount, slot, "cpuset.cpus cpuset.mems")
	fakeSlot(t, c.spare[1].mount, slot, "blkio.bfq.weight blkio.throttle.read_bps_device")
	warnings, err := c.limit(slot, allLimits())
	if err != nil || warnings != nil {
		t.Fatal(warnings, err)
	}
	want := map[string]string{
		"memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "100663296", "memory.soft_limit_in_bytes": "33554432",
		"memory.swappiness": "0", "memory.oom_control": "1", "cpu.shares": "512", "cpu.cfs_period_us": "50000", "cpu.cfs_quota_us": "25000",
		"cpuset.cpus": "0-1", "cpuset.mems": "0", "pids.max": "7", "blkio.bfq.weight": "500", "blkio.throttle.read_bps_device": "8:0 1048576",
	}
	if diff := cmp.Diff(want, written(t, c.roots()...)); diff != "" {
		t.Error(diff)
	}
}

func TestMemorySwap(t *testing.T) {
	const slot = "/tug/0a"
	for swap, want := range map[int64]string{0: "67108864", -1: "", 64 << 20: "0", 65 << 20: "1048576"} {
		c := &cgroups{v2: t.TempDir(), parent: "/tug"}
		fakeSlot(t, c.v2, slot, "memory.max memory.swap.max")
		if _, err := c.limit(slot, Limits{Memory: 64 << 20, MemorySwap: swap}); err != nil {
			t.Fatal(err)
		}
		if got := written(t, c.v2)["memory.swap.max"]; got != want {
			t.Errorf("--memory-swap %d: %q, want %q", swap, got, want)
		}
	}
}

func TestWeights(t *testing.T) {
	for shares, want := range map[int64]int64{1: 1, 2: 1, 512: 59, 1024: 100, 2048: 174, 262144: 10000, 1 << 40: 10000} {
		if got := weightOfShares(shares); got != want {
			t.Errorf("%d shares: weight %d, want %d", shares, got, want)
		}
	}
	for weight, want := range map[uint64]uint64{10: 1, 500: 4950, 1000: 10000} {
		if got := ioWeight(weight); got != want {
			t.Errorf("blkio weight %d: %d, want %d", weight, got, want)
		}
	}
}

// Hierarchies that only limits need are set apart, unless mounted with others.
func TestSpareHierarchies(t *testing.T) {
	const line = "1 2 0:1 / /sys/fs/cgroup/%s rw - cgroup cgroup rw,%s\n"
	var text strings.Builder
	for _, name := range []string{"cpu,cpuacct", "cpuset", "blkio", "net_cls", "pids"} {
		text.WriteString(strings.ReplaceAll(line, "%s", name))
	}
	c, err := parseLayout(bufio.NewScanner(strings.NewReader(text.String())), false)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.makeLayout(nil); got != "cpu,cpuacct;pids" {
		t.Errorf("layout: %s", got)
	}
	if got := c.makeLayout(c.asked("blkio")); got != "cpu,cpuacct;pids;blkio" {
		t.Errorf("layout with blkio: %s", got)
	}
	r := &Runtime{cgroups: c}
	if ns := (Namespaces{Controllers: "cpuset,blkio"}); r.Needs(ns) != ns {
		t.Errorf("needs %v", r.Needs(ns))
	}
	r = &Runtime{cgroups: &cgroups{v2: "/sys/fs/cgroup"}}
	if got := r.Needs(Namespaces{Controllers: "cpuset"}); got != (Namespaces{}) {
		t.Errorf("version 2 needs %v", got)
	}
}

func TestInheritCpuset(t *testing.T) {
	root := t.TempDir()
	for dir, have := range map[string]string{"": "0-3\n", "/tug": "\n", "/tug/0a": "\n"} {
		fakeSlot(t, root, dir, "")
		for _, name := range []string{"/cpuset.cpus", "/cpuset.mems"} {
			if err := os.WriteFile(root+dir+name, []byte(have), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := inheritCpuset(root, "/tug/0a"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(root + "/tug/0a/cpuset.mems")
	if err != nil || !strings.HasPrefix(string(b), "0-3") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestBlockLimitsLookUpDevices(t *testing.T) {
	for _, path := range []string{"/dev/null", "/nowhere", t.TempDir()} {
		h := &spec.HostConfig{BlkioDeviceReadBps: []spec.ThrottleDevice{{Path: path, Rate: 1}}}
		if _, err := blockLimits(h); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
