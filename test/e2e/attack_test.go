//go:build root

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tug/test/fixture"
)

// swift fails the test when f takes longer than limit: what hostile containers
// can slow down shall at least end.
func swift(t *testing.T, what string, limit time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if d := time.Since(start); d > limit {
		t.Errorf("%s took %v", what, d)
	}
}

// rounds is how often something is tried; fewer times in the virtual machines.
func rounds(all, short int) int {
	if testing.Short() {
		return short
	}
	return all
}

// Containers that fill, freeze or leave their cgroup are entered or refused with
// a clear line, and always removed at once.
func TestCoreHostileCgroup(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	up := func(name string, a ...string) {
		t.Helper()
		script := a[len(a)-1] + "\necho ready; exec sleep 1000"
		g.ok(append(append(args("run", "-d", "--name", name), a[:len(a)-1]...), image, "sh", "-c", script)...)
	}
	ready := func(name string) {
		t.Helper()
		eventually(t, patience, func() string {
			if out := g.ok("logs", name); !strings.HasSuffix(out, "ready") {
				return name + " is not ready: " + out
			}
			return ""
		})
	}
	gone := func(name string) {
		t.Helper()
		swift(t, "rm -f "+name, 20*time.Second, func() { g.ok("rm", "-f", name) })
	}

	up("bomb", "--pids-limit", "40", "f() { while :; do f & done; }; f 2>/dev/null &")
	time.Sleep(time.Second)
	swift(t, "exec in the bomb", 20*time.Second, func() { g.do(nil, "exec", "bomb", "true") })
	gone("bomb")

	up("full", "--pids-limit", "3", "sleep 1000 & sleep 1000 &")
	ready("full")
	g.fails(126, args("exec", "full", "true"), "--pids-limit")
	gone("full")

	up("frozen", "--privileged", "(cd /sys/fs/cgroup; sleep 0.5; echo FROZEN > freezer/freezer.state || { mkdir x; echo 1 > x/cgroup.procs; echo 1 > x/cgroup.freeze; }) 2>/dev/null &")
	ready("frozen")
	time.Sleep(time.Second)
	gone("frozen")

	up("moved", "--privileged", "cd /sys/fs/cgroup; test -d pids && cd pids; mkdir -p a/b c; echo $$ > a/b/cgroup.procs")
	ready("moved")
	same(t, "exec in one that moved", g.ok("exec", "moved", "echo", "in"), "in")
	gone("moved")
	// close looks for what they left.
}

// The engine's own program cannot be written to from a container, neither as
// process 1 of --init nor while an exec passes through (CVE-2019-5736).
func TestProgramIsSealed(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	files := []string{g.path, filepath.Join(filepath.Dir(g.path), "tug-init")}
	sums := func() (all []string) {
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil {
				all = append(all, fmt.Sprintf("%s %x", f, sha256.Sum256(b)))
			}
		}
		return all
	}
	before := sums()
	g.ok("run", "-d", "--init", "--name", "evil", image, "sh", "-c",
		`ln -s /proc/self/exe /self; printf '#!/proc/self/exe\n' > /script; chmod 755 /script
		while :; do for p in /proc/[0-9]*; do (exec 3<$p/exe; echo x > /proc/self/fd/3); (echo x > $p/exe); done; done 2>/dev/null`)
	for range rounds(10, 2) {
		g.do(nil, "exec", "evil", "/self")
		g.do(nil, "exec", "evil", "/script")
		g.ok("exec", "evil", "true")
	}
	// As root's program in the image: busybox itself may be written, so what
	// counts is the sums, and that tug goes on working.
	same(t, "tug's programs", strings.Join(sums(), "\n"), strings.Join(before, "\n"))
	out := g.do(nil, "exec", "evil", "sh", "-c", "(echo x > /proc/1/exe) && echo written; (exec 3</proc/1/exe; echo x >> /proc/self/fd/3) && echo written")
	same(t, "writing to process 1's program", out.stdout, "")
	g.ok("rm", "-f", "evil")
	same(t, "a new start", g.ok("run", "--rm", "--init", image, "echo", "fine"), "fine")
}

