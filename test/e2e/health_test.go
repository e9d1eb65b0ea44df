//go:build root

package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tug/test/fixture"
)

// healthState is what inspect says of a container's health.
type healthState struct {
	ID           string `json:"Id"`
	RestartCount int
	State        struct {
		Status string
		Pid    int
		Health *struct {
			Status        string
			FailingStreak int
			Log           []struct {
				Start, End time.Time
				ExitCode   int
				Output     string
			}
		}
	}
	Config struct {
		Healthcheck *struct {
			Test                                          []string
			Interval, Timeout, StartPeriod, StartInterval time.Duration
			Retries                                       int
		}
		HealthcheckOnFailureAction string
	}
}

func (h *healthState) String() string {
	s := h.State.Status
	if health := h.State.Health; health != nil {
		s += fmt.Sprintf(" %s %d", health.Status, health.FailingStreak)
		for _, r := range health.Log {
			s += fmt.Sprintf(" %d:%q", r.ExitCode, clip(r.Output))
		}
	}
	return s
}

func (g *tug) health(name string) *healthState {
	g.t.Helper()
	h := &healthState{}
	g.inspect(h, name)
	return h
}

// turns waits until a container's health is that.
func (g *tug) turns(name, status string) *healthState {
	g.t.Helper()
	var h *healthState
	eventually(g.t, 60*time.Second, func() string {
		h = g.health(name)
		if h.State.Health == nil || h.State.Health.Status != status {
			return fmt.Sprintf("%s is %v, want %s", name, h, status)
		}
		return ""
	})
	return h
}

// checked are the flags of a check that does not take long.
func checked(cmd string, more ...string) []string {
	return append([]string{"--health-cmd", cmd, "--health-interval", "100ms", "--health-retries", "2"}, more...)
}

func (g *tug) runChecked(name, cmd string, more ...string) {
	g.t.Helper()
	argv := slices.Concat([]string{"run", "-d", "--name", name}, checked(cmd, more...), []string{image, "sleep", "1000"})
	g.ok(argv...)
}

// healthEvents are the changes of a container's health, with their causes.
func (g *tug) healthEvents(name string) string {
	g.t.Helper()
	return strings.ReplaceAll(g.ok("events", "--since", "1h", "--until", "0s", "--filter", "container="+name, "--filter", "event=health_status",
		"--format", "{{.Action}} ({{.Cause.By}})"), "\n", "; ")
}

// A check runs as the container does, its results are counted, kept and told.
func TestCoreHealth(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.runChecked("box", "echo $USER_VAR $(id -u) $PWD >&2; test -f /tmp/ok", "-e", "USER_VAR=hello", "-u", "alice", "-w", "/home")
	h := g.turns("box", "unhealthy")
	log := h.State.Health.Log
	if h.State.Health.FailingStreak < 2 || len(log) < 2 || log[0].ExitCode != 1 || log[0].Output != "hello 1000 /home\n" ||
		log[1].Start.Sub(log[0].End) < 100*time.Millisecond || log[0].End.Before(log[0].Start) {
		t.Errorf("%v: %+v", h, log)
	}
	status := func() string { return g.ok("ps", "-a", "--filter", "name=box", "--format", "{{.Status}}") }
	if s := status(); !strings.HasPrefix(s, "Up ") || !strings.HasSuffix(s, " (unhealthy)") {
		t.Errorf("ps: %q", s)
	}
	g.ok("exec", "box", "touch", "/tmp/ok")
	h = g.turns("box", "healthy")
	if h.State.Health.FailingStreak != 0 {
		t.Errorf("%v", h)
	}
	if s := status(); !strings.HasSuffix(s, " (healthy)") {
		t.Errorf("ps: %q", s)
	}
	eventually(t, patience, func() string {
		if h = g.health("box"); len(h.State.Health.Log) != 5 || h.State.Health.Log[0].ExitCode != 0 {
			return h.String()
		}
		return ""
	})
	same(t, "events", g.healthEvents("box"),
		"health_status: unhealthy (its health check failed 2 times in a row); health_status: healthy (its health check succeeded)")
	same(t, "no probe is an event", g.ok("events", "--since", "1h", "--until", "0s", "--filter", "event=exec_die", "--format", "{{.Action}}"), "exec_die")

	g.ok("run", "-d", "--name", "plain", image, "sleep", "1000")
	for filter, want := range map[string]string{"healthy": "box", "none": "plain", "starting": "", "unhealthy": ""} {
		same(t, "filter "+filter, g.ok("ps", "--filter", "health="+filter, "--format", "{{.Names}}"), want)
	}
	g.fails(1, args("ps", "--filter", "health=well"), "invalid filter 'health=well'")
	if h := g.health("plain"); h.State.Health != nil {
		t.Errorf("plain: %v", h)
	}

	// What does not run is not healthy; a new start begins anew.
	g.ok("stop", "-t", "0", "box")
	if h := g.health("box"); h.State.Health.Status != "unhealthy" || len(h.State.Health.Log) != 5 {
		t.Errorf("stopped: %v", h)
	}
	g.ok("create", "--name", "slow", "--health-cmd", "true", image, "sleep", "1000")
	if h := g.health("slow"); h.State.Health != nil {
		t.Errorf("created: %v", h)
	}
	g.ok("start", "slow")
	if h := g.health("slow"); h.State.Health == nil || h.State.Health.Status != "starting" || h.State.Health.Log == nil {
		t.Errorf("started: %v", h)
	}
	if s := g.ok("ps", "--filter", "name=slow", "--format", "{{.Status}}"); !strings.HasSuffix(s, " (health: starting)") {
		t.Errorf("ps: %q", s)
	}
	g.ok("start", "box")
	g.turns("box", "healthy")
}

