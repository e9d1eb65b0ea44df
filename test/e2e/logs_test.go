//go:build root

package e2e

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLogDrivers(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	config := func(name string) string {
		t.Helper()
		return g.ok("inspect", "-f", "{{.HostConfig.LogConfig.Type}} {{json .HostConfig.LogConfig.Config}} {{.LogPath}}", name)
	}
	g.ok("run", "--name", "usual", image, "echo", "hi")
	path := filepath.Join(g.root(), "containers", g.state("usual").ID, "log", "000001.log")
	same(t, "default", config("usual"), "json-file {} "+path)
	b, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(string(b), " stdout F hi\n") {
		t.Errorf("LogPath holds %q, %v", b, err)
	}
	g.ok("create", "--name", "new", image, "true")
	same(t, "not started", config("new"), "json-file {} ")
	g.ok("run", "--name", "local", "--log-driver", "local", "--log-opt", "max-file=2", image, "echo", "hi")
	same(t, "local", config("local"), `local {"max-file":"2"} `)
	same(t, "its log", g.ok("logs", "local"), "hi")

	same(t, "none", g.ok("run", "--name", "none", "--log-driver", "none", image, "sh", "-c", "echo out; echo err >&2"), "out")
	same(t, "none", config("none"), "none {} ")
	for _, a := range [][]string{{"logs", "none"}, {"logs", "-f", "--tail", "1", "none"}, {"logs", "clear", "none"}} {
		g.fails(1, a, "configured logging driver does not support reading")
	}
	if files, err := os.ReadDir(filepath.Join(g.root(), "containers", g.state("none").ID, "log")); err != nil || len(files) > 0 {
		t.Errorf("kept of none: %v, %v", files, err)
	}
	g.ok("run", "-d", "--name", "quiet", "--log-driver", "none", image, "sh", "-c", "while :; do echo tick; sleep 0.1; done")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	attach := g.command(ctx, "attach", "quiet")
	seen := &firstByte{seen: make(chan struct{})}
	attach.Stdout = seen
	if err := attach.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-seen.seen:
	case <-ctx.Done():
		t.Error("attach shows nothing of a container without a log")
	}
	g.ok("rm", "-f", "quiet")
	_ = attach.Wait()

	for _, driver := range strings.Fields("awslogs etwlogs fluentd gcplogs gelf splunk syslog") {
		g.fails(125, args("run", "--log-driver", driver, image, "true"), "log driver "+driver+" is not there")
	}
	g.fails(125, args("run", "--log-driver", "nope", image, "true"), "no log driver named 'nope' is registered")
	g.fails(125, args("run", "--log-driver", "none", "--log-opt", "tag=x", image, "true"), "invalid logging opts for driver none")
	g.fails(125, args("run", "--log-opt", "novalue", image, "true"), "novalue")
	g.fails(125, args("run", "--log-opt", "nope=1", image, "true"), "unknown log opt 'nope' for json-file log driver")
	g.fails(125, args("run", "--log-opt", "max-size=0", image, "true"), "max-size")
	g.fails(125, args("run", "--log-opt", "mode=non-blocking", image, "true"), "mode=non-blocking is not there")
	g.fails(125, args("run", "--log-opt", "compress=true", image, "true"), "compress=true is not there")
	if _, err := os.Stat("/run/systemd/journal/socket"); err != nil {
		g.fails(125, args("run", "--log-driver", "journald", image, "true"), "journald is not enabled on this host")
	}
	same(t, "containers left of what was refused", g.ok("ps", "-a", "-f", "status=created", "--format", "{{.Names}}"), "new")
}

func TestLogDetails(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "--name", "box", "-l", "role=db & cache", "-l", "other=1", "-e", "A=1", "-e", "B=2", "--log-opt", "labels=role,absent", "--log-opt", "env-regex=^A",
		"--log-opt", "tag={{.Name}}/{{.ImageName}}", image, "sh", "-c", "echo one; echo two; printf three")
	const details = "A=1,role=db+%26+cache,tag=box%2Fbusybox%3Atest "
	same(t, "logs --details", g.ok("logs", "--details", "box"), details+"one\n"+details+"two\n"+details+"three")
	stamped := g.ok("logs", "--details", "-t", "-n", "1", "box")
	if _, rest, _ := strings.Cut(stamped, " "); rest != details+"three" {
		t.Errorf("with -t: %q", stamped)
	}
	g.ok("run", "--name", "plain", image, "echo", "one")
	same(t, "without any", g.ok("logs", "--details", "plain"), " one")
	g.fails(125, args("run", "--log-opt", "tag={{.Nope}}", image, "true"), "tag", "Nope")
}

