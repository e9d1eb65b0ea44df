//go:build root

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func ownNS(t *testing.T, name string) string {
	t.Helper()
	ns, err := os.Readlink("/proc/self/ns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// sleepers returns the host's processes that run sleep with this time.
func sleepers(seconds string) (pids []int) {
	for _, pid := range processesWith(seconds) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if string(b) == "sleep\x00"+seconds+"\x00" {
			pids = append(pids, pid)
		}
	}
	return pids
}

func noSleepers(t *testing.T, seconds string) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		if left := sleepers(seconds); len(left) > 0 {
			return fmt.Sprintf("sleep %s still runs: %v", seconds, left)
		}
		return ""
	})
}

type modes struct {
	HostConfig struct{ PidMode, IpcMode string }
}

func TestCorePidHost(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	out := g.ok("run", "--rm", "--pid", "host", image, "sh", "-c", "readlink /proc/self/ns/pid; cat /proc/"+strconv.Itoa(os.Getpid())+"/comm; ls /proc/self/fd | wc -l")
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	// 0, 1, 2 and that of the directory.
	same(t, "what it sees", out, ownNS(t, "pid")+"\n"+string(comm)+"4")
	g.fails(125, args("run", "--rm", "--pid", "nonsense", image, "true"), "--pid: invalid PID mode")

	// What it began in the background ends with it, whatever it does against that.
	const seconds = "7351"
	left := "setsid sleep " + seconds + " & (trap '' TERM HUP; sleep " + seconds + ") & sleep 0.2; exit 3"
	if r := g.do(nil, "run", "--rm", "--pid", "host", image, "sh", "-c", left); r.code != 3 {
		t.Errorf("%v", r)
	}
	if left := sleepers(seconds); len(left) > 0 {
		t.Errorf("after the command: %v still run", left)
	}

	// Init passes signals on and gives the code, without being process 1.
	if r := g.do(nil, "run", "--rm", "--init", "--pid", "host", image, "sh", "-c", "exit 7"); r.code != 7 {
		t.Errorf("--init: %v", r)
	}
	// An exec sees the same, and its processes end with the container.
	g.ok("run", "-d", "--name", "open", "--pid", "host", image, "sleep", "1000")
	same(t, "exec", g.ok("exec", "open", "readlink", "/proc/self/ns/pid"), ownNS(t, "pid"))
	g.ok("exec", "-d", "open", "sleep", seconds)
	eventually(t, patience, func() string {
		if len(sleepers(seconds)) == 0 {
			return "the exec does not run"
		}
		return ""
	})
	var m modes
	g.inspect(&m, "open")
	same(t, "PidMode", m.HostConfig.PidMode, "host")
	g.ok("kill", "open")
	g.ok("wait", "open")
	noSleepers(t, seconds)
}

