//go:build root

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// One line of standard error says which flag is wrong and where to look.
func TestCLIUsage(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	for line, want := range map[string]struct {
		code   int
		stderr string
	}{
		"--nope":             {125, "tug: unknown flag: --nope; see 'tug --help'"},
		"nope":               {1, "tug: unknown command: tug nope; see 'tug --help'"},
		"container nope":     {1, "tug: unknown command: tug container nope; see 'tug container --help'"},
		"help nope":          {1, "tug: unknown help topic: nope"},
		"compose up":         {1, "tug: compose is not there yet"},
		"manifest create x":  {1, "tug: manifest create is not there yet"},
		"-H tcp://x ps":      {125, "tug: --host is not there yet"},
		"run":                {1, "tug: 'tug run' requires at least 1 argument; see 'tug run --help'"},
		"run --nope x":       {125, "tug: unknown flag: --nope; see 'tug run --help'"},
		"create --nope x":    {125, "tug: unknown flag: --nope; see 'tug create --help'"},
		"run --name":         {125, "tug: flag needs an argument: --name; see 'tug run --help'"},
		"run -m x y":         {125, `tug: invalid argument "x" for "-m, --memory" flag: invalid size: 'x'; see 'tug run --help'`},
		"run -m 5m x":        {125, "tug: Minimum memory limit allowed is 6MB"},
		"run -p 80:80 x":     {125, "tug: run --publish is not there yet"},
		"create --gpus 1 x":  {125, "tug: create --gpus is not there yet"},
		"run --pull nope x":  {125, `tug: invalid pull option: 'nope': must be one of "always", "missing" or "never"`},
		"run -it x":          {1, "tug: the input device is not a TTY"},
		"run -d -a stdout x": {1, "tug: conflicting options: cannot specify both --attach and --detach"},
		"ps x":               {1, "tug: 'tug ps' accepts no arguments; see 'tug ps --help'"},
		"stop":               {1, "tug: 'tug stop' requires at least 1 argument; see 'tug stop --help'"},
		"tag x":              {1, "tug: 'tug tag' requires 2 arguments; see 'tug tag --help'"},
		"stop -t x y":        {125, `tug: invalid argument "x" for "-t, --timeout" flag: strconv.ParseInt: parsing "x": invalid syntax; see 'tug stop --help'`},
		"kill -s NOPE y":     {1, "tug: invalid signal: NOPE; kill -l lists the names"},
		"load -i /nope":      {1, "tug: open /nope: no such file or directory"},
	} {
		r := g.do(nil, strings.Fields(line)...)
		if r.code != want.code || r.stderr != want.stderr+"\n" || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" {
			t.Errorf("%v\nwant exit code %d and %q", r, want.code, want.stderr)
		}
	}
	for _, line := range []string{"", "help", "--help", "help run", "run --help", "ps -h", "image", "image --help", "help completion", "completion bash"} {
		if r := g.do(nil, strings.Fields(line)...); r.code != 0 || r.stderr != "" || len(r.stdout) < 300 {
			t.Errorf("%v", r)
		}
	}
	if out := g.ok("__complete", "ru"); !strings.HasPrefix(out, "run\t") {
		t.Errorf("completion of ru: %q", out)
	}
}

// Commands over several containers do what they can, say what they cannot, and
// end with 1.
func TestCLISeveral(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	up := func(names ...string) {
		t.Helper()
		for _, n := range names {
			g.ok("run", "-d", "--name", n, "--init", image, "sleep", "1000")
		}
	}
	partly := func(command, stdout string, stderr ...string) {
		t.Helper()
		r := g.do(nil, strings.Fields(command)...)
		if r.code != 1 || r.stdout != stdout || r.stderr != strings.Join(stderr, "\n")+"\n" {
			t.Errorf("%v\nwant 1, %q, %q", r, stdout, stderr)
		}
	}
	up("c1", "c2")
	id := g.ok("create", "--name", "new", image, "sh", "-c", "exit 4")
	partly("kill c1 nobody new", "c1\n", "tug: No such container: nobody",
		"tug: cannot kill container new: container "+id+" is not running")
	partly("stop -t 30 nobody c1 c2 new", "c1\nc2\nnew\n", "tug: No such container: nobody")
	partly("start nobody c1 new", "c1\nnew\n", "tug: No such container: nobody", "tug: failed to start containers: nobody")
	same(t, "wait", g.ok("wait", "new", "c2"), "4\n143")
	partly("wait nobody c2", "143\n", "tug: No such container: nobody")
	partly("rm c1 nobody c2", "c2\n",
		`tug: cannot remove container "/c1": container is running; stop the container before removing it, or force with -f`,
		"tug: No such container: nobody")
	if r := g.do(nil, "rm", "-f", "nobody", "c1"); r.code != 0 || r.stdout != "c1\n" || r.stderr != "tug: No such container: nobody\n" {
		t.Errorf("rm -f: %v", r)
	}
	g.fails(1, args("start", "-a", "new", "c2"), "cannot start and attach multiple containers at once")
	g.fails(1, args("attach", "new"), "cannot attach to a stopped container")
	g.fails(1, args("attach", "nobody"), "No such container: nobody")
	if r := g.do(nil, "container", "start", "-a", "new"); r.code != 4 {
		t.Errorf("start -a: %v", r)
	}
	same(t, "container restart", g.ok("container", "restart", "-t", "0", "new"), "new")
	same(t, "container rm by a part of the id", g.ok("container", "rm", "-f", id[:10]), id[:10])
	same(t, "all gone", g.ok("container", "ls", "-aq"), "")
}

