//go:build root

package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tug/errs"
	"tug/spec"
	"tug/sys"
)

// running is a container that sleeps.
type running struct {
	*fixture
	c   *spec.Container
	p   *Parked
	out <-chan string
	dir string
}

func (f *fixture) running(change func(c *spec.Container)) *running {
	f.t.Helper()
	c := sh("sleep 1000")
	if change != nil {
		change(c)
	}
	pl, _, err := MakePlan(c)
	if err != nil {
		f.t.Fatal(err)
	}
	dir := busybox(f.t)
	p, out, _, err := f.start(dir, c, pl)
	if err != nil {
		f.t.Fatal(err)
	}
	r := &running{f, c, p, out, dir}
	f.t.Cleanup(r.stop)
	return r
}

func (r *running) stop() {
	if r.p == nil {
		return
	}
	if err := sys.PidfdSignal(r.p.Pidfd, syscall.SIGKILL); err == nil {
		waitExit(r.t, r.p.Pid)
	}
	r.p.Pidfd.Close()
	if err := r.r.Remove(r.p.Cgroup); err != nil {
		r.t.Error(err)
	}
	r.p = nil
}

func (r *running) exec(e spec.ExecSpec) outcome {
	r.t.Helper()
	pl, err := MakeExecPlan(r.c, &e)
	if err != nil {
		return outcome{err: err}
	}
	p, err := r.r.Exec(r.p.Process, pl)
	if err != nil {
		return outcome{err: err}
	}
	out, warnings, err := r.finish(p, "", pl)
	if err != nil {
		p.Discard()
		waitExit(r.t, p.Pid)
		return outcome{err: err}
	}
	text := <-out
	p.Pidfd.Close()
	return outcome{out: text, code: waitExit(r.t, p.Pid), warnings: warnings}
}

func execSh(script string) spec.ExecSpec { return spec.ExecSpec{Args: []string{"sh", "-c", script}} }

func TestExec(t *testing.T) {
	f := newFixture(t)
	r := f.running(nil)
	same := "for k in mnt pid net ipc uts cgroup; do test $(readlink /proc/1/ns/$k) = $(readlink /proc/self/ns/$k) || echo $k differs; done; "
	want(t, r.exec(execSh(same+"hostname; exit 3")), 3, "abababababab\n")
	want(t, r.exec(execSh("grep -v ':/$' /proc/self/cgroup; cat /proc/self/oom_score_adj")), 0, "0\n")
	want(t, r.exec(execSh("grep ^Cap /proc/self/status; grep ^Seccomp: /proc/self/status")), 0, capStatus("a80425fb", "a80425fb")+"Seccomp:\t2\n")
	want(t, r.exec(execSh("ls /proc/self/fd; pwd; echo $HOME")), 0, "0\n1\n2\n3\n/\n/root\n")
	want(t, r.exec(execSh("ps -o pid,args | grep -c '[s]leep 1000'")), 0, "1\n")
	want(t, r.exec(spec.ExecSpec{Args: []string{"id", "-u"}, User: "alice", WorkingDir: "/tmp", Env: []string{"A=b"}}), 0, "1000\n")
	e := execSh("tty; stat -c %u $(tty); cat < /dev/null; echo $TERM $A; pwd")
	e.Tty, e.User, e.Env, e.WorkingDir = true, "alice", []string{"A=b"}, "/home/alice"
	want(t, r.exec(e), 0, "/dev/pts/0\r\n1000\r\nxterm b\r\n/home/alice\r\n")
	e = execSh("grep ^CapEff /proc/self/status | grep -c a80425fb; grep ^Seccomp: /proc/self/status")
	e.Privileged = true
	want(t, r.exec(e), 0, "0\nSeccomp:\t2\n")

	for _, tt := range []struct {
		e    spec.ExecSpec
		code int
		msg  string
	}{
		{spec.ExecSpec{Args: []string{"nosuch"}}, 127, `exec: "nosuch": executable file not found in $PATH`},
		{spec.ExecSpec{Args: []string{"/etc/passwd"}}, 126, `exec: "/etc/passwd": permission denied`},
		{spec.ExecSpec{Args: []string{"true"}, User: "nobody"}, 125, `unable to find user nobody: no matching entries in passwd file`},
		{spec.ExecSpec{Args: []string{"true"}, WorkingDir: "/nosuch"}, 127, `chdir to cwd ("/nosuch") set in config failed: no such file or directory`},
	} {
		se := AsStartError(r.exec(tt.e).err)
		if se == nil || se.Code != tt.code || se.Msg != tt.msg {
			t.Errorf("exec %v: got %#v, want %d %s", tt.e.Args, se, tt.code, tt.msg)
		}
	}
}

