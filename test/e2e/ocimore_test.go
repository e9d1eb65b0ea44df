//go:build root

package e2e

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// passing is a unix socket to which something is passed.
type passing struct {
	t    *testing.T
	path string
	l    *net.UnixListener
}

func newPassing(t *testing.T, dir string) *passing {
	t.Helper()
	p := &passing{t: t, path: filepath.Join(dir, "socket")}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	p.l = l
	t.Cleanup(func() { l.Close() })
	return p
}

// get waits for one message with one descriptor.
func (p *passing) get() ([]byte, *os.File) {
	p.t.Helper()
	p.l.SetDeadline(time.Now().Add(patience))
	conn, err := p.l.AcceptUnix()
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	msg, oob := make([]byte, 1<<16), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(msg, oob)
	if err != nil {
		p.t.Fatal(err)
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(cmsgs) != 1 {
		p.t.Fatalf("%d control messages, %v", len(cmsgs), err)
	}
	fds, err := unix.ParseUnixRights(&cmsgs[0])
	if err != nil || len(fds) != 1 {
		p.t.Fatalf("%d descriptors, %v", len(fds), err)
	}
	return msg[:n], os.NewFile(uintptr(fds[0]), "passed")
}

// The terminal's master goes to whoever listens for it, with the size asked for.
func TestOCIConsoleSocket(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "stty size; read x; echo got $x; sleep 1000")
	b.spec.Process.Terminal = true
	b.spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
	p := newPassing(t, b.g.dir)
	b.create("--console-socket", p.path)
	_, master := p.get()
	defer master.Close()
	b.ok("start", "c")
	if _, err := master.WriteString("word\n"); err != nil {
		t.Fatal(err)
	}
	var got string
	buf := make([]byte, 1000)
	for end := time.Now().Add(patience); !strings.Contains(got, "got word\r\n") && time.Now().Before(end); {
		n, err := master.Read(buf)
		if err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		got += string(buf[:n])
	}
	if !strings.Contains(got, "33 99\r\n") {
		t.Errorf("the terminal shows %q", got)
	}
	// And that of an exec.
	go func() { _ = b.do("exec", "-d", "-t", "--console-socket", p.path, "c", "sh", "-c", "tty; sleep 1000") }()
	_, second := p.get()
	defer second.Close()
	n, err := second.Read(buf)
	if err != nil || string(buf[:n]) != "/dev/pts/1\r\n" {
		t.Errorf("exec's terminal shows %q, %v", buf[:n], err)
	}
}

func filtered(calls ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: calls}
}

func TestOCISeccomp(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "touch /tmp/a; chmod 707 /tmp/a; chmod 700 /tmp/a && echo done")
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"})
	errno := uint(syscall.EXDEV)
	mode := func(arg uint, names ...string) specs.LinuxSyscall {
		return specs.LinuxSyscall{
			Names: names, Action: specs.ActErrno, ErrnoRet: &errno,
			Args: []specs.LinuxSeccompArg{{Index: arg, Value: 0o7, ValueTwo: 0o7, Op: specs.OpMaskedEqual}},
		}
	}
	b.spec.Linux.Seccomp = filtered(mode(1, "chmod"), mode(2, "fchmodat", "fchmodat2"))
	for _, nnp := range []bool{true, false} {
		b.spec.Process.NoNewPrivileges = nnp
		if r := b.run(); r.stdout != "done\n" || strings.Count(r.stderr, "cross-device link") != 1 {
			t.Errorf("no_new_privs %v: %v", nnp, r)
		}
	}
}

// The descriptor of seccomp notifications reaches the agent, also when the
// filter is about the calls that start needs; what the agent lets go of fails.
func TestOCISeccompNotify(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "mkdir /tmp/a 2>/dev/null || echo refused; sleep 1000")
	p := newPassing(t, b.g.dir)
	b.spec.Linux.Seccomp = filtered(specs.LinuxSyscall{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify})
	b.spec.Linux.Seccomp.ListenerPath, b.spec.Linux.Seccomp.ListenerMetadata = p.path, "words"
	out := b.create()
	done := make(chan result, 1)
	go func() { done <- b.do("start", "c") }()
	text, fd := p.get()
	var msg specs.ContainerProcessState
	if err := json.Unmarshal(text, &msg); err != nil {
		t.Fatal(err)
	}
	s := b.status(specs.StateRunning)
	if msg.Metadata != "words" || len(msg.Fds) != 1 || msg.Fds[0] != specs.SeccompFdName || msg.Pid != s.Pid || msg.State.ID != "c" {
		t.Errorf("the agent was told %s", text)
	}
	if r := <-done; r.code != 0 {
		t.Error(r)
	}
	time.Sleep(200 * time.Millisecond)
	if text, _ := os.ReadFile(out); len(text) > 0 {
		t.Errorf("mkdir did not wait for the agent: %q", text)
	}
	fd.Close()
	eventually(t, 10*time.Second, func() string {
		if text, _ := os.ReadFile(out); string(text) != "refused\n" {
			return "output " + string(text)
		}
		return ""
	})
	b.spec.Linux.Seccomp.ListenerPath = filepath.Join(b.g.dir, "nobody")
	b.ok("delete", "--force", "c")
	b.create()
	b.fails("listenerPath", "start", "c")
	b.status(specs.StateStopped)
}

