//go:build root

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestTop(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "box", image, "sh", "-c", "sleep 1001 & exec sleep 1002")
	g.ok("create", "--name", "new", image, "true")
	g.ok("exec", "-d", "box", "sleep", "1003")
	var lines []string
	eventually(t, patience, func() string {
		lines = strings.Split(g.ok("top", "box"), "\n")
		if len(lines) != 4 {
			return strings.Join(lines, "\n")
		}
		return ""
	})
	same(t, "titles", strings.Join(strings.Fields(lines[0]), " "), "UID PID PPID C STIME TTY TIME CMD")
	pid := strconv.Itoa(g.state("box").State.Pid)
	found := false
	for _, l := range lines[1:] {
		f := strings.Fields(l)
		found = found || f[1] == pid && f[0] == "root" && strings.HasSuffix(l, "sleep 1002")
	}
	if !found {
		t.Errorf("process %s is not in %q", pid, lines)
	}
	g.fails(1, args("top", "new"), "is not running")
	g.fails(1, args("top", "nobody"), "No such container: nobody")
	g.fails(1, args("top", "box", "-o", "cmd=PID"), `specifying "cmd=PID" is not allowed`)
	if _, err := exec.LookPath("ps"); err != nil {
		g.fails(1, args("top", "box", "-o", "pid"), "there is no ps on this host")
		return
	}
	out := strings.Split(g.ok("top", "box", "-eo", "pid,args"), "\n")
	if len(out) != 4 || strings.Join(strings.Fields(out[0]), " ") != "PID COMMAND" {
		t.Errorf("top -eo: %q", out)
	}
	if out := strings.Split(g.ok("container", "top", "box", "aux"), "\n"); len(out) != 4 || !strings.HasPrefix(out[0], "USER ") {
		t.Errorf("top aux: %q", out)
	}
	g.fails(1, args("top", "box", "-eo", "args"), "Couldn't find PID field in ps output")
	g.fails(1, args("top", "box", "--nope"), "ps: ")
}

func TestPort(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("create", "--name", "box", image, "true")
	same(t, "port", g.ok("port", "box"), "")
	g.fails(1, args("port", "box", "80"), "no public port '80/tcp' published for box")
	g.fails(1, args("container", "port", "box", "x"), "invalid port 'x'")
	g.fails(1, args("port", "nobody"), "No such container: nobody")
}

func TestCoreDiff(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	diff := func(name string) string { return strings.ReplaceAll(g.ok("diff", name), "\n", ";") }
	g.ok("create", "--name", "box", image, "sh", "-c", "touch -r /etc/passwd /x1; mkdir /etc/d; echo >> /etc/passwd; chmod 600 /etc/group;"+
		"rm /bin/ls; rm -r /root; mkdir /root; touch /root/n; mkdir -p /deep/er; ln -s x /deep/l; mkfifo /tmp/p; rm -rf /home; echo >/home; sleep 1000")
	same(t, "before", diff("box"), "")
	g.ok("start", "box")
	const want = "C /bin;D /bin/ls;A /deep;A /deep/er;A /deep/l;C /etc;A /etc/d;C /etc/group;C /etc/passwd;C /home;C /root;A /root/n;C /tmp;A /tmp/p;A /x1"
	eventually(t, patience, func() string {
		if got := diff("box"); got != want {
			return got + "\n" + want
		}
		return ""
	})
	g.ok("kill", "box")
	g.ok("wait", "box")
	same(t, "stopped", diff("box"), want)
	g.ok("run", "--name", "none", image, "sh", "-c", "touch /tmp/x; rm /tmp/x; touch -d @1 /tmp; ls / >/dev/null")
	same(t, "only a time", diff("none"), "C /tmp")
	// Names are the container's: they do nothing to a terminal.
	g.ok("run", "--name", "evil", image, "sh", "-c", "set -e; touch \"/tmp/$(printf 'a\\033[2J\\nD etc')\" /tmp/b; mkdir /tmp/\"$(printf 'D x')\"")
	for _, l := range strings.Split(g.ok("diff", "evil"), "\n") {
		if strings.ContainsAny(l, "\x1b") || l == "D etc" {
			t.Errorf("%q", l)
		}
	}
	g.fails(1, args("diff", "nobody"), "No such container: nobody")
}

func TestCoreStats(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "busy", "-m", "64m", image, "sh", "-c", "while :; do :; done")
	g.ok("run", "-d", "--name", "idle", image, "sleep", "1000")
	g.ok("create", "--name", "new", image, "true")
	type row struct{ Name, Container, ID, CPUPerc, MemUsage, MemPerc, NetIO, BlockIO, PIDs string }
	read := func(argv ...string) map[string]row {
		t.Helper()
		rows := map[string]row{}
		for _, l := range strings.Split(g.ok(append([]string{"stats", "--no-stream", "--format", "json"}, argv...)...), "\n") {
			var r row
			if err := json.Unmarshal([]byte(l), &r); err != nil {
				t.Fatalf("%q: %v", l, err)
			}
			rows[r.Name] = r
		}
		return rows
	}
	rows := read()
	cpu, err := strconv.ParseFloat(strings.TrimSuffix(rows["busy"].CPUPerc, "%"), 64)
	if err != nil || cpu < 5 || cpu > 130 {
		t.Errorf("busy: %+v", rows["busy"])
	}
	if r := rows["busy"]; !strings.HasSuffix(r.MemUsage, " / 64MiB") || strings.HasPrefix(r.MemUsage, "0B") || r.PIDs != "1" || r.NetIO != "0B / 0B" {
		t.Errorf("busy: %+v", r)
	}
	if r := rows["idle"]; len(rows) != 2 || r.PIDs != "1" || len(r.ID) != 12 || r.MemUsage == rows["busy"].MemUsage {
		t.Errorf("idle: %+v", r)
	}
	if r := read("-a", "--no-trunc")["new"]; r.CPUPerc != "0.00%" || r.MemUsage != "0B / 0B" || r.PIDs != "0" || len(r.ID) != 64 {
		t.Errorf("new: %+v", r)
	}
	if rows := read("idle"); len(rows) != 1 || rows["idle"].Container != "idle" {
		t.Errorf("idle alone: %+v", rows)
	}
	g.ok("pause", "busy")
	if r := read("busy")["busy"]; r.CPUPerc != "0.00%" {
		t.Errorf("paused: %+v", r)
	}
	g.fails(1, args("stats", "nobody"), "No such container: nobody")
	g.fails(1, args("stats", "--format", "{{.Nope"), "template parsing error")
	// It goes on until those that were named are removed.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out bytes.Buffer
	cmd := g.command(ctx, "stats", "busy")
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond)
	g.ok("rm", "-f", "busy")
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) || ctx.Err() != nil {
		t.Errorf("stats: %v", err)
	}
	if n := strings.Count(out.String(), "CONTAINER ID"); n < 2 || strings.Contains(out.String(), "\x1b") {
		t.Errorf("%d tables: %q", n, out.String())
	}
}
