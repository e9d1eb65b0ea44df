//go:build root

package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tug/spec"
	"tug/sys"
)

// TestHostileImage starts images whose tree tries to lead out.
func TestHostileImage(t *testing.T) {
	f := newFixture(t)
	outside := t.TempDir()
	up := strings.Repeat("../", 20)
	tests := []struct {
		name   string
		damage func(dir string) error
		c      *spec.Container
		code   int // of the StartError; 0 is a good start
		out    string
	}{
		{
			"proc is a link", func(dir string) error { return os.Symlink("etc", filepath.Join(dir, "proc")) },
			sh("true"), 125, "mount /proc: the image has it as something else than a directory",
		},
		{
			"dev is a file", func(dir string) error { return os.WriteFile(filepath.Join(dir, "dev"), nil, 0o644) },
			sh("true"), 125, "mount /dev: the image has it as something else than a directory",
		},
		{
			"working directory leads out", func(dir string) error { return os.Symlink(up+outside, filepath.Join(dir, "w")) },
			inDir("/w/made", "pwd"), 0, outside + "/made\n",
		},
		{
			"working directory leads out, absolute", func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "w")) },
			inDir("/w/made/../made2", "pwd"), 0, outside + "/made2\n",
		},
		{
			"working directory goes round", func(dir string) error { return os.Symlink("w", filepath.Join(dir, "w")) },
			inDir("/w/x", "pwd"), 125, "create working directory /w/x: open /w/x: too many levels of symbolic links",
		},
		{
			"tmpfs leads out", func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "t")) },
			withTmpfs("/t", "echo x > /t/x; grep -c '"+outside+" tmpfs' /proc/mounts"), 0, "1\n",
		},
		{
			"tmpfs over proc", func(dir string) error { return os.Symlink("/proc/sys/..//", filepath.Join(dir, "t")) },
			withTmpfs("/t", "true"), 125, "mount /t: inside /proc",
		},
		{
			"passwd is a fifo", func(dir string) error {
				os.Remove(filepath.Join(dir, "etc/passwd"))
				return syscall.Mkfifo(filepath.Join(dir, "etc/passwd"), 0o644)
			},
			sh("true"), 125, "read /etc/passwd of the container: not a regular file",
		},
		{
			"passwd is huge", func(dir string) error { return os.Truncate(filepath.Join(dir, "etc/passwd"), 1<<40) },
			sh("true"), 125, "read /etc/passwd of the container: larger than 16 MiB",
		},
		{
			"passwd of the host", func(dir string) error {
				os.Remove(filepath.Join(dir, "etc/passwd"))
				if err := os.WriteFile(filepath.Join(outside, "passwd"), []byte("evil:x:7:7::/evil:\n"), 0o644); err != nil {
					return err
				}
				return os.Symlink(up+outside+"/passwd", filepath.Join(dir, "etc/passwd"))
			},
			asUser("evil"), 125, "unable to find user evil: no matching entries in passwd file",
		},
		{
			"program is a link out", func(dir string) error { return os.Symlink(up+"/usr/bin/env", filepath.Join(dir, "bin/p")) },
			container("p"), 127, `exec: "p": executable file not found in $PATH`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := busybox(t)
			if err := tt.damage(dir); err != nil {
				t.Fatal(err)
			}
			o := f.run(dir, tt.c)
			se := AsStartError(o.err)
			switch {
			case tt.code == 0:
				want(t, o, 0, tt.out)
			case se == nil || se.Code != tt.code || se.Msg != tt.out:
				t.Errorf("got %#v, want %d %s", se, tt.code, tt.out)
			}
		})
	}
	if left, _ := filepath.Glob(outside + "/*"); len(left) != 1 || filepath.Base(left[0]) != "passwd" {
		t.Errorf("something was made outside: %v", left)
	}
}

func inDir(cwd, script string) *spec.Container {
	c := sh(script)
	c.Config.WorkingDir = cwd
	return c
}

func withTmpfs(target, script string) *spec.Container {
	c := sh(script)
	c.Host.Tmpfs = map[string]string{target: ""}
	return c
}

func asUser(user string) *spec.Container {
	c := sh("true")
	c.Config.User = user
	return c
}

// TestLeftoversOfSetup looks for what a start may leave in the container: old
// roots, mounts, descriptors, keys.
func TestLeftoversOfSetup(t *testing.T) {
	f := newFixture(t)
	keep, err := os.Open("/") // a descriptor without close-on-exec in the supervisor
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	syscall.Syscall(syscall.SYS_FCNTL, keep.Fd(), syscall.F_SETFD, 0)
	o := f.run(busybox(t), container("sh", "-c", "for f in /proc/1/fd/*; do l=$(readlink $f); case \"$l\" in ''|/dev/null|pipe:*) ;; *) echo has $l;; esac; done; echo 0; ls -d /rootfs /empty 2>/dev/null; "+
		"grep -c -e /rootfs -e /empty /proc/self/mountinfo; chroot / true; cd / && cd ../../../.. && ls -d etc/passwd home/alice"))
	want(t, o, 0, "0\n0\netc/passwd\nhome/alice\n")
}