// counting writes numbered lines until told to stop by TERM, and then how many,
// perhaps one less.
const counting = `trap 'echo end $i; exit 0' TERM; i=0; while :; do echo line $i; i=$((i+1)); done`

// lineNumbers checks that text is lines that follow one upon the other, and
// returns the first and last number.
func lineNumbers(t *testing.T, what, text string, gaps bool) (first, last int) {
	t.Helper()
	first = -1
	for line := range strings.Lines(text) {
		number, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "line ")
		n, err := strconv.Atoi(number)
		switch {
		case !ok || err != nil || !strings.HasSuffix(line, "\n"):
			t.Fatalf("%s: a torn line: %q", what, clip(line))
		case first < 0:
			first = n
		case n != last+1 && !(gaps && n > last):
			t.Fatalf("%s: line %d comes after line %d", what, n, last)
		}
		last = n
	}
	return first, last
}

func TestLogsClear(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	// A container of that name is meant where nothing but flags follows.
	g.ok("run", "--name", "clear", image, "sh", "-c", "echo one; echo two")
	same(t, "logs clear", g.ok("logs", "clear"), "one\ntwo")
	same(t, "logs clear -n 1", g.ok("logs", "clear", "-n", "1"), "two")
	same(t, "container logs -n 1 clear", g.ok("container", "logs", "-n", "1", "clear"), "two")
	if out := g.ok("logs", "clear", "--help"); !strings.Contains(out, "Empty the logs") {
		t.Errorf("help: %s", out)
	}
	g.ok("run", "--name", "other", image, "echo", "here")
	same(t, "clears", g.ok("logs", "clear", "clear", "other"), "clear\nother")
	same(t, "clear is empty", g.ok("logs", "clear"), "")
	same(t, "other is empty", g.ok("logs", "other"), "")
	g.ok("start", "-a", "other")
	same(t, "the next run", g.ok("logs", "other"), "here")
	same(t, "in the group", g.ok("container", "logs", "clear", "other"), "other")
	r := g.fails(1, args("logs", "clear", "nobody", "other"), "No such container: nobody")
	same(t, "the others are done", r.stdout, "other\n")
	g.fails(1, args("logs", "nobody", "other"), "requires 1 argument")
}

// The log is cleared while its container writes and is followed, and the
// supervisor is killed now and then: nothing is torn, nothing comes twice, and
// what is there is the end of the output.
func TestLogsClearWhileFollowed(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "busy", "--log-opt", "max-size=100k", "--log-opt", "max-file=20", image, "sh", "-c", counting)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	follow := g.command(ctx, "logs", "-f", "busy")
	var out, errs bytes.Buffer
	follow.Stdout, follow.Stderr = &out, &errs
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	for n := range rounds(20, 4) {
		time.Sleep(50 * time.Millisecond)
		same(t, "logs clear", g.ok("logs", "clear", "busy"), "busy")
		if _, supervisor := g.resident(); n%3 == 2 && supervisor != 0 {
			_ = syscall.Kill(supervisor, syscall.SIGKILL)
		}
		lineNumbers(t, "what is left", g.do(nil, "logs", "busy").stdout, false)
	}
	eventually(t, patience, func() string {
		if g.ok("logs", "busy") == "" {
			return "nothing is written any more"
		}
		return ""
	})
	g.ok("stop", "busy")
	if err := follow.Wait(); err != nil || errs.Len() > 0 {
		t.Fatalf("logs -f: %v, %s", err, &errs)
	}
	left, end, _ := strings.Cut(g.ok("logs", "busy"), "end ")
	followed, _, _ := strings.Cut(out.String(), "end ")
	first, last := lineNumbers(t, "what is left", left, false)
	_, seen := lineNumbers(t, "what was followed", followed, true)
	if total, _ := strconv.Atoi(end); first <= 0 || last != total && last != total-1 || seen != last {
		t.Errorf("%s lines were written; the log has %d to %d, followed was up to %d", end, first, last, seen)
	}
}

