//go:build root

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// What a process finds about itself and its surroundings is what Docker's
// default container finds.
func TestCoreDefaults(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	sh := func(script string) string {
		t.Helper()
		return g.ok("run", "--rm", image, "sh", "-c", script)
	}
	status := g.ok("run", "--rm", image, "cat", "/proc/self/status")
	for _, name := range []string{"SigBlk", "SigIgn", "SigPnd", "ShdPnd"} {
		same(t, name, field(status, name), "0000000000000000")
	}
	same(t, "umask", field(status, "Umask"), "0022")
	same(t, "groups", field(status, "Groups"), "0")
	same(t, "parent, process group, session, terminal", sh("cut -d' ' -f4-7 /proc/1/stat"), "0 1 1 0")
	same(t, "oom_score_adj and personality", sh("cat /proc/self/oom_score_adj /proc/self/personality"), "0\n00000000")
	same(t, "environment", sh("env | grep -v -e ^HOSTNAME -e ^SHLVL -e ^PWD | sort"), "GREETING=hello\nHOME=/root\nPATH=/bin:/usr/bin")
	same(t, "TERM only on a terminal", strings.TrimSpace(g.ok("run", "--rm", "-t", image, "sh", "-c", "echo $TERM")), "xterm")
	same(t, "cgroup namespace", sh("cut -d: -f3 /proc/1/cgroup | sort -u"), "/")
	same(t, "/dev", sh("cd /dev; stat -c '%n %a %t,%T' full null random tty urandom zero pts/ptmx; stat -c '%n %a' . shm mqueue; for l in fd stdin stdout stderr ptmx; do readlink $l; done"),
		"full 666 1,7\nnull 666 1,3\nrandom 666 1,8\ntty 666 5,0\nurandom 666 1,9\nzero 666 1,5\npts/ptmx 666 5,2\n. 755\nshm 1777\nmqueue 1777\n"+
			"/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx")
	same(t, "size of /dev/shm", sh("df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2"), "65536")

	mounts := sh("cat /proc/self/mounts")
	for path, opts := range map[string]string{
		"/proc": "rw,nosuid,nodev,noexec", "/dev": "rw,nosuid", "/dev/pts": "rw,nosuid,noexec", "/dev/shm": "rw,nosuid,nodev,noexec", "/dev/mqueue": "rw,nosuid,nodev,noexec",
		"/sys": "ro,nosuid,nodev,noexec", "/proc/bus": "ro,nosuid,nodev,noexec", "/proc/fs": "ro,nosuid,nodev,noexec", "/proc/irq": "ro,nosuid,nodev,noexec", "/proc/sys": "ro,nosuid,nodev,noexec",
		"/sys/firmware": "ro,nosuid,nodev,noexec",
	} {
		if _, err := os.Stat(path); err != nil {
			continue // not of this kernel
		}
		if !regexp.MustCompile(`(?m)^\S+ ` + path + ` \S+ ` + opts + `[, ]`).MatchString(mounts) {
			t.Errorf("%s is not mounted %s:\n%s", path, opts, mounts)
		}
	}
	for _, dir := range []string{"/proc/acpi", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"} {
		same(t, dir+" is empty", sh("ls -A "+dir+" 2>/dev/null; true"), "")
	}
	same(t, "no way up", sh("ls -d /rootfs /empty 2>/dev/null; test /.. -ef / && echo same"), "same")
}

// --privileged takes all of it away, as far as tug itself has it.
func TestCorePrivileged(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	sh := func(script string) string {
		t.Helper()
		return g.ok("run", "--rm", "--privileged", image, "sh", "-c", script)
	}
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	status := sh("cat /proc/self/status")
	same(t, "capabilities", field(status, "CapEff"), field(string(own), "CapBnd"))
	same(t, "seccomp", field(status, "Seccomp"), "0")
	same(t, "nothing is mounted over /proc, nothing read-only", sh("grep -e ' /proc/' -e ' ro,' /proc/mounts | grep -v binfmt; true"), "")
	same(t, "cgroups are writable", sh("cd /sys/fs/cgroup; test -d pids && cd pids; mkdir x && rmdir x && echo made"), "made")
	sh("test -c /dev/kmsg -o ! -e /dev/kmsg; mknod /tmp/full c 1 7; mknod /tmp/kmsg c 1 11 && head -c0 /tmp/kmsg")
	same(t, "a process of its own all the same", sh("echo $$; ls /sys/class/net"), "1\nlo")
}

