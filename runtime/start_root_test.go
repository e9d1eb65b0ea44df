//go:build root

package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tug/spec"
	"tug/sys"
)

// want compares a run with an exit code and exact output.
func want(t *testing.T, o outcome, code int, out string) {
	t.Helper()
	if o.err != nil {
		t.Fatalf("start: %v", o.err)
	}
	if o.code != code || o.out != out {
		t.Errorf("exit %d, output:\n%swant %d:\n%s", o.code, o.out, code, out)
	}
}

func sh(script string) *spec.Container { return container("sh", "-c", script) }

func TestInside(t *testing.T) {
	f := newFixture(t)
	dir := busybox(t)
	long := strings.Repeat("x", 100_000)
	ptr := func(n int64) *int64 { return &n }
	tests := []struct {
		name   string
		change func(c *spec.Container)
		script string
		code   int
		out    string
	}{
		{"exit code", nil, "exit 42", 42, ""},
		{"signal", nil, "sh -c 'kill -9 $$' 2>/dev/null; exit $?", 137, ""},
		{"pid 1 and session", nil, "ps -o pid,comm | head -2 | tail -1 | awk '{print $1,$2}'; awk '/^NSsid/{print $2}' /proc/self/status", 0, "1 sh\n1\n"},
		{
			"default environment", nil, "env | grep -v -e ^PWD -e ^SHLVL -e ^_= | sort", 0,
			"HOME=/root\nHOSTNAME=abababababab\nPATH=" + defaultPath + "\n",
		},
		{
			"environment", func(c *spec.Container) { c.Config.Env = []string{"A=1", "A=2", "HOME=/x", "PATH=/bin", "L=" + long} },
			"echo $A $HOME $PATH ${#L}", 0, "2 /x /bin 100000\n",
		},
		{
			"host name", func(c *spec.Container) { c.Hostname, c.Domainname = "box", "example.org" },
			"hostname; cat /proc/sys/kernel/domainname", 0, "box\nexample.org\n",
		},
		{"capabilities", nil, "grep ^Cap /proc/self/status", 0, capStatus("a80425fb", "a80425fb")},
		{
			"no capabilities", func(c *spec.Container) { c.Host.CapDrop = []string{"ALL"} },
			"grep ^Cap /proc/self/status", 0, capStatus("0", "0"),
		},
		{
			"one capability", func(c *spec.Container) {
				c.Host.CapDrop, c.Host.CapAdd = []string{"all"}, []string{"net_admin"}
			},
			"grep ^Cap /proc/self/status", 0, capStatus("1000", "1000"),
		},
		{
			"user has no capabilities", func(c *spec.Container) { c.Config.User = "alice" },
			"grep '^Cap\\|^Groups' /proc/self/status; id -un; id -g; echo $HOME", 0,
			"Groups:\t10 44 1001 \n" + capStatus("0", "a80425fb") + "alice\n1001\n/home/alice\n",
		},
		{
			"user by number and group", func(c *spec.Container) { c.Config.User = "4711:wheel" },
			"id; echo $HOME", 0, "uid=4711 gid=10(wheel) groups=10(wheel)\n/\n",
		},
		{"seccomp", nil, "grep '^Seccomp:\\|^NoNew' /proc/self/status", 0, "NoNewPrivs:\t0\nSeccomp:\t2\n"},
		{
			"no new privileges", func(c *spec.Container) { c.Host.SecurityOpt = []string{"no-new-privileges"} },
			"grep '^Seccomp:\\|^NoNew' /proc/self/status", 0, "NoNewPrivs:\t1\nSeccomp:\t2\n",
		},
		{
			"seccomp off", func(c *spec.Container) { c.Host.SecurityOpt = []string{"seccomp=unconfined"} },
			"grep '^Seccomp:' /proc/self/status", 0, "Seccomp:\t0\n",
		},
		{"seccomp refuses", nil, "unshare -m true 2>&1; unshare -r true 2>&1", 1, "unshare: unshare(0x20000): Operation not permitted\nunshare: unshare(0x10000000): Operation not permitted\n"},
		{"masked", nil, "ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v '^/\\|^$'; cat /proc/keys /proc/timer_list /proc/interrupts", 0, ""},
		{
			"read-only paths", nil, "for p in /proc/sys/kernel/domainname /proc/sysrq-trigger /sys/x /sys/fs/cgroup/x /sys/fs/cgroup/pids/x; do echo x 2>/dev/null > $p && echo wrote $p; done; true", 0, "",
		},
		{
			"devices", nil, "ls /dev | tr '\\n' ' '; echo; head -c 2 /dev/zero | wc -c; echo x > /dev/full", 1,
			"core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n2\nsh: write error: No space left on device\n",
		},
		{"device rules", nil, "mknod /tmp/sda b 254 0 && echo made; cat /tmp/sda 2>&1; rm /tmp/sda", 0, "made\ncat: can't open '/tmp/sda': Operation not permitted\n"},
		{
			"read-only root", func(c *spec.Container) { c.Host.ReadonlyRootfs = true; c.Config.WorkingDir = "/made/here" },
			"pwd; touch /x; touch /dev/shm/x && echo shm", 0, "/made/here\ntouch: /x: Read-only file system\nshm\n",
		},
		{
			"tmpfs", func(c *spec.Container) {
				c.Host.Tmpfs = map[string]string{"/t/u": "size=1m,mode=700,exec", "/t": "", "/home/alice": "uid=1000"}
			},
			"grep ' /t' /proc/mounts | sed s/,inode64//; stat -c %a,%u /t/u /home/alice", 0,
			"tmpfs /t tmpfs rw,nosuid,nodev,noexec,relatime 0 0\ntmpfs /t/u tmpfs rw,nosuid,nodev,relatime,size=1024k,mode=700 0 0\n700,0\n755,1000\n",
		},
		{
			"limits of resources", func(c *spec.Container) {
				c.Host.Ulimits = []spec.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}, {Name: "core", Soft: 0, Hard: 0}}
			},
			"ulimit -n; ulimit -Hn; ulimit -c", 0, "100\n200\n0\n",
		},
		{"pid limit", func(c *spec.Container) { c.Host.PidsLimit = ptr(1) }, "true & echo no", 2, "sh: can't fork: Resource temporarily unavailable\n"},
		{"cpu limit", func(c *spec.Container) { c.Host.NanoCPUs = 500_000_000 }, cpuScript, 0, "50000 100000\n"},
		{"working directory", func(c *spec.Container) { c.Config.WorkingDir = "a/b" }, "pwd; stat -c %a .", 0, "/a/b\n755\n"},
		{"umask", nil, "umask", 0, "0022\n"},
		{"descriptors", nil, "ls /proc/self/fd", 0, "0\n1\n2\n3\n"}, // 3 is ls's own
		{"loopback", nil, "ip -o addr show lo | grep -c -e 127.0.0.1 ; ls /sys/class/net", 0, "1\nlo\n"},
		{"low ports", nil, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", 0, "0\n"},
		{"signals", func(c *spec.Container) { c.Path, c.Args = "grep", []string{"^Sig[BI]", "/proc/self/status"} }, "", 0, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"},
		{"no stdin", nil, "cat; readlink /proc/self/fd/0", 0, "/dev/null\n"},
		{
			"privileged", func(c *spec.Container) { c.Host.Privileged = true },
			"grep '^Seccomp:' /proc/self/status; mkdir /sys/fs/cgroup/pids/x 2>/dev/null || mkdir /sys/fs/cgroup/x; head -1 /proc/timer_list | grep -c Timer; test -c /dev/kmsg && echo kmsg; mount -t tmpfs none /tmp && echo mounted", 0,
			"Seccomp:\t0\n1\nkmsg\nmounted\n",
		},
		{"init", func(c *spec.Container) { c.Host.Init = true }, "(sh -c 'sleep 0.01; exit 3' &); sleep 0.05; ps -o args | head -2 | tail -1 | grep -c 'tug-init reap -- /bin/sh sh'; ps -o stat | grep -c Z; exit 9", 9, "1\n0\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := sh(tt.script)
			if tt.change != nil {
				tt.change(c)
			}
			want(t, f.run(dir, c), tt.code, tt.out)
		})
	}
}

