//go:build root

package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tug/event"
	"tug/runtime"
	"tug/spec"
	"tug/supervisor/keeper"
	"tug/sys"
)

// The test binary is also the supervisor: the keeper starts it with this
// variable set to the test's directory.
const roleVar = "TUG_TEST_SUPERVISE"

func init() {
	if dir := os.Getenv(roleVar); dir != "" {
		superviseInChild(dir)
	}
}

// world is a store without images: containers are files <id>.json with a
// spec.Container, their root is one directory with busybox in it.
type world struct{ dir string }

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

func superviseInChild(dir string) {
	rt, err := runtime.New(runtime.Options{InitPath: filepath.Join(dir, "tug-init"), Cgroup: "tugtest-" + filepath.Base(dir)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	err = Serve(context.Background(), Config{
		Runtime: rt, Starter: &world{dir}, Quiet: 500 * time.Millisecond, Pool: 1,
		Backend: func() string { return "test" },
	})
	rt.Close()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (w *world) container(id string) (*spec.Container, error) {
	b, err := os.ReadFile(w.path(id + ".json"))
	if err != nil {
		return nil, err
	}
	c := &spec.Container{}
	return c, json.Unmarshal(b, c)
}

func (w *world) Launch(_ context.Context, id, token string) (*Launch, error) {
	c, err := w.container(id)
	if err != nil {
		return nil, err
	}
	plan, _, err := runtime.MakePlan(c)
	if err != nil {
		return nil, err
	}
	if b, _ := os.ReadFile(w.path(id + ".token")); string(b) == token {
		return nil, ErrBegun
	}
	root, err := sys.CloneTree(nil, w.path("rootfs"), false)
	if err != nil {
		return nil, err
	}
	return &Launch{
		Run: Run{ID: id, Token: token, Number: 1}, Plan: plan, Files: runtime.Files{RootFS: root}, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce,
		LogDir: w.path(id + ".log"), Record: w.path(id + ".exit"), Release: func() {},
	}, nil
}

func (w *world) LaunchExec(id string, e *spec.ExecSpec) (*ExecLaunch, error) {
	c, err := w.container(id)
	if err != nil {
		return nil, err
	}
	l := &ExecLaunch{Release: func() {}}
	b, err := os.ReadFile(w.path(id + ".start"))
	if err == nil {
		err = json.Unmarshal(b, &l.Target)
	}
	if err == nil {
		l.Plan, err = runtime.MakeExecPlan(c, e)
	}
	return l, err
}

func (w *world) Began(l Run, p runtime.Process) error {
	b, _ := json.Marshal(runtime.Process{Pid: p.Pid, StartTicks: p.StartTicks, Cgroup: p.Cgroup})
	if err := os.WriteFile(w.path(l.ID+".token"), []byte(l.Token), 0o600); err != nil {
		return err
	}
	return os.WriteFile(w.path(l.ID+".start"), b, 0o600)
}
func (w *world) Failed(Run, error)                     {}
func (w *world) Ended(Run) (at time.Time, again bool)  { return }
func (w *world) Restarting() []string                  { return nil }
func (w *world) Due(string) (at time.Time, again bool) { return }
func (w *world) Relaunch(string) (*Launch, error)      { return nil, ErrSettled }
func (w *world) GiveUp(string, error)                  {}

func (w *world) Guard(string)                                    {}
func (w *world) RootFS(string) (*os.File, error)                 { return nil, os.ErrNotExist }
func (w *world) ExecBegan(string, string, []string, event.Cause) {}
func (w *world) ExecEnded(string, string, int)                   {}
func (w *world) Cut(Run)                                         {}
func (w *world) Attached(string, event.Cause)                    {}
func (w *world) Check(Run) *Check                                { return nil }
func (w *world) Checked(Run, *Check, bool)                       {}
func (w *world) Unhealthy(Run) error                             { return nil }

// newWorld builds tug-init and a root directory, and returns a client.
func newWorld(t *testing.T) (*world, *Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tugsup")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{dir}
	build := exec.Command("go", "build", "-o", w.path("tug-init"), "tug/cmd/tug-init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build tug-init: %v\n%s", err, out)
	}
	for _, d := range []string{"rootfs/bin", "rootfs/proc", "rootfs/sys", "rootfs/dev", "rootfs/etc", "rootfs/tmp"} {
		if err := os.MkdirAll(w.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err == nil {
		err = os.WriteFile(w.path("rootfs/bin/busybox"), busybox, 0o755)
	}
	if err != nil {
		t.Fatalf("busybox-static is needed: %v", err)
	}
	os.Symlink("busybox", w.path("rootfs/bin/sh"))
	c := &Client{Run: dir, Command: func() (string, []string, error) {
		return w.path("tug-init"), []string{"/usr/bin/env", roleVar + "=" + dir, os.Args[0]}, nil
	}}
	t.Cleanup(func() { w.awaitEnd(t) })
	return w, c
}

// awaitEnd checks that nothing is left once the quiet time is over, and before
// it the window for clients of a killed supervisor.
func (w *world) awaitEnd(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		left := processesOf(w.dir)
		dirs, _ := filepath.Glob("/sys/fs/cgroup/*/tugtest-" + filepath.Base(w.dir))
		if len(left) == 0 && len(dirs) == 0 && !keeper.Running(w.dir, math.MaxUint64) {
			return
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(w.path("supervisor.log"))
			t.Errorf("left behind: processes %v, cgroups %v\n%s", left, dirs, log)
			for _, pid := range left {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processesOf finds processes whose command line names the directory.
func processesOf(dir string) (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, _ := os.ReadFile(p)
		pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if pid != os.Getpid() && (bytes.Contains(b, []byte(dir)) || bytes.Contains(env, []byte(roleVar+"="+dir))) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (w *world) add(t *testing.T, c *spec.Container) {
	t.Helper()
	c.Host.NetworkMode = "none"
	b, err := json.Marshal(c)
	if err == nil {
		err = os.WriteFile(w.path(c.ID+".json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) killSupervisor(c *Client) {
	if pid, _, _, ok := c.Ping(context.Background()); ok {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestRunAttached(t *testing.T) {
	w, c := newWorld(t)
	w.add(t, &spec.Container{ID: "a", Path: "/bin/sh", Args: []string{"-c", "echo out; echo err >&2; exit 7"}})
	s, err := c.StartAttached(t.Context(), "a", AttachOptions{Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	code, err := s.Stream(&out, &stderr)
	if code != 7 || err != nil || out.String() != "out\n" || stderr.String() != "err\n" {
		t.Errorf("code %d, %v, stdout %q, stderr %q", code, err, &out, &stderr)
	}
	if got := string(logText(t, w.path("a.log"))); got != "out\nerr\n" && got != "err\nout\n" {
		t.Errorf("log holds %q", got)
	}
}

func TestTerminalAndExec(t *testing.T) {
	w, c := newWorld(t)
	w.add(t, &spec.Container{ID: "a", Path: "/bin/sh", Args: []string{"-c", "read x; echo got $x"}, Tty: true, OpenStdin: true})
	s, err := c.StartAttached(t.Context(), "a", AttachOptions{Stdin: true, Stdout: true, Rows: 33, Cols: 77})
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Exec(t.Context(), "a", &spec.ExecSpec{Args: []string{"/bin/busybox", "stty", "size"}, Tty: true}, &AttachOptions{Stdout: true, Rows: 20, Cols: 40})
	if err != nil {
		t.Fatal(err)
	}
	var size bytes.Buffer
	if code, err := e.Stream(&size, &size); code != 0 || err != nil || size.String() != "20 40\r\n" {
		t.Errorf("exec: code %d, %v, %q", code, err, &size)
	}
	fmt.Fprint(s.Stdin, "hello\r")
	var out bytes.Buffer
	code, err := s.Stream(&out, &out)
	if code != 0 || err != nil || !strings.Contains(out.String(), "got hello") {
		t.Errorf("code %d, %v, %q", code, err, &out)
	}
}

// TestKeeperKeepsItsLock has a keeper do so much that its garbage is collected.
func TestKeeperKeepsItsLock(t *testing.T) {
	w, c := newWorld(t)
	w.add(t, &spec.Container{ID: "a", Path: "/bin/sh", Args: []string{"-c", "read x"}, OpenStdin: true})
	s, err := c.StartAttached(t.Context(), "a", AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 60 {
		e, err := c.Exec(t.Context(), "a", &spec.ExecSpec{Args: []string{"/bin/busybox", "true"}}, &AttachOptions{Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		if code, err := e.Stream(io.Discard, io.Discard); code != 0 || err != nil {
			t.Fatal(code, err)
		}
	}
	if !keeper.Running(w.dir, math.MaxUint64) {
		t.Error("the keeper lives and does not hold its lock")
	}
	fmt.Fprintln(s.Stdin, "end")
	if code, err := s.Stream(io.Discard, io.Discard); code != 0 || err != nil {
		t.Error(code, err)
	}
}

// TestKillSupervisor kills the supervisor at random moments while containers
// write, with clients attached, and compares every byte of output and log.
func TestKillSupervisor(t *testing.T) {
	w, c := newWorld(t)
	const containers, lines = 4, 30000
	var wg sync.WaitGroup
	for i := range containers {
		id := fmt.Sprint("k", i)
		script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i of %s; i=$((i+1)); done; exit %d", lines, id, 10+i)
		w.add(t, &spec.Container{ID: id, Path: "/bin/sh", Args: []string{"-c", script}, Tty: i == 3})
		var want bytes.Buffer
		for j := range lines {
			end := "\n"
			if i == 3 {
				end = "\r\n"
			}
			fmt.Fprintf(&want, "line %d of %s%s", j, id, end)
		}
		wg.Go(func() {
			s, err := c.StartAttached(t.Context(), id, AttachOptions{Stdout: true, Stderr: true})
			if err != nil {
				t.Errorf("%s: %v", id, err)
				return
			}
			var out bytes.Buffer
			code, err := s.Stream(&out, &out)
			if err != nil || code != 10+i {
				t.Errorf("%s: code %d, %v", id, code, err)
			}
			if !bytes.Equal(out.Bytes(), want.Bytes()) {
				t.Errorf("%s: got %d bytes of output, want %d, first difference at %d", id, out.Len(), want.Len(), differ(out.Bytes(), want.Bytes()))
			}
			if got := logText(t, w.path(id+".log")); !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%s: log has %d bytes, want %d, first difference at %d", id, len(got), want.Len(), differ(got, want.Bytes()))
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	kills := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(time.Duration(10+rand.IntN(60)) * time.Millisecond):
			w.killSupervisor(c)
			kills++
		}
	}
	if t.Failed() {
		log, _ := os.ReadFile(w.path("supervisor.log"))
		t.Logf("supervisor.log:\n%s", log)
	}
	t.Logf("%d kills", kills)
	if kills < 3 {
		t.Errorf("only %d kills: the containers ended too soon", kills)
	}
}
