package runtime

import (
	"bufio"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

func listed(files []groupFile) string {
	var all []string
	for _, f := range files {
		if !f.optional {
			all = append(all, f.name+"="+f.value)
		}
	}
	return strings.Join(all, "\n")
}

func TestResourceFiles(t *testing.T) {
	res := &specs.LinuxResources{
		CPU: &specs.LinuxCPU{
			Shares: ptr(uint64(1024)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Burst: ptr(uint64(1000)), Cpus: "0", Mems: "0", Idle: ptr(int64(1)),
		},
		Pids:           &specs.LinuxPids{Limit: ptr(int64(-1))},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
		Rdma:           map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: ptr(uint32(3)), HcaObjects: ptr(uint32(10))}},
		Network:        &specs.LinuxNetwork{ClassID: ptr(uint32(7)), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 5}}},
		BlockIO: &specs.LinuxBlockIO{
			Weight:                ptr(uint16(500)),
			ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8, Minor: 0}, Rate: 1000}},
			ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{
				{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8, Minor: 16}, Rate: 0},
			},
		},
	}
	for _, tt := range []struct {
		name string
		c    *cgroups
		want string
	}{
		{"version 1", &cgroups{v1: []hierarchy{{"/nowhere", []string{"cpu"}}}}, `cpu.shares=1024
cpu.idle=1
cpu.cfs_period_us=100000
cpu.cfs_quota_us=50000
cpu.cfs_burst_us=1000
cpuset.cpus=0
cpuset.mems=0
pids.max=max
blkio.weight=500
blkio.throttle.read_bps_device=8:0 1000
blkio.throttle.write_iops_device=8:16 0
hugetlb.2MB.limit_in_bytes=4194304
rdma.max=mlx5_1 hca_handle=3 hca_object=10
net_cls.classid=7
net_prio.ifpriomap=eth0 5`},
		{"version 2", &cgroups{v2: "/nowhere"}, `cpu.weight=100
cpu.idle=1
cpu.max=50000 100000
cpu.max.burst=1000
cpuset.cpus=0
cpuset.mems=0
pids.max=max
io.weight=default 4950
io.max=8:0 rbps=1000
io.max=8:16 wiops=max
hugetlb.2MB.max=4194304
rdma.max=mlx5_1 hca_handle=3 hca_object=10`},
	} {
		files, err := (&Group{c: tt.c, Path: "/x"}).resourceFiles(res)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, listed(files)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestMemoryFiles(t *testing.T) {
	v1, v2 := &Group{c: &cgroups{v1: []hierarchy{{"/nowhere", []string{"memory"}}}}, Path: "/x"}, &Group{c: &cgroups{v2: "/nowhere"}, Path: "/x"}
	m := &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(300)), Reservation: ptr(int64(50)), Swappiness: ptr(uint64(10)), DisableOOMKiller: ptr(true)}
	for _, tt := range []struct {
		g    *Group
		m    *specs.LinuxMemory
		want string
	}{
		{v1, m, "memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=300 memory.soft_limit_in_bytes=50 memory.swappiness=10 memory.oom_control=1"},
		{v2, m, "memory.max=100 memory.low=50 memory.swap.max=200"},
		{v2, &specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1))}, "memory.max=max memory.swap.max=max"},
		{v1, &specs.LinuxMemory{Limit: ptr(int64(-1))}, "memory.limit_in_bytes=-1"},
	} {
		files, err := tt.g.memoryFiles(tt.m)
		if err != nil {
			t.Fatal(err)
		}
		for i := range files {
			files[i].optional = false
		}
		if got := strings.ReplaceAll(listed(files), "\n", " "); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
	for _, bad := range []*specs.LinuxMemory{{Swappiness: ptr(uint64(101))}, {Swap: ptr(int64(5))}, {Limit: ptr(int64(9)), Swap: ptr(int64(5))}} {
		if _, err := v2.memoryFiles(bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

func TestUnified(t *testing.T) {
	v1, v2 := &Group{c: &cgroups{v1: []hierarchy{{"/nowhere", []string{"cpu"}}}}, Path: "/x"}, &Group{c: &cgroups{v2: "/nowhere"}, Path: "/x"}
	files, err := v2.resourceFiles(&specs.LinuxResources{Unified: map[string]string{"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 rbps=2\n"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := listed(files); got != "io.max=8:0 rbps=1\nio.max=8:16 rbps=2\nmemory.high=1000" {
		t.Errorf("got %s", got)
	}
	for name, g := range map[string]*Group{"memory.high": v1, "../cgroup.procs": v2, "nodot": v2} {
		if _, err := g.resourceFiles(&specs.LinuxResources{Unified: map[string]string{name: "1"}}); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

func TestOpenGroup(t *testing.T) {
	for _, p := range []string{"", "/", "..", "/a/../..", "."} {
		if g, err := OpenGroup(p); err == nil {
			t.Errorf("%q is %s", p, g.Path)
		}
	}
	if g, err := OpenGroup("/a/../../b/./c/"); err != nil || g.Path != "/b/c" {
		t.Errorf("got %v, %v", g, err)
	}
}

func TestControllers(t *testing.T) {
	const text = `31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,seclabel,xattr,release_agent=/usr/lib/x,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,seclabel,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls,clone_children
`
	c, err := parseHierarchies(bufio.NewScanner(strings.NewReader(text)), isController)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.makeLayout(nil); got != "name=systemd;cpu,cpuacct;net_cls" {
		t.Errorf("got %s", got)
	}
}

// rule is one of linux.resources.devices.
func rule(allow bool, kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Major: &major, Minor: &minor, Access: access}
}

func (l *deviceList) answer(kind byte, major, minor int32, access string) bool {
	for _, e := range l.exceptions {
		if e.kind != kind || e.major >= 0 && e.major != major || e.minor >= 0 && e.minor != minor {
			continue
		}
		if !l.allow && strings.Trim(access, e.access) == "" {
			return true
		}
		if l.allow && strings.ContainsAny(access, e.access) {
			return false
		}
	}
	return l.allow
}

func TestDeviceList(t *testing.T) {
	all := specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"}
	none := specs.LinuxDeviceCgroup{Allow: false, Access: "rwm"}
	type ask struct {
		kind         byte
		major, minor int32
		access       string
		want         bool
	}
	for _, tt := range []struct {
		rules []specs.LinuxDeviceCgroup
		asks  []ask
	}{
		{nil, []ask{{'c', 1, 3, "rw", true}, {'b', 8, 0, "r", false}, {'b', 8, 0, "m", true}, {'c', 136, 7, "rw", true}}},
		{[]specs.LinuxDeviceCgroup{none, rule(true, "b", 8, -1, "r")}, []ask{{'b', 8, 5, "r", true}, {'b', 8, 5, "w", false}, {'b', 9, 5, "r", false}}},
		{[]specs.LinuxDeviceCgroup{all}, []ask{{'b', 8, 5, "rwm", true}}},
		{[]specs.LinuxDeviceCgroup{all, rule(false, "b", 8, 0, "w")}, []ask{{'b', 8, 0, "r", true}, {'b', 8, 0, "w", false}, {'b', 8, 0, "rw", false}, {'b', 8, 1, "w", true}}},
		{[]specs.LinuxDeviceCgroup{rule(true, "c", 10, 200, "rw"), rule(false, "c", 10, 200, "w")}, []ask{{'c', 10, 200, "r", true}, {'c', 10, 200, "w", false}}},
		{[]specs.LinuxDeviceCgroup{all, rule(false, "c", 10, 1, "rw"), rule(true, "c", 10, 1, "r")}, []ask{{'c', 10, 1, "r", true}, {'c', 10, 1, "w", false}}},
		{[]specs.LinuxDeviceCgroup{rule(true, "a", 7, 1, "r")}, []ask{{'c', 7, 1, "r", true}, {'b', 7, 1, "r", true}}},
		{[]specs.LinuxDeviceCgroup{all, none}, []ask{{'c', 7, 1, "r", false}}},
	} {
		l, err := newDeviceList(tt.rules)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range tt.asks {
			if got := l.answer(a.kind, a.major, a.minor, a.access); got != a.want {
				t.Errorf("rules %+v: %c %d:%d %s is %v", tt.rules, a.kind, a.major, a.minor, a.access, got)
			}
		}
	}
	for _, bad := range []specs.LinuxDeviceCgroup{{Access: "x"}, {Type: "z"}, rule(true, "c", -2, 0, "r"), rule(true, "c", 0, 1<<40, "r")} {
		if _, err := newDeviceList([]specs.LinuxDeviceCgroup{bad}); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}
