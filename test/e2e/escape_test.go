//go:build root

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tug/test/fixture"
)

// The public classes of escapes. Each attack says ESCAPED when it works, and
// is also made where it has to work, so that a test that tries nothing fails.
// Others stand elsewhere: the engine's program in TestProgramIsSealed, leaked
// descriptors in TestCoreNoDescriptors, links of images in TestHostilePlaces,
// copying in TestCopyExchange.
func TestCoreEscapes(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	v1, _ := os.ReadFile("/proc/self/cgroup")
	withV1 := strings.Contains(string(v1), ":devices:")
	major, minor := g.disk()
	disk := fmt.Sprintf("mknod /disk b %d %d && head -c 1 /disk >/dev/null && echo ESCAPED", major, minor)
	another := fmt.Sprintf("/proc/%d", os.Getpid()) // a process of the host
	// Opening for appending is enough to know, and changes nothing of the host.
	for name, c := range map[string]struct {
		attack string
		with   []string // further flags
		works  []string // flags with which the attack has to work; nil: there are none
		need   string   // for that the host itself has to be able to open this
	}{
		"core_pattern":           {attack: "(: >> /proc/sys/kernel/core_pattern) && echo ESCAPED", works: args("--privileged")},
		"core_pattern, remount":  {attack: "mount -o remount,rw,bind /proc/sys; mount -o remount,rw /proc/sys; (: >> /proc/sys/kernel/core_pattern) && echo ESCAPED", works: args("--privileged")},
		"core_pattern, new proc": {attack: "mkdir /p; mount -t proc proc /p; (: >> /p/sys/kernel/core_pattern) && echo ESCAPED", works: args("--privileged")},
		"core_pattern, no mask":  {attack: "umount /proc/sys; umount -l /proc/sys; (: >> /proc/sys/kernel/core_pattern) && echo ESCAPED"},
		"user namespace":         {attack: "unshare -U true && echo ESCAPED; unshare -Urm true && echo ESCAPED", works: args("--privileged")},
		"sysrq":                  {attack: "(: >> /proc/sysrq-trigger) && echo ESCAPED", works: args("--privileged"), need: "/proc/sysrq-trigger"},
		"kcore":                  {attack: "head -c 1 /proc/kcore | grep -q . && echo ESCAPED; head -c 1 /proc/keys | grep -q . && echo ESCAPED"},
		"sysfs":                  {attack: "mount -o remount,rw /sys; for f in /sys/kernel/uevent_helper /sys/kernel/mm/transparent_hugepage/enabled /sys/power/state /sys/module/*/parameters/*; do test -f $f && (: >> $f) && echo ESCAPED; done"},
		"disk":                   {attack: disk, works: args("--privileged"), need: fmt.Sprintf("/dev/block/%d:%d", major, minor)},
		"memory":                 {attack: "mknod /mem c 1 1; mknod /kmsg c 1 11; head -c 1 /mem && echo ESCAPED; test -c /kmsg && (: >> /kmsg) && echo ESCAPED", works: args("--privileged"), need: "/dev/kmsg"},
		"kernel log":             {attack: "dmesg | grep -q . && echo ESCAPED", works: args("--privileged")},
		"bind mount":             {attack: "mkdir /m; mount -o bind /etc /m && echo ESCAPED", works: args("--privileged")},
		"process of the host":    {attack: "ls " + another + "/root/ " + another + "/cwd/ | grep -q . && echo ESCAPED; cat " + another + "/environ | grep -q . && echo ESCAPED", with: args("--pid", "host"), works: args("--privileged")},
		"release_agent":          {attack: "find /sys/fs/cgroup -name release_agent | while read f; do (: >> $f) && echo ESCAPED; done", with: args("--cgroupns", "host")},
		"release_agent, mounted": {attack: releaseAgent, with: args("--cgroupns", "host"), works: args("--privileged")},
		"device rules":           {attack: "for d in /sys/fs/cgroup/devices /sys/fs/cgroup; do (echo 'a *:* rwm' > $d/devices.allow) && echo ESCAPED; mkdir $d/x && echo ESCAPED; done", works: args("--privileged")},
	} {
		t.Run(name, func(t *testing.T) {
			if !withV1 && strings.HasPrefix(name, "release_agent,") {
				c.works = nil // cgroup v2 has none
			}
			run := func(more ...string) result {
				t.Helper()
				a := append(append(args("run", "--rm"), c.with...), more...)
				return g.do(nil, append(a, image, "sh", "-c", "("+c.attack+") 2>/dev/null; echo tried")...)
			}
			if r := run(); r.stdout != "tried\n" {
				t.Errorf("%v", r)
			}
			if r := run("--cap-drop", "ALL", "--security-opt", "no-new-privileges"); r.stdout != "tried\n" {
				t.Errorf("without capabilities: %v", r)
			}
			if c.works == nil || c.need != "" && !opens(c.need) {
				return
			}
			if r := run(c.works...); !strings.Contains(r.stdout, "ESCAPED\n") {
				t.Errorf("where it has to work, it does not: %v", r)
			}
		})
	}
}