func TestCLISignals(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	const script = "trap 'echo hup' HUP; trap 'echo usr; exit 5' USR1; echo ready; while :; do sleep 0.05; done"
	g.ok("run", "-d", "--name", "box", image, "sh", "-c", script)
	says := func(word string) {
		t.Helper()
		eventually(t, patience, func() string {
			if out := g.ok("logs", "box"); !strings.Contains(out, word) {
				return "the log has no " + word + ": " + out
			}
			return ""
		})
	}
	says("ready")
	for _, name := range []string{"HUP", "SIGHUP", "sighup", "1"} {
		g.ok("kill", "-s", name, "box")
	}
	says("hup")
	same(t, "stop -s", g.ok("stop", "-s", "USR1", "box"), "box")
	same(t, "its exit code", g.ok("wait", "box"), "5")
	same(t, "its last words", g.ok("logs", "-n", "1", "box"), "usr")

	// A stop signal of the container's own, and its own timeout.
	g.ok("run", "-d", "--name", "own", "--stop-signal", "USR1", image, "sh", "-c", script)
	eventually(t, patience, func() string {
		if g.ok("logs", "own") != "ready" {
			return "not ready"
		}
		return ""
	})
	g.ok("stop", "own")
	same(t, "its exit code", g.ok("wait", "own"), "5")
	g.ok("run", "-d", "--name", "stubborn", "--stop-timeout", "0", image, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
	start := time.Now()
	g.ok("stop", "stubborn")
	if d := time.Since(start); d > 8*time.Second {
		t.Errorf("stop with --stop-timeout 0 took %v", d)
	}
}

func TestCLIRunFlags(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	run := func(a ...string) string { t.Helper(); return g.ok(append(args("run", "--rm"), a...)...) }
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	env, labels := file("env", "# none\nA=1\nB=from file\n"), file("labels", "x=1\ny\n")
	same(t, "--env-file", run("--env-file", env, "-e", "B=flag", image, "sh", "-c", "echo $A $B"), "1 flag")
	id := g.ok("create", "--label-file", labels, "-l", "y=2", image)
	same(t, "--label-file", g.ok("inspect", "-f", "{{.Config.Labels.x}} {{.Config.Labels.y}}", id), "1 2")
	cmd := g.command(t.Context(), "run", "--rm", "-e", "FROM_HERE", "-e", "NOT_HERE", "-e", "GREETING", image, "sh", "-c", "echo $FROM_HERE ${NOT_HERE-unset} ${GREETING-unset}")
	cmd.Env = append(cmd.Env, "FROM_HERE=yes")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	same(t, "-e NAME", string(out), "yes unset unset\n")
	cid := filepath.Join(dir, "cid")
	id = g.ok("run", "-d", "--cidfile", cid, image, "true")
	b, err := os.ReadFile(cid)
	if err != nil || string(b) != id {
		t.Errorf("--cidfile: %q %v, want %s", b, err, id)
	}
	g.fails(125, args("run", "--cidfile", cid, image, "true"), "container ID file found", cid)
	g.fails(125, args("run", "--cidfile", cid+"2", "--pull", "never", "nope"), "nope")
	if _, err := os.Stat(cid + "2"); err == nil {
		t.Error("a failed run left its --cidfile")
	}
	same(t, "--ulimit", run("--ulimit", "nofile=100:200", image, "sh", "-c", "ulimit -n; ulimit -Hn"), "100\n200")
	out2 := run("--tmpfs", "/x:size=1m,mode=1777", image, "sh", "-c", "stat -c %a /x; grep ' /x ' /proc/mounts")
	if !strings.HasPrefix(out2, "1777\ntmpfs /x tmpfs ") || !strings.Contains(out2, "size=1024k") {
		t.Errorf("--tmpfs: %q", out2)
	}
	r := g.do(strings.NewReader("in\n"), "run", "--rm", "-i", "-a", "stdin", "-a", "stderr", image, "sh", "-c", "cat >&2; echo hidden")
	if r.stderr != "in\n" || strings.Contains(r.stdout, "hidden") {
		t.Errorf("-a stdin -a stderr: %v", r)
	}
	same(t, "--entrypoint without a program", run("--entrypoint", "", image, "echo", "hi"), "hi")
	for line, word := range map[string]string{
		"--tmpfs x": "absolute", "--tmpfs /x:nope=1": "nope=1", "-w relative": "absolute", "--cap-add NOPE": "NOPE",
		"--security-opt nope": "nope", "--security-opt seccomp=/nope": "/nope", "--network bridge": "none and host",
		"--cpus 1000": "CPUs", "--cpus 0.001": "CPUs", "-e =x": "=x", "-l =x": "=x", "--env-file /nope": "/nope",
		"--ulimit nope=1": "nope", "--ulimit nofile=2:1": "2 > 1", "--stop-signal NOPE": "NOPE", "--platform a/b/c/d": "a/b/c/d",
		"--platform linux/arm64 --pull never": "linux/arm64", "--name a": "name", "--detach-keys nope": "nope",
		"-h " + strings.Repeat("h", 65): "hostname",
	} {
		g.fails(125, append(append(args("run", "--rm"), strings.Fields(line)...), image, "true"), word)
	}
}

func TestCLIExec(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	id := g.ok("run", "-d", "--name", "box", image, "sleep", "1000")
	g.fails(126, args("exec", "-u", "nobody-here", "box", "true"), "unable to find user nobody-here")
	g.fails(126, args("exec", "-w", "relative", "box", "true"), "absolute")
	g.fails(1, args("exec", "box"), "at least 2 arguments")
	g.fails(1, args("exec", "-it", "box", "sh"), "the input device is not a TTY")
	g.fails(1, args("exec", "--env-file", "/nope", "box", "true"), "/nope")
	same(t, "-t without -i needs no terminal", strings.TrimSpace(g.ok("exec", "-t", "box", "tty")), "/dev/pts/0")
	if r := g.do(nil, "exec", "box", "sh", "-c", "kill -9 $$"); r.code != 137 {
		t.Errorf("killed: %v", r)
	}
	g.ok("kill", "box")
	g.fails(1, args("exec", "box", "true"), "container "+id+" is not running")
}

// Signals reach the container, unless --sig-proxy=false: then they end tug.
func TestCLISigProxy(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "box", image, "sh", "-c", "trap 'echo got; exit 7' TERM; while :; do echo on; sleep 0.05; done")
	attach := func(flags ...string) (code int, signaled bool) {
		t.Helper()
		cmd := g.command(t.Context(), append(append(args("attach"), flags...), "box")...)
		out := &firstByte{seen: make(chan struct{})}
		cmd.Stdout = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-out.seen:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			t.Fatal("attach shows nothing")
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		return cmd.ProcessState.ExitCode(), ws.Signaled()
	}
	if _, signaled := attach("--sig-proxy=false"); !signaled {
		t.Error("with --sig-proxy=false the signal did not end tug")
	}
	same(t, "and the container", g.state("box").State.Status, "running")
	if code, _ := attach(); code != 7 {
		t.Errorf("attach ended with %d, want the container's 7", code)
	}
}

