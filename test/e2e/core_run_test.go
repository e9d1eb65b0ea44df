//go:build root

package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const image = "busybox:test"

func TestCoreHello(t *testing.T) {
	g := newTug(t)
	out := g.ok("run", "--rm", "tug.local/hello")
	for _, word := range []string{"image", "container", "layer", "namespace"} {
		if !strings.Contains(strings.ToLower(out), word) {
			t.Errorf("hello does not speak of %q:\n%s", word, out)
		}
	}
	same(t, "ps -a", g.ok("ps", "-aq"), "")
}

// A run that is refused while it finds out in the background how layers can be
// mounted leaves nothing of that.
func TestCoreRefusedEarly(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	g.env = append(g.env, "TUG_QUIET=10ms")
	for range 10 {
		g.fails(125, args("run", "--pull", "never", "nobody"), "No such image")
		eventually(t, patience, func() string {
			if _, err := os.Stat(filepath.Join(g.runRoot(), "tug.sock")); err == nil {
				return "the supervisor is still there"
			}
			return ""
		})
		// A supervisor that was begun finds out as well, in its time.
		eventually(t, patience, func() string {
			left, err := os.ReadDir(filepath.Join(g.root(), "tmp"))
			if err != nil || len(left) > 0 {
				return fmt.Sprintf("left in tmp: %v, %v", left, err)
			}
			return ""
		})
		_ = os.Remove(filepath.Join(g.runRoot(), "storage.json"))
	}
}

func TestCoreExitCodes(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	for _, c := range []struct {
		script string
		code   int
	}{
		{"exit 0", 0},
		{"exit 1", 1},
		{"exit 125", 125},
		{"exit 255", 255},
		{"kill -9 $$", 137},    // process 1 cannot kill itself from inside
		{"kill -TERM $$", 143}, // nor terminate
	} {
		if strings.HasPrefix(c.script, "kill") {
			// A child's end by a signal, as the shell reports it.
			c.script = "sh -c '" + c.script + "'; exit $?"
		}
		if r := g.do(nil, "run", "--rm", image, "sh", "-c", c.script); r.code != c.code {
			t.Errorf("%v\nwant exit code %d", r, c.code)
		}
	}
	g.fails(127, args("run", "--rm", image, "no-such-program"), "no-such-program")
	g.fails(127, args("run", "--rm", image, "/no/such/program"), "/no/such/program")
	g.fails(126, args("run", "--rm", image, "/etc"), "/etc")
	g.fails(126, args("run", "--rm", image, "/etc/motd"), "/etc/motd")
	g.fails(125, args("run", "--rm", "--pull", "never", "no-such-image"), "no-such-image")
	g.fails(125, args("run", "--no-such-flag", image), "no-such-flag")
	g.fails(125, args("run", "--rm", "-u", "nobody-here", image, "true"), "nobody-here")
	g.fails(125, args("run", "--rm", "-m", "nonsense", image, "true"), "nonsense")
	same(t, "containers left", g.ok("ps", "-aq"), "")
}

func TestCoreStdio(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	r := g.do(nil, "run", "--rm", image, "sh", "-c", "echo out; echo err >&2; exit 3")
	if r.stdout != "out\n" || r.stderr != "err\n" || r.code != 3 {
		t.Errorf("%v", r)
	}
	all := make([]byte, 256*40)
	for i := range all {
		all[i] = byte(i * 7)
	}
	r = g.do(strings.NewReader(string(all)), "run", "--rm", "-i", image, "cat")
	same(t, "bytes through cat", r.stdout, string(all))
	r = g.do(strings.NewReader("unseen"), "run", "--rm", image, "sh", "-c", "cat; echo end")
	same(t, "no -i: standard input is empty", r.stdout, "end\n")

	const lines = 20000
	r = g.do(nil, "run", "--rm", image, "seq", fmt.Sprint(lines))
	if n := strings.Count(r.stdout, "\n"); n != lines || !strings.HasSuffix(r.stdout, "\n20000\n") {
		t.Errorf("seq: %d lines, want %d", n, lines)
	}
	same(t, "hostname is the id", g.ok("run", "--rm", "--hostname", "box", image, "hostname"), "box")
}

