//go:build root

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// happened is one line of events --format json.
type happened struct {
	Type, Action string
	Actor        struct {
		ID         string
		Attributes map[string]string
	}
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`
	Cause    struct {
		By  string `json:"by"`
		Pid int    `json:"pid"`
	} `json:"cause"`
}

func (h *happened) String() string {
	s := h.Type + " " + h.Action
	if code, ok := h.Actor.Attributes["exitCode"]; ok {
		s += " " + code
	}
	if sig, ok := h.Actor.Attributes["signal"]; ok {
		s += " " + sig
	}
	return s + ": " + h.Cause.By
}

func happenedIn(t *testing.T, out string) (all []*happened) {
	t.Helper()
	for line := range strings.Lines(out) {
		h := &happened{}
		if err := json.Unmarshal([]byte(line), h); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if h.Scope != "local" || h.TimeNano/1e9 != h.Time || h.Time < time.Now().Add(-time.Hour).Unix() {
			t.Errorf("%q", line)
		}
		all = append(all, h)
	}
	return all
}

// past returns what happened to whom, as lines.
func (g *tug) past(whom string) string {
	g.t.Helper()
	var lines []string
	for _, h := range happenedIn(g.t, g.ok("events", "--since", "1h", "--until", "0s", "--format", "json", "--filter", whom)) {
		lines = append(lines, h.String())
	}
	return strings.Join(lines, "\n")
}

// Each change is told once, in order, with what caused it.
func TestCoreEvents(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "one", "--label", "who=me", image, "sleep", "1000")
	g.ok("exec", "one", "true")
	g.fails(3, args("exec", "one", "sh", "-c", "exit 3"))
	g.ok("restart", "-t", "0", "one")
	g.ok("stop", "-t", "0", "one")
	g.ok("rename", "one", "uno")
	g.ok("rm", "uno")
	same(t, "of a container", g.past("label=who=me"), `container create: tug run
container start: tug run
container exec_create: true: tug exec
container exec_start: true: tug exec
container exec_die 0: it exited with 0
container exec_create: sh -c exit 3: tug exec
container exec_start: sh -c exit 3: tug exec
container exec_die 3: it exited with 3
container kill 15: tug restart
container kill 9: tug restart
container die 137: signal SIGKILL
container stop: tug restart
container start: tug restart
container restart: tug restart
container kill 15: tug stop
container kill 9: tug stop
container die 137: signal SIGKILL
container stop: tug stop
container rename: tug rename
container destroy: tug rm`)

	g.fails(7, args("run", "--rm", "--name", "two", image, "sh", "-c", "exit 7"))
	same(t, "of one with --rm", g.past("container=two"), `container create: tug run
container attach: tug run
container start: tug run
container die 7: sh exited with 7
container destroy: it was to be removed at its end (--rm)`)

	g.fails(127, args("run", "--rm", "--name", "three", image, "no-such"))
	same(t, "of one that did not start", g.past("container=three"), `container create: tug run
container die 127: exec: "no-such": executable file not found in $PATH
container destroy: it was to be removed at its end (--rm)`)

	g.do(nil, "run", "--name", "fat", "-m", "16m", image, "sh", "-c", "x=x; while :; do x=$x$x; done")
	if got := g.past("container=fat"); !strings.Contains(got, "container oom: the memory limit was reached\ncontainer die 137: out of memory") {
		t.Error(got)
	}

	g.ok("tag", image, "other:1")
	g.ok("rmi", "other:1")
	g.ok("save", "-o", filepath.Join(g.dir, "saved"), image)
	same(t, "of images", g.past("type=image"), `image load: tug load
image tag: tug tag
image untag: tug rmi
image save: tug save`)

	out := g.ok("events", "--since", "1h", "--until", "0s", "--filter", "label=who=me", "--filter", "event=start", "--format", "{{.Action}}")
	same(t, "by label", out, "start\nstart")
	line := strings.TrimSpace(g.ok("events", "--since", "1h", "--until", "0s", "--cause", "-f", "container=two", "-f", "event=die"))
	if f := strings.Fields(line); len(f) < 4 || f[1] != "container" || f[2] != "die" || len(f[3]) != 64 ||
		!strings.HasSuffix(line, "(execDuration=0, exitCode=7, image="+image+", name=two, origin=fixture) by sh exited with 7") {
		t.Error(line)
	}
	g.fails(1, args("events", "--filter", "no=1"), "no")
	g.fails(1, args("events", "--since", "never"), "since")
	g.ok("system", "check")
}

// Who waits for events gets them as they happen, and a supervisor that is
// killed loses none and doubles none.
func TestEventsLive(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := g.command(ctx, "events", "--filter", "type=container", "--format", "{{.Action}} {{.Actor.Attributes.name}}")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	// It listens when it tells of something.
	for n := 0; ; n++ {
		g.ok("create", "--name", fmt.Sprint("before", n), image, "true")
		select {
		case <-lines:
		case <-time.After(50 * time.Millisecond):
			continue
		}
		break
	}
	const containers = 5
	for n := range containers {
		g.ok("run", "-d", "--name", fmt.Sprint("c", n), image, "sleep", "1000")
	}
	_, supervisor := g.resident()
	if err := syscall.Kill(supervisor, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{}
	for n := range containers {
		name := fmt.Sprint("c", n)
		g.ok("rm", "-f", name)
		want[name] = []string{"create", "start", "kill", "die", "destroy"}
	}
	g.ok("create", "--name", "last", image, "true")
	got := map[string][]string{}
	for line := range lines {
		action, name, _ := strings.Cut(line, " ")
		if name == "last" {
			break
		}
		if !strings.HasPrefix(name, "before") {
			got[name] = append(got[name], action)
		}
	}
	for name, actions := range want {
		if !slices.Equal(got[name], actions) {
			t.Errorf("%s: %q, want %q", name, got[name], actions)
		}
	}
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
}