func TestCLIDetach(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	p := g.terminal(24, 80, "run", "-it", "--name", "box", "--detach-keys", "ctrl-a,x", image, "sh")
	p.typed("echo first-$((1+1))\n")
	p.shows("first-2")
	p.typed("\x10\x11") // not the keys asked for: they go to the shell
	p.typed("\x01x")
	if code := p.ends(); code != 0 {
		t.Errorf("detaching ended with %d: %q", code, p.output())
	}
	p.shows("read escape sequence")
	for _, command := range []string{"attach", "start -ai"} {
		p = g.terminal(24, 80, append(strings.Fields(command), "--detach-keys", "ctrl-b", "box")...)
		p.typed("\x15echo in-" + command[:5] + "-$((1+2))\n")
		p.shows("in-" + command[:5] + "-3")
		p.typed("\x02")
		if code := p.ends(); code != 0 {
			t.Errorf("%s: detaching ended with %d: %q", command, code, p.output())
		}
		p.shows("read escape sequence")
	}
	p = g.terminal(24, 80, "exec", "-it", "box", "sh")
	p.typed("echo by-exec-$((1+3))\n")
	p.shows("by-exec-4")
	p.typed("\x10\x11")
	if code := p.ends(); code != 0 {
		t.Errorf("exec: detaching ended with %d: %q", code, p.output())
	}
	same(t, "the container", g.state("box").State.Status, "running")
}