// TestExecGone execs in a container that has ended, and in a process that only
// has the same pid.
func TestExecGone(t *testing.T) {
	f := newFixture(t)
	r := f.running(nil)
	wrong := r.p.Process
	wrong.StartTicks++
	if _, err := f.r.Exec(wrong, nil); !errs.Is(err, errs.Conflict) {
		t.Errorf("exec in another process: %v", err)
	}
	gone := r.p.Process
	r.stop()
	if _, err := f.r.Exec(gone, nil); !errs.Is(err, errs.Conflict) {
		t.Errorf("exec in a dead container: %v", err)
	}
}

// TestExecHostile execs in containers that lie in wait.
func TestExecHostile(t *testing.T) {
	f := newFixture(t)
	r := f.running(nil)
	for name, script := range map[string]string{
		"passwd is a fifo":             "rm -f /etc/passwd; busybox mkfifo /etc/passwd",
		"passwd is a device":           "rm -f /etc/passwd; ln -s /dev/zero /etc/passwd",
		"passwd is huge":               "rm -f /etc/passwd; busybox truncate -s 100G /etc/passwd",
		"passwd is one line":           "rm -f /etc/passwd; head -c 9000000 /dev/zero | tr '\\0' a > /etc/passwd",
		"passwd is a link to the host": "rm -f /etc/passwd; ln -s ../../../../../../etc/shadow /etc/passwd",
		"passwd makes everyone root":   "rm -f /etc/passwd; echo 'eve::x:y::/:' > /etc/passwd",
	} {
		want(t, r.exec(execSh(script)), 0, "")
		start := time.Now()
		o := r.exec(spec.ExecSpec{Args: []string{"id", "-u"}, User: "eve"})
		if AsStartError(o.err) == nil || time.Since(start) > 5*time.Second {
			t.Errorf("%s: output %q, err %v, after %v", name, o.out, o.err, time.Since(start))
		}
		// Root must get in all the same or be told why.
		o = r.exec(spec.ExecSpec{Args: []string{"busybox", "rm", "-f", "/etc/passwd"}})
		if o.err != nil {
			os.Remove(filepath.Join(r.dir, "etc/passwd"))
		}
	}
	// A working directory that is a way out over somebody's descriptor.
	for _, cwd := range []string{"/proc/self/fd/3", "/proc/self/fd/7", "/proc/1/root", "/proc/1/cwd"} {
		e := execSh("ls")
		e.WorkingDir = cwd
		if o := r.exec(e); AsStartError(o.err) == nil {
			t.Errorf("working directory %s: output %q, err %v", cwd, o.out, o.err)
		}
	}
}

// TestOverwriteInit plays CVE-2019-5736: the container's program is
// /proc/self/exe, so what runs is tug-init itself, and a process in the
// container tries to write to it.
func TestOverwriteInit(t *testing.T) {
	f := newFixture(t)
	r := f.running(func(c *spec.Container) { c.Host.Init = true })
	o := r.exec(execSh("for i in 1 2 3 4 5 6 7 8 9; do echo x >> /proc/1/exe; done 2>&1 | busybox uniq"))
	want(t, o, 0, "sh: can't create /proc/1/exe: Text file busy\n")
	e := spec.ExecSpec{Args: []string{"/proc/self/exe", "--version"}}
	if o := r.exec(e); AsStartError(o.err) == nil && !strings.Contains(o.out, "applet") && o.code == 0 && !strings.Contains(o.out, "tug-init") {
		t.Errorf("running /proc/self/exe: %q %v", o.out, o.err)
	}
	// What was started later still starts, from the same bytes.
	want(t, r.exec(execSh("echo fine")), 0, "fine\n")
}

