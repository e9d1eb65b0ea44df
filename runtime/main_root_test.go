//go:build root

package runtime

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tug/spec"
	"tug/sys"
)

// Processes of a Runtime are children of its parent. So the test binary runs
// itself once more: the outer process is the keeper, which reaps and tells the
// inner one, which runs the tests, how each process ended.
func TestMain(m *testing.M) {
	if os.Getenv("TUG_TEST_INNER") == "" {
		os.Exit(keep())
	}
	go readExits(os.NewFile(3, "exits"))
	code := m.Run()
	if initPath != "" {
		os.RemoveAll(filepath.Dir(initPath))
	}
	os.Exit(code)
}

func keep() int {
	if err := sys.SetChildSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	r, w, err := os.Pipe()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	inner, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env:   append(os.Environ(), "TUG_TEST_INNER=1"),
		Files: []uintptr{0, 1, 2, r.Fd()},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	r.Close()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "keeper:", err)
			return 1
		}
		code := ws.ExitStatus()
		if ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		if pid == inner {
			return code
		}
		fmt.Fprintln(w, pid, code)
	}
}

var exits struct {
	sync.Mutex
	codes   map[int]int
	changed chan struct{} // closed and renewed at each exit
}

func readExits(f *os.File) {
	for s := bufio.NewScanner(f); s.Scan(); {
		var pid, code int
		fmt.Sscan(s.Text(), &pid, &code)
		exits.Lock()
		if exits.codes == nil {
			exits.codes = map[int]int{}
		}
		exits.codes[pid] = code
		if exits.changed != nil {
			close(exits.changed)
			exits.changed = nil
		}
		exits.Unlock()
	}
}

// waitExit returns the exit code of a process the keeper reaped.
func waitExit(t testing.TB, pid int) int {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		exits.Lock()
		code, ok := exits.codes[pid]
		delete(exits.codes, pid)
		if exits.changed == nil {
			exits.changed = make(chan struct{})
		}
		changed := exits.changed
		exits.Unlock()
		if ok {
			return code
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("process %d did not end", pid)
		}
	}
}

var initOnce sync.Once

var initPath string

// buildInit builds tug-init once per test run, or takes the one that
// TUG_TEST_INIT names, in a virtual machine without a compiler.
func buildInit(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("TUG_TEST_INIT"); path != "" {
		return path
	}
	initOnce.Do(func() {
		dir, err := os.MkdirTemp("", "tug-init-test")
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, "tug-init")
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-o", out, "tug/cmd/tug-init")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		// The keeper reaps this one too, so it has to be waited for by result.
		if b, err := cmd.CombinedOutput(); err != nil && !strings.Contains(err.Error(), "no child processes") {
			t.Fatalf("build tug-init: %v\n%s", err, b)
		}
		initPath = out
	})
	if initPath == "" {
		t.Fatal("tug-init was not built")
	}
	return initPath
}

// fixture is a runtime of the test's own, with a cgroup of the test's own.
type fixture struct {
	t testing.TB
	r *Runtime
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	name := fmt.Sprintf("tug-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	r, err := New(Options{InitPath: buildInit(t), Cgroup: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		waitNoCgroups(t, r)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		for _, root := range r.cgroups.roots() {
			if _, err := os.Stat(filepath.Join(root, name)); err == nil {
				t.Errorf("cgroup %s is left", filepath.Join(root, name))
			}
		}
	})
	return &fixture{t, r}
}

// waitNoCgroups waits until all slots are removed.
func waitNoCgroups(t testing.TB, r *Runtime) {
	t.Helper()
	var left []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		left = nil
		for _, root := range r.cgroups.roots() {
			entries, _ := os.ReadDir(root + r.cgroups.parent)
			for _, e := range entries {
				if e.IsDir() {
					left = append(left, root+r.cgroups.parent+"/"+e.Name())
				}
			}
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("cgroups are left: %v", left)
}

// busybox makes a root file system directory.
func busybox(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "tmp", "root", "home/alice"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("sh true false cat ls id pwd hostname stat sleep mount umount grep tr head echo " +
		"sort ulimit mknod touch tty stty env kill ps dd awk sed wc readlink find mkdir rm ip tail chroot ln seq sync unshare test") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	writeTree(t, dir, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\n",
		"etc/group":  "root:x:0:\nalice:x:1001:\nwheel:x:10:root,alice\nvideo:x:44:alice\n",
	})
	return dir
}

func writeTree(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// container is the least configuration that runs args.
func container(args ...string) *spec.Container {
	return &spec.Container{ID: strings.Repeat("ab", 32), Path: args[0], Args: args[1:], Host: spec.HostConfig{NetworkMode: "none"}}
}

// outcome is what came of a run.
type outcome struct {
	out      string // standard output and error
	code     int
	warnings []string
	err      error // of the start
	oom      bool
}

// run runs c on dir to its end.
func (f *fixture) run(dir string, c *spec.Container) outcome {
	f.t.Helper()
	pl, warnings, err := MakePlan(c)
	if err != nil {
		return outcome{err: err}
	}
	o := f.runPlan(dir, c, pl)
	o.warnings = append(warnings, o.warnings...)
	return o
}

func (f *fixture) runPlan(dir string, c *spec.Container, pl *Plan, trees ...*os.File) outcome {
	f.t.Helper()
	p, out, warnings, err := f.start(dir, c, pl, trees...)
	if err != nil {
		return outcome{err: err, warnings: warnings}
	}
	text := <-out
	code := waitExit(f.t, p.Pid)
	o := outcome{out: text, code: code, warnings: warnings, oom: f.r.OOMKilled(p.Cgroup)}
	p.Pidfd.Close()
	if err := f.r.Remove(p.Cgroup); err != nil {
		f.t.Error(err)
	}
	return o
}

// start starts a container; its output arrives on the channel at its end.
func (f *fixture) start(dir string, c *spec.Container, pl *Plan, trees ...*os.File) (*Parked, <-chan string, []string, error) {
	f.t.Helper()
	p, err := f.r.Park(Namespaces{HostNet: c.Host.NetworkMode == "host"})
	if err != nil {
		return nil, nil, nil, err
	}
	out, warnings, err := f.finish(p, dir, pl, trees...)
	if err != nil {
		p.Discard()
		waitExit(f.t, p.Pid)
	}
	return p, out, warnings, err
}

func (f *fixture) finish(p *Parked, dir string, pl *Plan, trees ...*os.File) (<-chan string, []string, error) {
	f.t.Helper()
	var files Files
	if dir != "" {
		root, err := sys.CloneTree(nil, dir, false)
		if err != nil {
			f.t.Fatal(err)
		}
		defer root.Close()
		files.RootFS = root
	}
	files.Trees = trees
	r, w, err := os.Pipe()
	if err != nil {
		f.t.Fatal(err)
	}
	files.Stdout, files.Stderr = w, w
	console, warnings, err := p.Prepare(pl, files)
	w.Close()
	if console != nil {
		r.Close()
		r = console
	}
	if err == nil {
		err = p.Go()
	}
	if err != nil {
		r.Close()
		return nil, warnings, err
	}
	out := make(chan string, 1)
	go func() {
		var b strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			b.Write(buf[:n])
			if err != nil { // end of the pipe, or EIO from a terminal
				break
			}
		}
		r.Close()
		out <- b.String()
	}()
	return out, warnings, nil
}