// Options of mounts do what they say, for one mount and for all below it.
func TestOCIMounts(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "")
	source := filepath.Join(b.g.dir, "source")
	if err := firstOf(os.MkdirAll(source+"/below", 0o755), unix.Mount("tmpfs", source, "tmpfs", 0, ""),
		os.Mkdir(source+"/below", 0o755), unix.Mount("tmpfs", source+"/below", "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(source, unix.MNT_DETACH) })
	bind := func(to string, options ...string) {
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: to, Source: source, Options: options})
	}
	bind("/plain", "bind")
	bind("/ro", "rbind", "ro")
	bind("/rro", "rbind", "rro")
	bind("/attrs", "bind", "nosuid", "nodev", "noexec", "noatime")
	b.spec.Mounts = append(b.spec.Mounts,
		specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=1m", "nosuid"}},
		specs.Mount{Destination: "/new/deep", Type: "tmpfs", Source: "name", Options: []string{"ro", "mode=700"}},
		specs.Mount{Destination: "/file", Source: b.config(), Options: []string{"bind", "ro"}})
	b.spec.Root.Readonly = false
	b.script(`ls /plain/below; touch /ro/x 2>/dev/null || echo ro; touch /ro/below/x && echo below; touch /rro/x 2>/dev/null || echo rro; touch /rro/below/y 2>/dev/null || echo rro below
grep -c ' /attrs tmpfs rw,nosuid,nodev,noexec,noatime' /proc/mounts; cat /etc/motd; echo new >/etc/motd; cat /etc/motd
stat -c %a /new/deep; grep -c '^name /new/deep tmpfs ro' /proc/mounts; touch /file 2>/dev/null || echo file`)
	b.says("ro\nbelow\nrro\nrro below\n1\nsecond layer\nnew\n700\n1\nfile\n")
	if text, err := os.ReadFile(b.dir + "/rootfs/etc/motd"); err != nil || string(text) != "second layer\n" {
		t.Errorf("below the tmpfs: %q, %v", text, err)
	}
}

// Namespaces that exist are joined, and those of time have their offsets.
func TestOCINamespaces(t *testing.T) {
	t.Parallel()
	b := newBundle(t, "hostname; sleep 1000")
	b.spec.Hostname = "first"
	b.create()
	b.ok("start", "c")
	s := b.status(specs.StateRunning)
	second := *b
	second.spec.Hostname = ""
	dir := "/proc/" + strconv.Itoa(s.Pid) + "/ns/"
	l := *b.spec.Linux
	second.spec.Linux = &l
	l.CgroupsPath += "2"
	l.Namespaces = []specs.LinuxNamespace{
		{Type: specs.MountNamespace},
		{Type: specs.UTSNamespace, Path: dir + "uts"},
		{Type: specs.NetworkNamespace, Path: dir + "net"},
		{Type: specs.IPCNamespace, Path: dir + "ipc"},
		{Type: specs.PIDNamespace, Path: dir + "pid"},
		{Type: specs.CgroupNamespace},
	}
	second.script("hostname; cat /proc/1/comm; readlink /proc/self/ns/net")
	net, err := os.Readlink(dir + "net")
	if err != nil {
		t.Fatal(err)
	}
	second.write()
	if r := second.do("run", "--bundle", b.dir, "d"); r.code != 0 || r.stdout != "first\nsleep\n"+net+"\n" {
		t.Error(r)
	}
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		return
	}
	l.Namespaces = append(b.spec.Linux.Namespaces[:6:6], specs.LinuxNamespace{Type: specs.TimeNamespace})
	l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1e9}}
	second.script("cut -c1-5 /proc/uptime; cat /proc/self/timens_offsets | tr -s ' '")
	second.write()
	if r := second.do("run", "--bundle", b.dir, "d"); r.code != 0 || !strings.HasPrefix(r.stdout, "1000") || !strings.Contains(r.stdout, "boottime 1000000000 0") {
		t.Error(r)
	}
}
