//go:build root

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A changed restart policy holds for what ends from now on, and after a reboot;
// what is down stays down.
func TestCoreUpdateRestart(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	marked := func() string {
		entries, _ := os.ReadDir(filepath.Join(g.root(), "restarts"))
		return fmt.Sprint(len(entries))
	}
	g.ok("run", "-d", "--name", "runs", image, "sleep", "1000")
	g.ok("run", "-d", "--name", "was", image, "sleep", "1000")
	g.ok("run", "-d", "--name", "ended", image, "false")
	g.ok("run", "-d", "--name", "unless", image, "false")
	g.ok("create", "--name", "new", image, "sleep", "1000")
	g.becomes("ended", "exited")
	g.becomes("unless", "exited")
	g.ok("stop", "-t", "0", "was")
	same(t, "update", g.ok("update", "--restart", "always", "runs", "was", "ended", "new"), "runs\nwas\nended\nnew")
	g.ok("update", "--restart", "unless-stopped", "unless")
	same(t, "marks", marked(), "5")
	if s := g.policy("runs"); s.HostConfig.RestartPolicy.Name != "always" {
		t.Errorf("%+v", s)
	}
	// The next supervisor finds nothing to start.
	_, supervisor := g.resident()
	_ = syscall.Kill(supervisor, syscall.SIGKILL)
	g.ok("run", "--rm", image, "true")
	time.Sleep(500 * time.Millisecond)
	for name, want := range map[string]string{"runs": "running", "was": "exited", "ended": "exited", "unless": "exited", "new": "created"} {
		if s := g.policy(name); s.State.Status != want {
			t.Errorf("%s is %+v, want %s", name, s, want)
		}
	}
	before := g.policy("runs")
	_ = syscall.Kill(before.State.Pid, syscall.SIGKILL)
	eventually(t, patience, func() string {
		if s := g.policy("runs"); s.State.Status != "running" || s.RestartCount != 1 {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	// While a restart is due, no policy ends it, and another keeps it.
	g.ok("run", "-d", "--name", "loop", "--restart", "always", image, "sh", "-c", "exit 3")
	due := func() {
		t.Helper()
		eventually(t, patience, func() string {
			if s := g.policy("loop"); s.RestartCount < 4 || s.State.Status != "restarting" {
				return fmt.Sprintf("%+v", s)
			}
			return ""
		})
	}
	due()
	g.ok("update", "--restart", "unless-stopped", "loop")
	if s := g.policy("loop"); s.State.Status != "restarting" && s.State.Status != "running" {
		t.Errorf("%+v", s)
	}
	due()
	g.ok("update", "--restart", "no", "loop")
	if s := g.becomes("loop", "exited"); s.State.ExitCode != 3 {
		t.Errorf("%+v", s)
	}
	runs := g.actions("loop")
	same(t, "marks", marked(), "5")
	g.ok("update", "--restart", "on-failure:3", "-m", "64m", "loop")
	time.Sleep(500 * time.Millisecond)
	same(t, "runs", g.actions("loop"), runs)
	same(t, "wait", g.ok("wait", "loop"), "3")

	g.ok("run", "-d", "--rm", "--name", "temp", image, "sleep", "1000")
	g.fails(1, args("update", "--restart", "always", "temp"), "Cannot update container", "Restart policy cannot be updated because AutoRemove is enabled for the container")
	g.ok("update", "--restart", "no", "temp")
	g.fails(1, args("update", "--restart", "sometimes", "runs"), "invalid restart policy: unknown policy 'sometimes'")
	g.fails(1, args("update", "--restart", "always:2", "runs"), "maximum retry count can only be used with 'on-failure'")

	g.reboot(true)
	same(t, "started", g.ok("system", "start"), "ended\nruns\nwas")
	for name, want := range map[string]string{"runs": "running", "was": "running", "unless": "exited", "loop": "exited", "new": "created"} {
		if s := g.policy(name); s.State.Status != want {
			t.Errorf("%s is %+v, want %s", name, s, want)
		}
	}
}

// A policy that comes just when the container ends is either too late or not:
// in both cases the container's state is what is done.
func TestUpdateRestartRace(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	for n := range 15 {
		name := fmt.Sprint("box", n)
		g.ok("run", "-d", "--name", name, image, "sh", "-c", "test -f /was && exec sleep 1000; touch /was; sleep 0.1")
		time.Sleep(time.Duration(n) * 8 * time.Millisecond)
		g.ok("update", "--restart", "always", name)
		// Restarting is no state to stay in.
		eventually(t, 10*time.Second, func() string {
			s := g.policy(name)
			if s.State.Status != "exited" && (s.State.Status != "running" || s.RestartCount != 1) {
				return fmt.Sprintf("%s: %+v", name, s)
			}
			return ""
		})
		g.ok("rm", "-f", name)
	}
}