const cpuScript = "cat /sys/fs/cgroup/cpu.max 2>/dev/null || echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us) $(cat /sys/fs/cgroup/cpu/cpu.cfs_period_us)"

func capStatus(effective, bounding string) string {
	pad := func(s string) string { return strings.Repeat("0", 16-len(s)) + s + "\n" }
	return "CapInh:\t" + pad("0") + "CapPrm:\t" + pad(effective) + "CapEff:\t" + pad(effective) + "CapBnd:\t" + pad(bounding) + "CapAmb:\t" + pad("0")
}

// TestStartErrors holds the messages and codes to Docker's.
func TestStartErrors(t *testing.T) {
	f := newFixture(t)
	dir := busybox(t)
	writeTree(t, dir, map[string]string{
		"text": "no program", "locked/prog": "#!/bin/sh\n", "file": "",
	})
	os.Chmod(filepath.Join(dir, "locked/prog"), 0o755)
	os.Chmod(filepath.Join(dir, "locked"), 0o700)
	tests := []struct {
		prog, user, cwd string
		code            int
		msg             string
	}{
		{"nosuch", "", "", 127, `exec: "nosuch": executable file not found in $PATH`},
		{"/nosuch", "", "", 127, `exec: "/nosuch": stat /nosuch: no such file or directory`},
		{"/text", "", "", 126, `exec: "/text": permission denied`},
		{"/bin", "", "", 126, `exec: "/bin": is a directory`},
		{"/locked/prog", "alice", "", 126, `exec: "/locked/prog": permission denied`},
		{"true", "nosuch", "", 125, `unable to find user nosuch: no matching entries in passwd file`},
		{"true", "alice:nosuch", "", 125, `unable to find group nosuch: no matching entries in group file`},
		{"true", "99999999999", "", 125, `uids and gids must be in range 0-2147483647`},
		{"true", "", "/file", 125, `cannot mkdir: /file is not a directory`},
	}
	for _, tt := range tests {
		t.Run(tt.prog+" "+tt.user+tt.cwd, func(t *testing.T) {
			c := container(tt.prog)
			c.Config.User, c.Config.WorkingDir = tt.user, tt.cwd
			se := AsStartError(f.run(dir, c).err)
			if se == nil || se.Code != tt.code || se.Msg != tt.msg {
				t.Errorf("got %#v, want %d %s", se, tt.code, tt.msg)
			}
		})
	}
}

