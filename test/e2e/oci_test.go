//go:build root

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"tug/test/fixture"
)

// bundle is an OCI bundle of busybox, with states of its own.
type bundle struct {
	t      *testing.T
	g      *tug
	dir    string // of the bundle
	states string
	spec   specs.Spec
}

// newBundle makes a bundle whose program is a shell script, without terminal.
func newBundle(t *testing.T, script string) *bundle {
	t.Helper()
	g := newTug(t)
	b := &bundle{t: t, g: g, dir: filepath.Join(g.dir, "bundle"), states: filepath.Join(g.dir, "oci")}
	if err := firstOf(os.MkdirAll(b.dir+"/rootfs", 0o755), os.Chmod(g.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := fixture.Extract(filepath.Join(b.dir, "rootfs"), busybox(t).Layers...); err != nil {
		t.Fatal(err)
	}
	b.begin(script)
	return b
}

// begin makes the configuration.
func (b *bundle) begin(script string) {
	t := b.t
	t.Helper()
	b.ok("spec", "--bundle", b.dir)
	text, err := os.ReadFile(b.config())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &b.spec); err != nil {
		t.Fatal(err)
	}
	b.spec.Process.Terminal = false
	b.spec.Linux.CgroupsPath = b.g.cgroup() + "/oci"
	b.script(script)
	t.Cleanup(b.close)
}

func (b *bundle) close() {
	for _, id := range strings.Fields(b.do("list", "-q").stdout) {
		b.ok("delete", "--force", id)
	}
	for _, dir := range cgroupsNamed(b.g.cgroup()) {
		_ = syscall.Rmdir(dir)
	}
}

func (b *bundle) config() string { return filepath.Join(b.dir, "config.json") }

func (b *bundle) script(s string) {
	b.spec.Process.Args = []string{"sh", "-c", s}
}

// write writes the configuration.
func (b *bundle) write() {
	b.t.Helper()
	text, err := json.Marshal(&b.spec)
	if err == nil {
		err = os.WriteFile(b.config(), text, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) args(args ...string) []string {
	return append([]string{"oci", "--root", b.states}, args...)
}

func (b *bundle) do(args ...string) result { b.t.Helper(); return b.g.do(nil, b.args(args...)...) }
func (b *bundle) ok(args ...string) string { b.t.Helper(); return b.g.ok(b.args(args...)...) }

func (b *bundle) fails(words string, args ...string) {
	b.t.Helper()
	b.g.fails(1, b.args(args...), words)
}

// run runs the container to its end.
func (b *bundle) run() result {
	b.t.Helper()
	b.write()
	return b.do("run", "--bundle", b.dir, "c")
}

// says is run, and wants this output.
func (b *bundle) says(want string) {
	b.t.Helper()
	r := b.run()
	if r.code != 0 || r.stdout != want {
		b.t.Errorf("%v\nwant output %q", r, want)
	}
}

// create creates container c, whose output goes to a file: nobody waits for it.
func (b *bundle) create(args ...string) string {
	b.t.Helper()
	b.write()
	out := filepath.Join(b.g.dir, "out")
	f, err := os.Create(out)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := b.g.command(ctx, b.args(append([]string{"create", "--bundle", b.dir}, append(args, "c")...)...)...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out)
		b.t.Fatalf("create: %v\n%s", err, text)
	}
	return out
}

func (b *bundle) status(want specs.ContainerState) specs.State {
	b.t.Helper()
	var s specs.State
	eventually(b.t, 10*time.Second, func() string {
		if err := json.Unmarshal([]byte(b.ok("state", "c")), &s); err != nil {
			return err.Error()
		}
		if s.Status != want {
			return fmt.Sprintf("c is %s, want %s", s.Status, want)
		}
		return ""
	})
	return s
}

// gone makes sure that nothing is left of container c.
func (b *bundle) gone() {
	b.t.Helper()
	b.fails("does not exist", "state", "c")
	for _, dir := range cgroupsNamed(b.g.cgroup()) {
		if _, err := os.Stat(dir + "/oci"); err == nil {
			b.t.Errorf("cgroup %s/oci is left", dir)
		}
	}
	if m := mountsWith(b.dir); len(m) > 0 {
		b.t.Errorf("left mounted: %v", m)
	}
}

func TestOCILifecycle(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "echo started; sleep 1000")
	b.spec.Annotations = map[string]string{"a": "b"}
	b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 4}
	b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	pidFile := filepath.Join(b.g.dir, "pid")
	out := b.create("--pid-file", pidFile)
	s := b.status(specs.StateCreated)
	pid, _ := os.ReadFile(pidFile)
	same(t, "pid file", string(pid), strconv.Itoa(s.Pid))
	same(t, "bundle", s.Bundle, b.dir)
	same(t, "annotation", s.Annotations["a"], "b")
	text, _ := os.ReadFile(out)
	same(t, "output before start", string(text), "")

	b.fails("exists already", "create", "--bundle", b.dir, "c")
	b.fails("not stopped", "delete", "c")
	// What the bundle becomes after create is no matter.
	if err := os.Remove(b.config()); err != nil {
		t.Fatal(err)
	}
	b.ok("start", "c")
	b.status(specs.StateRunning)
	b.fails("it is running", "start", "c")
	b.fails("not stopped", "delete", "c")
	eventually(t, 5*time.Second, func() string {
		if text, _ := os.ReadFile(out); string(text) != "started\n" {
			return fmt.Sprintf("output %q", text)
		}
		return ""
	})
	same(t, "exec", b.ok("exec", "c", "sh", "-c", "echo $0 `cat /proc/1/comm`"), "sh sleep")
	if r := b.do("exec", "--user", "5:6", "--cwd", "/tmp", "-e", "A=B", "c", "sh", "-c", "id -u; id -g; pwd; echo $A; exit 7"); r.code != 7 || r.stdout != "5\n6\n/tmp\nB\n" {
		t.Error(r)
	}
	same(t, "nice and policy of an exec", b.ok("exec", "c", "cut", "-d ", "-f19,41", "/proc/self/stat"), "4 3")
	same(t, "machine of an exec", b.ok("exec", "c", "uname", "-m"), machine32())
	b.g.fails(255, b.args("exec", "c", "nosuch"), "executable file not found")
	b.ok("pause", "c")
	b.status("paused")
	b.g.fails(255, b.args("exec", "c", "true"), "paused")
	b.ok("resume", "c")
	b.ok("kill", "c", "KILL")
	b.status(specs.StateStopped)
	b.fails("not running", "kill", "c")
	b.fails("it is stopped", "start", "c")
	b.ok("delete", "c")
	b.gone()
	b.fails("does not exist", "delete", "c")
	b.ok("delete", "--force", "c")
	b.fails("invalid container ID", "state", "../c")
}