// The image's check holds, and each flag replaces one value of it.
func TestCoreHealthImage(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	load := func(name string, check map[string]any, shell ...string) {
		t.Helper()
		i, err := fixture.Busybox()
		if err != nil {
			t.Fatal(err)
		}
		i.Name = name
		i.Config["Healthcheck"] = check
		if len(shell) > 0 {
			i.Config["Shell"] = shell
		}
		if r := g.do(bytes.NewReader(fixture.DockerArchive(i).Bytes()), "load", "-q"); r.code != 0 {
			t.Fatal(r)
		}
	}
	const ms = int64(time.Millisecond)
	load("words:1", map[string]any{"Test": []string{"CMD", "echo", "a  b", "$HOME"}, "Interval": 50 * ms, "Timeout": 7000 * ms, "Retries": 1})
	load("line:1", map[string]any{"Test": []string{"CMD-SHELL", "echo $0 $HOME; exit 3"}, "Interval": 50 * ms, "Retries": 1}, "/bin/ash", "-ec")
	load("fast:1", map[string]any{"Test": []string{"CMD", "true"}, "Interval": 1})
	load("odd:1", map[string]any{"Test": []string{"SOMETHING", "true"}})
	load("empty:1", map[string]any{"Test": []string{"CMD"}, "Interval": 50 * ms, "Retries": 1})

	g.ok("run", "-d", "--name", "words", "words:1", "sleep", "1000")
	if h := g.turns("words", "healthy"); h.State.Health.Log[0].Output != "a  b $HOME\n" {
		t.Errorf("%v", h)
	}
	g.ok("run", "-d", "--name", "line", "line:1", "sleep", "1000")
	if h := g.turns("line", "unhealthy"); h.State.Health.Log[0].ExitCode != 3 || h.State.Health.Log[0].Output != "/bin/ash /root\n" {
		t.Errorf("%v", h)
	}
	g.ok("run", "-d", "--name", "empty", "empty:1", "sleep", "1000")
	if h := g.turns("empty", "unhealthy"); h.State.Health.Log[0].ExitCode != -1 {
		t.Errorf("%v", h)
	}
	g.ok("run", "-d", "--name", "absent", "--health-interval", "50ms", "--health-retries", "1", "--health-cmd", "/none", "words:1", "sleep", "1000")
	if h := g.turns("absent", "unhealthy"); h.State.Health.Log[0].ExitCode != 127 {
		t.Errorf("%v", h)
	}
	g.ok("create", "--name", "merged", "--health-cmd", "x", "--health-retries", "9", "words:1", "sleep", "1000")
	if c := g.health("merged").Config.Healthcheck; c == nil || fmt.Sprint(*c) != "{[CMD-SHELL x] 50ms 7s 0s 0s 9}" {
		t.Errorf("merged: %v", c)
	}
	for name, argv := range map[string][]string{"off": args("--no-healthcheck", "words:1"), "odd": args("odd:1")} {
		g.ok(slices.Concat(args("run", "-d", "--name", name), argv, args("sleep", "1000"))...)
		if h := g.health(name); h.State.Health != nil {
			t.Errorf("%s: %v", name, h)
		}
	}
	if r := g.fails(125, args("run", "fast:1", "true"), "Interval in Healthcheck cannot be less than 1ms"); strings.Contains(r.stdout, "\n") {
		t.Errorf("%v", r)
	}
	g.fails(125, args("run", "--no-healthcheck", "--health-on-failure", "stop", "words:1", "true"), "--no-healthcheck conflicts with --health-* options")
	g.fails(125, args("run", "--health-on-failure", "stop", "odd:1", "true"), "--health-on-failure needs a health check", "--health-cmd")

	// A commit keeps it, -c changes it.
	g.ok("commit", "merged", "kept:1")
	g.ok("commit", "-c", "HEALTHCHECK --interval=60ms CMD false", "merged", "changed:1")
	for name, want := range map[string]string{
		"kept:1":    `{"Test":["CMD-SHELL","x"],"Interval":50000000,"Timeout":7000000000,"Retries":9}`,
		"changed:1": `{"Test":["CMD-SHELL","false"],"Interval":60000000}`,
	} {
		same(t, name, g.ok("image", "inspect", "--format", "{{json .Config.Healthcheck}}", name), want)
	}
}

