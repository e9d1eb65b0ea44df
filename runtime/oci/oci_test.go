package oci

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/runtime/plan"
	"tug/sys"
)

func TestValidID(t *testing.T) {
	for _, id := range []string{"a", "A-1_2.3+4", "..a", strings.Repeat("x", 1024)} {
		if !ValidID(id) {
			t.Errorf("%q is refused", id)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "../x", "a b", "a\x00", "ä", "a\n", strings.Repeat("x", 1025)} {
		if ValidID(id) {
			t.Errorf("%q is accepted", id)
		}
	}
}

func TestDefaultSpecIsValid(t *testing.T) {
	if err := validate(DefaultSpec()); err != nil {
		t.Error(err)
	}
}

// TestValidate breaks the default configuration in one place at a time.
func TestValidate(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*specs.Spec)
		says   string
	}{
		"version":         {func(s *specs.Spec) { s.Version = "2.0.0" }, "ociVersion"},
		"no version":      {func(s *specs.Spec) { s.Version = "" }, "ociVersion"},
		"root":            {func(s *specs.Spec) { s.Root = nil }, "root.path"},
		"linux":           {func(s *specs.Spec) { s.Linux = nil }, "linux is missing"},
		"args":            {func(s *specs.Spec) { s.Process.Args = nil }, "process.args"},
		"nul":             {func(s *specs.Spec) { s.Process.Env = []string{"A=\x00"} }, "NUL"},
		"cwd":             {func(s *specs.Spec) { s.Process.Cwd = "relative" }, "process.cwd"},
		"limit":           {func(s *specs.Spec) { s.Process.Rlimits[0].Type = "RLIMIT_TEST" }, "unknown limit"},
		"limit's case":    {func(s *specs.Spec) { s.Process.Rlimits[0].Type = "RLIMIT_nofile" }, "unknown limit"},
		"limit twice":     {func(s *specs.Spec) { s.Process.Rlimits = append(s.Process.Rlimits, s.Process.Rlimits[0]) }, "twice"},
		"soft limit":      {func(s *specs.Spec) { s.Process.Rlimits[0].Soft = 4096 }, "above"},
		"oom":             {func(s *specs.Spec) { n := 1001; s.Process.OOMScoreAdj = &n }, "oomScoreAdj"},
		"umask":           {func(s *specs.Spec) { n := uint32(0o1000); s.Process.User.Umask = &n }, "umask"},
		"policy":          {func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_MINE"} }, "policy"},
		"io class":        {func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "X"} }, "ioPriority"},
		"namespace":       {func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "x" }, "unknown type"},
		"namespace twice": {func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) }, "twice"},
		"namespace path":  {func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "proc/1" }, "not absolute"},
		"no mount namespace": {func(s *specs.Spec) {
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.UTSNamespace}}
		}, "mount namespace"},
		"maps": {func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }, "user namespace"},
		"no maps": {func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		}, "uidMappings"},
		"offsets":   {func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {}} }, "time namespace"},
		"hostname":  {func(s *specs.Spec) { s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}} }, "UTS"},
		"over root": {func(s *specs.Spec) { s.Mounts[0].Destination = "/a/.." }, "root cannot be covered"},
		"device":    {func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}} }, "type"},
		"hook":      {func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "x"}}} }, "absolute"},
		"hook's timeout": {func(s *specs.Spec) {
			n := 0
			s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/x", Timeout: &n}}}
		}, "timeout"},
		"sysctl of the host": {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} }, "machine"},
		"sysctl that leaves": {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.//.kernel.panic": "1"} }, "machine"},
		"sysctl that climbs": {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../kernel/panic": "1"} }, "machine"},
		"sysctl, own namespace": {func(s *specs.Spec) {
			s.Linux.Namespaces[1].Path = "/proc/self/ns/net"
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		}, "network namespace"},
		"rdt":         {func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }, "intelRdt"},
		"personality": {func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "X"} }, "personality"},
		"propagation": {func(s *specs.Spec) { s.Linux.RootfsPropagation = "rx" }, "propagation"},
		"notify": {func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"x"}, Action: specs.ActNotify}}}
		}, "listenerPath"},
	} {
		s := DefaultSpec()
		tt.change(s)
		err := validate(s)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want a word about %q", name, err, tt.says)
		}
	}
}

func TestParseOptions(t *testing.T) {
	const atime = sys.AttrAtimeSetting
	for _, tt := range []struct {
		m    specs.Mount
		want mountOptions
	}{
		{specs.Mount{Options: []string{"rbind", "ro", "nosuid", "rslave"}}, mountOptions{set: sys.AttrReadOnly | sys.AttrNoSuid, bind: true, recursive: true, deep: []uint64{sys.PropagationSlave}}},
		{specs.Mount{Options: []string{"bind", "ro", "rw"}}, mountOptions{clear: sys.AttrReadOnly, bind: true}},
		{specs.Mount{Options: []string{"bind", "rro", "private", "unbindable"}}, mountOptions{rset: sys.AttrReadOnly, bind: true, propagation: []uint64{sys.PropagationPrivate, sys.PropagationUnbindable}}},
		{specs.Mount{Options: []string{"bind", "noatime", "strictatime"}}, mountOptions{set: sys.AttrStrictAtime, clear: atime, bind: true}},
		{specs.Mount{Type: "tmpfs", Options: []string{"mode=755", "size=1k,nr_inodes=5", "sync", "defaults", "tmpcopyup"}}, mountOptions{copyUp: true, data: []plan.Option{{Key: "mode", Value: "755"}, {Key: "size", Value: "1k"}, {Key: "nr_inodes", Value: "5"}, {Key: "sync"}}}},
		{specs.Mount{Type: "bind", Options: []string{"ridmap"}}, mountOptions{bind: true, ridmap: true}},
	} {
		got, err := parseOptions(&tt.m)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(mountOptions{})); diff != "" {
			t.Errorf("%v: %s", tt.m.Options, diff)
		}
	}
	for _, m := range []specs.Mount{{Options: []string{"bind", "remount"}}, {Type: "proc", Options: []string{"tmpcopyup"}}, {Type: "tmpfs", Options: []string{"idmap"}}} {
		if _, err := parseOptions(&m); err == nil {
			t.Errorf("%+v is accepted", m)
		}
	}
}

