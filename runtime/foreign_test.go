package runtime

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

func TestFindForeign(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "some-oci")
	for name, mode := range map[string]os.FileMode{program: 0o755, filepath.Join(dir, "no-program"): 0o644} {
		if err := os.WriteFile(name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", ".::relative:"+dir)
	t.Chdir(dir)
	for name, want := range map[string]string{
		"some-oci": program, program: program, dir + "/./some-oci": program,
		"no-program": "", "folder": "", "absent": "", "": "", ".": "", "..": "", "./some-oci": "", dir: "", dir + "/absent": "", "a/b": "",
	} {
		got, err := FindForeign(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", name, got, err, want)
		}
		if err != nil && (!strings.Contains(err.Error(), "unknown or invalid runtime name: "+name) || errs.HintOf(err) == "") {
			t.Errorf("%q: %v, hint %q", name, err, errs.HintOf(err))
		}
	}
}

func TestForeignCode(t *testing.T) {
	for why, want := range map[string]int{
		`runc create failed: unable to start container process: exec: "x": executable file not found in $PATH`: 127,
		`exec: "/x": stat /x: no such file or directory`:                                                       127,
		"executable file `x` not found in $PATH: No such file or directory":                                    127,
		`exec: "/etc": is a directory`:                                                                         126,
		`unable to start container process: exec: "/f": permission denied`:                                     126,
		`chdir to cwd ("/x") set in config failed: no such file or directory`:                                  127,
		`open /sys/fs/cgroup/x: no such file or directory`:                                                     125,
		`permission denied`: 125,
		"":                  125,
	} {
		if got := foreignCode(why); got != want {
			t.Errorf("%q: %d, want %d", why, got, want)
		}
	}
}

func TestStartErrorExplained(t *testing.T) {
	e := &StartError{Code: 125, Msg: "r create: exit status 1", silent: "r create: "}
	e.Explain(" \n\n")
	same := *e
	e.Explain("first\nexec: \"x\": permission denied\x1b[31m\n")
	e.Explain("more")
	if same.Msg != "r create: exit status 1" || e.Msg != "r create: exec: \"x\": permission denied [31m" || e.Code != 126 {
		t.Errorf("%+v, then %+v", same, e)
	}
}

func TestLastError(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	text := "no json\n" + `{"level":"warning","msg":"w"}` + "\n" + `{"level":"error","msg":"one"}` + "\n" + `{"level":"fatal","msg":"two\nlines"}` + "\n" + `{"level":"info","msg":"i"}` + "\n{"
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastError(log); got != "two lines" {
		t.Errorf("%q", got)
	}
	if err := os.WriteFile(log, []byte(`{"level":"error","msg":"`+strings.Repeat("x", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastError(log) + lastError(log+"-gone"); got != "" {
		t.Errorf("%.100q", got)
	}
}

// foreignOf makes the configuration for a container with this root.
func foreignOf(t *testing.T, h spec.HostConfig, files map[string]string, change func(*spec.Container)) *specs.Spec {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenFile(dir, sys.OPath|sys.ODirectory, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	h.Runtime, h.RuntimePath = "some", os.Args[0]
	c := &spec.Container{ID: strings.Repeat("a", 64), Path: "prog", Args: []string{"x"}, Host: h}
	change(c)
	pl, _, err := MakePlan(c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := new(Runtime).foreignSpec(&Foreign{Cgroup: "/tug/0123"}, pl, NamespacesOf(c), Files{RootFS: root, Rows: 3, Cols: 4})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestForeignSpec(t *testing.T) {
	files := map[string]string{"etc/passwd": "alice:x:1000:50::/home/alice:\n", "etc/group": "staff:x:50:\naudio:x:29:alice\n"}
	s := foreignOf(t, spec.HostConfig{
		NetworkMode: "none", ReadonlyRootfs: true, SecurityOpt: []string{"no-new-privileges"}, OomScoreAdj: 5,
		Tmpfs: map[string]string{"/t": "size=1m,exec"}, ShmSize: 7, CapAdd: []string{"SYS_TIME"}, Annotations: map[string]string{"k": "v"},
		DeviceCgroupRules: []string{"c 42:* rw"}, Memory: 1 << 26,
	}, files, func(c *spec.Container) { c.Config.User, c.Tty = "alice", true })
	p := s.Process
	umask := uint32(0o022)
	if diff := cmp.Diff(specs.User{UID: 1000, GID: 50, AdditionalGids: []uint32{50, 29}, Umask: &umask}, p.User); diff != "" {
		t.Error(diff)
	}
	if !p.NoNewPrivileges || !p.Terminal || p.Cwd != "/" || *p.OOMScoreAdj != 5 || !slices.Equal(p.Args, []string{"prog", "x"}) || !slices.Contains(p.Env, "HOME=/home/alice") ||
		p.ConsoleSize == nil || p.ConsoleSize.Height != 3 {
		t.Errorf("%+v", p)
	}
	if len(p.Capabilities.Effective)+len(p.Capabilities.Inheritable)+len(p.Capabilities.Ambient) != 0 || !slices.Contains(p.Capabilities.Bounding, "CAP_CHOWN") {
		t.Errorf("capabilities of a user: %+v", p.Capabilities)
	}
	if s.Linux.CgroupsPath != "/tug/0123" || !s.Root.Readonly || s.Annotations["k"] != "v" || s.Linux.Resources.Memory != nil {
		t.Errorf("%+v %+v", s.Root, s.Linux)
	}
	if !slices.Contains(s.Linux.MaskedPaths, "/proc/kcore") || !slices.Contains(s.Linux.ReadonlyPaths, "/proc/sys") {
		t.Errorf("%v %v", s.Linux.MaskedPaths, s.Linux.ReadonlyPaths)
	}
	if s.Linux.Seccomp == nil || s.Linux.Seccomp.DefaultAction != specs.ActErrno || len(s.Linux.Seccomp.Syscalls) < 5 || len(s.Linux.Seccomp.Architectures) == 0 {
		t.Errorf("seccomp: %+v", s.Linux.Seccomp)
	}
	rules := s.Linux.Resources.Devices
	last := rules[len(rules)-1]
	if rules[0].Allow || last.Type != "c" || *last.Major != 42 || last.Minor != nil || last.Access != "rw" || !last.Allow {
		t.Errorf("devices: %+v", rules)
	}
	var kinds []string
	for _, n := range s.Linux.Namespaces {
		kinds = append(kinds, string(n.Type))
	}
	slices.Sort(kinds)
	if diff := cmp.Diff([]string{"cgroup", "ipc", "mount", "network", "pid", "uts"}, kinds); diff != "" {
		t.Error(diff)
	}
	if m := mountAt(s, "/t"); m.Type != "tmpfs" || !slices.Equal(m.Options, []string{"nosuid", "nodev", "size=1m", "mode=1777"}) {
		t.Errorf("%+v", m)
	}
	if m := mountAt(s, "/dev/shm"); !slices.Contains(m.Options, "size=7") {
		t.Errorf("%+v", m)
	}
	if m := mountAt(s, "/sys"); !slices.Contains(m.Options, "ro") {
		t.Errorf("%+v", m)
	}
}

func mountAt(s *specs.Spec, at string) specs.Mount {
	for _, m := range s.Mounts {
		if m.Destination == at {
			return m
		}
	}
	return specs.Mount{}
}

func TestForeignSpecOpen(t *testing.T) {
	s := foreignOf(t, spec.HostConfig{Privileged: true, NetworkMode: "host", PidMode: "host", IpcMode: "host", UTSMode: "host", CgroupnsMode: "host"}, nil, func(*spec.Container) {})
	if len(s.Linux.Namespaces) != 1 || s.Linux.Namespaces[0].Type != specs.MountNamespace || s.Linux.Seccomp != nil || s.Linux.MaskedPaths != nil || s.Linux.ReadonlyPaths != nil {
		t.Errorf("%+v", s.Linux)
	}
	if r := s.Linux.Resources.Devices; len(r) != 1 || !r[0].Allow {
		t.Errorf("devices: %+v", r)
	}
	if m := mountAt(s, "/sys"); !slices.Contains(m.Options, "rw") {
		t.Errorf("%+v", m)
	}
	if m := mountAt(s, "/dev/shm"); m.Type != "bind" || m.Source != "/dev/shm" {
		t.Errorf("%+v", m)
	}
	if !slices.Equal(s.Process.Capabilities.Effective, s.Process.Capabilities.Bounding) || len(s.Linux.Sysctl) != 0 || s.Hostname != "" {
		t.Errorf("%+v %v %q", s.Process.Capabilities, s.Linux.Sysctl, s.Hostname)
	}
}

func TestForeignRefused(t *testing.T) {
	for want, change := range map[string]func(*spec.Container){
		"--pid container:": func(c *spec.Container) { c.Host.PidMode = "container:x" },
		"--ipc container:": func(c *spec.Container) { c.Host.IpcMode = "container:x" },
		"--userns own":     func(c *spec.Container) { c.Host.UsernsMode = "own" },
		"--network own":    func(c *spec.Container) { c.Host.NetworkMode = "own" },
		"rslave of /m":     func(c *spec.Container) { c.Mounts = []spec.Mount{{Target: "/m", Propagation: "rslave"}} },
		"tug-box":          func(c *spec.Container) { c.Box = true },
		"any more":         func(c *spec.Container) { c.Host.RuntimePath = "/no/such/program" },
	} {
		c := &spec.Container{Path: "x", Host: spec.HostConfig{Runtime: "some", RuntimePath: os.Args[0]}}
		change(c)
		if _, _, err := MakePlan(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// Only directories of its own are ever deleted.
func TestDeleteForeignElsewhere(t *testing.T) {
	dir := t.TempDir()
	r := &Runtime{bundles: filepath.Join(dir, "bundles"), cgroups: &cgroups{parent: "/tug"}}
	for _, f := range []Foreign{
		{Dir: dir, Cgroup: "/tug/0123456789abcdef"},
		{Dir: filepath.Join(dir, "bundles", "x"), Cgroup: "/system.slice"},
		{Dir: filepath.Join(dir, "bundles", "..", "x"), Cgroup: "/tug/0123456789abcdef"},
	} {
		if err := os.MkdirAll(f.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := r.DeleteForeign(&f); err == nil {
			t.Errorf("%+v: no error", f)
		}
		if _, err := os.Stat(f.Dir); err != nil {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

// What is left in the directory of mount points may be a container's files.
func TestRemoveSpares(t *testing.T) {
	f := &Foreign{Dir: t.TempDir()}
	file := f.at(foreignRoot) + "/dir/file"
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.remove(); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
