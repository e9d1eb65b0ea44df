//go:build root

package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A keeper that is killed, which nothing but a user or the kernel in great need
// does, takes its containers along: they count as exited with 255, nothing of
// them runs on unseen, and the next command starts from there.
func TestCoreKeeperKilled(t *testing.T) {
	t.Parallel()
	for _, also := range []string{"supervisor", "alone", "all"}[:rounds(3, 2)] {
		t.Run(also, func(t *testing.T) { keeperKilled(t, also) })
	}
}

func keeperKilled(t *testing.T, also string) {
	t.Parallel()
	g := newBusybox(t)
	ids := []string{
		g.ok("run", "-d", "--name", "plain", image, "sleep", "1000"),
		g.ok("run", "-d", "--name", "stubborn", image, "sh", "-c", "trap '' TERM HUP INT PIPE; while :; do echo x; sleep 0.01; done"),
		// setuid undoes the kernel's "die with the parent".
		g.ok("run", "-d", "--name", "other", image, "busybox", "start-stop-daemon", "-S", "-c", "alice", "-x", "/bin/sleep", "--", "1000"),
		g.ok("run", "-d", "--rm", "--name", "gone", image, "sleep", "1000"),
		g.ok("run", "-d", "-t", "--name", "tty", image, "sh", "-c", "sleep 1000 & wait"),
	}
	g.ok("exec", "-d", "plain", "sleep", "1000")
	var pids []int
	for _, id := range ids {
		pids = append(pids, g.state(id).State.Pid)
	}
	attached := g.command(t.Context(), "run", "--name", "attached", image, "sh", "-c", "echo here; sleep 1000")
	out := &firstByte{seen: make(chan struct{})}
	attached.Stdout = out
	if err := attached.Start(); err != nil {
		t.Fatal(err)
	}
	<-out.seen
	keeper, supervisor := g.resident()
	kill := []int{keeper}
	switch also {
	case "supervisor":
		kill = append(kill, supervisor)
	case "all":
		kill = append(append(kill, supervisor), pids...)
	}
	for _, pid := range kill {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if also == "alone" {
		// The supervisor tells the command before it ends; nothing else is
		// needed for the rest to go.
		_ = attached.Wait()
		same(t, "the attached command's exit code", fmt.Sprint(attached.ProcessState.ExitCode()), "255")
		eventually(t, 30*time.Second, func() string { return g.nothingLeft(pids) })
	} else {
		defer func() { _ = attached.Process.Kill() }()
		// The next command that needs a supervisor sweeps.
		same(t, "and back", g.ok("run", "--rm", image, "echo", "again"), "again")
	}
	eventually(t, 30*time.Second, func() string {
		if alive := living(pids); len(alive) > 0 {
			return fmt.Sprintf("processes %v of containers live on", alive)
		}
		return ""
	})
	for _, name := range []string{"plain", "stubborn", "other", "tty", "attached"} {
		if s := g.state(name); s.State.Status != "exited" || s.State.ExitCode != 255 {
			t.Errorf("%s: %+v, want exited with 255", name, s.State)
		}
		same(t, "wait", g.ok("wait", name), "255")
	}
	g.ok("start", "plain") // as any that ended
	g.ok("rm", "-f", "plain", "stubborn", "other", "tty", "attached")
}

func living(pids []int) (alive []int) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err == nil && !strings.HasPrefix(field(string(b), "State"), "Z") {
			alive = append(alive, pid)
		}
	}
	return alive
}

// nothingLeft says what of the store is still on the machine beside its files.
func (g *tug) nothingLeft(pids []int) string {
	switch {
	case len(g.processes()) > 0:
		return fmt.Sprintf("processes %v are still there", g.processes())
	case len(living(pids)) > 0:
		return fmt.Sprintf("processes %v of containers are still there", living(pids))
	case len(cgroupsNamed(g.cgroup())) > 0:
		return fmt.Sprintf("cgroups %v are still there", cgroupsNamed(g.cgroup()))
	case len(mountsWith(g.dir)) > 0:
		return fmt.Sprintf("mounts %v are still there", mountsWith(g.dir))
	}
	return ""
}

// After the quiet time only the store's own files are left: no process, mount,
// cgroup, network namespace or temporary file.
func TestCoreNothingLeft(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.env = []string{"TUG_QUIET=300ms"}
	g.endProcesses() // load needed one, which waits longer
	ns := ""
	for _, a := range [][]string{
		{"run", "--rm", image, "true"},
		{"run", "--rm", "-t", image, "true"},
		{"run", "--name", "stays", "-m", "64m", image, "sh", "-c", "mkdir -p /sys/fs/cgroup/x 2>/dev/null; echo x"},
		{"run", "-d", "--rm", "--name", "killed", image, "sleep", "1000"},
		{"exec", "killed", "true"},
		{"rm", "-f", "killed"},
		{"rm", "stays"},
	} {
		g.ok(a...)
		if a[0] == "exec" {
			ns, _ = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", g.state("killed").State.Pid))
		}
	}
	if !strings.HasPrefix(ns, "net:") {
		t.Fatalf("network namespace %q", ns)
	}
	eventually(t, 60*time.Second, func() string { return g.nothingLeft(nil) })
	for _, dir := range []string{"containers", "containers-by-name", "tmp"} {
		left, _ := os.ReadDir(g.root() + "/" + dir)
		if len(left) > 0 {
			t.Errorf("%s holds %v", dir, left)
		}
	}
	if users := usersOf(ns); len(users) > 0 {
		t.Errorf("processes %v are in the container's network namespace", users)
	}
}

// usersOf lists the processes in the network namespace that /proc/PID/ns/net
// named so.
func usersOf(ns string) (pids []string) {
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		if link, err := os.Readlink("/proc/" + p.Name() + "/ns/net"); err == nil && link == ns {
			pids = append(pids, p.Name())
		}
	}
	return pids
}