// TestRefusedPrograms runs what is there, may be executed, and is refused by
// the kernel all the same: as with Docker the container says so and ends with
// 255.
func TestRefusedPrograms(t *testing.T) {
	f := newFixture(t)
	dir := busybox(t)
	foreign, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	foreign[18] = 0xf3 // e_machine: RISC-V
	writeTree(t, dir, map[string]string{"script": "#!/nowhere\n", "garbage": "\x7fELF garbage", "text": "echo\n", "foreign": string(foreign)})
	for prog, want := range map[string]string{
		"/script":  "exec /script: no such file or directory: its interpreter /nowhere is missing\n",
		"/text":    "exec /text: exec format error: neither a program for this machine nor a script that begins with #!\n",
		"/foreign": "exec /foreign: exec format error: a program for riscv, this machine is ",
		"/garbage": "exec /garbage: exec format error",
	} {
		os.Chmod(filepath.Join(dir, prog), 0o755)
		for _, init := range []bool{false, true} {
			c := container(prog)
			c.Host.Init = init
			if o := f.run(dir, c); o.err != nil || o.code != 255 || !strings.HasPrefix(o.out, want) || strings.Count(o.out, "\n") != 1 {
				t.Errorf("%s, init %v: %+v, want 255 and %q", prog, init, o, want)
			}
		}
	}
}

// TestNamespacesDiffer compares every namespace with the host's.
func TestNamespacesDiffer(t *testing.T) {
	f := newFixture(t)
	dir := busybox(t)
	kinds := []string{"mnt", "pid", "net", "ipc", "uts", "cgroup"}
	for _, network := range []string{"none", "host"} {
		c := sh("for k in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$k; done")
		c.Host.NetworkMode = network
		o := f.run(dir, c)
		lines := strings.Split(o.out, "\n")
		if o.err != nil || len(lines) != len(kinds)+1 {
			t.Fatalf("%v: %s", o.err, o.out)
		}
		for i, kind := range kinds {
			host, _ := os.Readlink("/proc/self/ns/" + kind)
			shared := kind == "net" && network == "host"
			if (host == lines[i]) != shared {
				t.Errorf("network %s, %s namespace: %s, the host's is %s", network, kind, lines[i], host)
			}
		}
	}
}

// TestMemoryLimit lets a program eat more than it may.
func TestMemoryLimit(t *testing.T) {
	f := newFixture(t)
	c := sh("head -c 200m /dev/zero | tail -c 200m | wc -c; exit 0")
	c.Host.Memory = 24 << 20
	o := f.run(busybox(t), c)
	if o.err != nil || !o.oom {
		t.Errorf("err %v, oom %v, output %s", o.err, o.oom, o.out)
	}
	c = sh("echo enough")
	c.Host.Memory = 6 << 20 // Docker's least
	want(t, f.run(busybox(t), c), 0, "enough\n")
}

// TestRaiseLimit wants more than tug may give.
func TestRaiseLimit(t *testing.T) {
	if sys.BoundingSet()&(1<<24) != 0 {
		t.Log("CAP_SYS_RESOURCE is there: the limit is raised")
	}
	f := newFixture(t)
	_, hard, err := sys.Limit(syscall.RLIMIT_NOFILE)
	if err != nil {
		t.Fatal(err)
	}
	c := sh("ulimit -Hn")
	c.Host.Ulimits = []spec.Ulimit{{Name: "nofile", Soft: 10, Hard: int64(hard) + 1}}
	o := f.run(busybox(t), c)
	switch {
	case o.err != nil:
		t.Fatal(o.err)
	case o.out == fmt.Sprintln(hard+1):
	case o.out == fmt.Sprintln(hard) && len(o.warnings) == 1:
	default:
		t.Errorf("got %s and warnings %q", o.out, o.warnings)
	}
}