func TestCoreTerminal(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	p := g.terminal(33, 101, "run", "--rm", "-it", "--name", "term", image, "sh")
	p.typed("stty size\n")
	p.shows("33 101")
	p.resize(44, 77)
	eventually(t, 20*time.Second, func() string {
		p.typed("stty size\n")
		time.Sleep(100 * time.Millisecond)
		if !strings.Contains(p.output(), "44 77") {
			return "the container's terminal kept its size: " + p.output()
		}
		return ""
	})
	p.typed("tty; test -t 0 && test -t 1 && test -t 2 && echo all-three\n")
	p.shows("\nall-three")
	p.typed("sleep 500\n")
	time.Sleep(200 * time.Millisecond)
	p.typed("\x03") // interrupts sleep, not the shell
	p.typed("echo after-$((40+2))\n")
	p.shows("after-42")
	p.typed("exit 5\n")
	if code := p.ends(); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	r := g.do(nil, "run", "--rm", "-t", image, "stty", "size")
	if r.code != 0 {
		t.Errorf("-t without a terminal: %v", r)
	}
}

func TestCoreDetachKeys(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	p := g.terminal(24, 80, "run", "-it", "--name", "term", image, "sh")
	p.typed("echo first-$((1+1))\n")
	p.shows("first-2")
	p.typed("\x10\x11") // ctrl-p ctrl-q
	if code := p.ends(); code != 0 {
		t.Errorf("detaching ended with exit code %d:\n%s", code, p.output())
	}
	if s := g.state("term"); s.State.Status != "running" {
		t.Fatalf("after detaching: %+v", s)
	}
	p = g.terminal(24, 80, "attach", "term")
	p.typed("echo again-$((1+2))\n")
	p.shows("again-3")
	p.typed("exit 6\n")
	if code := p.ends(); code != 6 {
		t.Errorf("exit code %d, want 6", code)
	}
}

