//go:build root

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tug/sys"
	"tug/test/fixture"
)

// Containers that behave as badly as they can harm nobody but themselves:
// commands about them and about others stay prompt. The bounds are generous,
// the machine may be slow; what was measured is in the test's log.

// prompt times a command and fails the test when it takes very long.
func (g *tug) prompt(what string, a ...string) (out string) {
	g.t.Helper()
	start := time.Now()
	swift(g.t, what, 20*time.Second, func() { out = g.ok(a...) })
	g.t.Logf("%s: %v", what, time.Since(start).Round(100*time.Microsecond))
	return out
}

// unharmed has a container that behaves do what containers do.
func (g *tug) unharmed(name string) {
	g.t.Helper()
	same(g.t, "exec in "+name, g.prompt("exec in another", "exec", name, "echo", "fine"), "fine")
	if out := g.prompt("ps", "ps", "--format", "{{.Names}}"); !strings.Contains(out+"\n", name+"\n") {
		g.t.Errorf("%s is not in ps: %q", name, out)
	}
	same(g.t, "a new one", g.prompt("run", "run", "--rm", image, "echo", "fine"), "fine")
}

func logSize(t *testing.T, g *tug, name string) (bytes int64, files int) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(g.root(), "containers", g.state(name).ID, "log/*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if fi, err := os.Stat(f); err == nil { // else it was rotated away
			bytes += fi.Size()
			files++
		}
	}
	return bytes, files
}

func TestLogFlood(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "calm", image, "sleep", "1000")
	flood := args("run", "-d", "--log-opt", "max-size=4m", "--log-opt", "max-file=3")
	g.ok(append(flood, "--name", "flood", image, "sh", "-c", "yes this is a line of the flood & exec yes errors too >&2")...)
	time.Sleep(time.Duration(rounds(3, 1)) * time.Second)
	for n := range rounds(5, 2) {
		out := g.prompt("logs --tail 10 of the flood", "logs", "--tail", "10", "flood")
		if lines := strings.Count(out+"\n", "\n"); n == 0 && lines > 10 {
			t.Errorf("%d lines: %q", lines, clip(out))
		}
		g.prompt("logs --since 0s of the flood", "logs", "--since", "0s", "flood")
	}
	// All of it, although more comes than can be read.
	r := g.do(nil, "logs", "flood")
	if n := len(r.stdout) + len(r.stderr); r.code != 0 || n == 0 || n > 16<<20 {
		t.Errorf("logs of the flood: code %d, %d bytes", r.code, n)
	}
	g.unharmed("calm")
	g.prompt("logs clear", "logs", "clear", "flood")
	if bytes, files := logSize(t, g, "flood"); files == 0 || files > 4 || bytes > 18_000_000 {
		t.Errorf("the flood's log has %d bytes in %d files", bytes, files)
	}
	g.prompt("stop -t 1 of the flood", "stop", "-t", "1", "flood")
	g.ok("start", "flood")
	time.Sleep(time.Second)
	g.prompt("rm -f of the flood", "rm", "-f", "flood")
	g.unharmed("calm")
}

// A flood that nobody bounded is bounded all the same.
func TestLogFloodWithoutLimits(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a fast disk")
	}
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "flood", image, "sh", "-c", "yes $(head -c 3000 /dev/zero | tr '\\0' x)")
	time.Sleep(4 * time.Second)
	if bytes, files := logSize(t, g, "flood"); files > 6 || bytes > 6*(65<<20) {
		t.Errorf("the flood's log has %d bytes in %d files", bytes, files)
	} else {
		t.Logf("%d MB in %d files", bytes>>20, files)
	}
	g.prompt("rm -f", "rm", "-f", "flood")
}