// TestHelperIsClosed looks, from a container with CAP_SYS_PTRACE withheld as
// by default, at the exec helper while it waits there: nothing may be seen.
func TestHelperIsClosed(t *testing.T) {
	f := newFixture(t)
	r := f.running(nil)
	pl, err := MakeExecPlan(r.c, &spec.ExecSpec{Args: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.r.Exec(r.p.Process, pl)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Prepare(pl, Files{}); err != nil {
		t.Fatal(err)
	}
	o := r.exec(execSh(`for p in /proc/[0-9]*; do
		test "$(tr '\0' ' ' < $p/cmdline)" = "tug-init exec " || continue
		echo found
		for l in exe cwd root fd/0 fd/1 fd/2 fd/3 fd/4 fd/5 fd/6 fd/7 fd/8; do readlink $p/$l; done
		cat $p/environ $p/maps; ls $p/root/
		for t in $p/task/*; do ls $t/root/; readlink $t/cwd; done
		busybox cat $p/mem | head -c 1
		done 2>&1 | grep -v 'denied\|Input/output'`))
	want(t, o, 0, "found\n")
	if err := p.Go(); err != nil {
		t.Fatal(err)
	}
	waitExit(t, p.Pid)
	p.Pidfd.Close()
}

// TestExecCrowded execs in a container that may have no more processes.
func TestExecCrowded(t *testing.T) {
	f := newFixture(t)
	for limit := int64(1); limit <= 12; limit += 1 {
		r := f.running(func(c *spec.Container) { c.Host.PidsLimit = &limit })
		o := r.exec(spec.ExecSpec{Args: []string{"true"}})
		if se := AsStartError(o.err); o.err != nil && (se == nil || se.Code != 126 || se.Msg != noRoom) {
			t.Errorf("limit %d: %#v", limit, o.err)
		}
		if o.err != nil && limit > 8 {
			t.Errorf("limit %d is enough: %v", limit, o.err)
		}
		r.stop()
	}
}

// TestExecFrozen must not wait for a paused container, which would keep all
// others from starting.
func TestExecFrozen(t *testing.T) {
	f := newFixture(t)
	r := f.running(nil)
	name, freeze, thaw := "freezer.state", "FROZEN", "THAWED"
	if f.r.cgroups.v2 != "" {
		name, freeze, thaw = "cgroup.freeze", "1", "0"
	}
	file := f.r.cgroups.file(r.p.Cgroup, "freezer", name)
	if err := writeFile(file, freeze); err != nil {
		t.Fatal(err)
	}
	if o := r.exec(execSh("true")); !errs.Is(o.err, errs.Conflict) {
		t.Errorf("exec in a frozen container: %v", o.err)
	}
	if err := writeFile(file, thaw); err != nil {
		t.Fatal(err)
	}
	want(t, r.exec(execSh("echo thawed")), 0, "thawed\n")
}

// TestHello runs the built-in image's program as its container would.
func TestHello(t *testing.T) {
	f := newFixture(t)
	dir := busybox(t)
	b, err := os.ReadFile(buildInit(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hello"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	c := container("/hello")
	c.Host.Memory, c.Host.NanoCPUs = 64<<20, 500_000_000
	o := f.run(dir, c)
	if o.err != nil || o.code != 0 {
		t.Fatalf("exit %d, %v, %s", o.code, o.err, o.out)
	}
	for _, want := range []string{
		"process       1 of its pid namespace; it sees 1 process", "host name     abababababab", "only itself (lo)",
		"14 of root's 41", "refused by a seccomp filter", "memory 64 MiB, cpus 0.5, processes unlimited",
	} {
		if !strings.Contains(o.out, want) {
			t.Errorf("no %q in:\n%s", want, o.out)
		}
	}
	t.Log(o.out)
}