// TestManyAtOnce starts many in parallel.
func TestManyAtOnce(t *testing.T) {
	f := newFixture(t)
	dir := busybox(t)
	const n = 20
	results := make([]outcome, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { results[i] = f.run(dir, sh(fmt.Sprintf("echo %d; exit %d", i, i))) })
	}
	wg.Wait()
	for i, o := range results {
		want(t, o, i, fmt.Sprintln(i))
	}
}

// TestDiscard parks and discards, at any moment.
func TestDiscard(t *testing.T) {
	f := newFixture(t)
	for i := range 10 {
		p, err := f.r.Park(Namespaces{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 700 * time.Microsecond)
		p.Discard()
		p.Discard() // harmless
		waitExit(t, p.Pid)
	}
}

// TestParkedDescriptors: a parked process has nothing of the supervisor's but
// what it was given.
func TestParkedDescriptors(t *testing.T) {
	f := newFixture(t)
	keep, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	syscall.Syscall(syscall.SYS_FCNTL, keep.Fd(), syscall.F_SETFD, 0)
	p, err := f.r.Park(Namespaces{})
	if err != nil {
		t.Fatal(err)
	}
	// On its way to being parked it opens this and that.
	var left []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if left = foreignDescriptors(p.Pid); left != nil && len(left) == 0 {
			break
		}
	}
	if left == nil || len(left) > 0 {
		t.Errorf("a parked process has these open: %q", left)
	}
	p.Discard()
	waitExit(t, p.Pid)
}

// foreignDescriptors lists what a process has open that tug does not give to a
// parked one; nil when it has nothing open at all yet.
func foreignDescriptors(pid int) []string {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if len(links) < 4 { // standard streams and the socket
		return nil
	}
	left := []string{}
	for _, name := range links {
		l, _ := os.Readlink(name)
		if l != "/dev/null" && !strings.Contains(l, "tug-init") && !strings.HasPrefix(l, "anon_inode:") && !strings.HasPrefix(l, "socket:") {
			left = append(left, l)
		}
	}
	return left
}

// TestAfterClose parks on a closed runtime: an error, no panic, no hang.
func TestAfterClose(t *testing.T) {
	r, err := New(Options{InitPath: buildInit(t), Cgroup: fmt.Sprintf("tug-test-close-%d", os.Getpid())})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Park(Namespaces{}); err == nil {
		t.Error("parked on a closed runtime")
	}
	r.cgroups.removeParent()
}

// TestSupervisorDies kills a supervisor with parked, prepared and running
// processes: the first two end, the last lives.
func TestSupervisorDies(t *testing.T) {
	if os.Getenv("TUG_TEST_VICTIM") != "" {
		victim(t)
		return
	}
	name := fmt.Sprintf("tug-test-victim-%d", os.Getpid())
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSupervisorDies$")
	cmd.Env = append(os.Environ(), "TUG_TEST_VICTIM="+name, "TUG_TEST_INIT="+buildInit(t), "TUG_TEST_ROOT="+busybox(t))
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{null} // where exits would be read
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var parked, prepared, running int
	if _, err := fmt.Fscanf(out, "%d %d %d\n", &parked, &prepared, &running); err != nil {
		t.Fatal(err)
	}
	start, err := sys.StartTicks(running)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for _, pid := range []int{parked, prepared} {
		for i := 0; syscall.Kill(pid, 0) == nil; i++ {
			if state := procState(pid); state == "Z" {
				break // our child, as its supervisor's was; reaped below
			}
			if i > 500 {
				t.Fatalf("process %d lives on", pid)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if !sys.Alive(running, start) {
		t.Error("the running container died with the supervisor")
	}
	syscall.Kill(running, syscall.SIGKILL)
	for _, pid := range []int{parked, prepared, running} {
		var ws syscall.WaitStatus
		syscall.Wait4(pid, &ws, 0, nil)
	}
	// The next supervisor can remove what is left, and does.
	cg, err := findCgroups(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range cg.roots() {
		for i := 0; !removeTree(root + cg.parent); i++ {
			if i > 500 {
				t.Fatalf("cgroup %s is still busy", root+cg.parent)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func procState(pid int) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, after, _ := strings.Cut(string(b), ") ")
	return after[:min(1, len(after))]
}

// victim is the supervisor that dies.
func victim(t *testing.T) {
	r, err := New(Options{InitPath: os.Getenv("TUG_TEST_INIT"), Cgroup: os.Getenv("TUG_TEST_VICTIM")})
	if err != nil {
		t.Fatal(err)
	}
	var pids []any
	for stage := range 3 {
		p, err := r.Park(Namespaces{})
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, p.Pid)
		if stage == 0 {
			continue
		}
		root, err := sys.CloneTree(nil, os.Getenv("TUG_TEST_ROOT"), false)
		if err != nil {
			t.Fatal(err)
		}
		pl, _, err := MakePlan(container("sleep", "1000"))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.Prepare(pl, Files{RootFS: root}); err != nil {
			t.Fatal(err)
		}
		if stage == 2 {
			if err := p.Go(); err != nil {
				t.Fatal(err)
			}
		}
	}
	fmt.Println(pids...)
	time.Sleep(time.Minute)
}
