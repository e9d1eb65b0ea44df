//go:build root

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tug/test/fixture"
)

// patience is how long one command may take. Virtual machines in software are
// slow; no test waits this long for what goes right.
const patience = 90 * time.Second

// tug is the program under test, with a store of its own.
type tug struct {
	t    *testing.T
	dir  string // holds root/ and run/
	path string // the program
	env  []string
}

// findTug returns the program: TUG_BIN, the repository's, or the guest's.
var findTug = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("TUG_BIN"); bin != "" {
		return bin, nil
	}
	if repo, err := fixture.Repo(); err == nil {
		bin := filepath.Join(repo, "bin/tug")
		if _, err := os.Stat(bin); err != nil {
			return "", errors.New("bin/tug is not there: run make")
		}
		return bin, nil
	}
	return exec.LookPath("tug")
})

// newTug makes an empty store, and at the test's end removes every container
// in it and looks for leftovers. The directory's name is short, as sockets are
// in it.
func newTug(t *testing.T) *tug {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("the end-to-end suite needs root: make e2e")
	}
	path, err := findTug()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "tug-test-")
	if err != nil {
		t.Fatal(err)
	}
	g := &tug{t: t, dir: dir, path: path}
	t.Cleanup(g.close)
	return g
}

// newBusybox is newTug with the busybox image loaded as busybox:test.
func newBusybox(t *testing.T) *tug {
	t.Helper()
	g := newTug(t)
	g.ok("load", "-q", "-i", coreFile(t, "busybox.tar"))
	return g
}

// coreFile returns the path of one of fixture.CoreImages: in the guest they
// are on the disk.
func coreFile(t *testing.T, name string) string {
	t.Helper()
	guest := filepath.Join("/test/images", name)
	if _, err := os.Stat(guest); err == nil {
		return guest
	}
	files, err := fixture.CoreImages()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if filepath.Base(f) == name {
			return f
		}
	}
	t.Fatalf("no core image %s", name)
	return ""
}

func (g *tug) root() string    { return filepath.Join(g.dir, "root") }
func (g *tug) runRoot() string { return filepath.Join(g.dir, "run") }

// command returns tug with these arguments, not started.
func (g *tug) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, g.path, args...)
	cmd.Env = append(os.Environ(), "TUG_ROOT="+g.root(), "TUG_RUN_ROOT="+g.runRoot())
	cmd.Env = append(cmd.Env, g.env...)
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// A result is what a command said and how it ended.
type result struct {
	args           []string
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("tug %q: exit code %d\nstdout: %s\nstderr: %s", r.args, r.code, clip(r.stdout), clip(r.stderr))
}

func clip(s string) string {
	const limit = 4000
	if len(s) > limit {
		return s[:limit] + fmt.Sprintf("... (%d bytes)", len(s))
	}
	return s
}

// do runs tug to its end with stdin (nil is /dev/null).
func (g *tug) do(stdin io.Reader, args ...string) result {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := g.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	r := result{args: args, stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
	if ctx.Err() != nil {
		g.t.Fatalf("%v\nstill running after %v", r, patience)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		g.t.Fatalf("%v\n%v", r, err)
	}
	return r
}

// ok runs tug, wants exit code 0, and returns standard output without the
// last newline.
func (g *tug) ok(args ...string) string {
	g.t.Helper()
	r := g.do(nil, args...)
	if r.code != 0 {
		g.t.Fatalf("%v\nwant exit code 0", r)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// fails runs tug, wants this exit code and one line on standard error (with at
// most a hint below it) that contains each of the words.
func (g *tug) fails(code int, args []string, words ...string) result {
	g.t.Helper()
	r := g.do(nil, args...)
	if r.code != code {
		g.t.Errorf("%v\nwant exit code %d", r, code)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			g.t.Errorf("%v\nwant %q on stderr", r, w)
		}
	}
	if n := strings.Count(strings.TrimSpace(r.stderr), "\n"); n > 2 {
		g.t.Errorf("%v\nwant one clear line, got %d", r, n+1)
	}
	if strings.Contains(r.stderr, "goroutine ") {
		g.t.Errorf("%v\ntug crashed", r)
	}
	return r
}

func args(a ...string) []string { return a }

// same fails the test when got is not want.
func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %q\nwant %q", what, clip(got), clip(want))
	}
}

// eventually waits until f returns "" and fails with what it says otherwise.
func eventually(t *testing.T, limit time.Duration, f func() string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for pause := 5 * time.Millisecond; ; pause = min(pause*3/2, 200*time.Millisecond) {
		problem := f()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", limit, problem)
		}
		time.Sleep(pause)
	}
}

// inspect decodes what inspect says of one object into v.
func (g *tug) inspect(v any, name string, kind ...string) {
	g.t.Helper()
	out := g.ok(append(kind, "inspect", name)...)
	var list []json.RawMessage
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		g.t.Fatalf("inspect %s: %v\n%s", name, err, out)
	}
	if err := json.Unmarshal(list[0], v); err != nil {
		g.t.Fatalf("inspect %s: %v\n%s", name, err, out)
	}
}

// containerState is the part of Docker's container JSON that tests look at.
type containerState struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		Status    string
		Running   bool
		OOMKilled bool
		Pid       int
		ExitCode  int
		Error     string
	}
}

func (g *tug) state(name string) containerState {
	g.t.Helper()
	var s containerState
	g.inspect(&s, name)
	return s
}

// processes returns the ids of this store's keeper and supervisor: those that
// have its directory in their command line.
func (g *tug) processes() []int {
	return processesWith(g.dir)
}