// Who is left when the supervisor, or the keeper, was killed at the same time
// as the first process.
func TestCorePidHostKilled(t *testing.T) {
	t.Parallel()
	for i, who := range []string{"supervisor", "keeper", "both"} {
		t.Run(who, func(t *testing.T) {
			g := newBusybox(t)
			seconds := strconv.Itoa(8461 + i)
			g.ok("run", "-d", "--name", "open", "--pid", "host", image, "sh", "-c", "setsid sleep "+seconds+" & exec sleep 1000")
			eventually(t, patience, func() string {
				if len(sleepers(seconds)) == 0 {
					return "it does not run"
				}
				return ""
			})
			keeper, supervisor := g.resident()
			kill := []int{g.state("open").State.Pid}
			if who != "keeper" {
				kill = append(kill, supervisor)
			}
			if who != "supervisor" {
				kill = append(kill, keeper)
			}
			for _, pid := range kill {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			if who == "both" {
				g.ok("run", "--rm", image, "true") // it takes a supervisor to see it
			}
			noSleepers(t, seconds)
			eventually(t, patience, func() string { return wantStatus(g, "open", "exited") })
		})
	}
}

func wantStatus(g *tug, name, want string) string {
	if got := g.state(name).State.Status; got != want {
		return name + " is " + got
	}
	return ""
}

func TestCorePidContainer(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.fails(125, args("run", "--rm", "--pid", "container:first", image, "true"), "No such container: first")
	g.ok("run", "-d", "--name", "first", image, "sleep", "1000")
	id := g.state("first").ID
	g.ok("run", "-d", "--name", "second", "--pid", "container:first", image, "sh", "-c", "sleep 9471 & exec sleep 1000")
	ns := g.ok("exec", "first", "readlink", "/proc/self/ns/pid")
	same(t, "namespace", g.ok("exec", "second", "readlink", "/proc/self/ns/pid"), ns)
	same(t, "process 1", g.ok("exec", "second", "cat", "/proc/1/cmdline"), "sleep\x001000\x00")
	if a, b := g.ok("exec", "first", "readlink", "/proc/self/ns/mnt"), g.ok("exec", "second", "readlink", "/proc/self/ns/mnt"); a == b {
		t.Errorf("they share mounts too: %s", a)
	}
	// Another's processes are seen, but not looked into.
	out := g.ok("exec", "first", "sh", "-c", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done")
	if !strings.Contains(out, "sleep 9471") {
		t.Errorf("the first does not see the second's:\n%s", out)
	}
	g.ok("rename", "first", "donor")
	var m modes
	g.inspect(&m, "second")
	same(t, "PidMode", m.HostConfig.PidMode, "container:"+id)

	// The second ends alone; the kernel ends it with the first.
	g.ok("stop", "-t", "0", "second")
	noSleepers(t, "9471")
	same(t, "the first", g.state("donor").State.Status, "running")
	g.ok("start", "second")
	g.ok("restart", "-t", "0", "donor")
	eventually(t, patience, func() string { return wantStatus(g, "second", "exited") })
	noSleepers(t, "9471")
	g.ok("start", "second")
	same(t, "after the restart", g.ok("exec", "second", "readlink", "/proc/self/ns/pid"), g.ok("exec", "donor", "readlink", "/proc/self/ns/pid"))
	g.ok("stop", "-t", "0", "donor", "second")
	g.fails(1, args("start", "second"), "failed to join PID namespace: container "+id+" is not running")
	g.ok("rm", "donor")
	g.fails(1, args("start", "second"), "failed to join PID namespace: No such container: "+id)
}

func TestCoreIpcContainer(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "first", "--ipc", "shareable", "--shm-size", "3m", image, "sleep", "1000")
	g.ok("exec", "first", "sh", "-c", "echo covered > /dev/shm/file")
	show := "readlink /proc/self/ns/ipc; cat /dev/shm/file; grep -c ' /dev/shm tmpfs.*size=3072k' /proc/mounts; ls /proc/self/fd | wc -l; readlink /proc/self/ns/mnt"
	out := g.ok("run", "--rm", "--ipc", "container:first", "--shm-size", "9m", image, "sh", "-c", show)
	lines := strings.Split(out, "\n")
	mnt := lines[len(lines)-1]
	same(t, "what it sees", strings.TrimSuffix(out, mnt), g.ok("exec", "first", "readlink", "/proc/self/ns/ipc")+"\ncovered\n1\n4\n")
	if theirs := g.ok("exec", "first", "readlink", "/proc/self/ns/mnt"); mnt == theirs || mnt == ownNS(t, "mnt") {
		t.Errorf("mount namespace %s; the first's is %s", mnt, theirs)
	}
	g.ok("run", "--rm", "--ipc", "container:first", image, "sh", "-c", "echo back > /dev/shm/other")
	same(t, "the other way", g.ok("exec", "first", "cat", "/dev/shm/other"), "back")
	// One who joined can be joined, also together with its processes.
	g.ok("run", "-d", "--name", "second", "--ipc", "container:first", image, "sleep", "1000")
	same(t, "third", g.ok("run", "--rm", "--ipc", "container:second", "--pid", "container:second", image, "cat", "/dev/shm/file"), "covered")
	id := g.state("first").ID
	var m modes
	g.inspect(&m, "second")
	same(t, "IpcMode", m.HostConfig.IpcMode, "container:"+id)

	g.ok("run", "-d", "--name", "closed", image, "sleep", "1000")
	g.fails(125, args("run", "--rm", "--ipc", "container:closed", image, "true"),
		"failed to join IPC namespace: container "+g.state("closed").ID+": non-shareable IPC (hint: use IpcMode:shareable for the donor container)")
	g.ok("stop", "-t", "0", "first")
	g.fails(125, args("run", "--rm", "--ipc", "container:first", image, "true"), "container "+id+" is not running")
	// The namespace lives on in who joined it.
	same(t, "the second", g.ok("exec", "second", "cat", "/dev/shm/file"), "covered")

	// One that hides its /dev/shm, or puts another file system there, gets nobody.
	g.ok("run", "-d", "--name", "trick", "--privileged", "--ipc", "shareable", image, "sh", "-c", "umount /dev/shm && mount -t proc proc /dev/shm && exec sleep 1000")
	eventually(t, patience, func() string {
		r := g.do(nil, "run", "--rm", "--ipc", "container:trick", image, "ls", "/dev/shm")
		if r.code != 125 || !strings.Contains(r.stderr, "its /dev/shm is no tmpfs") {
			return r.String()
		}
		return ""
	})
}
