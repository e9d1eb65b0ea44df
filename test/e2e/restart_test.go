//go:build root

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// policyState is what inspect says of restarts.
type policyState struct {
	RestartCount int
	State        struct {
		Status              string
		Running, Restarting bool
		Pid, ExitCode       int
	}
	HostConfig struct {
		RestartPolicy struct {
			Name              string
			MaximumRetryCount int
		}
	}
}

func (g *tug) policy(name string) policyState {
	g.t.Helper()
	var s policyState
	g.inspect(&s, name)
	return s
}

// becomes waits until a container has this state.
func (g *tug) becomes(name, status string) policyState {
	g.t.Helper()
	var s policyState
	eventually(g.t, 60*time.Second, func() string {
		if s = g.policy(name); s.State.Status != status {
			return fmt.Sprintf("%s is %+v, want %s", name, s, status)
		}
		return ""
	})
	return s
}

// actions are the starts and ends among a container's events.
func (g *tug) actions(name string) string {
	g.t.Helper()
	out := g.ok("events", "--since", "1h", "--until", "0s", "--filter", "container="+name, "--filter", "event=start", "--filter", "event=die", "--format", "{{.Action}}")
	return strings.Join(strings.Fields(out), " ")
}

// An attached run with a policy ends with the first run, the container goes on;
// on-failure:2 means three runs.
func TestCoreRestartOnFailure(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	r := g.do(nil, "run", "--name", "bad", "--restart", "on-failure:2", image, "sh", "-c", "echo run; exit 7")
	if r.code != 7 || r.stdout != "run\n" {
		t.Errorf("%v\nwant one run and code 7", r)
	}
	s := g.becomes("bad", "exited")
	if s.RestartCount != 2 || s.State.ExitCode != 7 || s.HostConfig.RestartPolicy.Name != "on-failure" || s.HostConfig.RestartPolicy.MaximumRetryCount != 2 {
		t.Errorf("%+v", s)
	}
	same(t, "log", g.ok("logs", "bad"), "run\nrun\nrun")
	same(t, "events", g.actions("bad"), "start die start die start die")
	// A start by a user begins to count anew.
	g.do(nil, "start", "-a", "bad")
	if s := g.becomes("bad", "exited"); s.RestartCount != 2 {
		t.Errorf("started again: %+v", s)
	}
	same(t, "log", g.ok("logs", "bad"), "run\nrun\nrun\nrun\nrun\nrun")
	g.ok("run", "--name", "good", "--restart", "on-failure", image, "true")
	if s := g.policy("good"); s.State.Status != "exited" || s.RestartCount != 0 {
		t.Errorf("good: %+v", s)
	}
	// What cannot be run at all is not tried again.
	g.fails(127, args("run", "--name", "none", "--restart", "always", image, "/none"), "/none")
	if s := g.policy("none"); s.State.Status != "created" || s.RestartCount != 0 {
		t.Errorf("none: %+v", s)
	}
	g.fails(125, args("run", "--rm", "--restart", "always", image, "true"), "cannot specify both --restart and --rm")
}

