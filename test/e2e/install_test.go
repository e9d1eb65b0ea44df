//go:build root

package e2e

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// install copies tug to dir/bin/tug, and tug-init to where, below dir.
func install(t *testing.T, g *tug, dir, where string) {
	t.Helper()
	defer noForks()()
	for from, to := range map[string]string{g.path: "bin/tug", filepath.Join(filepath.Dir(g.path), "tug-init"): where} {
		if to == "" {
			continue
		}
		to = filepath.Join(dir, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		in, err := os.Open(from)
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
		if err == nil {
			_, err = io.Copy(out, in)
			out.Close()
		}
		in.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// noForks keeps tests beside this one from starting a process, until the
// function it returns is called: a child that has a program open for writing,
// as long as it did not execute its own, makes that program's text file busy.
func noForks() func() {
	syscall.ForkLock.RLock()
	return syscall.ForkLock.RUnlock
}

// Installing is copying two files; tug finds the second beside itself or in
// ../libexec/tug, also when called by a symlink, and refuses one that is not of
// its own build.
func TestInstalled(t *testing.T) {
	t.Parallel()
	real := newTug(t)
	init := filepath.Join(filepath.Dir(real.path), "tug-init")
	for _, where := range []string{"bin/tug-init", "libexec/tug/tug-init"} {
		g := newTug(t)
		install(t, g, g.dir, where)
		g.path = filepath.Join(g.dir, "bin/tug")
		if out := g.ok("run", "--rm", "tug.local/hello"); !strings.Contains(out, "Hello") {
			t.Errorf("with %s: %s", where, out)
		}
		link := filepath.Join(g.dir, "link")
		if err := os.Symlink(g.path, link); err != nil {
			t.Fatal(err)
		}
		g.endProcesses()
		g.path = link
		g.ok("run", "--rm", "tug.local/hello")
	}

	g := newBusybox(t)
	g.endProcesses()
	install(t, g, g.dir, "")
	g.path = filepath.Join(g.dir, "bin/tug")
	beside := filepath.Join(g.dir, "bin/tug-init")
	run := args("run", "--rm", image, "true")
	g.fails(125, args("run", "--rm", "tug.local/box"), "tug-box is neither in", "copy it beside tug")
	g.fails(125, run, "tug-init is neither in", "copy it beside tug")
	for what, c := range map[string]struct {
		program string
		words   []string
	}{
		"another version": {"#!/bin/sh\ntest \"$1\" = --version && echo tug-init version 0.0.1-other && exit 0\nexit 1\n", args(beside, "0.0.1-other", "same build")},
		"no program":      {"", args(beside, "same build")},
		"something else":  {"#!/bin/sh\nexit 3\n", args(beside, "same build")},
	} {
		forks := noForks()
		err := os.WriteFile(beside, []byte(c.program), 0o755)
		forks()
		if err != nil {
			t.Fatal(err)
		}
		r := g.fails(125, run, c.words...)
		if n := len(g.processes()); n > 0 {
			t.Errorf("%s: %v\nleft %d processes", what, r, n)
		}
	}
	same(t, "containers left", g.ok("ps", "-aq"), "")
	// The keeper itself refuses too: tug asks it nothing before.
	out, err := exec.Command(init, "keeper", "--version", "other", "--run", g.runRoot(), "--socket", g.runRoot()+"/s", "--", "true").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "tug is other") {
		t.Errorf("keeper: %v, %s", err, out)
	}
}