// machine32 is the name of this machine as the personality LINUX32 has it.
func machine32() string {
	if runtime.GOARCH == "arm64" {
		return "armv8l"
	}
	return "i686"
}

func TestOCIFailedStarts(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "true")
	for _, args := range [][]string{{"nosuch"}, {"/etc"}, {"/etc/passwd"}} {
		b.spec.Process.Args = args
		b.write()
		b.fails("exec: ", "create", "--bundle", b.dir, "c")
		b.gone()
	}
	b.script("exit 3")
	if r := b.run(); r.code != 3 {
		t.Error(r)
	}
	b.gone()
	b.script("kill -9 $$")
	b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[1:] // in the host's pid namespace
	if r := b.run(); r.code != 137 {
		t.Error(r)
	}
	b.gone()
	b.fails("config.json", "create", "--bundle", "/nonexistent", "c")
	log := filepath.Join(b.g.dir, "log")
	b.fails("config.json", "--log", log, "--log-format", "json", "create", "--bundle", "/nonexistent", "c")
	var line struct{ Level, Msg string }
	text, _ := os.ReadFile(log)
	if err := json.Unmarshal(text, &line); err != nil || line.Level != "error" || !strings.Contains(line.Msg, "config.json") {
		t.Errorf("log %q: %v", text, err)
	}
	b.fails("--systemd-cgroup", "--systemd-cgroup", "create", "c")
}