// While a restart is due the container counts as running; stop, kill and rm -f
// end it at once, start goes ahead.
func TestCoreRestartBackoff(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	loop := func(name string) {
		t.Helper()
		g.ok("run", "-d", "--name", name, "--restart", "always", image, "sh", "-c", "exit 3")
		// The fifth wait is long enough to look at.
		eventually(t, 60*time.Second, func() string {
			if s := g.policy(name); s.RestartCount < 6 || s.State.Status != "restarting" {
				return fmt.Sprintf("%s: %+v", name, s)
			}
			return ""
		})
	}
	loop("one")
	if s := g.policy("one"); !s.State.Running || !s.State.Restarting || s.State.Pid != 0 || s.State.ExitCode != 3 {
		t.Errorf("%+v", s)
	}
	if ps := g.ok("ps", "--format", "{{.Names}} {{.State}} {{.Status}}"); !strings.HasPrefix(ps, "one restarting Restarting (3) ") {
		t.Errorf("ps: %q", ps)
	}
	same(t, "filter", g.ok("ps", "-q", "--filter", "status=exited"), "")
	same(t, "filter", g.ok("ps", "--filter", "status=restarting", "--format", "{{.Names}}"), "one")
	g.fails(1, args("rm", "one"), "container is restarting", "stop")
	g.fails(1, args("exec", "one", "true"), "is restarting, wait until the container is running")
	g.fails(1, args("attach", "one"), "restarting container")
	same(t, "prune", g.ok("container", "prune", "-f"), "Total reclaimed space: 0B")
	begun := time.Now()
	same(t, "stop", g.ok("stop", "one"), "one")
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("stop took %v", took)
	}
	s := g.policy("one")
	if s.State.Status != "exited" || s.State.Restarting || s.State.ExitCode != 3 {
		t.Errorf("after stop: %+v", s)
	}
	runs := g.actions("one")
	for name, end := range map[string]string{"two": "kill", "three": "rm"} {
		loop(name)
		if end == "rm" {
			g.ok("rm", "-f", name)
			continue
		}
		g.ok(end, name)
		if s := g.policy(name); s.State.Status != "exited" {
			t.Errorf("after %s: %+v", end, s)
		}
	}
	same(t, "after a while the stopped one's runs", g.actions("one"), runs)
	// A start by a user starts the count and the waits anew.
	g.ok("start", "one")
	if s := g.policy("one"); s.RestartCount > 3 {
		t.Errorf("after start: %+v", s)
	}
	g.ok("restart", "-t", "0", "one")
	g.ok("rm", "-f", "one", "two")
	if left, _ := os.ReadDir(g.root() + "/restarts"); len(left) > 0 {
		t.Errorf("left in restarts/: %v", left)
	}
}

// kill -9 of the container's process, of the supervisor, or of both at random
// moments: each end has its restart, once.
func TestRestartKilled(t *testing.T) { restartKilled(t, 100) }

func TestCoreRestartKilled(t *testing.T) { restartKilled(t, 5) }