// A check that takes too long ends with all that it has started, however that
// hides; what checks have left behind before lives on.
func TestCoreHealthTimeout(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	const hang = `if test -f /tmp/hang; then
		trap "" TERM HUP INT QUIT
		setsid sh -c 'trap "" TERM HUP; sleep 471101; true' </dev/null >/dev/null 2>&1 &
		(setsid sh -c '(sleep 471102 &)' &)
		echo hanging
		exec >&- 2>&- <&-
		while :; do sleep 471103; done
	elif ! test -f /tmp/served; then
		touch /tmp/served
		sleep 471104 &
	fi`
	g.runChecked("box", hang, "--health-timeout", "1s")
	g.turns("box", "healthy")
	if len(sleepers("471104")) != 1 {
		t.Error("what the check started is gone")
	}
	g.ok("exec", "box", "touch", "/tmp/hang")
	h := g.turns("box", "unhealthy")
	last := h.State.Health.Log[len(h.State.Health.Log)-1]
	if last.ExitCode != -1 || last.Output != "Health check exceeded timeout (1s): hanging\n" || last.End.Sub(last.Start) > 20*time.Second {
		t.Errorf("%+v", last)
	}
	g.ok("exec", "box", "rm", "/tmp/hang")
	g.turns("box", "healthy")
	for _, seconds := range []string{"471101", "471102", "471103"} {
		if left := sleepers(seconds); len(left) > 0 {
			t.Errorf("sleep %s lives on: %v", seconds, left)
		}
	}
	if len(sleepers("471104")) != 1 {
		t.Error("what an earlier check started was ended, too")
	}

	// Paused it is not checked, and a check that is paused has not failed.
	g.ok("exec", "box", "touch", "/tmp/hang")
	eventually(t, patience, func() string {
		if len(sleepers("471103")) == 0 {
			return "no check hangs"
		}
		return ""
	})
	g.ok("pause", "box")
	time.Sleep(200 * time.Millisecond) // a result may have been on its way
	before := g.health("box").State.Health.FailingStreak
	time.Sleep(1500 * time.Millisecond)
	if h := g.health("box"); h.State.Health.FailingStreak > before {
		t.Errorf("paused: %v, had failed %d times", h, before)
	}
	if s := g.ok("ps", "--format", "{{.Status}}"); !strings.HasSuffix(s, " (Paused)") {
		t.Errorf("ps: %q", s)
	}
	g.ok("unpause", "box")
	g.ok("exec", "box", "rm", "/tmp/hang")
	g.turns("box", "healthy")

	// In the middle of a check the container ends at once.
	g.ok("exec", "box", "touch", "/tmp/hang")
	eventually(t, patience, func() string {
		if len(sleepers("471103")) == 0 {
			return "no check hangs"
		}
		return ""
	})
	begun := time.Now()
	g.ok("kill", "box")
	g.ok("wait", "box")
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("kill took %v", took)
	}
	noSleepers(t, "471103")
	g.ok("rm", "box")
}