// Hooks run in their order and namespaces, with the state on standard input,
// and one that fails ends what it is part of.
func TestOCIHooks(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "echo program >>/log/log; sleep 1000")
	log := filepath.Join(b.g.dir, "log")
	if err := os.Mkdir(log, 0o777); err != nil {
		t.Fatal(err)
	}
	b.spec.Root.Readonly = false
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/log", Source: log, Options: []string{"bind"}})
	// Where it runs is told by the host's name; a hook with a timeout of its own
	// and no environment.
	hook := func(name, file string) specs.Hook {
		script := fmt.Sprintf(`set -- $(sed 's/.*"status":"\([a-z]*\)".*/\1/'); echo %s $1 $(hostname | grep -c tug) $(env | grep -c HOME) >>%s`, name, file)
		return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}}
	}
	host, in := log+"/log", "/log/log"
	b.spec.Hooks = &specs.Hooks{
		//lint:ignore SA1019 prestart is old and still in use
		Prestart:        []specs.Hook{hook("prestart", host)},
		CreateRuntime:   []specs.Hook{hook("createRuntime", host)},
		CreateContainer: []specs.Hook{hook("createContainer", host)},
		StartContainer:  []specs.Hook{hook("startContainer", in)},
		Poststart:       []specs.Hook{hook("poststart", host)},
		Poststop:        []specs.Hook{hook("poststop", host), {Path: "/bin/false"}, hook("poststop2", host)},
	}
	b.create()
	b.ok("start", "c")
	b.status(specs.StateRunning)
	eventually(t, patience, func() string { // start does not wait for what the program does
		if text, _ := os.ReadFile(host); !strings.Contains(string(text), "program") {
			return string(text)
		}
		return ""
	})
	b.ok("delete", "--force", "c")
	text, _ := os.ReadFile(host)
	got := strings.Split(strings.TrimSpace(string(text)), "\n")
	// The program and poststart do not wait for each other.
	for i, line := range got {
		if line == "program" {
			got = append(append(got[:i:i], got[i+1:]...), line)
		}
	}
	same(t, "hooks", strings.Join(got, "\n"), `prestart creating 0 0
createRuntime creating 0 0
createContainer creating 1 0
startContainer created 1 0
poststart running 0 0
poststop stopped 0 0
poststop2 stopped 0 0
program`)
	for _, bad := range []specs.Hook{{Path: "/bin/false"}, {Path: "/nonexistent"}, {Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: new(int)}} {
		if bad.Timeout != nil {
			*bad.Timeout = 1
		}
		b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{bad}}
		b.write()
		b.fails("createRuntime hook "+bad.Path, "create", "--bundle", b.dir, "c")
		b.gone()
		b.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{bad}}
		b.write()
		b.fails("createContainer hook "+bad.Path, "create", "--bundle", b.dir, "c")
		b.gone()
	}
	b.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/false"}}}
	b.create()
	b.fails("startContainer hook /bin/false", "start", "c")
	b.status(specs.StateStopped)
	b.ok("delete", "c")
}

// What a process is told to be, it is.
func TestOCIProcess(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "")
	p := b.spec.Process
	umask, oom := uint32(0o27), 321
	p.User = specs.User{UID: 1234, GID: 2345, AdditionalGids: []uint32{7, 8}, Umask: &umask}
	p.OOMScoreAdj = &oom
	p.Cwd = "/made/here"
	b.spec.Root.Readonly = false
	p.Env = append(p.Env, "A=B")
	p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 99}, {Type: "RLIMIT_CORE"}}
	p.Capabilities = &specs.LinuxCapabilities{
		Bounding: []string{"CAP_KILL", "CAP_CHOWN"}, Effective: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"},
		Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"},
	}
	b.spec.Domainname = "domain"
	b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "4321"}
	b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	b.script(`id -u; id -g; id -G; umask; pwd; echo $A; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj
grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNew' /proc/self/status | tr -s '\t' ' '; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname
cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; cat /proc/self/personality 2>/dev/null || uname -m; ls /proc/self/fd | wc -w`)
	machine := "00000008"
	if _, err := os.Stat("/proc/self/personality"); err != nil {
		machine = machine32()
	}
	b.says(`1234
2345
2345 7 8
0027
/made/here
B
77
99
321
CapInh: 0000000000000020
CapPrm: 0000000000000020
CapEff: 0000000000000020
CapBnd: 0000000000000021
CapAmb: 0000000000000020
NoNewPrivs: 1
tug
domain
1
4321
` + machine + "\n4\n")
}