func TestCoreLifecycle(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	id := g.ok("create", "--name", "life", "-i", image, "sh", "-c", "echo began; cat; exit 4")
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(id) {
		t.Fatalf("create printed %q", id)
	}
	same(t, "status", g.state("life").State.Status, "created")
	r := g.do(strings.NewReader("typed\n"), "start", "-ai", "life")
	if r.stdout != "began\ntyped\n" || r.code != 4 {
		t.Errorf("%v", r)
	}
	s := g.state("life")
	if s.State.Status != "exited" || s.State.ExitCode != 4 || s.Name != "/life" || s.ID != id {
		t.Errorf("after the end: %+v", s)
	}
	same(t, "wait after the end", g.ok("wait", "life"), "4")
	same(t, "logs", g.ok("logs", "life"), "began\ntyped")
	same(t, "ps", g.ok("ps", "-q"), "")
	same(t, "ps -a", g.ok("ps", "-a", "--format", "{{.Names}} {{.Image}}"), "life "+image)
	g.fails(125, args("run", "--name", "life", image, "true"), "life")
	g.fails(1, args("exec", "life", "true"), "not running")
	same(t, "rm", g.ok("rm", "life"), "life")
	g.fails(1, args("inspect", "life"), "life")
	g.fails(1, args("start", "life"), "life")

	id = g.ok("run", "-d", "--name", "up", image, "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")
	g.fails(1, args("rm", "up"), "up")
	same(t, "stop", g.ok("stop", "up"), "up")
	same(t, "exit code after stop", fmt.Sprint(g.state(id[:12]).State.ExitCode), "9")
	same(t, "start again", g.ok("start", "up"), "up")
	same(t, "kill", g.ok("kill", "up"), "up")
	same(t, "wait after kill", g.ok("wait", "up"), "137")
	g.fails(1, args("kill", "up"), "not running")
	g.ok("start", "up")
	same(t, "rm -f", g.ok("rm", "-f", "up"), "up")

	g.ok("run", "-d", "--name", "stubborn", image, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
	start := time.Now()
	g.ok("stop", "-t", "1", "stubborn")
	if d := time.Since(start); d < time.Second || d > 30*time.Second {
		t.Errorf("stop -t 1 took %v", d)
	}
	same(t, "exit code after stop of a stubborn one", fmt.Sprint(g.state("stubborn").State.ExitCode), "137")
}

func TestCoreRemovedWhenDone(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--rm", "--name", "short", image, "sleep", "0.2")
	eventually(t, 30*time.Second, func() string {
		left, _ := os.ReadDir(filepath.Join(g.root(), "containers"))
		if len(left) > 0 {
			return "a container of --rm is still there"
		}
		return ""
	})
}

func TestCoreLogs(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "--name", "talk", image, "sh", "-c", `for i in 1 2 3 4 5; do echo line $i; done; printf 'no newline'; echo problem >&2`)
	r := g.do(nil, "logs", "talk")
	same(t, "logs stdout", r.stdout, "line 1\nline 2\nline 3\nline 4\nline 5\nno newline")
	same(t, "logs stderr", r.stderr, "problem\n")
	r = g.do(nil, "logs", "--tail", "2", "talk")
	if got := strings.Count(r.stdout+r.stderr, "\n"); got < 1 || strings.Contains(r.stdout, "line 4") {
		t.Errorf("logs --tail 2: %v", r)
	}
	stamp := regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line 1$`)
	if out := g.ok("logs", "-t", "talk"); !stamp.MatchString(out) {
		t.Errorf("logs -t: %q", out)
	}
	same(t, "logs --since later", g.ok("logs", "--since", time.Now().Add(time.Hour).Format(time.RFC3339), "talk"), "")

	g.ok("run", "-d", "--name", "slow", image, "sh", "-c", "for i in 1 2 3 4; do echo tick $i; sleep 0.3; done")
	same(t, "logs -f until the end", g.ok("logs", "-f", "slow"), "tick 1\ntick 2\ntick 3\ntick 4")
	g.fails(1, args("logs", "nobody"), "nobody")
}

func TestCoreExec(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "host", "-e", "A=1", "-w", "/tmp", image, "sleep", "1000")
	same(t, "exec", g.ok("exec", "host", "sh", "-c", "echo $A $GREETING; pwd"), "1 hello\n/tmp")
	same(t, "exec -e -w -u", g.ok("exec", "-e", "B=2", "-w", "/etc", "-u", "alice", "host", "sh", "-c", "echo $B; pwd; id -un"), "2\n/etc\nalice")
	r := g.do(strings.NewReader("one\ntwo\n"), "exec", "-i", "host", "wc", "-l")
	same(t, "exec -i", strings.TrimSpace(r.stdout), "2")
	if r := g.do(nil, "exec", "host", "sh", "-c", "echo e >&2; exit 8"); r.code != 8 || r.stderr != "e\n" {
		t.Errorf("%v", r)
	}
	g.fails(127, args("exec", "host", "no-such-program"), "no-such-program")
	g.fails(126, args("exec", "host", "/etc"), "/etc")
	g.fails(1, args("exec", "nobody", "true"), "nobody")
	p := g.terminal(31, 91, "exec", "-it", "host", "sh", "-c", "stty size; exit 2")
	p.shows("31 91")
	if code := p.ends(); code != 2 {
		t.Errorf("exec -it: exit code %d, want 2", code)
	}
	g.ok("exec", "-d", "host", "sh", "-c", "echo made > /tmp/by-exec")
	eventually(t, 20*time.Second, func() string {
		if r := g.do(nil, "exec", "host", "cat", "/tmp/by-exec"); r.stdout != "made\n" {
			return "exec -d did nothing"
		}
		return ""
	})
	same(t, "exec sees the container's processes", g.ok("exec", "host", "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"), "sleep 1000 ")
}

func TestCoreConfig(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	run := func(a ...string) string { t.Helper(); return g.ok(append(args("run", "--rm"), a...)...) }
	same(t, "environment", run("-e", "X=y", "-e", "GREETING=bye", image, "sh", "-c", "echo $X $GREETING $HOME; echo $PATH"), "y bye /root\n/bin:/usr/bin")
	same(t, "working directory is made", run("-w", "/new/dir", image, "pwd"), "/new/dir")
	same(t, "entrypoint", run("--entrypoint", "echo", image, "a", "b"), "a b")
	same(t, "the second layer is on top", run(image, "cat", "/etc/motd"), "second layer")
	same(t, "whiteout", run(image, "sh", "-c", "test -e /etc/removed || echo gone"), "gone")
	same(t, "label", g.ok("inspect", "--format", "{{.Config.Labels.mine}} {{.Config.Labels.origin}}",
		g.ok("create", "-l", "mine=yes", image)), "yes fixture")

	for user, want := range map[string]string{
		"":             "uid=0(root) gid=0(root) groups=0(root)",
		"alice":        "uid=1000(alice) gid=1000(alice) groups=50(staff),1000(alice)",
		"1000":         "uid=1000(alice) gid=1000(alice) groups=50(staff),1000(alice)",
		"alice:daemon": "uid=1000(alice) gid=1(daemon)",
		"4242:17":      "uid=4242 gid=17",
		"4242":         "uid=4242 gid=0(root)",
	} {
		if got := run("-u", user, image, "id"); !strings.HasPrefix(got, want) {
			t.Errorf("id with -u %q: %q, want %q", user, got, want)
		}
	}
	same(t, "home of a user", run("-u", "alice", image, "sh", "-c", "echo $HOME"), "/home/alice")
}

func TestCoreStreams(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	// A reader that leaves: as `tug run ... | head -1`.
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := g.command(t.Context(), "run", "--rm", image, "yes")
	cmd.Stdout = pw
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	if _, err := io.ReadFull(pr, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	pr.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		t.Fatal("tug run yes | head does not end")
	}

	const size = 32 << 20
	r := g.do(io.LimitReader(zeros{}, size), "run", "--rm", "-i", image, "wc", "-c")
	same(t, "bytes through standard input", strings.TrimSpace(r.stdout), fmt.Sprint(size))
	r = g.do(nil, "run", "--rm", image, "head", "-c", fmt.Sprint(size), "/dev/zero")
	if len(r.stdout) != size {
		t.Errorf("%d bytes came out, want %d", len(r.stdout), size)
	}
}

// What the command is sent, the container gets.
func TestCoreSignals(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	for sig, name := range map[syscall.Signal]string{syscall.SIGTERM: "TERM", syscall.SIGINT: "INT", syscall.SIGUSR1: "USR1", syscall.SIGHUP: "HUP"} {
		cmd := g.command(t.Context(), "run", "--rm", image, "sh", "-c", fmt.Sprintf("trap 'echo got; exit 7' %s; echo ready; while :; do sleep 0.05; done", name))
		out := &firstByte{seen: make(chan struct{})}
		cmd.Stdout = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-out.seen:
			_ = cmd.Process.Signal(sig)
		case <-time.After(patience):
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
		if out.String() != "ready\ngot\n" || cmd.ProcessState.ExitCode() != 7 {
			t.Errorf("SIG%s: %q, exit code %d; want got, 7", name, out.String(), cmd.ProcessState.ExitCode())
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// run --timing tells the steps of a start in their order, and changes neither
// output nor exit code.
func TestCoreTiming(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	r := g.do(nil, "run", "--rm", "--timing", image, "sh", "-c", "echo out; sleep 0.2; exit 3")
	if r.code != 3 || r.stdout != "out\n" {
		t.Errorf("%v", r)
	}
	at := 0
	for _, step := range []string{"tug loaded", "command line read", "container made", "request with the supervisor", "root file system mounted", "parked process taken", "user and streams", "program executed", "the program itself", "cleaned up", "in all"} {
		i := strings.Index(r.stderr[at:], step)
		if i < 0 {
			t.Fatalf("%q is not told, or too early:\n%s", step, r.stderr)
		}
		at += i
	}
	var took float64
	for line := range strings.Lines(r.stderr) {
		if strings.HasSuffix(line, "the program itself\n") {
			fmt.Sscan(line, &took)
		}
	}
	if took < 190 {
		t.Errorf("the program took %v ms:\n%s", took, r.stderr)
	}
	if r := g.do(nil, "run", "-d", "--timing", image, "true"); r.code != 0 || !strings.Contains(r.stderr, "answered\n") {
		t.Errorf("%v", r)
	}
	if r := g.do(nil, "run", "--timing", "--pull", "never", "none:1"); r.code != 125 || strings.Contains(r.stderr, "in all") {
		t.Errorf("%v", r)
	}
}