func restartKilled(t *testing.T, times int) {
	t.Parallel()
	g := newBusybox(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	g.ok("run", "-d", "--name", "box", "--restart", "always", image, "sh", "-c", "echo up; sleep 1000")
	for n := range times {
		before := g.becomes("box", "running")
		_, supervisor := g.resident()
		delay := time.Duration(random.IntN(30_000)) * time.Microsecond
		what := []string{"process", "both", "first"}[random.IntN(3)]
		switch what {
		case "process":
			_ = syscall.Kill(before.State.Pid, syscall.SIGKILL)
		case "both": // in this order, with a moment between
			_ = syscall.Kill(before.State.Pid, syscall.SIGKILL)
			time.Sleep(delay)
			_ = syscall.Kill(supervisor, syscall.SIGKILL)
		case "first":
			_ = syscall.Kill(supervisor, syscall.SIGKILL)
			time.Sleep(delay)
			_ = syscall.Kill(before.State.Pid, syscall.SIGKILL)
		}
		label := fmt.Sprintf("kill %d (%s, %v)", n, what, delay)
		eventually(t, 60*time.Second, func() string {
			s := g.policy("box")
			if s.State.Status != "running" || s.State.Pid == before.State.Pid {
				return fmt.Sprintf("%s: %+v", label, s)
			}
			return ""
		})
		if got := g.policy("box").RestartCount; got != before.RestartCount+1 {
			t.Fatalf("%s: %d restarts, want %d", label, got, before.RestartCount+1)
		}
		if before.RestartCount%5 == 4 { // the waits grow too long
			g.ok("restart", "-t", "0", "box")
			if s := g.becomes("box", "running"); s.RestartCount != 0 {
				t.Fatalf("after restart: %+v", s)
			}
		}
	}
	// As many runs as ends, and one: nothing was begun twice.
	runs := times + times/5 + 1
	same(t, "events", g.actions("box"), strings.Repeat("start die ", runs-1)+"start")
}

// A killed keeper takes its containers along; its supervisor starts a new one
// for those that are to be started again.
func TestCoreRestartKeeperKilled(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "back", "--restart", "unless-stopped", image, "sleep", "1000")
	g.ok("run", "-d", "--name", "gone", image, "sleep", "1000")
	g.ok("run", "-d", "--name", "down", "--restart", "unless-stopped", image, "sleep", "1000")
	g.ok("stop", "-t", "0", "down")
	for round := range 2 {
		before := g.becomes("back", "running")
		keeper, supervisor := g.resident()
		if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if round == 1 { // nobody is left; the next command that needs one brings it back
			_ = syscall.Kill(supervisor, syscall.SIGKILL)
			eventually(t, 30*time.Second, func() string {
				if len(living([]int{before.State.Pid})) > 0 {
					return "the container lives on"
				}
				return ""
			})
			g.ok("run", "--rm", image, "true")
		}
		eventually(t, 30*time.Second, func() string {
			s := g.policy("back")
			if s.State.Status != "running" || s.State.Pid == before.State.Pid || s.RestartCount != round+1 {
				return fmt.Sprintf("back: %+v", s)
			}
			return ""
		})
	}
	for _, name := range []string{"gone", "down"} {
		if s := g.policy(name); s.State.Status != "exited" {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// A hundred quick restarts leave nothing: no cgroup, no mount, no descriptor.
func TestRestartsLeaveNothing(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "box", image, "sleep", "1000")
	for i := range 25 {
		g.ok("create", "--name", fmt.Sprint("quick", i), "--restart", "on-failure:4", image, "false")
	}
	g.ok("run", "-d", "--name", "warm", "--restart", "on-failure:1", image, "false")
	g.becomes("warm", "exited")
	settled := func() (use [3]int) {
		eventually(t, 60*time.Second, func() string {
			time.Sleep(300 * time.Millisecond) // parked processes are made anew
			now := g.uses()
			if now != use {
				use = now
				return fmt.Sprintf("cgroups, mounts and descriptors do not settle: %v", now)
			}
			return ""
		})
		return use
	}
	before := settled()
	for i := range 25 {
		g.ok("start", fmt.Sprint("quick", i))
	}
	for i := range 25 {
		if s := g.becomes(fmt.Sprint("quick", i), "exited"); s.RestartCount != 4 {
			t.Errorf("quick%d: %+v", i, s)
		}
	}
	if after := settled(); after[0] > before[0] || after[1] > before[1] || after[2] > before[2]+2 {
		t.Errorf("cgroups, mounts, descriptors: %v before, %v after", before, after)
	}
}

// uses counts cgroups, mounts in the keeper's namespace, and the descriptors of
// keeper and supervisor.
func (g *tug) uses() [3]int {
	keeper, supervisor := g.resident()
	mounts, _ := os.ReadFile("/proc/" + strconv.Itoa(keeper) + "/mountinfo")
	n := 0
	for _, pid := range []int{keeper, supervisor} {
		fds, _ := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
		n += len(fds)
	}
	cgroups := 0
	for _, dir := range cgroupsNamed(g.cgroup()) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() {
				cgroups++
			}
		}
	}
	return [3]int{cgroups, strings.Count(string(mounts), "\n"), n}
}

