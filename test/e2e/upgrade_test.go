//go:build root

package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// replace puts tug's programs into dir as an installation does: under other
// names first, then renamed, tug last.
func replace(t *testing.T, from, dir string) {
	t.Helper()
	for _, name := range []string{"tug-init", "tug"} {
		in, err := os.Open(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		path := filepath.Join(dir, name)
		out, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

// tug is upgraded under running containers, a terminal, an exec and a pending
// restart: the next command is served by the new program, and nothing is lost.
func TestUpgradeInPlace(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	from, dir := filepath.Dir(g.path), filepath.Join(g.dir, "bin")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	replace(t, from, dir)
	g.path = filepath.Join(dir, "tug")

	const script = `i=0; while [ ! -e /end ]; do i=$((i+1)); echo line $i; sleep 0.01; done; exit 7`
	g.ok("run", "-d", "--name", "talks", image, "sh", "-c", script)
	g.ok("run", "-d", "--name", "restarts", "--restart", "always", image, "sh", "-c", "sleep 0.3; exit 1")
	term := g.terminal(24, 80, "run", "-it", "--name", "term", image, "sh")
	inside := g.terminal(24, 80, "exec", "-it", "talks", "sh")
	for n := range 3 {
		term.typed(fmt.Sprintf("echo term-%d-$((1+1))\n", n))
		term.shows(fmt.Sprintf("term-%d-2", n))
		inside.typed(fmt.Sprintf("echo exec-%d-$((1+1))\n", n))
		inside.shows(fmt.Sprintf("exec-%d-2", n))
		keeper, before := g.resident()
		replace(t, from, dir)
		same(t, "a new container", g.ok("run", "--rm", image, "echo", "served"), "served")
		eventually(t, patience, func() string {
			now, after := g.resident()
			if now != keeper || after == 0 || after == before {
				return fmt.Sprintf("keeper %d, was %d; supervisor %d, was %d", now, keeper, after, before)
			}
			b, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", after))
			if err != nil || b != g.path {
				return fmt.Sprintf("the new supervisor runs %s, %v", b, err)
			}
			return ""
		})
	}
	term.typed("exit 3\n")
	if code := term.ends(); code != 3 {
		t.Errorf("the terminal's exit code is %d, want 3", code)
	}
	inside.typed("exit 4\n")
	if code := inside.ends(); code != 4 {
		t.Errorf("the exec's exit code is %d, want 4", code)
	}
	g.ok("exec", "talks", "touch", "/end")
	same(t, "exit code", g.ok("wait", "talks"), "7")
	lines := strings.Split(g.ok("logs", "talks"), "\n")
	for i, line := range lines {
		if want := fmt.Sprintf("line %d", i+1); line != want {
			t.Fatalf("line %d of the log is %q", i+1, line)
		}
	}
	if len(lines) < 30 {
		t.Errorf("the log has %d lines only", len(lines))
	}
	var s struct{ RestartCount int }
	eventually(t, patience, func() string {
		g.inspect(&s, "restarts")
		if s.RestartCount < 3 {
			return fmt.Sprintf("%d restarts", s.RestartCount)
		}
		return ""
	})
}

// A supervisor whose program was taken away and not replaced goes on.
func TestProgramTakenAway(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	from, dir := filepath.Dir(g.path), filepath.Join(g.dir, "bin")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	replace(t, from, dir)
	installed := filepath.Join(dir, "tug")
	other := g.path
	g.path = installed
	g.ok("run", "-d", "--name", "up", image, "sleep", "1000")
	_, before := g.resident()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	g.path = other
	same(t, "exec", g.ok("exec", "up", "echo", "in"), "in")
	if _, after := g.resident(); after != before {
		t.Errorf("supervisor %d was replaced by %d", before, after)
	}
	start := time.Now()
	g.ok("rm", "-f", "up")
	t.Log("removed after", time.Since(start))
}
