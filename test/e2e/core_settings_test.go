//go:build root

package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestCoreSmallSettings(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	run := func(want string, a ...string) {
		t.Helper()
		same(t, strings.Join(a, " "), g.ok(append(args("run", "--rm"), a...)...), want)
	}
	const shm = "df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d' ' -f2; grep -c ' /dev/shm tmpfs rw,nosuid,nodev,noexec' /proc/mounts"
	run("65536\n1", image, "sh", "-c", shm)
	run("8192\n1", "--shm-size", "8m", image, "sh", "-c", shm)

	run("0 5 7", "--group-add", "5", "--group-add", "7", "--group-add", "root", image, "id", "-G")
	run("1000 0 5", "-u", "1000:1000", "--group-add", "root", "--group-add", "5", image, "id", "-G")
	g.fails(125, args("run", "--rm", "--group-add", "nobodies", image, "true"), "unable to find group nobodies")
	g.fails(125, args("run", "--rm", "--group-add", "4294967296", image, "true"), "range")
	g.ok("run", "-d", "--name", "member", "--group-add", "7", image, "sleep", "1000")
	same(t, "exec", g.ok("exec", "member", "id", "-G"), "0 7")

	run("7\n12345", "--sysctl", "net.ipv4.ip_default_ttl=7", "--sysctl", "kernel.shmmni=12345", image,
		"cat", "/proc/sys/net/ipv4/ip_default_ttl", "/proc/sys/kernel/shmmni")
	run("9", "--privileged", "--sysctl", "net.ipv4.ip_default_ttl=9", image, "cat", "/proc/sys/net/ipv4/ip_default_ttl")
	r := g.do(nil, "run", "--rm", "--sysctl", "net.ipv4.ip_default_ttl=7", image, "sh", "-c", "echo 8 > /proc/sys/net/ipv4/ip_default_ttl")
	if r.code == 0 || !strings.Contains(r.stderr, "Read-only") {
		t.Errorf("/proc/sys is writable afterwards: %v", r)
	}
	g.fails(125, args("run", "--rm", "--sysctl", "net.no.such=1", image, "true"), "net.no.such=1")
	g.fails(125, args("run", "--rm", "--sysctl", "kernel.panic=1", image, "true"), "sysctl 'kernel.panic=1' is not allowed")
	g.fails(125, args("run", "--rm", "--sysctl", "net.//.kernel.panic=1", image, "true"), "is not allowed")

	same(t, "annotations", g.ok("inspect", "-f", "{{json .HostConfig.Annotations}}", g.ok("create", "--annotation", "a=b", image)), `{"a":"b"}`)
}

func TestCoreCgroupNamespace(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	ours, err := os.Readlink("/proc/self/ns/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	out := g.ok("run", "--rm", "--cgroupns", "host", image, "sh", "-c", "readlink /proc/self/ns/cgroup; cat /proc/self/cgroup; ls /sys/fs/cgroup/pids 2>/dev/null; true")
	if !strings.Contains(out, ours) || !strings.Contains(out, g.cgroup()+"/") {
		t.Errorf("want the host's namespace %s and its paths:\n%s", ours, out)
	}
	if !onV2() && !strings.Contains(out, "pids.max") { // the root of a hierarchy has no limit
		t.Errorf("more than the container's part of version 1 is mounted:\n%s", out)
	}
	g.ok("run", "-d", "--name", "host", "--cgroupns", "host", image, "sleep", "1000")
	same(t, "exec", g.ok("exec", "host", "readlink", "/proc/self/ns/cgroup"), ours)
	same(t, "private", g.ok("inspect", "-f", "{{.HostConfig.CgroupnsMode}}", g.ok("create", "--cgroupns", "private", image)), "private")
}

func TestCoreHostNamespaces(t *testing.T) {
	t.Parallel()
	g := newBusybox(t)
	ns := func(name string) string {
		t.Helper()
		s, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	same(t, "uts", g.ok("run", "--rm", "--uts", "host", image, "sh", "-c", "readlink /proc/self/ns/uts; hostname; echo $HOSTNAME; cat /etc/hostname"),
		ns("uts")+strings.Repeat("\n"+hostname, 3))
	after, err := os.Hostname()
	if err != nil || after != hostname {
		t.Errorf("the host is called %s now, %v", after, err)
	}
	g.ok("run", "-d", "--name", "named", "--uts", "host", image, "sleep", "1000")
	same(t, "exec", g.ok("exec", "named", "sh", "-c", "readlink /proc/self/ns/uts; echo $HOSTNAME"), ns("uts")+"\n"+hostname)
	r := g.do(nil, "run", "--rm", "--uts", "host", image, "hostname", "mine")
	if r.code == 0 {
		t.Errorf("a container renamed the host: %v", r)
	}

	file, err := os.CreateTemp("/dev/shm", "tug-test-")
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	defer os.Remove(file.Name())
	same(t, "ipc host", g.ok("run", "--rm", "--ipc", "host", "--shm-size", "8m", image, "sh", "-c", "readlink /proc/self/ns/ipc; ls "+file.Name()), ns("ipc")+"\n"+file.Name())
	var before, now syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &before); err != nil {
		t.Fatal(err)
	}
	g.ok("run", "--rm", "--ipc", "host", "--shm-size", "8m", image, "true")
	if err := syscall.Statfs("/dev/shm", &now); err != nil || now.Blocks != before.Blocks {
		t.Errorf("the host's /dev/shm has %d blocks now, not %d, %v", now.Blocks, before.Blocks, err)
	}
	if out := g.ok("run", "--rm", "--ipc", "none", image, "sh", "-c", "readlink /proc/self/ns/ipc; ls /dev"); strings.Contains(out, ns("ipc")) || strings.Contains(out, "shm") {
		t.Errorf("ipc none: %s", out)
	}
	if out := g.ok("run", "--rm", "--ipc", "shareable", image, "sh", "-c", "readlink /proc/self/ns/ipc; ls "+file.Name()+" 2>&1; true"); strings.Contains(out, ns("ipc")) || !strings.Contains(out, "No such file") {
		t.Errorf("ipc shareable: %s", out)
	}
	g.fails(125, args("run", "--rm", "--ipc", "host", "--sysctl", "kernel.shmmni=5", image, "true"), "hosts ipc namespace")
}
