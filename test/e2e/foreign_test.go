//go:build root

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// eachRuntime runs a test with runc and with tug as an OCI runtime.
func eachRuntime(t *testing.T, test func(t *testing.T, g *tug, runtime string)) {
	t.Parallel()
	for _, name := range []string{"runc", "tug-oci"} {
		t.Run(name, func(t *testing.T) {
			path := name
			if name == "runc" {
				if _, err := exec.LookPath(name); err != nil {
					t.Skip("runc is not installed: make deps")
				}
			} else {
				tug, err := findTug()
				if err != nil {
					t.Fatal(err)
				}
				path = filepath.Join(filepath.Dir(tug), name)
			}
			test(t, newBusybox(t), path)
		})
	}
}

// bundles are the directories of runs by other runtimes.
func (g *tug) bundles() []string {
	dirs, _ := filepath.Glob(filepath.Join(g.runRoot(), "bundles", "*"))
	return dirs
}

func TestRuntimeRun(t *testing.T) {
	eachRuntime(t, func(t *testing.T, g *tug, rt string) {
		same(t, "output", g.ok("run", "--rm", "--runtime", rt, image, "sh", "-c", "echo $GREETING; hostname | wc -c"), "hello\n13")
		r := g.do(strings.NewReader("typed\n"), "run", "--rm", "-i", "--runtime", rt, image, "sh", "-c", "cat; echo e >&2; exit 7")
		if r.code != 7 || r.stdout != "typed\n" || r.stderr != "e\n" {
			t.Errorf("%v", r)
		}
		g.fails(127, args("run", "--rm", "--runtime", rt, image, "no-such-program"), "no-such-program")
		g.fails(126, args("run", "--rm", "--runtime", rt, image, "/etc"), "/etc")
		g.fails(125, args("run", "--rm", "--runtime", rt, "-u", "nobody-here", image, "true"), "unable to find user nobody-here")
		same(t, "nothing of --rm is left", g.ok("ps", "-aq"), "")
		if left := g.bundles(); len(left) != 0 {
			t.Errorf("left %v", left)
		}

		out := g.ok("run", "--name", "all", "--runtime", rt, "-u", "alice:7", "--group-add", "12", "-w", "/new/dir", "-e", "A=b", "--read-only", "--tmpfs", "/t:size=1m",
			"--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--hostname", "here", "--domainname", "there", "--sysctl", "net.ipv4.ip_forward=1", "--shm-size", "1m", "--ulimit", "nofile=99:99",
			"-m", "64m", "--pids-limit", "40", "--init", image, "sh", "-c", `id -u; id -g; id -G; pwd; echo $A $HOME; touch /x 2>/dev/null; touch /t/x && echo tmpfs; hostname; cat /proc/sys/kernel/domainname
				cat /proc/sys/net/ipv4/ip_forward; ulimit -n; grep -c "^127.0.0.1" /etc/hosts; grep -E "CapBnd|NoNewPrivs|Seccomp:" /proc/self/status | tr -d "\t"; df -k /dev/shm | awk "NR==2{print \$2}"; cat /proc/timer_list | wc -c; test -w /sys || echo ro; tr "\0" " " </proc/1/cmdline | head -n 1 | cut -c1-17`)
		same(t, "settings", out, "1000\n7\n7 12\n/new/dir\nb /home/alice\ntmpfs\nhere\nthere\n1\n99\n1\nCapBnd:0000000000000000\nNoNewPrivs:1\nSeccomp:2\n1024\n0\nro\n/sbin/docker-init")
		same(t, "inspect", g.ok("inspect", "-f", "{{.HostConfig.Runtime}} {{.State.Status}} {{.State.ExitCode}}", "all"), rt+" exited 0")
		same(t, "start again", g.ok("start", "-a", "all"), out)
		same(t, "rm", g.ok("rm", "all"), "all")
		same(t, "tug's own", g.ok("inspect", "-f", "{{.HostConfig.Runtime}}", g.ok("create", "--runtime", "tug", image, "true")), "tug")
	})
}

