//go:build root

package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tug/test/fixture"
)

// newScratch is newTug with an image in which is one static program and nothing
// else, as scratch:test.
func newScratch(t *testing.T) *tug {
	t.Helper()
	g := newTug(t)
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	img := &fixture.Image{
		Name: "scratch:test", Layers: [][]byte{fixture.NewLayer().File("sleep", 0o755, string(program)).Bytes()},
		Config: map[string]any{"Cmd": []string{"/sleep", "100000"}, "Env": []string{"GREETING=hello"}},
	}
	file := filepath.Join(g.dir, "scratch.tar")
	if err := os.WriteFile(file, fixture.DockerArchive(img).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	g.ok("load", "-q", "-i", file)
	return g
}

func (g *tug) mountsOf(name string) string {
	g.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", g.state(name).State.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	return string(b)
}

// In an image without a shell debug has one, with programs of each class; what
// they do to files is the container's, and nothing else of them is.
func TestDebug(t *testing.T) {
	t.Parallel()
	g := newScratch(t)
	g.ok("run", "-d", "--name", "bare", "-m", "128m", "--hostname", "barehost", "--tmpfs", "/cache", "scratch:test")
	before := g.mountsOf("bare")
	for _, tt := range []struct{ command, out string }{
		{"ls /", "cache\ndev\netc\nproc\nsleep\nsys"},
		{"echo $GREETING; hostname; pwd; id -u", "hello\nbarehost\n/\n0"},
		{"ps -o pid,args | head -2 | tail -1 | tr -s ' ' | sed 's/^ //'", "1 /sleep 100000"},
		{"cat /proc/1/environ | tr '\\0' '\\n' | grep GREET", "GREETING=hello"},
		{"ls -l /proc/1/exe | grep -o '/sleep'; readlink /proc/1/root", "/sleep\n/"},
		{"mkdir -p /a/b && echo text > /a/b/f && sed -i s/t/T/ /a/b/f && cat /a/b/f", "Text"},
		{"cd /a && tar czf /t.tgz b && tar tzf /t.tgz | sort | tail -1 && sha256sum /a/b/f | cut -c1-8", "b/f\n" + fmt.Sprintf("%x", sha256.Sum256([]byte("Text\n")))[:8]},
		{"find / -xdev -name f; grep -rc Text /a; rm /t.tgz", "/a/b/f\n/a/b/f:1"},
		{"ip addr show lo | grep -o '127.0.0.1/8'", "127.0.0.1/8"},
		{"(httpd -p 127.0.0.1:8080 -h /a & ) ; sleep 0.5; wget -q -O - http://127.0.0.1:8080/b/f; kill $(pidof httpd)", "Text"},
		{"df / | wc -l; mount | grep -c overlay", "2\n1"},
		{"echo x > /cache/file; mknod 2>/dev/null; ls /cache", "file"},
		{"kill -0 1 && echo signalled", "signalled"},
		{"grep -c . /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | grep -c ':1'", "1"},
	} {
		same(t, tt.command, strings.TrimSpace(g.do(nil, "debug", "bare", "sh", "-c", tt.command).stdout), tt.out)
	}
	same(t, "from the input", g.do(strings.NewReader("x=1\nwhile [ $x -lt 3 ]; do echo $x; x=$((x+1)); done\n"), "debug", "bare").stdout, "1\n2\n")
	same(t, "its program", strings.TrimSpace(g.do(nil, "debug", "bare", "/sleep", "--help").stderr)[:7], "BusyBox")
	same(t, "environment", g.ok("debug", "-e", "A=b", "-w", "/a", "bare", "sh", "-c", "echo $A; pwd"), "b\n/a")
	same(t, "user", g.ok("debug", "-u", "1000:7", "bare", "id"), "uid=1000 gid=7 groups=7")
	if r := g.do(nil, "debug", "bare", "sh", "-c", "exit 7"); r.code != 7 {
		t.Error(r)
	}
	if r := g.do(nil, "debug", "bare", "nosuch"); r.code != 127 || !strings.Contains(r.stderr, "nosuch: not found") {
		t.Error(r)
	}
	same(t, "diff", g.ok("diff", "bare"), "A /a\nA /a/b\nA /a/b/f\nA /cache")
	same(t, "the container's mounts", g.mountsOf("bare"), before)
	if out := g.ok("top", "bare"); strings.Count(out, "\n") != 1 {
		t.Errorf("processes are left:\n%s", out)
	}
}

func TestDebugPlaces(t *testing.T) {
	t.Parallel()
	g := newScratch(t)
	g.ok("run", "-d", "--name", "fixed", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "scratch:test")
	same(t, "read-only", g.do(nil, "debug", "fixed", "sh", "-c", "ls / | head -1; touch /x; echo $?").stdout, "dev\n1\n")
	same(t, "diff", g.ok("diff", "fixed"), "")
	caps := func(name string) string {
		return strings.TrimSpace(g.do(nil, "debug", name, "sh", "-c", "grep CapEff /proc/self/status | cut -f2").stdout)
	}
	same(t, "capabilities", caps("fixed"), "0000000000080000") // CAP_SYS_PTRACE
	g.ok("run", "-d", "--name", "seer", "--pid", "host", "--cap-drop", "ALL", "scratch:test")
	same(t, "capabilities among the host's processes", caps("seer"), "0000000000000000")

	g.ok("create", "--name", "still", "scratch:test")
	g.fails(1, args("debug", "still", "ls"), "container still is not running", "start it")
	g.fails(1, args("debug", "nobody"), "neither a container nor an image nobody")
	g.fails(125, args("debug", "--nosuch", "fixed"), "unknown flag")
	g.ok("pause", "seer")
	g.fails(1, args("debug", "seer", "ls"), "is paused")
	g.ok("unpause", "seer")

	// An image: a container of its own, which leaves nothing.
	n := len(strings.Fields(g.ok("ps", "-aq")))
	same(t, "image", g.ok("debug", "scratch:test", "sh", "-c", "ls /; echo $GREETING; id -u; echo $$"), "dev\netc\nproc\nsleep\nsys\nhello\n0\n1")
	if r := g.do(nil, "debug", "scratch:test", "sh", "-c", "exit 5"); r.code != 5 {
		t.Error(r)
	}
	same(t, "containers left", strconv.Itoa(len(strings.Fields(g.ok("ps", "-aq")))), strconv.Itoa(n))

	// The image of the programs.
	same(t, "box", g.ok("run", "--rm", "tug.local/box", "sh", "-c", "ls /bin | grep -c .; cat /etc/os-release | head -1; ls -l /bin/ls | grep -o 'ls -> tug-box'"),
		strconv.Itoa(len(strings.Fields(g.ok("run", "--rm", "tug.local/box", "tug-box", "--list")))+1)+"\nNAME=\"tug box\"\nls -> tug-box")
	same(t, "box by a link", g.ok("run", "--rm", "tug.local/box", "/bin/basename", "/a/b"), "b")
}

// A container that does what it can to the program that debug runs in it gets
// nothing: it cannot write it, nor look into it.
func TestDebugHostile(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	box := filepath.Join(filepath.Dir(g.path), "tug-box")
	sum := func() string {
		b, err := os.ReadFile(box)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", sha256.Sum256(b))
	}
	before := sum()
	g.ok("run", "-d", "--name", "evil", image, "sh", "-c", `
		cp /bin/busybox /tmp/b; for n in ls ps sh id tug-box; do ln -sf /tmp/b /bin/$n; done
		while :; do for p in /proc/[0-9]*; do
			case "$p" in /proc/1|/proc/$$|/proc/self) continue;; esac
			case "$(/bin/busybox cat $p/comm)" in victim) ;; *) continue;; esac
			(echo x > $p/exe) && echo WRITTEN
			/bin/busybox cat $p/environ > /dev/null && echo ENVIRON
			/bin/busybox ls $p/fd/ > /dev/null && /bin/busybox ls -l $p/fd/ | /bin/busybox grep -q -- '->' && echo FDS
			/bin/busybox head -c 1 $p/mem > /dev/null && echo MEM
			echo TRIED
		done; done 2>/dev/null`)
	r := g.do(nil, "debug", "-e", "SECRET=1", "evil", "sh", "-c", "printf %s victim > /proc/$$/comm; ls / > /dev/null; sleep 2; ps | head -1; id")
	if !strings.HasPrefix(strings.TrimSpace(r.stdout), "PID USER") || !strings.Contains(r.stdout, "uid=0(root)") {
		t.Errorf("the container's files were run: %v", r)
	}
	out := g.ok("logs", "evil")
	if !strings.Contains(out, "TRIED") {
		t.Errorf("nothing was tried: %s", out)
	}
	for _, word := range []string{"WRITTEN", "ENVIRON", "FDS", "MEM"} {
		if strings.Contains(out, word) {
			t.Errorf("the container got at the process: %s", word)
		}
	}
	same(t, "tug-box", sum(), before)
	// What was tried does work on a process that is the container's own.
	g.ok("exec", "evil", "sh", "-c", "printf %s victim > /proc/$$/comm; sleep 2; true")
	if out := g.ok("logs", "evil"); !strings.Contains(out, "ENVIRON") || !strings.Contains(out, "FDS") {
		t.Errorf("the attack does not work where it should: %.300s", out)
	}
}

// A session on a terminal: line editing, Ctrl-C, the window's size, its end.
func TestDebugTerminal(t *testing.T) {
	t.Parallel()
	g := newScratch(t)
	g.ok("run", "-d", "--name", "bare", "--hostname", "barehost", "scratch:test")
	p := g.terminal(30, 100, "debug", "bare")
	p.shows("barehost:/# ")
	p.typed("echo on$((1+1))e\r")
	p.shows("on2e")
	p.typed("cd /pr\t\rpwd\r") // completed
	p.shows("barehost:/proc# ")
	p.typed("wrong\x15echo $COLUMNS; head -c 0 /dev/tty && echo tty-$?\r") // Ctrl-U
	p.shows("tty-0")
	p.typed("sleep 1000\r")
	eventually(t, patience, func() string {
		if !strings.Contains(g.ok("top", "bare"), "sleep 1000\n") && !strings.HasSuffix(g.ok("top", "bare"), "sleep 1000") {
			return g.ok("top", "bare")
		}
		return ""
	})
	p.typed("\x03")
	p.typed("echo code-$?\r")
	p.shows("code-130")
	p.typed("while true; do :; done\r")
	time.Sleep(300 * time.Millisecond)
	p.typed("\x03echo still-$((2+3))\r")
	p.shows("still-5")
	p.resize(40, 120)
	p.typed("\x1b[A\x1b[D\x1b[D\x1b[D\x1b[D\x7f7\r") // the line before, changed
	p.typed("for i in a b; do\recho $i$i\rdone\r")
	p.shows("bb")
	p.typed("exit 4\r")
	if err := <-p.done; p.cmd.ProcessState.ExitCode() != 4 {
		t.Errorf("%v: %s", err, p.output())
	}
}

// Whoever kills the command, or the supervisor under it, leaves no process of
// the session behind; that one ends also when its supervisor has changed.
func TestDebugKilled(t *testing.T) {
	t.Parallel()
	g := newScratch(t)
	g.ok("run", "-d", "--name", "bare", "scratch:test")
	alone := func(what string) {
		t.Helper()
		eventually(t, patience, func() string {
			if out := g.ok("top", "bare"); strings.Count(out, "\n") > 1 {
				return what + " left\n" + out
			}
			return ""
		})
	}
	started := func(p *terminal) {
		t.Helper()
		p.shows("# ")
		p.typed("sleep 1234 & sleep 1235\r")
		eventually(t, patience, func() string {
			if out := g.ok("top", "bare"); !strings.Contains(out, "sleep 1234") || !strings.Contains(out, "sleep 1235") {
				return out
			}
			return ""
		})
	}
	p := g.terminal(30, 100, "debug", "bare")
	started(p)
	_ = p.cmd.Process.Kill()
	alone("kill -9 on a terminal")

	ctx, cancel := context.WithCancel(context.Background())
	cmd := g.command(ctx, "debug", "bare", "sh", "-c", "sleep 1236")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, func() string {
		if out := g.ok("top", "bare"); !strings.Contains(out, "sleep 1236") {
			return out
		}
		return ""
	})
	cancel() // SIGKILL
	_ = cmd.Wait()
	alone("kill -9 of a command")

	p = g.terminal(30, 100, "debug", "bare")
	started(p)
	_, supervisor := g.resident()
	_ = syscall.Kill(supervisor, syscall.SIGKILL)
	eventually(t, patience, func() string {
		if _, now := g.resident(); now == 0 || now == supervisor {
			return "no new supervisor"
		}
		return ""
	})
	p.typed("\x03echo after-$((1+1))\r")
	p.shows("after-2")
	_ = p.cmd.Process.Kill()
	alone("kill -9 after a new supervisor")

	// An image's container goes as well.
	p = g.terminal(30, 100, "debug", "scratch:test")
	p.shows("# ")
	if n := len(strings.Fields(g.ok("ps", "-q"))); n != 2 {
		t.Errorf("%d containers", n)
	}
	_ = p.cmd.Process.Kill()
	eventually(t, patience, func() string {
		if out := g.ok("ps", "-aq"); len(strings.Fields(out)) != 1 {
			return "a container is left: " + out
		}
		return ""
	})
}