// The supervisor is killed again and again while files of the log are begun:
// not a byte is lost or doubled.
func TestSupervisorKilledAmidRotation(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "busy", "--log-opt", "max-size=20k", "--log-opt", "max-file=10000", image, "sh", "-c", counting)
	kills := 0
	for range rounds(40, 5) {
		time.Sleep(30 * time.Millisecond)
		if _, supervisor := g.resident(); supervisor != 0 {
			_ = syscall.Kill(supervisor, syscall.SIGKILL)
			kills++
		}
	}
	g.ok("stop", "busy")
	text, end, _ := strings.Cut(g.ok("logs", "busy"), "end ")
	first, last := lineNumbers(t, "the log", text, false)
	if total, _ := strconv.Atoi(end); first != 0 || last != total && last != total-1 || kills < 3 {
		t.Errorf("%s lines were written, the log has %d to %d after %d kills", end, first, last, kills)
	}
	files, err := filepath.Glob(filepath.Join(g.root(), "containers/*/log/*.log"))
	if err != nil || len(files) < 5 {
		t.Errorf("only %d files: nothing was rotated", len(files))
	}
	for _, f := range files {
		if fi, err := os.Stat(f); err != nil || fi.Size() > 21_000 {
			t.Errorf("%s: %d bytes, %v", f, fi.Size(), err)
		}
	}
	t.Logf("%d kills, %d files, %s lines", kills, len(files), end)
}