// What floods its output is neither kept nor waited for.
func TestCoreHealthFlood(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.runChecked("ends", "yes | head -c 3000000")
	h := g.turns("ends", "healthy")
	if out := h.State.Health.Log[0].Output; len(out) != 4096+3 || !strings.HasPrefix(out, "y\ny\n") || !strings.HasSuffix(out, "...") {
		t.Errorf("%d bytes: %q", len(out), clip(out))
	}
	g.runChecked("never", "yes", "--health-timeout", "500ms")
	h = g.turns("never", "unhealthy")
	if out := h.State.Health.Log[0].Output; !strings.HasPrefix(out, "Health check exceeded timeout (500ms): y\n") || len(out) > 4200 {
		t.Errorf("%d bytes: %q", len(out), clip(out))
	}
	g.runChecked("bytes", "head -c 5000 /dev/urandom")
	h = g.turns("bytes", "healthy")
	if out := h.State.Health.Log[0].Output; len(out) > 3*4096+3 {
		t.Errorf("%d bytes", len(out))
	}
	// An output that stays open holds nothing up.
	g.runChecked("open", "sleep 471201 &")
	h = g.turns("open", "healthy")
	if r := h.State.Health.Log[0]; r.End.Sub(r.Start) > 5*time.Second {
		t.Errorf("it took %v", r.End.Sub(r.Start))
	}
}

// kill -9 of the supervisor at random moments of checks: what was counted stays
// counted, checks go on, and no process of one is left.
func TestHealthKilled(t *testing.T) { healthKilled(t, 40) }

func TestCoreHealthKilled(t *testing.T) { healthKilled(t, 6) }

