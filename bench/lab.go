package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tug/test/fixture"
)

// lab is the place where things are measured: one directory, and what has to
// be undone.
type lab struct {
	dir      string
	bin      string
	undo     []func() error
	cgroups  map[string]bool // top-level cgroups that were here before
	started  time.Time
	busyboxA string // archive of the small image
}

// image is the small image's name. Its domain cannot exist.
const image = "bench.invalid/busybox:1"

func newLab(c config) (*lab, error) {
	bin, err := filepath.Abs(c.bin)
	if err != nil {
		return nil, err
	}
	for _, need := range []string{filepath.Join(bin, "tug"), filepath.Join(bin, "tug-init"), "podman", "runc", "unshare", "tar", "gzip", "umount"} {
		if _, err := exec.LookPath(need); err != nil {
			return nil, fmt.Errorf("%w (make build; test/install-deps.sh)", err)
		}
	}
	dir, err := os.MkdirTemp(c.dir, "tug-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{dir: dir, bin: bin, started: time.Now(), cgroups: map[string]bool{}}
	for _, path := range topCgroups() {
		l.cgroups[path] = true
	}
	if err := l.images(); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *lab) images() error {
	i, err := fixture.Busybox()
	if err != nil {
		return err
	}
	i.Name = image
	l.busyboxA = l.path("busybox.tar")
	return os.WriteFile(l.busyboxA, fixture.DockerArchive(i).Bytes(), 0o644)
}

func (l *lab) path(elem ...string) string { return filepath.Join(append([]string{l.dir}, elem...)...) }

func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%5.1fs %s\n", time.Since(l.started).Seconds(), fmt.Sprintf(format, args...))
}

// later has f called when the lab is closed, last one first.
func (l *lab) later(f func() error) { l.undo = append(l.undo, f) }

// close undoes everything, then goes by the directory's name: processes that
// carry it, mounts below it, cgroups that were not here before.
func (l *lab) close() error {
	var all []error
	for _, f := range slices.Backward(l.undo) {
		all = append(all, f())
	}
	for _, pid := range processes(l.dir) {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill() // it may have ended by itself
		}
	}
	if err := l.gone(l.dir, 10*time.Second); err != nil {
		all = append(all, err)
	}
	for _, m := range mountsBelow(l.dir) {
		if out, err := exec.Command("umount", "-l", m).CombinedOutput(); err != nil {
			all = append(all, fmt.Errorf("umount %s: %w: %s", m, err, out))
		}
	}
	for _, path := range topCgroups() {
		if !l.cgroups[path] {
			removeCgroup(path)
		}
	}
	return errors.Join(append(all, os.RemoveAll(l.dir))...)
}

// gone waits until no process has mark on its command line.
func (l *lab) gone(mark string, within time.Duration) error {
	for end := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		left := processes(mark)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes with %s on their command line do not end: %v", mark, left)
		}
	}
}

// processes returns the processes with mark on their command line, but for
// this one.
func processes(mark string) []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")); err == nil && bytes.Contains(line, []byte(mark)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// mountsBelow lists mount points below dir, deepest first.
func mountsBelow(dir string) []string {
	info, _ := os.ReadFile("/proc/self/mountinfo")
	var points []string
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	slices.Reverse(points)
	return points
}

// topCgroups lists the groups directly below each hierarchy's root.
func topCgroups() []string {
	v1, _ := filepath.Glob("/sys/fs/cgroup/*/*/cgroup.procs")
	v2, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	var dirs []string
	for _, p := range append(v1, v2...) {
		dirs = append(dirs, filepath.Dir(p))
	}
	return dirs
}

// removeCgroup removes a tree of empty groups; one in use stays.
func removeCgroup(path string) {
	children, _ := filepath.Glob(filepath.Join(path, "*", "cgroup.procs"))
	for _, c := range children {
		removeCgroup(filepath.Dir(c))
	}
	_ = os.Remove(path)
}

// command is one program as it is measured: no input, no output.
type command struct {
	args []string
	env  []string
	dir  string
}

func (c command) cmd(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Dir = c.dir
	return cmd
}

// run runs the command to its end and returns how long that took, from before
// fork until wait. What it says on standard error becomes part of an error.
func (c command) run(ctx context.Context) (time.Duration, error) {
	cmd := c.cmd(ctx)
	said, err := os.CreateTemp("", "tug-bench-stderr-")
	if err != nil {
		return 0, err
	}
	defer said.Close()
	if err := os.Remove(said.Name()); err != nil {
		return 0, err
	}
	// A file, not a pipe: what a background process keeps open does not delay
	// Wait.
	cmd.Stderr = said
	begin := time.Now()
	err = cmd.Run()
	took := time.Since(begin)
	if err != nil {
		text := make([]byte, 500)
		n, _ := said.ReadAt(text, 0)
		return took, fmt.Errorf("%s: %w: %s", strings.Join(c.args, " "), err, text[:n])
	}
	return took, nil
}

// output runs the command and returns what it prints.
func (c command) output(ctx context.Context) (string, error) {
	out, err := c.cmd(ctx).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w: %s", strings.Join(c.args, " "), err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