// After the machine went down, `system start` brings back what the policies
// say, once, and nothing else does.
func TestCoreSystemStart(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	same(t, "nothing to do", g.ok("system", "start"), "")
	const long = "sleep 1000"
	for name, how := range map[string][2]string{
		"always":    {"always", long},
		"anyway":    {"always", long}, // stopped below
		"unless":    {"unless-stopped", long},
		"stopped":   {"unless-stopped", long},
		"killed":    {"unless-stopped", long},
		"failed":    {"on-failure:3", long},
		"succeeded": {"on-failure", "exit 0"},
		"tired":     {"on-failure:1", "exit 1"},
		"none":      {"no", long},
	} {
		g.ok("run", "-d", "--name", name, "--restart", how[0], image, "sh", "-c", how[1])
	}
	g.ok("create", "--name", "new", "--restart", "always", image, "sleep", "1000")
	g.ok("stop", "-t", "0", "stopped", "anyway")
	g.ok("kill", "killed")
	g.becomes("killed", "exited")
	g.becomes("succeeded", "exited")
	g.becomes("tired", "exited")
	for _, boot := range []string{"another", "the same"} {
		g.reboot(boot == "another")
		if boot == "another" {
			if s := g.policy("always"); s.State.Status != "exited" || s.State.ExitCode != 255 {
				t.Errorf("after the reboot: %+v", s)
			}
			g.ok("run", "--rm", image, "true") // brings back nothing
			time.Sleep(300 * time.Millisecond)
			same(t, "running", g.ok("ps", "-q"), "")
		}
		same(t, "started", g.ok("system", "start"), "always\nanyway\nfailed\nunless")
		same(t, "again", g.ok("system", "start"), "")
		for name, want := range map[string]string{
			"always": "running", "anyway": "running", "unless": "running", "failed": "running", "stopped": "exited", "killed": "exited",
			"succeeded": "exited", "tired": "exited", "none": "exited", "new": "created",
		} {
			if s := g.policy(name); s.State.Status != want {
				t.Errorf("%s is %+v, want %s", name, s, want)
			}
		}
	}
	// What cannot be started is said, and keeps nothing else back.
	g.reboot(true)
	upper := g.root() + "/containers/" + g.state("failed").ID + "/upper"
	if err := os.RemoveAll(upper); err != nil {
		t.Fatal(err)
	}
	r := g.fails(1, args("system", "start"), "cannot start container failed")
	same(t, "started", r.stdout, "always\nanyway\nunless\n")
}

// reboot does to the store what a power failure does: all processes are gone,
// the run directory is empty, and, for another boot, process ids mean nothing
// any more.
func (g *tug) reboot(another bool) {
	g.t.Helper()
	keeper, supervisor := g.resident()
	pids := []int{keeper, supervisor}
	for _, id := range strings.Fields(g.ok("ps", "-q", "--no-trunc", "--filter", "status=running")) {
		pids = append(pids, g.state(id).State.Pid)
	}
	for _, pid := range pids {
		if pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	eventually(g.t, 30*time.Second, func() string {
		if alive := living(pids); len(alive) > 0 {
			return fmt.Sprintf("processes %v live on", alive)
		}
		return ""
	})
	eventually(g.t, 10*time.Second, func() string {
		if err := os.RemoveAll(g.runRoot()); err != nil {
			return err.Error()
		}
		return ""
	})
	if !another {
		return
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		g.t.Fatal(err)
	}
	starts, _ := filepath.Glob(g.root() + "/containers/*/start.json")
	for _, f := range starts {
		b, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(f, bytes.ReplaceAll(b, bytes.TrimSpace(boot), []byte("another")), 0o600)
		}
		if err != nil {
			g.t.Fatal(err)
		}
	}
}

// A process that is killed as soon as it is known, before it is the program or
// just then, has ended like any other.
func TestCoreRestartKilledAtOnce(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	id := g.ok("run", "-d", "--name", "box", "--restart", "always", image, "sleep", "1000")
	record := filepath.Join(g.root(), "containers", id, "start.json")
	pid := func() int {
		var r struct{ Pid int }
		b, _ := os.ReadFile(record)
		_ = json.Unmarshal(b, &r)
		return r.Pid
	}
	last := pid()
	for n := range 20 {
		if n%4 == 3 { // the waits grow too long
			g.ok("restart", "-t", "0", "box")
		} else {
			_ = syscall.Kill(last, syscall.SIGKILL)
		}
		for end := time.Now().Add(patience); pid() == last; {
			if time.Now().After(end) {
				t.Fatalf("restart %d does not come: %+v", n, g.policy("box"))
			}
		}
		last = pid()
	}
	g.ok("stop", "-t", "0", "box")
	actions := g.actions("box")
	if actions != strings.Repeat("start die ", strings.Count(actions, "start")-1)+"start die" {
		t.Error(actions)
	}
}
