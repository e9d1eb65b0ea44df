package runtime

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

func TestContainerCaps(t *testing.T) {
	def := capSet(defaultCaps())
	if def != 0xa80425fb {
		t.Errorf("the default set is %x, Docker's is a80425fb", def)
	}
	all := capSet(capNames())
	admin, chown := capSet([]string{"NET_ADMIN"}), capSet([]string{"CHOWN"})
	tests := []struct {
		add, drop []string
		want      uint64
	}{
		{nil, nil, def},
		{[]string{"net_admin"}, nil, def | admin},
		{[]string{"CAP_NET_ADMIN"}, []string{"cap_chown"}, def&^chown | admin},
		{[]string{"CHOWN"}, []string{"CHOWN"}, def},
		{nil, []string{"all"}, 0},
		{[]string{"CHOWN"}, []string{"ALL"}, chown},
		{[]string{"ALL"}, nil, all},
		{[]string{"ALL"}, []string{"CHOWN"}, all &^ chown},
	}
	for _, tt := range tests {
		got, err := containerCaps(tt.add, tt.drop)
		if err != nil || got != tt.want {
			t.Errorf("add %v drop %v: %x, %v, want %x", tt.add, tt.drop, got, err, tt.want)
		}
	}
	if _, err := containerCaps([]string{"FLY"}, nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("unknown capability: %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	got := environment("box", true, []string{"A=1", "PATH=/bin", "TERM=vt100"}, []string{"A", "B=2", "B=3", "NO"})
	want := []string{"PATH=/bin", "HOSTNAME=box", "TERM=vt100", "B=3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMakePlan(t *testing.T) {
	c := &spec.Container{
		ID: strings.Repeat("0123456789abcdef", 4), Path: "sleep", Args: []string{"1"}, Tty: true,
		Config: spec.RunConfig{User: "u:g", WorkingDir: "/w/../x/"},
		Host: spec.HostConfig{
			Tmpfs: map[string]string{"/b": "", "/a": "size=1m,exec", "/a/b": "ro"}, Memory: 1 << 30, NanoCPUs: 5e8,
			Ulimits: []spec.Ulimit{{Name: "nproc", Soft: 10, Hard: -1}, {Name: "nproc", Soft: 11, Hard: -1}},
		},
	}
	p, warnings, err := MakePlan(c)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if p.Hostname != "0123456789ab" || p.Cwd != "/x" || !slices.Equal(p.Args, []string{"sleep", "1"}) || !p.Tty {
		t.Errorf("plan %+v", p.Plan)
	}
	if !cmp.Equal(p.Limits, Limits{Memory: 1 << 30, NanoCPUs: 5e8}) {
		t.Errorf("limits %+v", p.Limits)
	}
	var targets []string
	for _, m := range p.Mounts {
		targets = append(targets, m.Target)
	}
	if diff := cmp.Diff([]string{"/a", "/a/b", "/b"}, targets); diff != "" {
		t.Error(diff)
	}
	if p.Mounts[0].Attr != sys.AttrNoSuid|sys.AttrNoDev || !p.Mounts[1].ReadOnly {
		t.Errorf("mounts %+v", p.Mounts)
	}
	if len(p.Rlimits) != 2 || p.Rlimits[0].Soft != 11 || p.Rlimits[0].Hard != ^uint64(0) || p.Rlimits[1].Name != "nofile" {
		t.Errorf("rlimits %+v", p.Rlimits)
	}
	if len(p.Seccomp) == 0 || len(p.Seccomp)%8 != 0 {
		t.Errorf("seccomp filter of %d bytes", len(p.Seccomp))
	}
	p.Bind("/etc/hosts", false)
	p.Bind("/etc/hostname", true)
	if m := p.Mounts[3:]; m[0].Tree != 1 || m[1].Tree != 2 || !m[1].ReadOnly {
		t.Errorf("binds %+v", m)
	}
}

func TestMakePlanRefuses(t *testing.T) {
	for name, change := range map[string]func(c *spec.Container){
		"no command":       func(c *spec.Container) { c.Path = "" },
		"capability":       func(c *spec.Container) { c.Host.CapDrop = []string{"x"} },
		"security option":  func(c *spec.Container) { c.Host.SecurityOpt = []string{"magic"} },
		"no-new-privs":     func(c *spec.Container) { c.Host.SecurityOpt = []string{"no-new-privileges=perhaps"} },
		"seccomp profile":  func(c *spec.Container) { c.Host.SecurityOpt = []string{"seccomp={"} },
		"ulimit":           func(c *spec.Container) { c.Host.Ulimits = []spec.Ulimit{{Name: "fun"}} },
		"ulimit order":     func(c *spec.Container) { c.Host.Ulimits = []spec.Ulimit{{Name: "nofile", Soft: -1, Hard: 1}} },
		"relative tmpfs":   func(c *spec.Container) { c.Host.Tmpfs = map[string]string{"t": ""} },
		"tmpfs over root":  func(c *spec.Container) { c.Host.Tmpfs = map[string]string{"/x/..": ""} },
		"tmpfs over proc":  func(c *spec.Container) { c.Host.Tmpfs = map[string]string{"/proc//sys": ""} },
		"tmpfs of options": func(c *spec.Container) { c.Host.Tmpfs = map[string]string{"/t": "size=1,source=/dev/sda"} },
	} {
		c := &spec.Container{ID: "x", Path: "true"}
		change(c)
		if _, _, err := MakePlan(c); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseSecurity(t *testing.T) {
	got, err := parseSecurity([]string{"no-new-privileges:true", "seccomp={\"a\":\"b=c\"}", "apparmor=unconfined", "label=disable"})
	if err != nil || !got.noNewPrivs || got.seccomp != `{"a":"b=c"}` {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := parseSecurity([]string{"apparmor=mine"}); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a profile of AppArmor: %v", err)
	}
}

func TestMakeExecPlan(t *testing.T) {
	c := &spec.Container{ID: strings.Repeat("a", 64), Path: "sh", Config: spec.RunConfig{User: "alice", WorkingDir: "/w", Env: []string{"A=1", "B=1"}}}
	p, err := MakeExecPlan(c, &spec.ExecSpec{Args: []string{"ls"}, Env: []string{"B=2"}, Tty: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"PATH=" + defaultPath, "HOSTNAME=aaaaaaaaaaaa", "TERM=xterm", "A=1", "B=2"}
	if diff := cmp.Diff(want, p.Env); diff != "" || p.User != "alice" || p.Cwd != "/w" || len(p.Mounts) > 0 {
		t.Errorf("%s %+v", diff, p.Plan)
	}
	if _, err := MakeExecPlan(c, &spec.ExecSpec{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("no command: %v", err)
	}
}

func TestParseLayout(t *testing.T) {
	tests := []struct {
		name, text, layout, v2 string
		systemd                bool
	}{
		{
			"version 2", "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n", "v2", "/sys/fs/cgroup", true,
		},
		{
			"version 1 of systemd", `
31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:29 / /other\040place rw - cgroup cgroup rw,memory
35 30 0:31 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls
`, "name=systemd;cpu,cpuacct;memory", "", true,
		},
		{
			"hybrid", `
31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
33 30 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
36 30 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`, "pids", "/sys/fs/cgroup/unified", false,
		},
		{"none", "1 0 0:1 / / rw - ext4 /dev/x rw\nnonsense\n\n", "", "", false},
	}
	for _, tt := range tests {
		c, err := parseLayout(bufio.NewScanner(strings.NewReader(tt.text)), tt.systemd)
		if err != nil || c.v2 != tt.v2 {
			t.Errorf("%s: %+v, %v", tt.name, c, err)
			continue
		}
		if len(c.v1) > 0 {
			c.v2 = ""
		}
		if got := c.makeLayout(nil); got != tt.layout {
			t.Errorf("%s: layout %q, want %q", tt.name, got, tt.layout)
		}
	}
}

func TestCheckSlot(t *testing.T) {
	c := &cgroups{parent: "/tug"}
	if err := c.check("/tug/0123456789abcdef"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "/", "/tug", "/tug/", "/tug/..", "/tug/xyz", "/tug/ab/cd", "/other/ab", "tug/ab", "/tug/../ab"} {
		if c.check(bad) == nil {
			t.Errorf("%q is taken for a cgroup of tug", bad)
		}
	}
}

// TestDeviceProgram runs the eBPF program for every class of access in a small
// interpreter and compares with the rules.
func TestDeviceProgram(t *testing.T) {
	rules := defaultDeviceRules()
	prog := deviceProgram(rules)
	for _, kind := range []byte{'b', 'c'} {
		for major := range int32(260) {
			for _, minor := range []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255, 1 << 19} {
				for access := range 8 {
					want := allowed(rules, kind, major, minor, access)
					if got := runDevice(t, prog, kind, major, minor, access); got != want {
						t.Fatalf("%c %d:%d access %d: %v, want %v", kind, major, minor, access, got, want)
					}
				}
			}
		}
	}
}

func allowed(rules []deviceRule, kind byte, major, minor int32, access int) bool {
	for _, r := range rules {
		bits := 0
		for i, c := range "mrw" {
			if strings.ContainsRune(r.access, c) {
				bits |= 1 << i
			}
		}
		if r.kind == kind && (r.major < 0 || r.major == major) && (r.minor < 0 || r.minor == minor) && access&^bits == 0 {
			return true
		}
	}
	return false
}

func runDevice(t *testing.T, prog []byte, kind byte, major, minor int32, access int) bool {
	t.Helper()
	typ := devChar
	if kind == 'b' {
		typ = devBlock
	}
	ctx := []uint64{uint64(access<<16 | typ), uint64(major), uint64(minor)}
	var r [11]uint64
	for pc := 0; ; pc++ {
		in := prog[pc*8 : pc*8+8]
		dst, src := in[1]&15, in[1]>>4
		off := int16(binary.NativeEndian.Uint16(in[2:]))
		imm := binary.NativeEndian.Uint32(in[4:])
		switch in[0] {
		case bpfLoad32:
			r[dst] = ctx[off/4]
		case bpfMov64:
			r[dst] = r[src]
		case bpfMovImm64:
			r[dst] = uint64(int64(int32(imm)))
		case bpfAndImm32:
			r[dst] = uint64(uint32(r[dst]) & imm)
		case bpfRsh32:
			r[dst] = uint64(uint32(r[dst]) >> imm)
		case bpfJneImm32:
			if uint32(r[dst]) != imm {
				pc += int(off)
			}
		case bpfExit:
			return r[0] == 1
		default:
			t.Fatalf("instruction %d has opcode %#x", pc, in[0])
		}
	}
}

// tug-box is root, may look into processes where these are the container's own,
// and passes a filter that is made for that.
func TestExecPlanOfBox(t *testing.T) {
	c := &spec.Container{ID: strings.Repeat("a", 64), Path: "/app", Config: spec.RunConfig{User: "www-data", WorkingDir: "/srv"}}
	ptrace := capSet([]string{"SYS_PTRACE"}) & sys.BoundingSet()
	plain, err := MakeExecPlan(c, &spec.ExecSpec{Args: []string{"sh"}})
	if err != nil {
		t.Fatal(err)
	}
	box, err := MakeExecPlan(c, &spec.ExecSpec{Args: []string{"sh"}, Box: true})
	if err != nil {
		t.Fatal(err)
	}
	if plain.Box || plain.User != "www-data" || plain.Caps&ptrace != 0 {
		t.Errorf("exec: %v %q %x", plain.Box, plain.User, plain.Caps)
	}
	if !box.Box || box.User != "0:0" || box.Caps != plain.Caps|ptrace || box.Cwd != "/srv" {
		t.Errorf("box: %v %q %x %s", box.Box, box.User, box.Caps, box.Cwd)
	}
	if len(box.Seccomp) == 0 || ptrace != 0 && bytes.Equal(box.Seccomp, plain.Seccomp) {
		t.Error("the filter is not made for the capabilities")
	}
	for _, mode := range []string{"host", spec.JoinPrefix + strings.Repeat("b", 64)} {
		c.Host.PidMode = mode
		p, err := MakeExecPlan(c, &spec.ExecSpec{Args: []string{"sh"}, Box: true, User: "7"})
		if err != nil || p.Caps != plain.Caps || p.User != "7" {
			t.Errorf("--pid %s: %v, %x, %q", mode, err, p.Caps, p.User)
		}
	}
	c.Host.PidMode, c.Host.SecurityOpt = "", []string{"seccomp=unconfined"}
	if p, err := MakeExecPlan(c, &spec.ExecSpec{Args: []string{"sh"}, Box: true}); err != nil || len(p.Seccomp) != 0 {
		t.Errorf("unconfined: %v, a filter of %d bytes", err, len(p.Seccomp))
	}
}