func TestForkBomb(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "calm", image, "sleep", "1000")
	g.ok("run", "-d", "--name", "bomb", "--pids-limit", "60", image, "sh", "-c", "f() { while :; do f & done; }; f 2>/dev/null & exec sleep 1000")
	time.Sleep(2 * time.Second)
	g.unharmed("calm")
	g.do(nil, "exec", "bomb", "true") // in or refused, and over
	if out := g.prompt("top", "top", "bomb"); strings.Count(out, "\n") > 60 {
		t.Errorf("more processes than allowed: %d lines", strings.Count(out, "\n"))
	}
	g.prompt("stop -t 1", "stop", "-t", "1", "bomb")
	g.ok("start", "bomb")
	time.Sleep(time.Second)
	g.prompt("rm -f", "rm", "-f", "bomb")
}

func TestMemoryEater(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "calm", "-m", "64m", image, "sleep", "1000")
	// Its first process, and a child of it: then the first one may end as it likes.
	for name, script := range map[string]string{"eater": "exec tail /dev/zero", "parent": "tail /dev/zero; echo ate; sleep 1000"} {
		g.ok("run", "-d", "--name", name, "-m", "32m", "--memory-swap", "32m", image, "sh", "-c", script)
	}
	same(t, "the eater's code", g.ok("wait", "eater"), "137")
	if s := g.state("eater"); !s.State.OOMKilled {
		t.Errorf("the eater: %+v, want OOMKilled", s.State)
	}
	eventually(t, patience, func() string {
		if out := g.ok("logs", "parent"); out != "ate" {
			return "the parent did not go on: " + out
		}
		return ""
	})
	g.prompt("stop", "stop", "-t", "1", "parent")
	if s := g.state("calm"); !s.State.Running || s.State.OOMKilled {
		t.Errorf("the other one: %+v", s.State)
	}
	g.unharmed("calm")
}

func TestClosedStdio(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	const script = "echo first; exec <&- >&- 2>&-; trap 'exit 7' TERM; while :; do sleep 0.05; done"
	for _, mode := range []string{"-d", "-di", "-dt", "-dit"} {
		name := "closed" + mode
		g.ok("run", mode, "--name", name, image, "sh", "-c", script)
		eventually(t, patience, func() string {
			if out := strings.TrimSpace(g.ok("logs", name)); out != "first" {
				return name + ": " + out
			}
			return ""
		})
		same(t, "exec", g.prompt("exec", "exec", name, "echo", "fine"), "fine")
		if s := g.state(name); !s.State.Running {
			t.Errorf("%s: %+v", name, s.State)
		}
		g.prompt("stop", "stop", name)
		same(t, "code", g.ok("wait", name), "7")
	}
	r := g.do(nil, "run", "--rm", image, "sh", "-c", "exec <&- >&- 2>&-; sleep 0.2; exit 5")
	if r.code != 5 {
		t.Errorf("attached: %v", r)
	}
}

func TestIgnoredSignals(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "deaf", image, "sh", "-c", "trap '' TERM INT HUP QUIT USR1 USR2; echo ready; while :; do sleep 0.1; done")
	eventually(t, patience, func() string {
		if out := g.ok("logs", "deaf"); out != "ready" {
			return out
		}
		return ""
	})
	start := time.Now()
	g.prompt("stop -t 1", "stop", "-t", "1", "deaf")
	if d := time.Since(start); d < time.Second {
		t.Errorf("it had %v, not its second", d)
	}
	same(t, "code", g.ok("wait", "deaf"), "137")
	g.ok("start", "deaf")
	g.prompt("rm -f", "rm", "-f", "deaf")
}