// An exec is as confined as the container: same rights, same cgroup, same user
// unless told otherwise.
func TestCoreExecConfined(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	const fields = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Umask|Sig(Ign|Blk)):' /proc/self/status; cat /proc/self/oom_score_adj /proc/self/cgroup; for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; pwd; ulimit -n; ulimit -Hn; echo all"
	for n, flags := range [][]string{
		nil,
		{"--cap-drop", "ALL", "--cap-add", "CHOWN"},
		{"--security-opt", "no-new-privileges", "-u", "alice"},
		{"--security-opt", "seccomp=unconfined", "--ulimit", "nofile=99:100", "-w", "/tmp"},
		{"-u", "4242:17", "-m", "64m", "--pids-limit", "50"},
		{"--privileged"},
		{"--read-only", "--network", "host"},
	}[:rounds(7, 4)] {
		name := fmt.Sprintf("up%d", n)
		g.ok(append(append(args("run", "-d", "--name", name), flags...), image, "sh", "-c", fields+"; exec sleep 1000")...)
		var first string
		eventually(t, patience, func() string {
			if first = g.ok("logs", name); !strings.HasSuffix(first, "\nall") {
				return "no output of the container"
			}
			return ""
		})
		r := g.do(nil, "exec", name, "sh", "-c", fields)
		same(t, fmt.Sprintf("exec with %q", flags), strings.TrimSpace(r.stdout), strings.TrimSpace(first))
		// Seen from the host, too: the namespace could make any place look the same.
		g.ok("exec", "-d", name, "sleep", "987")
		main, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", g.state(name).State.Pid))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, pid := range processesWith("987\x00") {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
			found = found || string(b) == string(main)
		}
		if !found {
			t.Errorf("no exec'd process is in the cgroup of %q:\n%s", flags, main)
		}
		g.ok("rm", "-f", name)
	}
}

// Signals by all their names, the stop signal of flag and image, and its time.
func TestCoreStopSignals(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	up := func(name string, a ...string) {
		t.Helper()
		g.ok(append(append(args("run", "-d", "--name", name), a...), image, "sh", "-c",
			"for s in HUP INT QUIT USR1 USR2 TERM WINCH 35; do trap \"echo $s; exit 7\" $s; done; echo ready; while :; do sleep 0.02; done")...)
		eventually(t, patience, func() string {
			if g.ok("logs", name) != "ready" {
				return "not ready"
			}
			return ""
		})
	}
	for _, c := range [][2]string{{"sigusr1", "USR1"}, {"RTMIN+1", "35"}, {"HUP", "HUP"}, {"SIGWINCH", "WINCH"}, {"12", "USR2"}, {"rtmax-29", "35"}}[:rounds(6, 2)] {
		given, want := c[0], c[1]
		up("sig")
		g.ok("kill", "-s", given, "sig")
		same(t, "wait", g.ok("wait", "sig"), "7")
		same(t, "kill -s "+given, g.ok("logs", "sig"), "ready\n"+want)
		g.ok("rm", "sig")
	}
	up("stop", "--stop-signal", "QUIT")
	for _, bad := range []string{"0", "65", "FOO", "-1", "RTMAX+1", "SIG"} {
		g.fails(1, args("kill", "-s", bad, "stop"), "nvalid signal")
	}
	same(t, "still there", g.state("stop").State.Status, "running")
	g.ok("stop", "stop")
	same(t, "--stop-signal", g.ok("logs", "stop"), "ready\nQUIT")
	g.fails(125, args("run", "--rm", "--stop-signal", "FOO", image, "true"), "nvalid signal")
}
