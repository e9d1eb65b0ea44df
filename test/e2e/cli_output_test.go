//go:build root

package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// masked replaces what differs from run to run, keeping its width.
func masked(s string) string {
	s = regexp.MustCompile(`\b[0-9a-f]{12}\b`).ReplaceAllString(s, "<id 12 long>")
	s = regexp.MustCompile(`Less than a second|About a minute|\d+ seconds?|\d+ minutes`).ReplaceAllString(s, "<time>")
	return regexp.MustCompile(` +`).ReplaceAllString(s, " ")
}

func TestCLITables(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.do(nil, "run", "--name", "failed", image, "sh", "-c", "echo 12345 > /file; exit 3")
	g.ok("create", "--name", "fresh", "-l", "role=new", image)
	g.ok("run", "-d", "--name", "up", "-l", "role=old", image, "sleep", "1000")
	same(t, "ps", masked(g.ok("ps")),
		"CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES\n"+
			`<id 12 long> busybox:test "sleep 1000" <time> ago Up <time> up`)
	same(t, "ps -as", masked(g.ok("ps", "-as")),
		"CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES SIZE\n"+
			`<id 12 long> busybox:test "sleep 1000" <time> ago Up <time> up 0B (virtual 1.98MB)`+"\n"+
			`<id 12 long> busybox:test "sh" <time> ago Created fresh 0B (virtual 1.98MB)`+"\n"+
			`<id 12 long> busybox:test "sh -c 'echo 12345 >…" <time> ago Exited (3) <time> ago failed 6B (virtual 1.98MB)`)
	names := func(a ...string) string {
		t.Helper()
		return strings.ReplaceAll(g.ok(append(args("ps", "--format", "{{.Names}}"), a...)...), "\n", " ")
	}
	id := g.state("up").ID
	for flags, want := range map[string]string{
		"": "up", "-a": "up fresh failed", "-l": "up", "-n 2": "up fresh", "-n 9": "up fresh failed",
		"-a -f name=f": "fresh failed", "-a -f name=^up$": "up", "-a -f name=/fail": "failed",
		"-f id=" + id[:6]: "up", "-a -f id=zz": "",
		"-a -f label=role": "up fresh", "-a -f label=role=new": "fresh", "-a -f label=role=new -f label=other": "", "-f label=role=new": "",
		"-f status=exited": "failed", "-f status=created -f status=exited": "fresh failed", "-f status=paused": "",
		"-a -f exited=3": "failed", "-a -f exited=0": "", "-f exited=3": "",
		"-a -f ancestor=busybox:test": "up fresh failed", "-a -f ancestor=nope": "",
		"-a -f before=fresh": "failed", "-a -f since=fresh": "up", "-a -f before=up -f since=failed": "fresh",
		"-a -f network=none": "up fresh failed", "-a -f network=host": "", "-a -f is-task=false": "up fresh failed", "-a -f is-task=true": "",
		"-n 1 -f status=exited": "failed",
	} {
		same(t, "ps "+flags, names(strings.Fields(flags)...), want)
	}
	g.fails(1, args("ps", "-f", "status=nope"), "status=nope")
	g.fails(1, args("ps", "-f", "nope=1"), "nope")
	g.fails(1, args("ps", "-f", "publish=80"), "publish", "not there yet")
	g.fails(1, args("ps", "-f", "before=nobody"), "nobody")
	g.fails(125, args("ps", "-f", "nope"), "nope")
	g.fails(1, args("ps", "--format", "{{.Nope}}"), "Nope")

	var row struct{ ID, Names, Image, State, Status, Labels, Size, Networks, Command string }
	if err := json.Unmarshal([]byte(g.ok("ps", "--format", "json", "-f", "name=up", "--no-trunc")), &row); err != nil {
		t.Fatal(err)
	}
	if row.ID != id || row.Names != "up" || row.Image != image || row.State != "running" || row.Labels != "origin=fixture,role=old" ||
		row.Size != "0B" || row.Networks != "none" || row.Command != `"sleep 1000"` {
		t.Errorf("ps --format json: %+v", row)
	}
	for _, as := range []string{"ps", "container ls", "container list", "container ps"} {
		same(t, as+" -q", g.ok(append(strings.Fields(as), "-q", "--no-trunc")...), id)
	}
	same(t, "a table template", g.ok("ps", "--format", `table {{.Names}}\t{{.Label "role"}}`), "NAMES     role\nup        old")
}