func TestZombieFarm(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	g.ok("run", "-d", "--name", "calm", image, "sleep", "1000")
	// Orphans of a first process that never waits, until there is no room.
	const farm = "i=0; while [ $i -lt 300 ]; do (sleep 0.3 &) 2>/dev/null; i=$((i+1)); done; exec sleep 1000"
	g.ok("run", "-d", "--name", "farm", "--pids-limit", "80", image, "sh", "-c", farm)
	zombies := func(name string) int {
		t.Helper()
		procs, _ := filepath.Glob("/proc/" + strconv.Itoa(g.state(name).State.Pid) + "/task/*/children")
		n := 0
		for _, p := range procs {
			b, _ := os.ReadFile(p)
			for _, pid := range strings.Fields(string(b)) {
				stat, _ := os.ReadFile("/proc/" + pid + "/stat")
				if _, rest, ok := strings.Cut(string(stat), ") "); ok && strings.HasPrefix(rest, "Z") {
					n++
				}
			}
		}
		return n
	}
	eventually(t, patience, func() string {
		if n := zombies("farm"); n < 40 {
			return fmt.Sprintf("%d zombies", n)
		}
		return ""
	})
	g.unharmed("calm")
	g.prompt("top", "top", "farm")
	g.prompt("stats", "stats", "--no-stream", "farm")
	g.prompt("stop -t 1", "stop", "-t", "1", "farm")
	g.prompt("rm", "rm", "farm")

	g.ok("run", "-d", "--init", "--name", "reaped", image, "sh", "-c", farm)
	eventually(t, patience, func() string {
		if out := g.ok("top", "reaped"); strings.Count(out, "\n") != 2 { // init and sleep
			return out
		}
		return ""
	})
	if n := zombies("reaped"); n != 0 {
		t.Errorf("%d zombies with --init", n)
	}
	g.prompt("rm -f", "rm", "-f", "reaped")
}