// update changes limits, and no devices, which may come with them.
func TestOCIUpdate(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "sleep 1000")
	major, minor, pids := int64(241), int64(7), int64(40) // of no driver
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mine", Type: "c", Major: major, Minor: minor}}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "r"}}
	b.spec.Linux.Resources = &specs.LinuxResources{Devices: rules}
	b.create()
	b.ok("start", "c")
	file := filepath.Join(b.g.dir, "resources")
	text, err := json.Marshal(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}, Devices: rules[:1]})
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // version 2 of cgroups takes 64 filters
		b.ok("update", "-r", file, "c")
	}
	same(t, "after update", b.ok("exec", "c", "sh", "-c", `cd /sys/fs/cgroup; cat pids.max 2>/dev/null || cat pids/pids.max
(: </dev/mine) 2>&1 | grep -c 'not permitted'; exit 0`), "40\n0")
}

// Inheritable capabilities alone outlive the change of the user as well.
func TestOCIInheritable(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "")
	p := b.spec.Process
	p.User = specs.User{UID: 1234, GID: 2345}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Inheritable: []string{"CAP_KILL"}}
	b.script(`grep -E 'Cap(Inh|Prm|Eff)' /proc/self/status | tr -s '\t' ' '`)
	b.says("CapInh: 0000000000000020\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n")
}