func TestCLIImages(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("load", "-qi", coreFile(t, "zoo.tar"))
	g.ok("tag", image, "localhost:5000/team/app:v1")
	g.ok("image", "tag", image, "other")
	names := func(a ...string) string {
		t.Helper()
		out := g.ok(append(args("images", "--format", "{{.Repository}}:{{.Tag}}"), a...)...)
		return strings.ReplaceAll(out, "\n", " ")
	}
	for flags, want := range map[string]string{
		"busybox": "busybox:test", "busybox:test": "busybox:test", "busybox:nope": "", "oth*": "other:latest",
		"localhost:5000/team/app": "localhost:5000/team/app:v1", "-f reference=*/team/app": "localhost:5000/team/app:v1",
		"-f reference=zoo": "zoo:test", "-f reference=zoo -f reference=other": "other:latest zoo:test",
		"-f dangling=true": "", "-f label=origin=nope": "",
	} {
		got := strings.Fields(names(strings.Fields(flags)...))
		if len(got) > 1 && got[0] > got[1] {
			got[0], got[1] = got[1], got[0]
		}
		same(t, "images "+flags, strings.Join(got, " "), want)
	}
	if n := len(strings.Fields(g.ok("images", "-q"))); n != 4 {
		t.Errorf("images -q has %d lines, want one per name, 4", n)
	}
	for _, as := range []string{"image ls", "image list"} {
		same(t, as, g.ok(append(strings.Fields(as), "-q", "zoo")...), g.ok("images", "-q", "zoo"))
	}
	g.fails(1, args("images", "-f", "nope=1"), "nope")
	g.fails(1, args("images", "-f", "dangling=x"), "dangling=x")
	g.fails(1, args("images", "a", "b"), "at most 1 argument")
	g.fails(1, args("tag", "nope", "x"), "nope")
	g.fails(1, args("tag", image, "UPPER"), "UPPER")

	r := g.do(nil, "rmi", "nope", "other", "nope:2")
	if r.code != 1 || r.stdout != "Untagged: other:latest\n" || strings.Count(r.stderr, "\n") != 2 {
		t.Errorf("rmi with two that are not there: %v", r)
	}
	if r := g.do(nil, "image", "rm", "-f", "nope"); r.code != 0 {
		t.Errorf("rmi -f of one that is not there: %v", r)
	}
	id := g.ok("images", "-q", "busybox")
	g.fails(1, args("rmi", id), "multiple repositories")
	g.ok("create", "--name", "user", image)
	g.ok("rmi", "localhost:5000/team/app:v1")
	g.fails(1, args("rmi", image), "container")
}

func TestCLIInspect(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	id := g.ok("create", "--name", "box", "-m", "64m", "--cpus", "0.5", "--ulimit", "nofile=100:200", "--tmpfs", "/x:size=1m",
		"--read-only", "--init", "--cap-add", "NET_ADMIN", "--hostname", "here", "-l", "a=b", "-it", "-u", "alice", "-w", "/tmp", image, "echo", "hi")
	for template, want := range map[string]string{
		"{{.Id}}": id, "{{.ID}}": id, "{{.Name}}": "/box", "{{.Path}} {{.Args}}": "echo [hi]",
		"{{.State.Status}} {{.State.Running}} {{.State.ExitCode}} {{.State.StartedAt}}": "created false 0 0001-01-01T00:00:00Z",
		"{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}":     "67108864 500000000 <no value>",
		"{{json .HostConfig.Ulimits}}":       `[{"Name":"nofile","Soft":100,"Hard":200}]`,
		"{{json .HostConfig.Tmpfs}}":         `{"/x":"size=1m"}`,
		"{{json .HostConfig.CapAdd}}":        `["NET_ADMIN"]`,
		"{{json .HostConfig.RestartPolicy}}": `{"Name":"no","MaximumRetryCount":0}`,
		"{{.HostConfig.NetworkMode}}":        "none",
		"{{.Config.Hostname}} {{.Config.User}} {{.Config.WorkingDir}} {{.Config.Tty}} {{.Config.OpenStdin}}": "here alice /tmp true true",
		`{{index .Config.Labels "a"}} {{len .Mounts}} {{join .Config.Cmd "+"}}`:                              "b 0 echo+hi",
		"{{range .Config.Env}}{{println .}}{{end}}":                                                          "PATH=/bin:/usr/bin\nGREETING=hello\n",
	} {
		same(t, template, g.ok("inspect", "-f", template, "box"), want)
	}
	same(t, "container inspect", g.ok("container", "inspect", "-f", "{{.Id}}", id[:12]), id)
	same(t, "two", g.ok("inspect", "-f", "{{.Id}}", "box", image), id+"\n"+g.ok("images", "-q", "--no-trunc"))
	same(t, "-s", g.ok("inspect", "-s", "-f", "{{.SizeRw}}", "box"), "0")
	r := g.do(nil, "inspect", "nobody", "box")
	if r.code != 1 || !strings.Contains(r.stdout, id) || !strings.Contains(r.stderr, "nobody") {
		t.Errorf("inspect of one that is not there: %v", r)
	}
	r = g.fails(1, args("inspect", "--type", "image", "box"), "box")
	same(t, "nothing found", r.stdout, "[]\n")
	g.fails(1, args("inspect", "--type", "container", image), image)
	g.fails(1, args("inspect", "--type", "volume", "box"), "no such volume")
	g.fails(1, args("inspect", "--type", "nope", "box"), "nope")
	g.fails(1, args("inspect", "-f", "{{.Nope}}", "box"), "Nope")
	g.fails(1, args("inspect"), "at least 1 argument")
}

