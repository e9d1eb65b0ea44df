//go:build root

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ticking runs a container that writes a line every 10 ms.
func (g *tug) ticking(name string, more ...string) {
	g.t.Helper()
	argv := append([]string{"run", "-d", "--name", name}, more...)
	g.ok(append(argv, image, "sh", "-c", `trap "echo end; exit 7" TERM; trap "echo usr" USR1; while :; do echo tick; sleep 0.01; done`)...)
	g.ticks(name)
}

// ticks waits until the container has written something more.
func (g *tug) ticks(name string) {
	g.t.Helper()
	before := g.ok("logs", name)
	eventually(g.t, patience, func() string {
		if g.ok("logs", name) == before {
			return name + " does not write"
		}
		return ""
	})
}

// silent fails the test when the container writes anything.
func (g *tug) silent(name string) {
	g.t.Helper()
	time.Sleep(100 * time.Millisecond) // what it wrote before is on its way
	before := g.ok("logs", name)
	time.Sleep(200 * time.Millisecond)
	if after := g.ok("logs", name); after != before {
		g.t.Errorf("%s is paused and writes", name)
	}
}

func TestCorePause(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ticking("box")
	g.ok("create", "--name", "new", image, "true")
	id, idle := g.state("box").ID, g.state("new").ID
	same(t, "pause", g.ok("pause", "box"), "box")
	g.silent("box")
	var s struct {
		State struct {
			Status          string
			Running, Paused bool
		}
	}
	g.inspect(&s, "box")
	if s.State.Status != "paused" || !s.State.Running || !s.State.Paused {
		t.Errorf("%+v", s)
	}
	if out := g.ok("ps", "--format", "{{.State}} {{.Status}}"); !strings.HasPrefix(out, "paused Up ") || !strings.HasSuffix(out, " (Paused)") {
		t.Errorf("ps: %q", out)
	}
	same(t, "ps -f status=paused", g.ok("ps", "-f", "status=paused", "--format", "{{.Names}}"), "box")
	same(t, "ps -f status=running", g.ok("ps", "-aq", "-f", "status=running"), "")
	same(t, "info", g.ok("info", "--format", "{{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}}"), "0 1 1")
	g.fails(1, args("pause", "box"), "Container "+id+" is already paused")
	g.fails(1, args("exec", "box", "true"), "Container "+id+" is paused, unpause the container before exec")
	g.fails(1, args("start", "box"), "cannot start a paused container, try unpause instead")
	g.fails(1, args("attach", "box"), "cannot attach to a paused container, unpause it first")
	g.fails(1, args("rm", "box"), `cannot remove container "/box": container is paused and must be unpaused first`)
	g.fails(1, args("pause", "new"), "container "+idle+" is not running")
	g.fails(1, args("unpause", "new"), "container "+idle+" is not running")
	g.fails(1, args("pause", "nobody"), "No such container: nobody")
	// Nothing but the kernel has to know: not even the supervisor.
	if _, supervisor := g.resident(); supervisor != 0 {
		_ = syscall.Kill(supervisor, syscall.SIGKILL)
	}
	same(t, "others run", g.ok("run", "--rm", image, "echo", "here"), "here")
	g.silent("box")
	same(t, "still", g.ok("inspect", "--format", "{{.State.Status}}", "box"), "paused")
	same(t, "unpause", g.ok("container", "unpause", "box"), "box")
	g.ticks("box")
	g.fails(1, args("unpause", "box"), "Container "+id+" is not paused")
	same(t, "exec", g.ok("exec", "box", "echo", "in"), "in")
}

// What is to end a paused container ends it.
func TestPausedEnds(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	for _, tt := range []struct {
		command string
		code    int
	}{
		{"kill", 137}, {"stop -t 60", 7}, {"stop -t 0", 137}, {"kill -s TERM", 7}, {"rm -f", -1},
	} {
		g.ticking("box")
		g.ok("pause", "box")
		begun := time.Now()
		g.ok(append(strings.Fields(tt.command), "box")...)
		if tt.code < 0 {
			g.fails(1, args("inspect", "box"), "o such")
			continue
		}
		if tt.command == "stop -t 0" { // it may have been fast enough
			g.ok("wait", "box")
		} else {
			same(t, tt.command, g.ok("wait", "box"), fmt.Sprint(tt.code))
		}
		if d := time.Since(begun); d > 30*time.Second {
			t.Errorf("%s took %v", tt.command, d)
		}
		g.ok("rm", "box")
	}
	g.ticking("box")
	g.ok("pause", "box")
	same(t, "restart", g.ok("restart", "-t", "60", "box"), "box")
	g.ticks("box")
	same(t, "restarted", g.ok("inspect", "--format", "{{.State.Status}}", "box"), "running")
	// With a stop signal of its own, others wait.
	g.ticking("usr", "--stop-signal", "TERM")
	g.ok("pause", "usr")
	g.ok("kill", "-s", "USR1", "usr")
	g.silent("usr")
	g.ok("unpause", "usr")
	eventually(t, patience, func() string {
		if !strings.Contains(g.ok("logs", "usr"), "usr") {
			return "the signal did not come"
		}
		return ""
	})
}

// Execs, pauses and unpauses at the same time: the supervisor goes on starting
// things, and in the end the container runs.
func TestPauseCrowd(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ticking("box")
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				g.do(nil, "pause", "box")
				g.do(nil, "unpause", "box")
			}
		})
		wg.Go(func() {
			for ctx.Err() == nil {
				r := g.do(nil, "exec", "box", "echo", "in")
				if r.code != 0 && !strings.Contains(r.stderr, "is paused, unpause") || r.code == 0 && r.stdout != "in\n" {
					t.Errorf("%v", r)
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			same(t, "run", g.ok("run", "--rm", image, "echo", "out"), "out")
		}
	})
	wg.Wait()
	g.do(nil, "unpause", "box")
	g.ticks("box")
	// Killed while somebody pauses it, it ends.
	for range 5 {
		wg.Go(func() { g.do(nil, "pause", "box") })
	}
	g.ok("kill", "box")
	wg.Wait()
	same(t, "killed", g.ok("wait", "box"), "137")
}