// An image that puts links where the engine mounts, writes and reads reaches
// nothing outside its own root.
func TestHostilePlaces(t *testing.T) {
	t.Parallel()
	g := newTug(t)
	outside := filepath.Join(g.dir, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hosts", "hostname", "resolv.conf", "passwd", "group"} {
		if err := os.WriteFile(filepath.Join(outside, name), []byte("evil:x:7:7::/:\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What works, works inside; what the engine refuses, it refuses with 125.
	for name, c := range map[string]struct {
		layer *fixture.Layer
		run   []string
		code  int
		out   string
	}{
		"files": {
			fixture.NewLayer().Symlink("etc/hosts", outside+"/hosts").Symlink("etc/hostname", "../../../.."+outside+"/hostname").Symlink("etc/resolv.conf", "/proc/1/root"+outside+"/resolv.conf"),
			args("true"), 125, "",
		},
		"etc":  {fixture.NewLayer().File("etc/.wh..wh..opq", 0o600, "").File(".wh.etc", 0o600, "").Symlink("etc", "/../../.."+outside), args("sh", "-c", "grep -c localhost /etc/hosts; ls /"+outside), 0, "2\nhostname\nhosts\nresolv.conf\n"},
		"host": {fixture.NewLayer().Symlink("etc/hosts", outside+"/hosts"), args("sh", "-c", "grep -c localhost /etc/hosts; echo x >> /etc/hosts"), 0, "2\n"},
		"user": {fixture.NewLayer().Symlink("etc/passwd", outside+"/passwd"), args("true"), 125, ""},
		"cwd":  {fixture.NewLayer().Symlink("job", outside), args("sh", "-c", "touch x; pwd"), 0, outside + "/made\n"},
		"self": {fixture.NewLayer().Symlink("job", "/proc/self/fd/7"), args("pwd"), 125, ""},
		"root": {fixture.NewLayer().Symlink("job", "/proc/1/root/"), args("pwd"), 125, ""},
		"proc": {fixture.NewLayer().File(".wh.proc", 0o600, "").Symlink("proc", outside), args("true"), 125, ""},
		"dev":  {fixture.NewLayer().File(".wh.dev", 0o600, "").Symlink("dev", outside), args("true"), 125, ""},
		"shm":  {fixture.NewLayer().Symlink("dev/null", outside+"/hosts"), args("sh", "-c", "echo x > /dev/null"), 0, ""},
	} {
		i := busybox(t)
		i.Name = "evil-" + name + ":test"
		i.Layers = append(i.Layers, c.layer.Bytes())
		if r := g.do(bytes.NewReader(fixture.DockerArchive(i).Bytes()), "load", "-q"); r.code != 0 {
			t.Fatal(r)
		}
		a := args("run", "--rm", "-w", "/job/made")
		if name == "user" {
			a = append(a, "-u", "evil")
		}
		r := g.do(nil, append(append(a, i.Name), c.run...)...)
		if r.code != c.code || r.stdout != c.out || strings.Count(r.stderr, "\n") > 1 {
			t.Errorf("%s: %v\nwant %d, %q", name, r, c.code, c.out)
		}
	}
	left, err := os.ReadDir(outside)
	if err != nil || len(left) != 5 {
		t.Errorf("outside: %v, %v", left, err)
	}
	for _, e := range left {
		b, _ := os.ReadFile(filepath.Join(outside, e.Name()))
		same(t, "outside "+e.Name(), string(b), "evil:x:7:7::/:\n")
	}
}

// No descriptor of the engine's is there to be a working directory
// (CVE-2024-21626), for run and for exec.
func TestCoreNoDescriptors(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "up", image, "sleep", "1000")
	for fd := range rounds(24, 6) {
		dir := fmt.Sprintf("/proc/self/fd/%d", fd)
		if r := g.do(nil, "run", "--rm", "-w", dir, image, "pwd"); r.code == 0 {
			t.Errorf("working directory through a descriptor: %v", r)
		}
		if r := g.do(nil, "exec", "-w", dir, "up", "pwd"); r.code == 0 {
			t.Errorf("working directory through a descriptor: %v", r)
		}
	}
	// ls itself has a fourth, of the directory.
	const list = "ls /proc/self/fd | tr '\\n' ' '"
	same(t, "descriptors", g.ok("run", "--rm", image, "sh", "-c", list), "0 1 2 3 ")
	same(t, "with --init", g.ok("run", "--rm", "--init", image, "sh", "-c", list), "0 1 2 3 ")
	same(t, "of an exec", g.ok("exec", "up", "sh", "-c", list), "0 1 2 3 ")
}

// Whatever bytes a container writes, they come out and stand in the log.
func TestBinaryOutput(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	var want bytes.Buffer
	random := rand.New(rand.NewPCG(1, 2))
	for range 300_000 {
		want.WriteByte(byte(random.Uint32() >> 13))
	}
	want.WriteString(strings.Repeat("no newline ", 100_000) + "\r\n\n\x00\x00\n2026-01-01T00:00:00Z stdout F fake\nend")
	r := g.do(bytes.NewReader(want.Bytes()), "run", "-i", "--name", "bin", image, "cat")
	if r.stdout != want.String() {
		t.Errorf("through cat: %s", difference(r.stdout, want.String()))
	}
	r = g.do(nil, "logs", "bin")
	if r.stdout != want.String() {
		t.Errorf("from the log: %s", difference(r.stdout, want.String()))
	}
	r = g.do(nil, "run", "--rm", image, "sh", "-c", "exec >&- 2>&- <&-; sleep 0.2; exit 4")
	if r.code != 4 || r.stdout+r.stderr != "" {
		t.Errorf("a program that closes its streams: %v", r)
	}
}

// Many commands on one container: none hangs or crashes, and in the end it is
// gone.
func TestManyOnOne(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	for round := range rounds(5, 2) {
		g.ok("run", "-d", "--name", "one", image, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
		same(t, "start of a running one", g.ok("start", "one"), "one")
		var wg sync.WaitGroup
		for _, a := range [][]string{
			{"stop", "-t", "3", "one"},
			{"kill", "one"},
			{"wait", "one"},
			{"kill", "-s", "TERM", "one"},
			{"stop", "-t", "0", "one"},
			{"rm", "-f", "one"},
			{"exec", "one", "true"},
			{"inspect", "one"},
			{"ps", "-a"},
			{"logs", "-f", "one"},
			{"rm", "-f", "one"},
		} {
			wg.Go(func() {
				r := g.do(nil, a...)
				gone := strings.Contains(strings.ToLower(r.stderr), "no such") || strings.Contains(r.stderr, "not running")
				if r.code > 1 && r.code != 137 && !gone || r.code == 1 && !gone || strings.Contains(r.stderr, "goroutine") {
					t.Errorf("round %d: %v", round, r)
				}
			})
		}
		swift(t, "all of them", 30*time.Second, wg.Wait)
		same(t, "left", g.ok("ps", "-aq"), "")
	}
	// A removal does not wait for a patient stop.
	g.ok("run", "-d", "--name", "slow", image, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
	var wg sync.WaitGroup
	wg.Go(func() { g.do(nil, "stop", "-t", "60", "slow") })
	time.Sleep(300 * time.Millisecond)
	swift(t, "rm -f of one that is being stopped", 20*time.Second, func() { g.ok("rm", "-f", "slow") })
	swift(t, "the stop then", 20*time.Second, wg.Wait)
}

// Two hundred containers at once.
func TestTwoHundred(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	const count, hands = 200, 8
	var wg sync.WaitGroup
	start := time.Now()
	for hand := range hands {
		wg.Go(func() {
			for n := hand; n < count; n += hands {
				g.ok("run", "-d", "--name", fmt.Sprintf("c%d-", n), image, "sleep", "1000")
			}
		})
	}
	wg.Wait()
	t.Logf("%d started in %v", count, time.Since(start).Round(time.Millisecond))
	ids := strings.Fields(g.ok("ps", "-q"))
	if len(ids) != count {
		t.Errorf("%d containers run, want %d", len(ids), count)
	}
	start = time.Now()
	half := len(ids) / 2
	g.ok(append(args("kill"), ids[:half]...)...)
	g.ok(append(args("rm", "-f"), ids...)...)
	t.Logf("ended and removed in %v", time.Since(start).Round(time.Millisecond))
	same(t, "left", g.ok("ps", "-aq"), "")
}
