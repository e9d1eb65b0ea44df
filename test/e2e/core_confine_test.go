//go:build root

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// field returns the value after "name:" in /proc/self/status.
func field(status, name string) string {
	s := bufio.NewScanner(strings.NewReader(status))
	for s.Scan() {
		if value, ok := strings.CutPrefix(s.Text(), name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func TestCoreNamespaces(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	out := g.ok("run", "--rm", image, "sh", "-c", "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; echo $$; ls /sys/class/net; cat /proc/self/cgroup")
	for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, ours) || !strings.Contains(out, ns+":[") {
			t.Errorf("the container has the host's %s namespace, %s:\n%s", ns, ours, out)
		}
	}
	if !strings.Contains(out, "\n1\nlo\n") {
		t.Errorf("want process 1 and only lo:\n%s", out)
	}
	if strings.Contains(out, "tug") {
		t.Errorf("the cgroup's place on the host is to be seen:\n%s", out)
	}
	ours, _ := os.Readlink("/proc/self/ns/net")
	same(t, "--network host", g.ok("run", "--rm", "--network", "host", image, "readlink", "/proc/self/ns/net"), ours)
	mounts := g.ok("run", "--rm", image, "cat", "/proc/self/mountinfo")
	if strings.Contains(mounts, g.dir+"/root/layers") && !strings.Contains(mounts, "overlay") {
		t.Errorf("the host's mounts are to be seen:\n%s", mounts)
	}
}

func TestCoreCapabilities(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	caps := func(a ...string) string {
		t.Helper()
		return g.ok(append(append(args("run", "--rm"), a...), image, "cat", "/proc/self/status")...)
	}
	const docker = "00000000a80425fb" // Docker's default set
	s := caps()
	same(t, "effective", field(s, "CapEff"), docker)
	same(t, "bounding", field(s, "CapBnd"), docker)
	same(t, "inheritable", field(s, "CapInh"), "0000000000000000")
	same(t, "ambient", field(s, "CapAmb"), "0000000000000000")
	same(t, "seccomp", field(s, "Seccomp"), "2")
	same(t, "no_new_privs", field(s, "NoNewPrivs"), "0")
	same(t, "drop ALL", field(caps("--cap-drop", "ALL"), "CapEff"), "0000000000000000")
	same(t, "drop ALL, add one", field(caps("--cap-drop", "all", "--cap-add", "NET_BIND_SERVICE"), "CapEff"), "0000000000000400")
	same(t, "add", field(caps("--cap-add", "CAP_NET_ADMIN"), "CapEff"), "00000000a80435fb")
	same(t, "user", field(caps("-u", "alice"), "CapEff"), "0000000000000000")
	same(t, "no-new-privileges", field(caps("--security-opt", "no-new-privileges"), "NoNewPrivs"), "1")
	same(t, "unconfined", field(caps("--security-opt", "seccomp=unconfined"), "Seccomp"), "0")
	same(t, "privileged: seccomp", field(caps("--privileged"), "Seccomp"), "0")
	g.fails(125, args("run", "--rm", "--cap-add", "NO_SUCH", image, "true"), "NO_SUCH")
}

func TestCoreSeccomp(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	// unshare(CLONE_NEWUSER) needs CAP_SYS_ADMIN in Docker's profile.
	if r := g.do(nil, "run", "--rm", image, "unshare", "-U", "true"); r.code == 0 {
		t.Errorf("a user namespace was made: %v", r)
	}
	if r := g.do(nil, "run", "--rm", "--security-opt", "seccomp=unconfined", image, "unshare", "-U", "true"); r.code != 0 {
		t.Errorf("unconfined: %v", r)
	}
	profile := filepath.Join(g.dir, "profile.json")
	text := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`
	if err := os.WriteFile(profile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := g.do(nil, "run", "--rm", "--security-opt", "seccomp="+profile, image, "mkdir", "/x")
	if r.code == 0 || !strings.Contains(r.stderr, "not implemented") {
		t.Errorf("a profile that forbids mkdir: %v", r)
	}
	g.fails(125, args("run", "--rm", "--security-opt", "seccomp=/nowhere.json", image, "true"), "/nowhere.json")
}

func TestCoreFilesystem(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	sh := func(a ...string) result {
		t.Helper()
		return g.do(nil, append(append(args("run", "--rm"), a[:len(a)-1]...), image, "sh", "-c", a[len(a)-1])...)
	}
	ok := func(a ...string) {
		t.Helper()
		if r := sh(a...); r.code != 0 {
			t.Errorf("%v", r)
		}
	}
	ok("echo x > /etc/new && rm /etc/motd && mkdir /a && mv /a /b && ln /bin/busybox /hard && touch /bin/busybox")
	ok("test -e /etc/motd && ! test -e /etc/new")
	ok("--read-only", "! touch /x 2>/dev/null && echo y > /dev/shm/y")
	ok("--read-only", "--tmpfs", "/scratch:size=1m,mode=1777", "echo y > /scratch/y && grep ' /scratch ' /proc/mounts | grep -q size=1024k")
	ok("--tmpfs", "/scratch", "grep ' /scratch tmpfs' /proc/mounts | grep noexec | grep nosuid | grep -q nodev")
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
		ok("! test -e " + path + " || test -z \"$(head -c 1 " + path + ")\"")
	}
	ok("! (echo 1 > /proc/sys/kernel/panic) 2>/dev/null")
	ok("! (echo b > /proc/sysrq-trigger) 2>/dev/null")
	ok("! mkdir /sys/fs/cgroup/x 2>/dev/null")
	ok("! mount -t tmpfs x /tmp 2>/dev/null")
	ok("test -c /dev/null && test -c /dev/zero && test -c /dev/full && test -c /dev/random && test -c /dev/urandom && test -c /dev/tty && test -L /dev/fd && test -L /dev/stdin && test -L /dev/ptmx -o -c /dev/ptmx")
	// Docker's /dev has core where the kernel has /proc/kcore.
	ok(`test "$(ls /dev | grep -v '^core$' | tr '\n' ' ')" = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero " || { ls /dev; exit 1; }`)
	ok("mknod /tmp/n c 1 3 && echo x > /tmp/n")
	ok("mknod /tmp/mem c 1 1 && ! head -c 1 /tmp/mem 2>/dev/null")
	ok("--privileged", "mount -t tmpfs x /tmp")
	ok(`test "$(cat /etc/hostname)" = "$(hostname)" && grep -q localhost /etc/hosts`)
	ok("test $(stat -c %a /tmp) = 1777 && test \"$(stat -c %a /)\" = 755")
}

func TestCoreLimits(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	read := func(v2, v1 string, a ...string) string {
		t.Helper()
		script := fmt.Sprintf("cat /sys/fs/cgroup/%s 2>/dev/null || cat /sys/fs/cgroup/%s", v2, v1)
		return g.ok(append(append(args("run", "--rm"), a...), image, "sh", "-c", script)...)
	}
	same(t, "memory", read("memory.max", "memory/memory.limit_in_bytes", "-m", "64m"), "67108864")
	same(t, "pids", read("pids.max", "pids/pids.max", "--pids-limit", "33"), "33")
	cpu := read("cpu.max", "cpu/cpu.cfs_quota_us", "--cpus", "0.5")
	if cpu != "50000 100000" && cpu != "50000" {
		t.Errorf("cpu: %q", cpu)
	}
	same(t, "ulimit", g.ok("run", "--rm", "--ulimit", "nofile=123:456", image, "sh", "-c", "ulimit -n; ulimit -Hn"), "123\n456")

	r := g.do(nil, "run", "--name", "hog", "-m", "32m", image, "sh", "-c", "tail /dev/zero; exit $?")
	if s := g.state("hog"); r.code != 137 || !s.State.OOMKilled {
		t.Errorf("out of memory: %v, %+v; want 137 and OOMKilled", r, s.State)
	}
	r = g.do(nil, "run", "--rm", "--pids-limit", "8", image, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 3 & done; wait")
	if !strings.Contains(strings.ToLower(r.stderr), "fork") {
		t.Errorf("a ninth process was made: %v", r)
	}
}

// hasCapability looks into the text of a /proc/PID/status.
func hasCapability(t *testing.T, status string, n int) bool {
	t.Helper()
	caps, err := strconv.ParseUint(field(status, "CapEff"), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return caps&(1<<n) != 0
}

// A limit that tug may not raise is kept, with one warning.
func TestCoreLimitKept(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	var hard syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &hard); err != nil {
		t.Fatal(err)
	}
	want := hard.Max + 1
	r := g.do(nil, "run", "--rm", "--ulimit", fmt.Sprintf("nofile=%d:%d", hard.Max, want), image, "sh", "-c", "ulimit -Hn")
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if hasCapability(t, string(b), 24) { // CAP_SYS_RESOURCE
		same(t, "raised", r.stdout+r.stderr, fmt.Sprintf("%d\n", want))
		return
	}
	if r.code != 0 || r.stdout != fmt.Sprintf("%d\n", hard.Max) || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "nofile") {
		t.Errorf("%v\nwant the limit %d and one warning", r, hard.Max)
	}
}

func TestCoreInit(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	run := func(script string) result {
		t.Helper()
		return g.do(nil, "run", "--rm", "--init", image, "sh", "-c", script)
	}
	same(t, "process 1", run("tr '\\0' ' ' < /proc/1/cmdline | cut -d' ' -f1-4; test $$ -gt 1 && echo another").stdout, "tug-init reap -- /bin/sh\nanother\n")
	// Without anybody who reaps, the orphan stays as a zombie: sleep, as process
	// 1, shows that the test would see it.
	const zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"
	const orphan = "(sleep 0.1 &) ; sleep 1; "
	same(t, "zombies with --init", strings.TrimSpace(run(orphan+zombies).stdout), "0")
	g.ok("run", "-d", "--name", "lazy", image, "sleep", "1000")
	same(t, "zombies without", strings.TrimSpace(g.ok("exec", "lazy", "sh", "-c", orphan+zombies)), "1")

	for script, code := range map[string]int{"exit 11": 11, "kill -KILL $$": 137, "kill -SEGV $$": 139, "true": 0} {
		if r := run(script); r.code != code {
			t.Errorf("%v\nwant exit code %d", r, code)
		}
	}
	g.fails(127, args("run", "--rm", "--init", image, "no-such-program"), "no-such-program")
	g.ok("run", "-d", "--init", "--name", "up", image, "sh", "-c", "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
	eventually(t, patience, func() string {
		if out := g.ok("logs", "up"); out != "ready" {
			return "not ready: " + out
		}
		return ""
	})
	g.ok("stop", "up")
	same(t, "exit code after stop", g.ok("wait", "up"), "9")
	same(t, "logs", g.ok("logs", "up"), "ready\nbye")
	// The program stays in the foreground of its terminal: ^C reaches it once.
	p := g.terminal(24, 80, "run", "--rm", "-it", "--init", image, "sh", "-c", "trap 'echo got-$((1+1))' INT; echo ready; read x; read x; exit 3")
	p.shows("ready")
	p.typed("\x03")
	p.shows("got-2")
	p.typed("\n\n")
	if code := p.ends(); code != 3 {
		t.Errorf("exit code %d, want 3:\n%s", code, p.output())
	}
}