// releaseAgent mounts each hierarchy of cgroup v1 that it can (CVE-2022-0492).
const releaseAgent = `mkdir /c; for s in rdma devices memory pids cpu freezer; do mount -t cgroup -o $s cgroup /c && break; done
f=$(find /c -name release_agent | head -n 1); test -n "$f" && (: >> $f) && echo ESCAPED; umount /c`

func opens(path string) bool {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// disk is the device of the file system that the store lies on.
func (g *tug) disk() (major, minor uint32) {
	var st unix.Stat_t
	if err := unix.Stat(g.dir, &st); err != nil {
		g.t.Fatal(err)
	}
	return unix.Major(st.Dev), unix.Minor(st.Dev)
}

// An image's user files give nobody more than they say, and nothing that
// overflows or misleads (CVE-2016-3697).
func TestCoreUserTricks(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	i := busybox(t)
	i.Name = "users:test"
	i.Layers = append(i.Layers, fixture.NewLayer().File("etc/passwd", 0o644, "1000:x:0:0::/:\nbig:x:4294967296:0::/:\nneg:x:-1:0::/:\nlast:x:4294967295:0::/:\nhex:x:0x0:0::/:\nfine:x:7:8::/:\n").
		File("etc/group", 0o644, "1000:x:0:\nbig:x:4294967296:fine\nneg:x:-1:fine\n").Bytes())
	if r := g.do(bytes.NewReader(fixture.DockerArchive(i).Bytes()), "load", "-q"); r.code != 0 {
		t.Fatal(r)
	}
	const who = "echo $(id -u) $(id -g) $(id -G)"
	g.ok("run", "-d", "--name", "up", i.Name, "sleep", "1000")
	for user, want := range map[string]string{"1000": "1000 0 0", "1000:1000": "1000 1000 1000", "fine": "7 8 8", "7": "7 8 8"} {
		same(t, "run -u "+user, g.ok("run", "--rm", "-u", user, i.Name, "sh", "-c", who), want)
		same(t, "exec -u "+user, g.ok("exec", "-u", user, "up", "sh", "-c", who), want)
	}
	for _, user := range []string{"big", "neg", "last", "hex", "4294967295", "4294967296", "18446744073709551616", "-1", "+0", "0x0", "fine:big", "fine:neg"} {
		if r := g.do(nil, "run", "--rm", "--user="+user, i.Name, "id"); r.code == 0 {
			t.Errorf("run -u %s: %v", user, r)
		}
		if r := g.do(nil, "exec", "--user="+user, "up", "id"); r.code == 0 {
			t.Errorf("exec -u %s: %v", user, r)
		}
	}
}

// A container that has put traps where a new process passes through: an exec
// works or is refused, at once, and reaches nothing of the host's.
func TestHostileExec(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	secret := filepath.Join(g.dir, "secret")
	if err := os.WriteFile(secret, []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		trap string
		run  []string
		args []string // of exec
		code int
		out  string
	}{
		"fifo for passwd":       {"rm /etc/passwd; mkfifo /etc/passwd", nil, args("-u", "alice", "up", "id"), 126, ""},
		"link for passwd":       {"ln -sf " + secret + " /etc/passwd; ln -sf " + secret + " /etc/group", nil, args("up", "id", "-u"), 0, "0"},
		"no proc":               {"mount -t tmpfs none /proc && mkdir -p /proc/self/attr /proc/self/fd /proc/1/ns && mkfifo /proc/self/attr/exec /proc/self/attr/current /proc/self/status /proc/self/oom_score_adj /proc/self/setgroups", args("--cap-add", "SYS_ADMIN"), args("up", "echo", "in"), 0, "in"},
		"links in a false proc": {"mount -t tmpfs none /proc && mkdir -p /proc/self && ln -s " + secret + " /proc/self/oom_score_adj && ln -s / /proc/self/fd", args("--cap-add", "SYS_ADMIN"), args("up", "echo", "in"), 0, "in"},
		"no dev":                {"mount -t tmpfs none /dev && mkdir /dev/pts && mkfifo /dev/pts/ptmx /dev/null /dev/tty", args("--cap-add", "SYS_ADMIN"), args("up", "echo", "in"), 0, "in"},
		"no terminal":           {"mount -t tmpfs none /dev && mkdir /dev/pts && mkfifo /dev/pts/ptmx /dev/ptmx", args("--cap-add", "SYS_ADMIN"), args("-t", "up", "echo", "in"), 126, ""},
		"working directory":     {"rmdir /job; ln -s /proc/1/root/.. /job", nil, args("-w", "/job", "up", "ls", secret), 126, ""},
		"root below":            {"mkdir /new; mount -t tmpfs none /new; cp /bin/busybox /new/true; mkdir /new/old; pivot_root /new /new/old", args("--cap-add", "SYS_ADMIN"), args("up", "echo", "in"), -1, ""},
		"library for loading":   {"mkdir -p /lib /etc; echo /evil.so > /etc/ld.so.preload; echo evil > /lib/libnss_files.so.2", nil, args("-u", "alice", "up", "echo", "in"), 0, "in"},
	} {
		t.Run(name, func(t *testing.T) {
			c.run = append(args("run", "-d", "--name", "up", "--security-opt", "seccomp=unconfined", "--ulimit", "core=0"), c.run...)
			g.ok(append(c.run, image, "sh", "-c", "mkdir -p /job; "+c.trap+"; echo set; exec sleep 1000")...)
			eventually(t, patience, func() string {
				if out := g.ok("logs", "up"); !strings.HasSuffix(out, "set") {
					return "the trap is not set: " + out
				}
				return ""
			})
			swift(t, "exec", patience, func() {
				r := g.do(nil, append(args("exec"), c.args...)...)
				if c.code >= 0 && (r.code != c.code || strings.TrimSpace(r.stdout) != c.out) || strings.Contains(r.stdout, "host") {
					t.Errorf("%v\nwant %d, %q", r, c.code, c.out)
				}
			})
			g.ok("rm", "-f", "up")
		})
	}
	b, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the host's file", string(b), "of the host\n")
}

// spied puts the program test/fixture/spy into an image.
func (g *tug) spied() string {
	repo, err := fixture.Repo()
	if err != nil {
		g.t.Fatal(err)
	}
	path := filepath.Join(g.t.TempDir(), "spy")
	cmd := exec.Command("go", "build", "-o", path, "./test/fixture/spy")
	cmd.Dir, cmd.Env = repo, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		g.t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	i := busybox(g.t)
	i.Name = "spy:test"
	i.Layers = append(i.Layers, fixture.NewLayer().File("spy", 0o755, string(program)).Bytes())
	if r := g.do(bytes.NewReader(fixture.DockerArchive(i).Bytes()), "load", "-q"); r.code != 0 {
		g.t.Fatal(r)
	}
	return i.Name
}

// A program in the container watches for processes that come in, and reaches
// for what they have: it traces them, writes their memory, follows their root,
// working directory, program and descriptors.
func TestExecIsSpiedUpon(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	name := g.spied()
	marker := filepath.Join(g.dir, "marker")
	if err := os.WriteFile(marker, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	g.withSubIDs()
	for _, flags := range [][]string{nil, args("--cap-add", "SYS_PTRACE"), args("-u", "1000"), args("--userns", "remap", "--cap-add", "SYS_PTRACE")} {
		what := strings.Join(append(args("spy"), flags...), " ")
		g.ok(append(append(args("run", "-d", "--name", "spy"), flags...), name, "/spy", "watch", marker)...)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range rounds(25, 5) {
					if r := g.do(nil, "exec", "spy", "true"); r.code != 0 && r.code != 137 {
						t.Errorf("%s: %v", what, r)
					}
				}
			})
		}
		wg.Wait()
		g.ok("kill", "-s", "TERM", "spy")
		g.ok("wait", "spy")
		out := g.ok("logs", "spy")
		if strings.Contains(out, "ESCAPED") || !strings.Contains(out, "seen ") || strings.Contains(out, "seen 0 ") {
			t.Errorf("%s: %s", what, clip(out))
		}
		t.Log(what, out[strings.LastIndex(out, "seen "):])
		g.ok("rm", "spy")
	}
}

// open_by_handle_at(2) opens files by their inode, wherever they are
// ("shocker"); others reach past what is mounted in other ways.
func TestSyscallsOfEscapes(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	name := g.spied()
	out := g.ok("run", "--rm", name, "/spy", "calls")
	if strings.Contains(out, "ESCAPED") || !strings.Contains(out, "tried 7 calls") {
		t.Errorf("%s", out)
	}
	// --privileged may, which shows that the calls are made right.
	out = g.ok("run", "--rm", "--privileged", name, "/spy", "calls")
	for _, call := range []string{"open_by_handle_at", "setns", "unshare", "mount", "fanotify_init"} {
		if !strings.Contains(out, "ESCAPED by "+call+"\n") {
			t.Errorf("%s does not work with --privileged:\n%s", call, out)
		}
	}
}

// The kernel's own protection of links and setuid programs is not taken away by
// how layers are mounted: a container's device nodes and setuid programs do
// nothing on the host.
func TestStoreIsOutOfReach(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "--name", "suid", image, "sh", "-c", "cp /bin/busybox /evil && chmod 6755 /evil && mknod /tmp/null c 1 3")
	cmd := exec.Command("sh", "-c", "ls "+g.root()+"/containers")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("another user sees the containers' files: %s", out)
	}
}