func TestCLILogs(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.do(nil, "run", "--name", "talk", image, "sh", "-c", "echo one; sleep 1.1; echo two; head -c 40000 /dev/zero | tr '\\0' x; echo; sleep 0.2; echo last >&2")
	long := strings.Repeat("x", 40000)
	for flags, want := range map[string]string{
		"": "one\ntwo\n" + long, "--tail all": "one\ntwo\n" + long, "-n 3": "two\n" + long, "-n 2": long, "-n 1": "", "-n 0": "", "-n -1": "one\ntwo\n" + long,
		"--since 1h": "one\ntwo\n" + long, "--until 1h": "", "--since 2020-01-01": "one\ntwo\n" + long, "-f -n 2": long,
		"--grep ^t.o$": "two", "--grep xx": long, "--grep o -n 1": "two", "-f --grep e": "one", "--grep no-such": "",
	} {
		same(t, "logs "+flags, g.ok(append(append(args("logs"), strings.Fields(flags)...), "talk")...), want)
	}
	stamp, _, _ := strings.Cut(strings.Split(g.ok("logs", "-t", "talk"), "\n")[1], " ")
	two, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "--since the second line", g.ok("logs", "--since", stamp, "-n", "3", "talk"), "two\n"+long)
	same(t, "--since in seconds", g.ok("logs", "--since", fmt.Sprintf("%d.%09d", two.Unix(), two.Nanosecond()), "talk"), "two\n"+long)
	same(t, "--until before it", g.ok("logs", "--until", two.Add(-time.Millisecond).Format(time.RFC3339Nano), "talk"), "one")
	same(t, "stderr", g.do(nil, "logs", "-n", "1", "talk").stderr, "last\n")
	g.fails(1, args("logs", "--since", "x", "talk"), "since")
	g.fails(1, args("logs", "--tail", "x", "talk"), "tail")
	g.fails(1, args("logs", "--grep", "(", "talk"), "grep")
	g.fails(1, args("logs", "talk", "talk"), "requires 1 argument")

	g.ok("run", "-d", "--name", "on", image, "sh", "-c", "echo here; sleep 1000")
	start := time.Now()
	same(t, "-f --until", g.ok("logs", "-f", "--until", time.Now().Add(time.Second).Format(time.RFC3339Nano), "on"), "here")
	if d := time.Since(start); d < time.Second/2 || d > 30*time.Second {
		t.Errorf("logs -f --until in a second took %v", d)
	}
}

func TestCLIVersionAndInfo(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", image, "sleep", "1000")
	version := g.ok("version", "-f", "{{.Client.Version}}")
	if version == "" || !strings.HasPrefix(g.ok("--version"), "tug version "+version+", build ") {
		t.Errorf("version %q, --version %q", version, g.ok("--version"))
	}
	for _, out := range []string{g.ok("info", "-f", "json"), g.ok("system", "info", "--format", "{{json .}}")} {
		var in struct {
			Containers, ContainersRunning, Images, NCPU, SupervisorPid int
			Driver, DockerRootDir, OSType                              string
			MemoryLimit, PidsLimit                                     bool
		}
		if err := json.Unmarshal([]byte(out), &in); err != nil {
			t.Fatal(err)
		}
		if in.Containers != 1 || in.ContainersRunning != 1 || in.Images != 1 || in.NCPU == 0 || in.SupervisorPid == 0 ||
			in.DockerRootDir != g.root() || in.OSType != "linux" || !in.MemoryLimit || !in.PidsLimit {
			t.Errorf("info: %+v", in)
		}
	}
	if out := g.ok("info"); !strings.Contains(out, "\n  Running: 1\n") || !strings.Contains(out, "Storage Driver: overlayfs") {
		t.Errorf("info: %s", out)
	}
	g.fails(1, args("info", "-f", "{{.Nope}}"), "Nope")
}