// Masks, read-only paths and mounts are where they should be whatever the root
// file system has in their way, and nothing of the host is changed through it.
func TestOCIHostileRootfs(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("host"), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		prepare func(rootfs string) error
		change  func(*specs.Spec)
		script  string
		want    string // "" is that create fails
		says    string
	}{
		"link at /proc": { // CVE-2019-19921, CVE-2023-27561
			prepare: func(r string) error {
				return firstOf(os.Mkdir(r+"/elsewhere", 0o755), os.RemoveAll(r+"/proc"), os.Symlink("elsewhere", r+"/proc"))
			},
			says: "symlink",
		},
		"link at /sys": {
			prepare: func(r string) error { return firstOf(os.RemoveAll(r+"/sys"), os.Symlink("/tmp", r+"/sys")) },
			says:    "symlink",
		},
		"mount over /proc": {
			change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc", Type: "tmpfs", Source: "tmpfs"})
			},
			says: "only a procfs",
		},
		"mount by a link into /proc": {
			prepare: func(r string) error { return os.Symlink("/proc/self/attr", r+"/innocent") },
			change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/innocent", Type: "tmpfs", Source: "tmpfs"})
			},
			says: "mount tmpfs at /innocent",
		},
		"bind over /proc/sys": {
			change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc/sys/kernel", Source: secret, Options: []string{"bind"}})
			},
			says: "inside /proc",
		},
		"links out of the root": {
			prepare: func(r string) error { return os.Symlink("../../../../../../../.."+filepath.Dir(secret), r+"/out") },
			change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/out/made", Type: "tmpfs", Source: "tmpfs"})
			},
			script: "mount | grep -c ' on " + filepath.Dir(secret) + "/made '",
			want:   "1\n",
		},
		"file for /dev/null": { // CVE-2025-31133
			prepare: func(r string) error {
				return firstOf(os.RemoveAll(r+"/dev"), os.Mkdir(r+"/dev", 0o755), os.Symlink("/proc/sys/kernel/core_pattern", r+"/dev/null"))
			},
			change: func(s *specs.Spec) { s.Mounts = s.Mounts[:1] },
			says:   "/dev/null",
		},
		"link for /dev/console": { // CVE-2025-52565
			prepare: func(r string) error {
				return firstOf(os.RemoveAll(r+"/dev"), os.Mkdir(r+"/dev", 0o755), os.Mkdir(r+"/dev/pts", 0o755), os.Symlink("/proc/sys/kernel/core_pattern", r+"/dev/console"))
			},
			change: func(s *specs.Spec) {
				s.Process.Terminal = true
				s.Mounts = append(s.Mounts[:1:1], s.Mounts[2])
			},
			says: "/dev/console",
		},
		"working directory by a descriptor": { // CVE-2024-21626
			change: func(s *specs.Spec) { s.Process.Cwd = "/proc/self/fd/7" },
			says:   "working directory",
		},
		"masks": {
			change: func(s *specs.Spec) {
				s.Root.Readonly = false
				s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/etc/passwd", "/etc/link", "/nonexistent", "/etc/passwd/x")
				s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/tmp")
			},
			prepare: func(r string) error {
				return firstOf(os.MkdirAll(r+"/data/full", 0o755), os.Symlink("/data", r+"/etc/link"))
			},
			script: `wc -c </etc/passwd; ls /proc/acpi /data | wc -w; touch /tmp/x 2>&1 | grep -c Read-only
echo x 2>/dev/null >/proc/sys/kernel/core_pattern || echo refused; touch /etc/motd && echo writable`,
			want: "0\n2\n1\nrefused\nwritable\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t, tt.script)
			if tt.prepare != nil {
				if err := tt.prepare(filepath.Join(b.dir, "rootfs")); err != nil {
					t.Fatal(err)
				}
			}
			if tt.change != nil {
				tt.change(&b.spec)
			}
			if tt.want != "" {
				b.says(tt.want)
				return
			}
			b.write()
			b.fails(tt.says, "run", "--bundle", b.dir, "c")
			b.gone()
		})
	}
	if text, err := os.ReadFile(secret); err != nil || string(text) != "host" {
		t.Errorf("the host's file: %q, %v", text, err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(secret)); len(entries) != 1 {
		t.Errorf("made on the host: %v", entries)
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// In a user namespace the container's root is nobody on the host, and a mapped
// mount shows it its files all the same.
func TestOCIUserNamespace(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "")
	shared := filepath.Join(b.g.dir, "shared")
	if err := firstOf(os.Mkdir(shared, 0o700), os.WriteFile(shared+"/file", []byte("mapped\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	l := b.spec.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	l.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	b.spec.Mounts = append(b.spec.Mounts,
		specs.Mount{Destination: "/plain", Source: shared, Options: []string{"bind"}},
		specs.Mount{Destination: "/mapped", Source: shared, Options: []string{"bind", "idmap"}})
	b.spec.Root.Readonly = false
	rootfs := filepath.Join(b.dir, "rootfs")
	err := filepath.WalkDir(rootfs, func(path string, _ os.DirEntry, err error) error {
		return firstOf(err, os.Lchown(path, 100000, 200000))
	})
	if err != nil {
		t.Fatal(err)
	}
	b.script(`id -u; tr -s ' ' </proc/self/uid_map; cat /mapped/file; cat /plain/file 2>/dev/null || echo denied; echo x >/dev/null; touch /made; stat -c %u /made; hostname; exec sleep 1000`)
	out := b.create()
	b.ok("start", "c")
	eventually(t, 10*time.Second, func() string {
		text, _ := os.ReadFile(out)
		if want := "0\n 0 100000 65536\nmapped\ndenied\n0\ntug\n"; string(text) != want {
			return fmt.Sprintf("got %q, want %q", text, want)
		}
		return ""
	})
	var st syscall.Stat_t
	if err := syscall.Stat(rootfs+"/made", &st); err != nil || st.Uid != 100000 || st.Gid != 200000 {
		t.Errorf("owner on the host %d:%d, %v", st.Uid, st.Gid, err)
	}
	same(t, "exec", b.ok("exec", "c", "sh", "-c", "id -u; cat /mapped/file; cat /proc/self/uid_map | tr -s ' '"), "0\nmapped\n 0 100000 65536")
}

// Whoever kills create leaves something that delete removes.
func TestOCIKilledCreate(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "sleep 1000")
	b.write()
	for range rounds(60, 10) {
		cmd := exec.Command(b.g.path, b.args("create", "--bundle", b.dir, "c")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		r := b.do("delete", "--force", "c")
		if r.code != 0 {
			t.Fatal(r)
		}
		b.gone()
		eventually(t, 10*time.Second, func() string {
			if pids := processesWith(b.states); len(pids) > 0 {
				return fmt.Sprintf("processes %v are left", pids)
			}
			return ""
		})
	}
}

// Descriptors are passed on when asked for, and none else.
func TestOCIPreserve(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "")
	b.script("cat <&3; cat <&4; ls /proc/self/fd | wc -w")
	b.write()
	cmd := exec.Command(b.g.path, b.args("run", "--preserve-fds", "2", "--bundle", b.dir, "c")...)
	for _, text := range []string{"three\n", "four\n", "five\n"} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %s", err, &out)
	}
	same(t, "output", out.String(), "three\nfour\n6\n")
	b.fails("descriptor 3 is not open", "run", "--preserve-fds", "1", "--bundle", b.dir, "c")
}

// A terminal, of run's own.
func TestOCITerminal(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "tty; stty size; read x; echo got $x; ls -l /dev/console | cut -c1; exit 5")
	b.spec.Process.Terminal = true
	b.write()
	term := b.g.terminal(40, 120, b.args("run", "--bundle", b.dir, "c")...)
	term.shows("/dev/pts/0\r\n40 120\r\n")
	term.typed("word\n")
	term.shows("got word\r\nc\r\n")
	if code := term.ends(); code != 5 {
		t.Errorf("exit code %d\n%s", code, term.output())
	}
	b.fails("nobody takes the terminal", "create", "--bundle", b.dir, "c")
}