// journald gets the output with Docker's fields, and logs shows it. Where there
// is no journald the test is one, in mounts of its own.
func TestJournald(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	for _, program := range []string{"unshare", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(g.dir, "journal")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const script = `mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind "$0" /run/systemd/journal && exec "$@"`
	run := g.command(t.Context(), "run", "--name", "box", "--log-driver", "journald", "--log-opt", "tag={{.Name}}", "--log-opt", "env=A", "-e", "A=1",
		image, "sh", "-c", "echo out; echo err >&2")
	run.Args = append([]string{"unshare", "-m", "sh", "-c", script, dir}, run.Args...)
	if run.Path, err = exec.LookPath("unshare"); err != nil {
		t.Fatal(err)
	}
	if b, err := run.CombinedOutput(); err != nil || string(b) != "out\nerr\n" && string(b) != "err\nout\n" {
		t.Fatalf("%v: %s", err, b)
	}
	id := g.state("box").ID
	got := map[string]bool{}
	buf := make([]byte, 64<<10)
	for range 2 {
		l.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		entry := "\n" + string(buf[:n])
		for _, want := range []string{"CONTAINER_ID=" + id[:12], "CONTAINER_ID_FULL=" + id, "CONTAINER_NAME=box", "CONTAINER_TAG=box", "SYSLOG_IDENTIFIER=box", "IMAGE_NAME=" + image, "A=1"} {
			if !strings.Contains(entry, "\n"+want+"\n") {
				t.Errorf("no %s in %q", want, entry)
			}
		}
		for _, want := range []string{"PRIORITY=6 MESSAGE=out", "PRIORITY=3 MESSAGE=err"} {
			priority, message, _ := strings.Cut(want, " ")
			got[want] = got[want] || strings.Contains(entry, "\n"+priority+"\n") && strings.HasSuffix(entry, "\n"+message+"\n")
		}
	}
	if len(got) != 2 || !got["PRIORITY=6 MESSAGE=out"] || !got["PRIORITY=3 MESSAGE=err"] {
		t.Errorf("journald was told %v", got)
	}
	r := g.do(nil, "logs", "box")
	same(t, "logs", r.stdout+r.stderr, "out\nerr\n")
	same(t, "inspect", g.ok("inspect", "-f", "{{.HostConfig.LogConfig.Type}}{{.LogPath}}", "box"), "journald")
}

// psFormat and the like of Docker's config.json.
func TestUserFormats(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	config := filepath.Join(g.dir, "docker")
	if err := os.Mkdir(config, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g.env = append(g.env, "DOCKER_CONFIG="+config)
	g.ok("run", "-d", "--name", "box", image, "sleep", "1000")
	write(`{"psFormat": "ps {{.Names}}", "imagesFormat": "img {{.Repository}}", "statsFormat": "st {{.Name}}", "detachKeys": "ctrl-x,x"}`)
	same(t, "ps", g.ok("ps"), "ps box")
	same(t, "images", g.ok("images"), "img busybox")
	same(t, "stats", g.ok("stats", "--no-stream"), "st box")
	same(t, "ps --format", g.ok("ps", "--format", "{{.Names}}"), "box")
	same(t, "ps -q", g.ok("ps", "-q", "--no-trunc"), g.state("box").ID)
	if out := g.ok("ps", "--format", "table"); !strings.HasPrefix(out, "CONTAINER ID") {
		t.Errorf("ps --format table: %q", out)
	}
	p := g.terminal(24, 80, "run", "-it", "--name", "term", image, "sh")
	p.typed("echo up-$((1+1))\n")
	p.shows("up-2")
	p.typed("\x18x")
	if code := p.ends(); code != 0 {
		t.Errorf("detached: %d\n%s", code, p.output())
	}
	same(t, "still there", g.ok("inspect", "-f", "{{.State.Running}}", "term"), "true")

	write("{")
	r := g.do(nil, "ps", "--format", "")
	if r.code != 0 || !strings.Contains(r.stdout, "CONTAINER ID") || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "Error loading config file") {
		t.Errorf("a broken config.json: %v", r)
	}
}

func TestUmaskAndSystemPaths(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	same(t, "usual umask", g.ok("run", "--rm", image, "sh", "-c", "umask"), "0022")
	g.ok("run", "-d", "--name", "box", "--umask", "0027", image, "sh", "-c", "umask; touch /f; stat -c %a /f; sleep 1000")
	eventually(t, patience, func() string {
		if out := g.ok("logs", "box"); out != "0027\n640" {
			return out
		}
		return ""
	})
	same(t, "exec", g.ok("exec", "box", "sh", "-c", "umask"), "0027")
	same(t, "inspect", g.ok("inspect", "-f", "{{.HostConfig.Umask}}", "box"), "23")
	for _, bad := range []string{"9", "01000", "x", "-1"} {
		g.fails(125, args("run", "--umask="+bad, image, "true"), bad)
	}

	const look = "wc -c < /proc/timer_list > /dev/null 2>&1 && test $(wc -c < /proc/timer_list) -gt 0 && echo shown; echo x > /proc/sys/kernel/domainname 2>/dev/null && echo writable; touch /sys/x 2>&1; true"
	hidden := g.ok("run", "--rm", image, "sh", "-c", look)
	if strings.Contains(hidden, "shown") || strings.Contains(hidden, "writable") {
		t.Errorf("without the option: %q", hidden)
	}
	open := g.ok("run", "--rm", "--security-opt", "systempaths=unconfined", image, "sh", "-c", look)
	if !strings.Contains(open, "writable") || !strings.Contains(open, "Read-only") {
		t.Errorf("systempaths=unconfined: %q; want /proc/sys writable and /sys read-only", open)
	}
	g.ok("create", "--name", "open", "--security-opt", "systempaths=unconfined", "--security-opt", "no-new-privileges", image)
	same(t, "inspect", g.ok("inspect", "-f", "{{json .HostConfig.MaskedPaths}}{{json .HostConfig.ReadonlyPaths}}{{json .HostConfig.SecurityOpt}}", "open"), `[][]["no-new-privileges"]`)

	same(t, "no-ops", g.ok("run", "--rm", "--security-opt", "apparmor=unconfined", "--security-opt", "label=disable", image, "echo", "fine"), "fine")
	for opt, file := range map[string]string{"apparmor=docker-default": "/sys/module/apparmor/parameters/enabled", "label=type:x_t": "/sys/fs/selinux/enforce"} {
		words := []string{opt}
		if _, err := os.Stat(file); err != nil {
			words = append(words, "this kernel has no ")
		}
		g.fails(125, args("run", "--rm", "--security-opt", opt, image, "true"), words...)
	}
	g.fails(125, args("run", "--security-opt", "systempaths=other", image, "true"), "systempaths")
	g.fails(125, args("run", "--gpus", "all", image, "true"), "--gpus is not there yet")
	g.fails(125, args("run", "--use-api-socket", image, "true"), "--use-api-socket is not there yet")
}