// TestTerminal runs on a terminal from the container's own devpts.
func TestTerminal(t *testing.T) {
	f := newFixture(t)
	c := sh("tty; stat -c %t:%T /dev/console; tty < /dev/tty; id -u; stat -c %u $(tty); sleep 0.01; echo $TERM; test -t 2 && echo $PPID")
	c.Tty = true
	c.Config.User = "alice"
	o := f.run(busybox(t), c)
	out := "/dev/pts/0\r\n88:0\r\n/dev/pts/0\r\n1000\r\n1000\r\nxterm\r\n0\r\n"
	if strings.Contains(o.out, "/dev/tty") { // some ttyname see the name opened
		out = strings.Replace(out, "88:0\r\n/dev/pts/0", "88:0\r\n/dev/tty", 1)
	}
	want(t, o, 0, out)
}

// TestBindTrees mounts files and directories, read-only and not, also on
// targets that do not exist.
func TestBindTrees(t *testing.T) {
	f := newFixture(t)
	dir, src := busybox(t), t.TempDir()
	writeTree(t, src, map[string]string{"hosts": "127.0.0.1 me\n", "d/x": "1"})
	c := sh("cat /etc/hosts; echo x >> /etc/hosts; ls /a/b; echo 2 > /a/b/x")
	pl, _, err := MakePlan(c)
	if err != nil {
		t.Fatal(err)
	}
	var trees []*os.File
	for _, p := range []string{"hosts", "d"} {
		tree, err := sys.CloneTree(nil, filepath.Join(src, p), true)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		trees = append(trees, tree)
	}
	pl.Bind("/etc/hosts", false)
	pl.Bind("/a/b", true)
	o := f.runPlan(dir, c, pl, trees...)
	want(t, o, 1, "127.0.0.1 me\nx\nsh: can't create /a/b/x: Read-only file system\n")
	if b, _ := os.ReadFile(filepath.Join(src, "hosts")); string(b) != "127.0.0.1 me\nx\n" {
		t.Errorf("the file has %q", b)
	}
}

// TestInit runs programs below the reaper: signals get through, the exit code
// comes back, users and terminals work as without.
func TestInit(t *testing.T) {
	f := newFixture(t)
	dir := busybox(t)
	c := sh("trap 'echo got it; exit 5' USR1; echo up; while :; do sleep 0.01; done")
	c.Host.Init, c.Tty, c.Config.User = true, true, "alice"
	pl, _, err := MakePlan(c)
	if err != nil {
		t.Fatal(err)
	}
	p, out, _, err := f.start(dir, c, pl)
	if err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(10*time.Second, func() { sys.PidfdSignal(p.Pidfd, syscall.SIGKILL) })
	defer stop.Stop()
	// Before the program has set its trap, the signal would end it.
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				if n := childOf(p.Pid); n != 0 && catches(n, syscall.SIGUSR1) {
					sys.PidfdSignal(p.Pidfd, syscall.SIGUSR1)
				}
			}
		}
	}()
	text := <-out
	close(done)
	if code := waitExit(t, p.Pid); code != 5 || text != "up\r\ngot it\r\n" {
		t.Errorf("exit %d, output %q", code, text)
	}
	p.Pidfd.Close()
	f.r.Remove(p.Cgroup)

	c = sh("kill -9 $$")
	c.Host.Init = true
	want(t, f.run(dir, c), 137, "")
	c = container("/etc/passwd")
	c.Host.Init = true
	if se := AsStartError(f.run(dir, c).err); se == nil || se.Code != 126 {
		t.Errorf("no program: %v", se)
	}
}

// childOf returns a child of pid.
func childOf(pid int) int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, _ := os.ReadFile(name)
		before, after, _ := strings.Cut(string(b), ") ")
		var state string
		var child, parent int
		fmt.Sscan(before, &child)
		fmt.Sscan(after, &state, &parent)
		if parent == pid {
			return child
		}
	}
	return 0
}

// catches reports whether pid has a handler of its own for sig.
func catches(pid int, sig syscall.Signal) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, after, _ := strings.Cut(string(b), "SigCgt:")
	var set uint64
	fmt.Sscanf(after, "%x", &set)
	return set&(1<<(sig-1)) != 0
}