// on mounts a fresh file system that has project quotas, and returns a tug whose
// store is on it. In the guest the file system is on the disk.
func on(t *testing.T, kind string) *tug {
	t.Helper()
	dir, err := os.MkdirTemp("", "tug-test-")
	if err != nil {
		t.Fatal(err)
	}
	disk, mnt := filepath.Join("/test/quota", kind), filepath.Join(dir, "m")
	if _, err := os.Stat(disk); err != nil {
		disk = filepath.Join(dir, "disk")
		if err := fixture.QuotaDisk(kind, disk); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if out, err := fixture.Run("", "mount", "-t", kind, "-o", "loop,prjquota", disk, mnt); err != nil {
		t.Skipf("this kernel has no project quotas on %s; test/vm has: %v %s", kind, err, out)
	}
	t.Cleanup(func() { mustRun(t, "umount", mnt) })
	return newBusyboxIn(t, filepath.Join(mnt, "t"))
}

// newBusyboxIn is newBusybox with everything in dir.
func newBusyboxIn(t *testing.T, dir string) *tug {
	t.Helper()
	g := newTug(t)
	os.Remove(g.dir)
	g.dir = dir
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	g.ok("load", "-q", "-i", coreFile(t, "busybox.tar"))
	return g
}

func TestCoreStorageLimitXFS(t *testing.T)  { t.Parallel(); storageLimit(t, on(t, "xfs")) }
func TestCoreStorageLimitExt4(t *testing.T) { t.Parallel(); storageLimit(t, on(t, "ext4")) }

func TestStorageLimitRefused(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	if b, err := os.ReadFile("/proc/self/mounts"); err == nil && !strings.Contains(string(b), "prjquota") && !strings.Contains(string(b), "pquota") {
		g.fails(125, args("run", "--storage-opt", "size=20m", image, "true"), "project quotas", "prjquota")
	}
	g.fails(125, args("run", "--storage-opt", "size=x", image, "true"), "size")
	g.fails(125, args("run", "--storage-opt", "other=1", image, "true"), "unknown --storage-opt other")
	same(t, "left", g.ok("ps", "-aq"), "")
}

// storageLimit has a container fill its writable layer: it alone runs out of
// room, and can be used on; its project is given back.
func storageLimit(t *testing.T, g *tug) {
	const fill = "test -e /big || { dd if=/dev/zero of=/big bs=1M count=100 2>&1; sync; du -k /big | cut -f1; }"
	g.ok("run", "-d", "--name", "calm", image, "sleep", "1000")
	g.ok("run", "-d", "--name", "full", "--storage-opt", "size=20m", image, "sh", "-c", fill+"; sleep 1000")
	var out string
	eventually(t, patience, func() string {
		out = g.ok("logs", "full")
		if f := strings.Fields(out); len(f) == 0 || strings.Trim(f[len(f)-1], "0123456789") != "" {
			return "not done: " + out
		}
		return ""
	})
	words := strings.Fields(out)
	if kb, err := strconv.Atoi(words[len(words)-1]); err != nil || kb < 15<<10 || kb > 20<<10 {
		t.Errorf("it has %v KiB, %v", words[len(words)-1], err)
	}
	if !strings.Contains(out, "No space left") && !strings.Contains(out, "quota exceeded") {
		t.Errorf("it was not told: %s", out)
	}
	if r := g.do(nil, "exec", "full", "sh", "-c", "head -c 3000000 /dev/zero > /more"); r.code == 0 {
		t.Errorf("another program had room: %v", r)
	}
	same(t, "df in it", g.ok("exec", "full", "sh", "-c", "df -m / | tail -n 1 | tr -s ' ' | cut -d' ' -f2"), "20")
	same(t, "another", g.ok("exec", "calm", "sh", "-c", "head -c 60000000 /dev/zero > /f && sync && wc -c < /f"), "60000000")
	g.unharmed("calm")
	g.prompt("stop", "stop", "-t", "1", "full")
	g.ok("start", "full")
	same(t, "started again", g.ok("exec", "full", "sh", "-c", "rm /big /more; head -c 10000000 /dev/zero > /f && wc -c < /f"), "10000000")
	same(t, "inspect", g.ok("inspect", "-f", "{{json .HostConfig.StorageOpt}}", "full"), `{"size":"20m"}`)

	first := g.project(t, "full")
	if use, err := g.usage(first); err != nil || use.Limit != 20<<20 || use.Bytes < 10_000_000 {
		t.Errorf("the project: %+v, %v", use, err)
	}
	g.ok("create", "--name", "second", "--storage-opt", "size=1g", image, "true")
	second := g.project(t, "second")
	g.prompt("rm -f", "rm", "-f", "full")
	g.ok("rm", "second")
	g.ok("run", "--rm", "--name", "third", "--storage-opt", "size=2m", image, "true")
	eventually(t, patience, func() string {
		if left, err := os.ReadDir(filepath.Join(g.root(), "projects")); err != nil || len(left) > 0 {
			return fmt.Sprintf("projects left: %v, %v", left, err)
		}
		return ""
	})
	for _, id := range []uint32{first, second} {
		if use, err := g.usage(id); err != nil || use.Limit != 0 || use.Bytes > 0 {
			t.Errorf("project %d is left: %+v, %v", id, use, err)
		}
	}
	if first == second || first < 1<<24 {
		t.Errorf("projects %d and %d", first, second)
	}

	// What a crash leaves of a create is cleared away by the next one.
	lost := filepath.Join(g.root(), "projects", "77777777")
	if err := os.WriteFile(lost, []byte(strings.Repeat("ab", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.ok("create", "--name", "fourth", "--storage-opt", "size=2m", image, "true")
	if _, err := os.Stat(lost); err == nil {
		t.Error("a lost project stays")
	}
	if use, err := g.usage(g.project(t, "fourth")); err != nil || use.Limit != 2<<20 {
		t.Errorf("the fourth: %+v, %v", use, err)
	}
	g.ok("system", "check")
}

// project is the number in a container's description.
func (g *tug) project(t *testing.T, name string) uint32 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.root(), "containers", g.state(name).ID, "config.json"))
	var c struct{ Host struct{ Project uint32 } }
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.Host.Project == 0 {
		t.Fatalf("no project: %v", err)
	}
	return c.Host.Project
}

func (g *tug) usage(id uint32) (sys.ProjectUse, error) {
	f, err := os.Open(g.root())
	if err != nil {
		return sys.ProjectUse{}, err
	}
	defer f.Close()
	return sys.ProjectUsage(f, id)
}

// A container below another cgroup is held to its limits, found by everything
// that looks, and leaves nothing of what tug made; what was there stays.
func TestCoreCgroupParent(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	top := "tugparent-" + filepath.Base(g.dir)
	path := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", g.state(name).State.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.SplitN(strings.TrimSpace(line), ":", 3); strings.Contains(f[1], "memory") || f[0] == "0" && onV2() {
				return f[2]
			}
		}
		t.Fatalf("%s: no cgroup in %s", name, b)
		return ""
	}
	within := func(name, parent string) {
		t.Helper()
		if p := path(name); !strings.HasPrefix(p, parent+"/"+g.cgroup()+"-") {
			t.Errorf("%s is in %s, want it below %s", name, p, parent)
		}
	}
	const sleeps = "1000"
	g.ok("run", "-d", "--name", "abs", "--cgroup-parent", "/"+top+"/deep", "-m", "64m", image, "sleep", sleeps)
	g.ok("run", "-d", "--name", "also", "--cgroup-parent", "/"+top, image, "sleep", sleeps)
	g.ok("run", "-d", "--name", "rel", "--cgroup-parent", "some/where", image, "sleep", sleeps)
	within("abs", "/"+top+"/deep")
	within("also", "/"+top)
	within("rel", "/"+g.cgroup()+"/some/where")
	same(t, "inspect", g.ok("inspect", "-f", "{{.HostConfig.CgroupParent}}", "abs"), "/"+top+"/deep")
	same(t, "its limit", g.ok("exec", "abs", "sh", "-c", "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"), "67108864")
	same(t, "top", fmt.Sprint(strings.Count(g.ok("top", "abs"), "\n")), "1")
	g.ok("pause", "abs")
	same(t, "paused", g.ok("inspect", "-f", "{{.State.Status}}", "abs"), "paused")
	g.ok("unpause", "abs")
	g.ok("update", "-m", "32m", "--memory-swap", "64m", "abs")
	if out := g.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", "abs"); !strings.HasSuffix(out, "/ 32MiB") {
		t.Errorf("stats: %s", out)
	}
	// A new supervisor knows them.
	if _, supervisor := g.resident(); supervisor != 0 {
		_ = syscall.Kill(supervisor, syscall.SIGKILL)
	}
	same(t, "after the supervisor's death", g.ok("exec", "rel", "echo", "fine"), "fine")
	g.ok("rm", "-f", "abs", "rel")
	eventually(t, patience, func() string {
		if dirs := cgroupsNamed("deep"); len(dirs) > 0 && strings.Contains(strings.Join(dirs, " "), top) {
			return fmt.Sprintf("left: %v", dirs)
		}
		return ""
	})
	if len(cgroupsNamed(top)) == 0 {
		t.Error("the parent is gone although a container is in it")
	}
	// All of tug is killed: the next one finds what they left.
	keeper, supervisor := g.resident()
	for _, pid := range []int{supervisor, keeper} {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	eventually(t, patience, func() string {
		if s := g.state("also"); s.State.Running {
			return "it runs on"
		}
		return ""
	})
	g.ok("run", "--rm", image, "true")
	eventually(t, patience, func() string {
		if dirs := cgroupsNamed(top); len(dirs) > 0 {
			return fmt.Sprintf("left: %v", dirs)
		}
		return ""
	})

	for bad, word := range map[string]string{"../up": "dots", "/a/../b": "dots", "nosuch.slice": "there is no such slice", "a--b.slice": "no name of a slice", "0123456789abcdef": "called as tug calls"} {
		g.fails(125, args("run", "--cgroup-parent", bad, image, "true"), bad, word)
	}
	// What was there before stays there.
	mine := top + "-mine"
	made := cgroupRoots(t)
	for _, root := range made {
		if err := os.Mkdir(filepath.Join(root, mine), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g.ok("run", "--rm", "--cgroup-parent", "/"+mine, image, "true")
	g.ok("rm", "also")
	time.Sleep(100 * time.Millisecond)
	for _, root := range made {
		dir := filepath.Join(root, mine)
		eventually(t, patience, func() string {
			if err := os.Remove(dir); err != nil {
				return err.Error()
			}
			return ""
		})
	}
}

// cgroupRoots are the directories of the hierarchies that have limits.
func cgroupRoots(t *testing.T) []string {
	t.Helper()
	if onV2() {
		return []string{"/sys/fs/cgroup"}
	}
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[2] == "cgroup" && strings.Contains(f[3], "memory") {
			all = append(all, f[1])
		}
	}
	return all
}