// What depends on the kernel, with nothing but tug.
func TestCoreRuntime(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	rt := filepath.Join(t.TempDir(), "tug-oci")
	program, err := exec.LookPath(g.path)
	if err == nil {
		program, err = filepath.Abs(program)
	}
	if err == nil {
		err = os.Symlink(program, rt)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := g.do(strings.NewReader("typed\n"), "run", "--rm", "-i", "--runtime", rt, "-u", "alice", "--tmpfs", "/t", "-v", "vol:/v", image, "sh", "-c", "cat; id -un; touch /t/x; exit 7")
	if r.code != 7 || r.stdout != "typed\nalice\n" || r.stderr != "" {
		t.Errorf("%v", r)
	}
	g.fails(127, args("run", "--rm", "--runtime", rt, image, "no-such-program"), "no-such-program")
	g.ok("run", "-d", "--name", "box", "-m", "64m", "--pids-limit", "50", "--runtime", rt, image, "sleep", "1000")
	g.fails(3, args("exec", "box", "sh", "-c", "exit 3"))
	limit := "/sys/fs/cgroup/memory/memory.limit_in_bytes"
	if onV2() {
		limit = "/sys/fs/cgroup/memory.max"
	}
	same(t, "limit", g.ok("exec", "box", "cat", limit), "67108864")
	g.ok("update", "-m", "96m", "--memory-swap", "200m", "box")
	same(t, "limit after update", g.ok("exec", "box", "cat", limit), "100663296")
	if r := g.do(nil, "exec", "box", "sh", "-c", "mknod /tmp/d b 7 0 && cat /tmp/d"); r.code == 0 || !strings.Contains(r.stderr, "not permitted") {
		t.Errorf("a device of the host's: %v", r)
	}
	g.ok("pause", "box")
	same(t, "paused", g.ok("inspect", "-f", "{{.State.Status}}", "box"), "paused")
	g.ok("unpause", "box")
	_, supervisor := g.resident()
	_ = syscall.Kill(supervisor, syscall.SIGKILL)
	same(t, "exec", g.ok("exec", "box", "echo", "here"), "here")
	g.ok("kill", "box")
	same(t, "exit code", g.ok("wait", "box"), "137")
	if left := g.bundles(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestRuntimeMounts(t *testing.T) {
	eachRuntime(t, func(t *testing.T, g *tug, rt string) {
		dir := t.TempDir()
		for _, name := range []string{"in/file", "sub/x"} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte("text\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		out := g.ok("run", "--rm", "--runtime", rt, "-v", "vol:/data", "-v", dir+":/b:ro", "-v", dir+"/in/file:/etc/one", "--mount", "type=tmpfs,target=/b/sub", image, "sh", "-c",
			"cat /b/in/file /etc/one; ls -A /b/sub; touch /b/x 2>/dev/null || echo ro; echo in >/data/new; echo more >>/etc/one; touch /b/sub/y && echo tmpfs")
		same(t, "mounts", out, "text\ntext\nro\ntmpfs")
		same(t, "the volume stays", g.ok("run", "--rm", "-v", "vol:/v:ro", image, "cat", "/v/new"), "in")
		if b, err := os.ReadFile(filepath.Join(dir, "in/file")); err != nil || string(b) != "text\nmore\n" {
			t.Errorf("%q %v", b, err)
		}
		g.fails(125, args("run", "--rm", "--runtime", rt, "-v", dir+":/b:rslave", image, "true"), "propagation rslave of /b", "tug's own runtime only")
		if m := mountsWith(g.dir); len(m) > 0 {
			t.Errorf("in the host's mount table: %v", m)
		}
	})
}

func TestRuntimeTerminal(t *testing.T) {
	eachRuntime(t, func(t *testing.T, g *tug, rt string) {
		p := g.terminal(33, 77, "run", "--name", "tty", "-it", "--runtime", rt, image, "sh", "-c", "stty size; test -c /dev/console && tty; read x; echo got $x; exit 5")
		p.shows("33 77")
		p.shows("/dev/pts/0")
		p.typed("word\r")
		p.shows("got word")
		if code := p.ends(); code != 5 {
			t.Errorf("exit code %d", code)
		}
		g.ok("run", "-d", "--name", "box", "--runtime", rt, image, "sleep", "1000")
		p = g.terminal(31, 91, "exec", "-it", "box", "sh", "-c", "stty size; exit 2")
		p.shows("31 91")
		if code := p.ends(); code != 2 {
			t.Errorf("exit code of exec -it: %d", code)
		}
	})
}

func TestRuntimeLife(t *testing.T) {
	eachRuntime(t, func(t *testing.T, g *tug, rt string) {
		g.ok("run", "-d", "--name", "box", "--runtime", rt, "--health-cmd", "test -e /tmp/ok", "--health-interval", "200ms", "--health-retries", "1",
			image, "sh", "-c", "trap 'echo bye; exit 9' TERM; echo up; i=0; while :; do sleep 0.1; i=$((i+1)); echo $i >/tmp/n; done")
		for i := range 8 { // short ones: their end may come before they are known
			g.fails(i+1, args("exec", "box", "sh", "-c", fmt.Sprintf("exit %d", i+1)))
		}
		r := g.do(strings.NewReader("in\n"), "exec", "-i", "-u", "alice", "-e", "B=c", "-w", "/tmp", "box", "sh", "-c", "cat; id -un; pwd; echo $B $GREETING; echo err >&2")
		if r.stdout != "in\nalice\n/tmp\nc hello\n" || r.stderr != "err\n" || r.code != 0 {
			t.Errorf("%v", r)
		}
		g.fails(127, args("exec", "box", "no-such-program"), "no-such-program")
		g.turns("box", "unhealthy")
		g.ok("exec", "box", "touch", "/tmp/ok")
		g.turns("box", "healthy")

		g.ok("pause", "box")
		before := g.ok("cp", "box:/tmp/n", "-")
		time.Sleep(400 * time.Millisecond)
		same(t, "counter while paused", g.ok("cp", "box:/tmp/n", "-"), before)
		g.fails(1, args("exec", "box", "true"), "paused")
		g.ok("unpause", "box")
		g.ok("update", "-m", "96m", "--pids-limit", "60", "box")
		limit := "/sys/fs/cgroup/memory/memory.limit_in_bytes"
		if onV2() {
			limit = "/sys/fs/cgroup/memory.max"
		}
		same(t, "limit after update", g.ok("exec", "box", "cat", limit), "100663296")
		if out := g.ok("top", "box"); !strings.Contains(out, "trap") {
			t.Errorf("top: %s", out)
		}
		if out := g.ok("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "box"); !strings.Contains(out, "/ 96MiB") {
			t.Errorf("stats: %s", out)
		}
		if out := g.ok("diff", "box"); !strings.Contains(out, "A /tmp/n") {
			t.Errorf("diff: %s", out)
		}
		g.fails(1, args("debug", "box", "true"), "tug's own runtime only")
		same(t, "stop", g.ok("stop", "box"), "box")
		same(t, "exit code", g.ok("wait", "box"), "9")
		same(t, "logs", g.ok("logs", "box"), "up\nbye")
		g.ok("start", "box")
		g.ok("kill", "box")
		same(t, "exit code after kill", g.ok("wait", "box"), "137")
		g.ok("start", "box")
		g.ok("rm", "-f", "box")

		g.ok("run", "-d", "--name", "again", "--restart", "on-failure:2", "--runtime", rt, image, "sh", "-c", "exit 3")
		s := g.becomes("again", "exited")
		if s.RestartCount != 2 {
			t.Errorf("restarts: %+v", s)
		}
		if out := g.past("container=again"); !strings.Contains(out, "die") {
			t.Errorf("events: %s", out)
		}
	})
}

// kill -9 of the supervisor: container, exec and terminal go on, and no exit
// code is lost.
func TestRuntimeSurvives(t *testing.T) {
	eachRuntime(t, func(t *testing.T, g *tug, rt string) {
		g.ok("run", "-d", "--name", "talk", "--runtime", rt, image, "sh", "-c", talkScript)
		p := g.terminal(24, 80, "run", "--name", "tty", "-it", "--runtime", rt, image, "sh", "-c", "echo ready; read x; echo got $x; exit 6")
		p.shows("ready")
		for range 3 {
			_, supervisor := g.resident()
			if supervisor == 0 {
				t.Fatal("no supervisor")
			}
			if err := syscall.Kill(supervisor, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			g.ok("exec", "tty", "true")
		}
		p.typed("word\r")
		p.shows("got word")
		if code := p.ends(); code != 6 {
			t.Errorf("exit code on the terminal: %d", code)
		}
		same(t, "exit code", g.ok("wait", "talk"), "42")
		if out := g.ok("logs", "talk") + "\n"; out != talked() {
			t.Errorf("the log has %d bytes, want %d", len(out), len(talked()))
		}
		if left := g.bundles(); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	})
}

// The supervisor is killed while runtimes create and start containers. Each
// start is done once, and each container ends with its own exit code.
func TestRuntimeKilledWhileStarting(t *testing.T) {
	eachRuntime(t, func(t *testing.T, g *tug, rt string) {
		g.ok("run", "-d", "--name", "stays", "--runtime", rt, image, "sleep", "1000")
		for n := range 12 {
			name := fmt.Sprintf("c%d", n)
			done := make(chan result, 1)
			go func() {
				done <- g.do(nil, "run", "--name", name, "--runtime", rt, image, "sh", "-c", "echo once; exit 44")
			}()
			time.Sleep(time.Duration(10*n) * time.Millisecond)
			if _, supervisor := g.resident(); supervisor != 0 {
				_ = syscall.Kill(supervisor, syscall.SIGKILL)
			}
			if r := <-done; r.code != 44 || r.stdout != "once\n" {
				t.Errorf("killed after %d ms: %v", 10*n, r)
			}
			same(t, "log of "+name, g.ok("logs", name), "once")
			same(t, "exit code of "+name, fmt.Sprint(g.state(name).State.ExitCode), "44")
		}
		eventually(t, 20*time.Second, func() string {
			if left := g.bundles(); len(left) != 1 {
				return fmt.Sprintf("bundles: %v", left)
			}
			return ""
		})
	})
}

// kill -9 of keeper and supervisor takes the containers along, and the next
// command finds nothing of them.
func TestRuntimeWithoutKeeper(t *testing.T) {
	eachRuntime(t, func(t *testing.T, g *tug, rt string) {
		g.ok("run", "-d", "--name", "box", "--runtime", rt, image, "sleep", "1000")
		pid := g.state("box").State.Pid
		keeper, supervisor := g.resident()
		_ = syscall.Kill(supervisor, syscall.SIGSTOP)
		_ = syscall.Kill(keeper, syscall.SIGKILL)
		_ = syscall.Kill(supervisor, syscall.SIGKILL)
		g.ok("run", "--rm", image, "true")
		eventually(t, 20*time.Second, func() string {
			if syscall.Kill(pid, 0) == nil {
				return "the container still runs"
			}
			if left := g.bundles(); len(left) != 0 {
				return fmt.Sprintf("left %v", left)
			}
			return ""
		})
		same(t, "exit code", fmt.Sprint(g.state("box").State.ExitCode), "255")
		g.ok("start", "box")
		same(t, "exec", g.ok("exec", "box", "echo", "here"), "here")
	})
}

func TestRuntimeRefused(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	fake := func(script string) string {
		path := filepath.Join(t.TempDir(), "fake")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	g.fails(125, args("run", "--runtime", "no-such-runtime", image, "true"), "unknown or invalid runtime name: no-such-runtime", "absolute path")
	g.fails(125, args("run", "--runtime", "/no/such/runtime", image, "true"), "unknown or invalid runtime name: /no/such/runtime")
	g.fails(125, args("run", "--runtime", "./relative", image, "true"), "absolute")
	g.fails(125, args("run", "--runtime", g.root(), image, "true"), "unknown or invalid runtime name")
	g.ok("run", "-d", "--name", "other", image, "sleep", "1000")
	tugOCI := filepath.Join(filepath.Dir(g.path), "tug-oci")
	g.fails(125, args("run", "--runtime", tugOCI, "--pid", "container:other", image, "true"), "--pid container:", "tug's own runtime only")
	same(t, "nothing was made", g.ok("ps", "-a", "--format", "{{.Names}}"), "other")

	// A runtime that fails says why, in its log or on standard error.
	g.fails(125, args("run", "--rm", "--runtime", fake(`echo "no luck today" >&2; exit 1`), image, "true"), "fake create: ", "no luck today")
	g.fails(125, args("run", "--rm", "--runtime", fake(`while [ $# -gt 0 ]; do [ "$1" = --log ] && printf '%s\n' '{"level":"error","msg":"told\nin the log"}' >"$2"; shift; done; exit 3`), image, "true"), "fake create: told in the log")
	g.fails(125, args("run", "--rm", "--runtime", fake("exit 0"), image, "true"), "no process id")
	g.fails(125, args("run", "--rm", "--runtime", fake(`while [ $# -gt 0 ]; do [ "$1" = --pid-file ] && echo 1 >"$2"; shift; done`), image, "true"), "no process id")
	g.fails(125, args("run", "--rm", "--runtime", fake(fmt.Sprintf(`while [ $# -gt 0 ]; do [ "$1" = --pid-file ] && echo %d >"$2"; shift; done`, os.Getpid())), image, "true"), "not left to tug")
	r := g.fails(125, args("run", "--rm", "--runtime", fake("kill -9 $$"), image, "true"), "killed")
	if strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("not one line: %v", r)
	}

	// One that is gone later.
	gone := fake("exit 1")
	g.ok("create", "--name", "gone", "--runtime", gone, image, "true")
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	g.fails(1, args("start", "gone"), "is not at "+gone+" any more")
	if left := g.bundles(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// A runtime that hangs is killed with all that it has started, and hinders
// nobody else.
func TestRuntimeHangs(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.env = append(g.env, "TUG_RUNTIME_LIMIT=2s")
	mark := filepath.Join(g.dir, "hangs-here")
	path := filepath.Join(t.TempDir(), "hangs")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nsh -c 'sleep 1000; : "+mark+"' &\nsleep 1000; : "+mark+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan result, 1)
	start := time.Now()
	go func() { done <- g.do(nil, "run", "--runtime", path, image, "true") }()
	time.Sleep(500 * time.Millisecond)
	same(t, "another meanwhile", g.ok("run", "--rm", image, "echo", "fine"), "fine")
	r := <-done
	if r.code != 125 || !strings.Contains(r.stderr, "hangs create: it has not ended after 2s and was killed") {
		t.Errorf("%v", r)
	}
	if d := time.Since(start); d < 2*time.Second || d > 30*time.Second {
		t.Errorf("it took %v", d)
	}
	eventually(t, 10*time.Second, func() string {
		if pids := processesWith(mark); len(pids) != 0 {
			return fmt.Sprintf("what the runtime has started still runs: %v", pids)
		}
		return ""
	})
	if left := g.bundles(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}