func processesWith(word string) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(b, []byte(word)) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// resident returns the ids of keeper and supervisor, 0 for none.
func (g *tug) resident() (keeper, supervisor int) {
	for _, pid := range g.processes() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		argv := strings.Split(string(b), "\x00")
		switch {
		case len(argv) < 2, inner(pid):
		case argv[1] == "keeper":
			keeper = pid
		case argv[1] == "supervise":
			supervisor = pid
		}
	}
	return keeper, supervisor
}

// inner tells processes in a pid namespace below this one: a container's first
// process, before it executes tug-init, still has the supervisor's command line.
func inner(pid int) bool {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	own, _ := os.ReadFile("/proc/self/status")
	return len(strings.Fields(field(string(status), "NSpid"))) != len(strings.Fields(field(string(own), "NSpid")))
}

// close removes all containers, ends the store's processes, and looks for what
// they may have left behind.
func (g *tug) close() {
	if g.t.Failed() {
		g.showLogs()
	}
	if _, err := os.Stat(g.root()); err == nil {
		r := g.do(nil, "ps", "-aq", "--no-trunc")
		ids := strings.Fields(r.stdout)
		if len(ids) > 0 {
			if r := g.do(nil, append([]string{"rm", "-f"}, ids...)...); r.code != 0 {
				g.t.Errorf("cleaning up: %v", r)
			}
		}
	}
	g.endProcesses()
	eventually(g.t, 20*time.Second, func() string {
		if dirs := cgroupsNamed(g.cgroup()); len(dirs) > 0 {
			return fmt.Sprintf("left cgroups: %v", dirs)
		}
		return ""
	})
	if m := mountsWith(g.dir); len(m) > 0 {
		g.t.Errorf("left mounted: %v", m)
	}
	eventually(g.t, 20*time.Second, func() string {
		if err := os.RemoveAll(g.dir); err != nil {
			// A command may have begun a keeper with its last breath.
			g.endProcesses()
			return "cleaning up: " + err.Error()
		}
		return ""
	})
}

// endProcesses has the supervisor end at once instead of after a quiet while,
// and waits until it and the keeper are gone.
func (g *tug) endProcesses() {
	g.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if len(g.processes()) == 0 {
			return
		}
		if _, supervisor := g.resident(); supervisor != 0 {
			_ = syscall.Kill(supervisor, syscall.SIGTERM)
		}
		time.Sleep(10 * time.Millisecond)
	}
	g.showLogs()
	g.t.Errorf("processes of the store do not end: %v", g.processes())
	for _, pid := range g.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// cgroup is the name of the store's parent cgroup, see engine.
func (g *tug) cgroup() string {
	sum := sha256.Sum256([]byte(g.root() + "\x00" + g.runRoot()))
	return "tug-" + hex.EncodeToString(sum[:4])
}

// showLogs prints what supervisor and keeper wrote.
func (g *tug) showLogs() {
	logs, _ := filepath.Glob(filepath.Join(g.runRoot(), "*.log"))
	for _, f := range logs {
		if b, err := os.ReadFile(f); err == nil && len(b) > 0 {
			g.t.Logf("%s:\n%s", filepath.Base(f), b[max(0, len(b)-4000):])
		}
	}
}

func mountsWith(word string) []string {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	var found []string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, word) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// cgroupsNamed returns the cgroup directories with name in their own name.
func cgroupsNamed(name string) []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // gone meanwhile, or a file
		}
		if strings.Contains(d.Name(), name) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// A terminal is a pseudo-terminal with tug on its other side.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	mu     sync.Mutex
	out    bytes.Buffer
	done   chan error
}

// terminal starts tug on a new terminal of that size.
func (g *tug) terminal(rows, cols uint16, args ...string) *terminal {
	g.t.Helper()
	master, slave, err := openPty(rows, cols)
	if err != nil {
		g.t.Fatal(err)
	}
	defer slave.Close()
	p := &terminal{t: g.t, master: master, cmd: g.command(context.Background(), args...), done: make(chan error, 1)}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			p.mu.Lock()
			p.out.Write(buf[:n])
			p.mu.Unlock()
			if err != nil {
				return // EIO: the other side is closed
			}
		}
	}()
	go func() {
		err := p.cmd.Wait()
		select {
		case <-drained:
		case <-time.After(2 * time.Second):
		}
		p.done <- err
	}()
	g.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		master.Close()
	})
	return p
}

func openPty(rows, cols uint16) (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	return master, slave, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
}

// resize changes the terminal's size, which signals tug.
func (p *terminal) resize(rows, cols uint16) {
	p.t.Helper()
	raw, err := p.master.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
		})
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// typed writes to the terminal as a keyboard does.
func (p *terminal) typed(s string) {
	p.t.Helper()
	if _, err := p.master.WriteString(s); err != nil {
		p.t.Fatal(err)
	}
}

// output returns all that was shown so far.
func (p *terminal) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// shows waits until the terminal has shown s.
func (p *terminal) shows(s string) {
	p.t.Helper()
	eventually(p.t, patience, func() string {
		if out := p.output(); !strings.Contains(out, s) {
			return fmt.Sprintf("the terminal did not show %q but %q", s, clip(out))
		}
		return ""
	})
}

// ends waits for tug's end and returns its exit code.
func (p *terminal) ends() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("tug %q did not end; it showed %q", p.cmd.Args, clip(p.output()))
	}
	return p.cmd.ProcessState.ExitCode()
}