// TestEveryFeatureParses: what features promises about mounts is understood.
func TestEveryFeatureParses(t *testing.T) {
	for _, o := range Features().MountOptions {
		m := specs.Mount{Type: "tmpfs", Options: []string{o}}
		if strings.HasSuffix(o, "idmap") || strings.HasSuffix(o, "bind") {
			m.Type = "bind"
		}
		got, err := parseOptions(&m)
		if err != nil {
			t.Errorf("%s: %v", o, err)
		}
		for _, d := range got.data {
			if d.Value != "" || !strings.Contains(" "+strings.Join(fsFlags(), " ")+" ", " "+d.Key+" ") {
				t.Errorf("%s is taken for an option of the file system", o)
			}
		}
	}
}

func TestDotted(t *testing.T) {
	for given, want := range map[string]string{
		"net.ipv4.ip_forward": "net.ipv4.ip_forward", "net/ipv4/ip_forward": "net.ipv4.ip_forward",
		"net.ipv4.conf.eth0/1.rp_filter": "net.ipv4.conf.eth0/1.rp_filter", "net/ipv4/conf/eth0.1/rp_filter": "net.ipv4.conf.eth0/1.rp_filter",
		"plain": "plain", "": "",
	} {
		if got := dotted(given); got != want {
			t.Errorf("%q is %s, want %s", given, got, want)
		}
	}
}

func TestCgroupPath(t *testing.T) {
	for given, want := range map[string]string{
		"": "/tug-oci/id", "/a/b": "/a/b", "a/b": "/tug-oci/a/b", "../../a": "/tug-oci/a", "/a/../../b": "/b",
	} {
		s := DefaultSpec()
		s.Linux.CgroupsPath = given
		if got := cgroupPath(s, "id"); got != want {
			t.Errorf("%q is %s, want %s", given, got, want)
		}
	}
}

// TestBrokenContainer: what a create leaves that was killed before it wrote
// anything is stopped, and goes.
func TestBrokenContainer(t *testing.T) {
	r := New(Options{Root: t.TempDir()})
	if err := os.Mkdir(filepath.Join(r.Root, "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := r.State("half")
	if err != nil || s.Status != specs.StateStopped || s.ID != "half" || s.Pid != 0 {
		t.Errorf("state %+v, %v", s, err)
	}
	if _, err := r.reserve("half"); !errs.Is(err, errs.Conflict) {
		t.Errorf("a second create: %v", err)
	}
	if err := r.Start("half"); !errs.Is(err, errs.Conflict) {
		t.Errorf("start: %v", err)
	}
	if err := r.Kill("half", 9, false); !errs.Is(err, errs.Conflict) {
		t.Errorf("kill: %v", err)
	}
	// As of a create that ended while it looked whether the cgroup is another's.
	if err := os.WriteFile(filepath.Join(r.Root, "half", fileRecord), []byte(`{"id":"half","cgroup":"/tug-of-others"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, all := range []bool{false, true} {
		if err := r.Kill("half", 15, all); !errs.Is(err, errs.Conflict) {
			t.Errorf("kill (all: %t) with a cgroup that is not its own: %v", all, err)
		}
	}
	if err := r.Delete("half", false); err != nil {
		t.Error(err)
	}
	if _, err := r.State("half"); !errs.Is(err, errs.NotFound) {
		t.Errorf("state after delete: %v", err)
	}
	if err := r.Delete("half", false); !errs.Is(err, errs.NotFound) {
		t.Errorf("second delete: %v", err)
	}
	if err := r.Delete("half", true); err != nil {
		t.Errorf("delete --force of none: %v", err)
	}
	if _, err := r.State("../half"); !errs.Is(err, errs.Invalid) {
		t.Errorf("state of a path: %v", err)
	}
}

// TestCreateBeingMade: while create works nobody takes what there is for whole.
func TestCreateBeingMade(t *testing.T) {
	r := New(Options{Root: t.TempDir()})
	c, err := r.reserve("new")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := r.State("new"); err != nil || s.Status != specs.StateCreating {
		t.Errorf("state %+v, %v", s, err)
	}
	c.unlock()
	if s, err := r.State("new"); err != nil || s.Status != specs.StateStopped {
		t.Errorf("state after the death of create: %+v, %v", s, err)
	}
}

// FuzzConfig: no configuration makes the parser or the checks fall over.
func FuzzConfig(f *testing.F) {
	b, err := json.Marshal(DefaultSpec())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"ociVersion":"1.0.0","root":{"path":"x"},"linux":{"namespaces":[{"type":"mount"}]},"process":null}`))
	f.Add([]byte(`{"ociVersion":"1.0.0","root":{"path":"x"},"linux":{"seccomp":{"syscalls":[{}]}},"hooks":{"prestart":[{}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := new(specs.Spec)
		if json.Unmarshal(text, s) != nil || validate(s) != nil {
			return
		}
		for i := range s.Mounts {
			_, _ = parseOptions(&s.Mounts[i])
		}
		if s.Process != nil {
			_, _ = processPlan(s.Process, s.Linux, func(string) {})
		}
		_ = cgroupPath(s, "id")
	})
}