func healthKilled(t *testing.T, times int) {
	t.Parallel()
	g := newBusybox(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	seconds := strconv.Itoa(480000 + random.IntN(9999))
	g.runChecked("bad", "sleep 0.05; exit 1")
	g.runChecked("good", "sleep 0.05")
	g.runChecked("hangs", "sleep "+seconds, "--health-timeout", "300ms")
	g.ok("run", "-d", "--name", "long", "--health-cmd", "true", "--health-interval", "1h", image, "sleep", "1000")
	g.turns("good", "healthy")
	g.turns("bad", "unhealthy")
	last := g.health("bad")
	for n := range times {
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
		_, supervisor := g.resident()
		_ = syscall.Kill(supervisor, syscall.SIGKILL)
		now := g.health("bad")
		if now.State.Health.Status != "unhealthy" || now.State.Health.FailingStreak < last.State.Health.FailingStreak || len(now.State.Health.Log) < len(last.State.Health.Log) {
			t.Fatalf("kill %d: %v, was %v", n, now, last)
		}
		eventually(t, patience, func() string {
			if h := g.health("bad"); h.State.Health.FailingStreak <= now.State.Health.FailingStreak {
				return fmt.Sprintf("kill %d: checks do not go on: %v", n, h)
			}
			return ""
		})
		last = g.health("bad")
		if h := g.health("good"); h.State.Health.Status != "healthy" || h.State.Health.FailingStreak != 0 {
			t.Errorf("kill %d: %v", n, h)
		}
		if h := g.health("long"); h.State.Health.Status != "starting" || len(h.State.Health.Log) != 0 {
			t.Errorf("kill %d: %v", n, h)
		}
	}
	g.turns("hangs", "unhealthy")
	if n := len(sleepers(seconds)); n > 1 {
		t.Errorf("%d checks of one container run", n)
	}
	same(t, "events", g.healthEvents("good"), "health_status: healthy (its health check succeeded)")
	g.ok("kill", "hangs")
	noSleepers(t, seconds)
}

// toldOf are a container's events with their causes, but for its commands'.
func (g *tug) toldOf(name string) string {
	g.t.Helper()
	return strings.ReplaceAll(g.ok("events", "--since", "1h", "--until", "0s", "--filter", "container="+name, "--format", "{{.Action}} by {{.Cause.By}}"), "\n", "; ")
}

// What is to be done with an unhealthy container is done, once, and told.
func TestCoreHealthOnFailure(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	argv := func(name, what string, more ...string) []string {
		return slices.Concat([]string{"run", "-d", "--name", name, "--health-on-failure", what, "--stop-timeout", "0", "--health-start-period", "10s", "--health-start-interval", "100ms"}, checked("test -f /tmp/ok", more...),
			[]string{image, "sh", "-c", "trap 'exit 9' TERM; touch /tmp/ok; while :; do sleep 0.01; done"})
	}
	fail := func(name string) { g.ok("exec", name, "rm", "-f", "/tmp/ok") }
	const sick = "health_status: unhealthy by its health check failed 2 times in a row; "

	g.ok(argv("kill", "kill")...)
	g.ok(argv("again", "kill", "--restart", "on-failure")...)
	g.ok(argv("stop", "stop", "--stop-timeout", "10", "--restart", "always")...)
	g.ok(argv("restart", "restart", "--stop-timeout", "10")...)
	for _, name := range []string{"kill", "again", "stop", "restart"} {
		g.turns(name, "healthy")
		fail(name)
	}
	for name, code := range map[string]int{"kill": 137, "stop": 9} {
		eventually(t, patience, func() string {
			if s := g.policy(name); s.State.Status != "exited" || s.State.ExitCode != code || s.RestartCount != 0 {
				return fmt.Sprintf("%s: %+v", name, s)
			}
			return ""
		})
	}
	for _, name := range []string{"restart", "again"} {
		eventually(t, patience, func() string {
			if h := g.health(name); h.State.Status != "running" || h.RestartCount != 1 || h.State.Health.Status != "healthy" {
				return fmt.Sprintf("%s: %v, %d restarts", name, h, h.RestartCount)
			}
			return ""
		})
	}
	if got := g.toldOf("kill"); !strings.HasSuffix(got, sick+"kill by unhealthy; die by signal SIGKILL") {
		t.Error(got)
	}
	eventually(t, patience, func() string { // stop tells at its end
		if got := g.toldOf("stop"); !strings.HasSuffix(got, sick+"kill by unhealthy; die by sh exited with 9; stop by unhealthy") {
			return got
		}
		return ""
	})
	if got := g.toldOf("restart"); !strings.Contains(got, sick+"kill by unhealthy; die by sh exited with 9; start by unhealthy; health_status: healthy") {
		t.Error(got)
	}
	if got := g.toldOf("again"); !strings.Contains(got, sick+"kill by unhealthy; die by signal SIGKILL; start by restart policy on-failure; ") {
		t.Error(got)
	}
	if a := g.health("restart").Config.HealthcheckOnFailureAction; a != "restart" {
		t.Errorf("inspect: %q", a)
	}
	// A start by a user counts anew, a stop by a user is the end.
	g.ok("stop", "restart")
	time.Sleep(500 * time.Millisecond)
	if s := g.policy("restart"); s.State.Status != "exited" {
		t.Errorf("%+v", s)
	}
	g.ok("rm", "-f", "restart", "again", "stop")
	if left, _ := os.ReadDir(g.root() + "/restarts"); len(left) > 0 {
		t.Errorf("left in restarts/: %v", left)
	}
}

// A supervisor that is killed while it restarts an unhealthy container that
// does not want to end leaves it to the next one.
func TestCoreHealthRestartKilled(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok(slices.Concat([]string{"run", "-d", "--name", "box", "--health-on-failure", "restart", "--stop-timeout", "2"}, checked("test -f /tmp/ok"),
		[]string{"--health-start-period", "10s", "--health-start-interval", "100ms", image, "sh", "-c", "trap '' TERM; test -f /tmp/was || touch /tmp/ok; touch /tmp/was; while :; do sleep 0.1; done"})...)
	g.turns("box", "healthy")
	pid := g.health("box").State.Pid
	g.ok("exec", "box", "rm", "/tmp/ok")
	g.turns("box", "unhealthy")
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		_, supervisor := g.resident()
		_ = syscall.Kill(supervisor, syscall.SIGKILL)
	}
	eventually(t, patience, func() string {
		if h := g.health("box"); h.State.Status != "running" || h.State.Pid == pid || h.RestartCount != 1 {
			return fmt.Sprintf("%v, %d restarts", h, h.RestartCount)
		}
		return ""
	})
	// It stays unhealthy, and is restarted again, until it is stopped.
	eventually(t, patience, func() string {
		if h := g.health("box"); h.RestartCount < 2 {
			return fmt.Sprintf("%v, %d restarts", h, h.RestartCount)
		}
		return ""
	})
	g.ok("stop", "-t", "0", "box")
	count := g.health("box").RestartCount
	time.Sleep(500 * time.Millisecond)
	if h := g.health("box"); h.State.Status != "exited" || h.RestartCount != count {
		t.Errorf("after stop: %v, %d restarts, had %d", h, h.RestartCount, count)
	}
}