// Debian's podman runs containers with tug as its runtime.
func TestOCIPodman(t *testing.T) {
	t.Parallel()
	runtime := filepath.Join(t.TempDir(), "tug-oci")
	p := newPodman(t)
	path, err := findTug()
	if err != nil {
		t.Fatal(err)
	}
	if path, err = filepath.Abs(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, runtime); err != nil {
		t.Fatal(err)
	}
	p.args = append(p.args, "--runtime", runtime)
	p.ok("load", "-q", "-i", coreFile(t, "busybox.tar"))
	const image = "localhost/busybox:test"
	run := []string{"run", "--rm", "--network", "none"}
	same(t, "run", p.ok(append(run, image, "sh", "-c", "echo $GREETING; id -u")...), "hello\n0")
	same(t, "user", p.ok(append(run, "--user", "5:6", image, "sh", "-c", "id -u; id -g")...), "5\n6")
	same(t, "volume", p.ok(append(run, "-v", t.TempDir()+":/v:ro", "--tmpfs", "/etc", image, "sh", "-c", "touch /v/x 2>&1 | grep -c Read-only; cat /etc/motd")...), "1\nsecond layer")
	same(t, "user namespace", p.ok(append(run, "--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", image, "sh", "-c", "id -u; tr -s ' ' </proc/self/uid_map")...), "0\n 0 100000 65536")
	same(t, "memory limit", p.ok(append(run, "--memory", "64m", image, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max")...), "67108864")
	same(t, "read-only", p.ok(append(run, "--read-only", image, "sh", "-c", "touch /x 2>&1 | grep -c Read-only")...), "1")
	for code, args := range map[int][]string{3: {"sh", "-c", "exit 3"}, 127: {"nosuch"}, 126: {"/etc/motd"}} {
		same(t, fmt.Sprintf("exit code of %v", args), strconv.Itoa(p.code(append(append(run[:len(run):len(run)], image), args...)...)), strconv.Itoa(code))
	}
	p.ok("run", "-d", "--name", "c", "--network", "none", image, "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")
	same(t, "exec", p.ok("exec", "-e", "A=B", "c", "sh", "-c", "echo $A"), "B")
	same(t, "exec's exit code", strconv.Itoa(p.code("exec", "c", "sh", "-c", "exit 4")), "4")
	same(t, "exec with a terminal", p.ok("exec", "-t", "c", "tty"), "/dev/pts/0")
	p.ok("pause", "c")
	same(t, "status", p.ok("inspect", "-f", "{{.State.Status}}", "c"), "paused")
	p.ok("unpause", "c")
	if top := p.ok("top", "c", "comm"); !strings.Contains(top, "sh") {
		t.Errorf("top: %s", top)
	}
	p.ok("stop", "c")
	same(t, "exit code after stop", p.ok("inspect", "-f", "{{.State.ExitCode}} {{.OCIRuntime}}", "c"), "9 "+runtime)
	p.ok("start", "c")
	p.ok("kill", "c")
	same(t, "wait after kill", p.ok("wait", "c"), "137")
	p.ok("rm", "c")
}

// code runs podman and returns its exit code.
func (p *podman) code(args ...string) int {
	p.t.Helper()
	cmd := exec.Command("podman", append(p.args[:len(p.args):len(p.args)], args...)...)
	cmd.Env = p.env
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		p.t.Fatalf("podman %v: %s", args, out)
	}
	return cmd.ProcessState.ExitCode()
}
